"""RFC 8460 §4.3: sessions under a testing policy, held against what a probe found of the MX host.

They were delivered whatever the certificate was; a finding says what enforcement would have made
of them. Without one they succeeded: nothing is known against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from mtastsd.tlsrpt.session import Detail, ResultType
from mtastsd.tlsrpt.tally import UNKNOWN, DomainTally, Totals


class Finding(Protocol):
    """What a probe of one address of an MX host found; `result` None: it passed.

    `preferred`: the host is of the best preference of the domain's MX hosts.
    """

    @property
    def mx_host(self) -> str: ...
    @property
    def mx_ip(self) -> str: ...
    @property
    def preferred(self) -> bool: ...
    @property
    def result(self) -> ResultType | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def sending_ip(self) -> str: ...
    @property
    def helo(self) -> str: ...


def judge_all(tally: DomainTally, findings: Sequence[Finding]) -> DomainTally:
    """A domain's day with every session judged."""
    return {key: judge(totals, findings) for key, totals in tally.items()}


def judge(totals: Totals, findings: Sequence[Finding]) -> Totals:
    """The totals with their unjudged sessions among the successes or the failures.

    A session whose MX host is known fails by the finding for that host and address; where that
    address was not probed, only if all addresses of the host that were probed fail. One whose MX
    host is not known fails only if all of best preference fail.
    """
    if not totals.unjudged:
        return totals
    successes, failures = totals.successes, totals.failures
    details = dict(totals.details)
    for (host, ip), sessions in totals.unjudged.items():
        failed = _failed(host, ip, findings)
        if not failed:
            successes += sessions
            continue
        failures += sessions
        for detail in failed:
            details[detail] = details.get(detail, 0) + sessions
    return Totals(successes, failures, details)


def _failed(host: str, ip: str, findings: Sequence[Finding]) -> list[Detail]:
    """How sessions to this host failed; nothing if they passed, or nothing is known."""
    if (host, ip) == UNKNOWN:
        asked = [f for f in findings if f.preferred]
    else:
        asked = [f for f in findings if f.mx_host == host]
        asked = [f for f in asked if f.mx_ip == ip] or asked
    kinds: dict[tuple[ResultType, str], list[Finding]] = {}
    for finding in asked:
        if finding.result is None:
            return []
        kinds.setdefault((finding.result, finding.reason), []).append(finding)
    return [_detail(*kind, same, host, ip) for kind, same in kinds.items()]


def _detail(result: ResultType, reason: str, same: Sequence[Finding], host: str, ip: str) -> Detail:
    """One kind of failure. Who was at either end stands in it where a single finding says so."""
    detail = Detail(result, mx_host=host, mx_ip=ip, reason=reason)
    one = same[0]
    if len(same) > 1 or (ip and ip != one.mx_ip):
        return detail
    return replace(
        detail, sending_ip=one.sending_ip, mx_host=one.mx_host, mx_ip=one.mx_ip, helo=one.helo
    )
