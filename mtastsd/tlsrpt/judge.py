"""RFC 8460 §4.3: sessions under a testing policy, held against what a probe found of the MX host.

They were delivered whatever the certificate was; a finding says what enforcement would have made
of them. Without one they succeeded: nothing is known against them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from mtastsd import names
from mtastsd.names import NotADomain
from mtastsd.sts.matching import allows
from mtastsd.tlsrpt import reasons
from mtastsd.tlsrpt.session import Detail, ResultType, is_whole
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
    return {key: judge(totals, findings, key.mx) for key, totals in tally.items()}


def judge(totals: Totals, findings: Sequence[Finding], patterns: Sequence[str] = ()) -> Totals:
    """The totals with their unjudged sessions among the successes or the failures.

    A session whose MX host is known fails if none of the policy's `patterns` lists it, else by the
    finding for that host and address; where that address was not probed, only if all addresses
    of the host that were probed fail. One whose MX host is not known fails only if all of best
    preference fail.
    """
    if not totals.unjudged:
        return totals
    successes, failures = totals.successes, totals.failures
    details = dict(totals.details)
    for host, sessions in _by_host(totals.unjudged).items():
        failed = _mismatch(*host, patterns) or _failed(*host, findings)
        if not failed:
            successes += sessions
            continue
        failures += sessions
        for detail in failed:
            details[detail] = details.get(detail, 0) + sessions
    return Totals(successes, failures, details)


def _by_host(unjudged: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """The sessions by MX host, those that no log saw under `UNKNOWN`.

    A log may have seen more than there are, where datagrams were lost or Postfix went by DANE. The
    sessions are then shared out in proportion, what the division leaves to the first hosts.
    """
    sessions = unjudged.get(UNKNOWN, 0)
    seen = {host: n for host, n in sorted(unjudged.items()) if host != UNKNOWN}
    sights = sum(seen.values())
    if sights > sessions:
        seen = {host: n * sessions // sights for host, n in seen.items()}
        for host in list(seen)[: sessions - sum(seen.values())]:
            seen[host] += 1
    else:
        seen[UNKNOWN] = sessions - sights
    return {host: n for host, n in seen.items() if n}


def _mismatch(host: str, ip: str, patterns: Sequence[str]) -> list[Detail]:
    """RFC 8461 §4.1: enforcement would not have gone to a host that no pattern lists."""
    if not host or not patterns or not is_whole(patterns):
        return []
    name = names.parse(host)
    if not isinstance(name, NotADomain) and any(allows(p, name) for p in patterns):
        return []
    result = ResultType.VALIDATION_FAILURE
    return [Detail(result, mx_host=host, mx_ip=ip, reason=reasons.MX_MISMATCH)]


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
