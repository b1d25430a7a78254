"""Rows of a database to values and back; the same columns in every dialect."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final, get_args

from mtastsd.dane import DaneBranch, Finding
from mtastsd.names import Domain
from mtastsd.ports import KnownDomain, KnownHop
from mtastsd.sts.failure import Failure
from mtastsd.sts.flow import RecordState, StsBranch

NEGATIVE_KEEP: Final = 86400.0
"""Seconds past `recheck_at` after which a row without a policy that holds is dropped: it answers
nothing any more, and a domain that is mailed daily is not written and dropped in turn."""

DOMAIN_COLUMNS: Final = (
    "domain",
    "record",
    "record_id",
    "checked_at",
    "recheck_at",
    "fetched_at",
    "expires_at",
    "failure_kind",
    "failure_detail",
    "failure_line",
    "failed_id",
    "retry_at",
    "used_at",
    "body",
)

HOP_COLUMNS: Final = (
    "domain",
    "hop",
    "finding",
    "read_at",
    "expires_at",
    "recheck_at",
    "failing",
    "used_at",
)

_RECORD_STATES = frozenset(get_args(RecordState))
_FINDINGS = {finding.value: finding for finding in Finding}

Row = Sequence[Any]


def domain_values(known: KnownDomain) -> tuple[object, ...]:
    """The values of `DOMAIN_COLUMNS`."""
    sts, failure = known.sts, known.sts.failure
    return (
        known.domain,
        sts.record,
        sts.record_id,
        sts.checked_at,
        sts.recheck_at,
        sts.fetched_at,
        sts.expires_at,
        failure and failure.kind,
        failure and failure.detail,
        failure and failure.line,
        sts.failed_id,
        sts.retry_at,
        known.used_at,
        sts.body,
    )


NEVER = 0.0


def domain_of(row: Row) -> KnownDomain | None:
    """The value of a row; None where another version or a hand wrote a word that we don't know:
    then the domain is not known, and its next look-up is a first contact."""
    if row[0] is None or row[1] not in _RECORD_STATES:
        return None
    # A hundred thousand of these are kept in memory: what is equal is one object. Domains with one
    # provider share a record id, and most were read when they were fetched.
    checked_at, fetched_at = row[3], row[5]
    failure = None if row[7] is None else Failure(row[7], row[8] or "", row[9])
    sts = StsBranch(
        record=sys.intern(row[1]),  # type: ignore[arg-type]
        record_id=sys.intern(row[2]),
        checked_at=checked_at,
        recheck_at=row[4],
        fetched_at=checked_at if fetched_at == checked_at else fetched_at,
        expires_at=row[6],
        failure=failure,
        failed_id=sys.intern(row[10]),
        retry_at=row[11] or NEVER,
        body=row[13],
    )
    return KnownDomain(Domain(row[0]), sts, row[12])


def hop_values(known: KnownHop) -> tuple[object, ...]:
    """The values of `HOP_COLUMNS`."""
    dane = known.dane
    return (
        policy_domain(known.hop),
        known.hop,
        dane.finding.value,
        dane.read_at,
        dane.expires_at,
        dane.recheck_at,
        int(dane.failing),
        known.used_at,
    )


def hop_of(row: Row) -> KnownHop | None:
    """The value of a row; None where there is none or its finding is a word we don't know."""
    finding = _FINDINGS.get(row[2])
    if finding is None:
        return None
    return KnownHop(row[1], DaneBranch(finding, row[3], row[4], row[5], bool(row[6])), row[7])


def policy_domain(hop: str) -> str:
    """The policy domain of a canonical hop key. A `Domain` holds neither `]` nor `:`."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0]
