"""Rows of TLS-RPT to values and back; the same columns in every dialect.

A row with a word that we don't know, written by another version or a hand, is left out.
"""

from __future__ import annotations

import hashlib
from typing import Final, get_args

import msgspec

from mtastsd.names import Domain
from mtastsd.ports import Delivery, DeliveryState, Finding, Report
from mtastsd.store.database import Row
from mtastsd.tlsrpt.session import Detail, PolicyKey, PolicyType, ResultType
from mtastsd.tlsrpt.tally import Day

DIGEST_SIZE: Final = 16
"""Octets of a policy's digest. Policies come from strangers: with less, one could be made to
collide with somebody else's."""

POLICY_COLUMNS: Final = ("type", "domain", "strings", "mx")

DETAIL_COLUMNS: Final = ("result", "mx_host", "mx_ip", "sending_ip", "reason", "helo", "more")

FINDING_COLUMNS: Final = (
    "day",
    "domain",
    "mx_host",
    "mx_ip",
    "preferred",
    "result",
    "reason",
    "sending_ip",
    "helo",
)

REPORT_COLUMNS: Final = (
    "report_id",
    "day",
    "domain",
    "file_name",
    "created_at",
    "sessions",
    "failures",
    "body",
)

DELIVERY_COLUMNS: Final = (
    "report_id",
    "destination",
    "state",
    "tries",
    "next_at",
    "give_up_at",
    "last",
    "done_at",
)

_POLICY_TYPES = frozenset(get_args(PolicyType))
_RESULTS = {result.value: result for result in ResultType}
_STATES = frozenset(get_args(DeliveryState))
_TEXTS = msgspec.json.Decoder(tuple[str, ...])


PolicyValues = tuple[str, str, str, str]


def policy_values(key: PolicyKey) -> PolicyValues:
    """The values of `POLICY_COLUMNS`."""
    return key.type, key.domain, _json(key.strings), _json(key.mx)


def digest(values: PolicyValues) -> bytes:
    """What a policy is found by. None of its columns has a NUL in it, so no two are one text."""
    return hashlib.blake2b("\0".join(values).encode(), digest_size=DIGEST_SIZE).digest()


def policy_of(row: Row) -> PolicyKey | None:
    """The value of `POLICY_COLUMNS`."""
    if row[0] not in _POLICY_TYPES:
        return None
    return PolicyKey(row[0], Domain(row[1]), _TEXTS.decode(row[2]), _TEXTS.decode(row[3]))


def _json(texts: tuple[str, ...]) -> str:
    return msgspec.json.encode(texts).decode()


def detail_values(detail: Detail) -> tuple[str, ...]:
    """The values of `DETAIL_COLUMNS`."""
    return (
        detail.result.value,
        detail.mx_host,
        detail.mx_ip,
        detail.sending_ip,
        detail.reason,
        detail.helo,
        detail.more,
    )


def detail_of(row: Row) -> Detail | None:
    """The value of `DETAIL_COLUMNS`."""
    result = _RESULTS.get(row[0])
    if result is None:
        return None
    return Detail(
        result,
        mx_host=row[1],
        mx_ip=row[2],
        sending_ip=row[3],
        reason=row[4],
        helo=row[5],
        more=row[6],
    )


def finding_values(day: Day, finding: Finding) -> tuple[object, ...]:
    """The values of `FINDING_COLUMNS`."""
    return (
        day,
        finding.domain,
        finding.mx_host,
        finding.mx_ip,
        int(finding.preferred),
        finding.result and finding.result.value,
        finding.reason,
        finding.sending_ip,
        finding.helo,
    )


def finding_of(row: Row) -> Finding | None:
    """The value of `FINDING_COLUMNS`."""
    if row[5] is not None and row[5] not in _RESULTS:
        return None
    result = _RESULTS.get(row[5])
    return Finding(Domain(row[1]), row[2], row[3], bool(row[4]), result, row[6], row[7], row[8])


def report_values(report: Report) -> tuple[object, ...]:
    """The values of `REPORT_COLUMNS`."""
    return (
        report.report_id,
        report.day,
        report.domain,
        report.file_name,
        report.created_at,
        report.sessions,
        report.failures,
        report.body,
    )


def report_of(row: Row) -> Report:
    """The value of `REPORT_COLUMNS`."""
    return Report(
        report_id=row[0],
        day=Day(row[1]),
        domain=Domain(row[2]),
        body=row[7],
        file_name=row[3],
        created_at=row[4],
        sessions=row[5],
        failures=row[6],
    )


def delivery_values(delivery: Delivery) -> tuple[object, ...]:
    """The values of `DELIVERY_COLUMNS`."""
    return (
        delivery.report_id,
        delivery.destination,
        delivery.state,
        delivery.tries,
        delivery.next_at,
        delivery.give_up_at,
        delivery.last,
        delivery.done_at,
    )


def delivery_of(row: Row) -> Delivery | None:
    """The value of `DELIVERY_COLUMNS`."""
    return Delivery(*row) if row[2] in _STATES else None
