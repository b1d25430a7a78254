"""What is added up of a UTC day: totals by policy domain and policy.

Merging is commutative and associative: that alone gives batches, the spool and many relays.

Hostile servers vary their texts, so variety is bounded: of a domain's policies, of a policy's
details and MX hosts only so many are told apart, and what is beyond goes into a catch-all, so that
no count is lost and no summary altered. Which ones are kept must not depend on the order in which
sessions came, or merging would not be commutative: it is always the first in a fixed order of
the keys themselves, never the most frequent. A key that is among the first of the whole is among
the first of each part, so no part ever gave it away; any other ends in the catch-all, wherever
that happened. A store may therefore add row by row and hold too many for a while: `capped` makes
of it what merging would have made.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NewType, TypeVar

from mtastsd.names import Domain
from mtastsd.tlsrpt.session import Detail, PolicyKey

Day = NewType("Day", int)
"""A UTC day, as days since 1970-01-01."""

SECONDS = 86400

MAX_POLICIES = 60
"""Policies of a domain and day that are told apart: DANE makes one of each MX host and of each
change of its keys, and the largest domains have some twenty hosts. Beyond, those of a type are one,
of domain `MANY`."""

MAX_DETAILS = 500
"""Details of a policy and day that are told apart: thirty MX addresses seen from sixteen of ours.
Beyond, a `Detail` of the result type alone."""

MAX_UNJUDGED = 200
"""MX hosts and addresses of a policy and day under which sessions wait for a finding. Beyond, they
are as those whose MX host no source names."""

UNKNOWN = ("", "")
"""The key of `Totals.unjudged` under which the sessions are."""

MAX_SIZE = 200_000
"""Counters that `Tallies` holds by default before it turns new ones away: some 100 MB. Only a store
that is away for long lets it come to that."""

SIZE_OF_TEXT = 256
"""Characters of policy strings that weigh as much as one counter."""

MANY = Domain("")
"""`PolicyKey.domain` of the catch-all for policies."""


def day_of(moment: float) -> Day:
    """The UTC day of a wall time in seconds since 1970."""
    return Day(int(moment // SECONDS))


@dataclass(frozen=True, slots=True)
class Totals:
    """The counts of one policy on one day.

    `details` counts failed sessions by detail; as RFC 8460 §4.3 has it they may overlap and need
    not add up to `failures`. `unjudged[UNKNOWN]` counts the sessions under a testing policy that
    succeeded as far as Postfix is concerned; whether they would have under enforcement is known
    once the MX hosts have been probed. They are not in `successes`. Its other keys are MX hosts
    and addresses with the number of those sessions that a log saw there: no further sessions.
    """

    successes: int = 0
    failures: int = 0
    details: Mapping[Detail, int] = field(default_factory=dict)
    unjudged: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def sessions(self) -> int:
        """All sessions, whatever became of them."""
        return self.successes + self.failures + self.unjudged.get(UNKNOWN, 0)


DomainTally = Mapping[PolicyKey, Totals]
"""A day of one recipient domain, by policy. A policy with zero counts is there to be listed."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What one session adds to one policy; nothing but the key where the policy is only listed.

    `details` are different from each other. `unjudged` are keys of `Totals.unjudged`.
    """

    key: PolicyKey
    successes: int = 0
    failures: int = 0
    details: tuple[Detail, ...] = ()
    unjudged: tuple[tuple[str, str], ...] = ()


# ---- merging


def merge(a: DomainTally, b: DomainTally) -> DomainTally:
    """Both together. Commutative and associative; an empty tally changes nothing."""
    merged = dict(a)
    for key, totals in b.items():
        there = merged.get(key)
        merged[key] = totals if there is None else _plus(there, totals)
    return capped(merged)


def capped(tally: DomainTally) -> DomainTally:
    """The tally with its variety bounded."""
    rows = {key: _capped_totals(totals) for key, totals in tally.items()}
    kept = [key for key in rows if key != _many(key)]
    if len(kept) <= MAX_POLICIES:
        return rows
    kept.sort(key=_order_of_policy)
    for key in kept[MAX_POLICIES:]:
        totals = rows.pop(key)
        into = _many(key)
        rows[into] = _capped_totals(_plus(rows.get(into, Totals()), totals))
    return rows


def _plus(a: Totals, b: Totals) -> Totals:
    return Totals(
        a.successes + b.successes,
        a.failures + b.failures,
        _sum(a.details, b.details),
        _sum(a.unjudged, b.unjudged),
    )


def _capped_totals(totals: Totals) -> Totals:
    details = _capped(totals.details, MAX_DETAILS, _order_of_detail, _many_details)
    unjudged = _capped(totals.unjudged, MAX_UNJUDGED, tuple, _unseen)
    if details is totals.details and unjudged is totals.unjudged:
        return totals
    return Totals(totals.successes, totals.failures, details, unjudged)


K = TypeVar("K", bound=Hashable)


def _sum(a: Mapping[K, int], b: Mapping[K, int]) -> Mapping[K, int]:
    total = dict(a)
    for key, count in b.items():
        total[key] = total.get(key, 0) + count
    return total


def _capped(
    counts: Mapping[K, int],
    limit: int,
    order: Callable[[K], tuple[str, ...]],
    catch_all: Callable[[K], K | None],
) -> Mapping[K, int]:
    """`counts` with the first `limit` keys, the catch-alls besides, and the rest in those.

    A key is its own catch-all where it always stays; the counts of one that has none go.
    """
    if len(counts) <= limit:
        return counts
    told_apart = [key for key in counts if key != catch_all(key)]
    if len(told_apart) <= limit:
        return counts
    told_apart.sort(key=order)
    rest = dict(counts)
    for key in told_apart[limit:]:
        count, into = rest.pop(key), catch_all(key)
        if into is not None:
            rest[into] = rest.get(into, 0) + count
    return rest


def _order_of_policy(key: PolicyKey) -> tuple[str, str, tuple[str, ...], tuple[str, ...]]:
    return key.type, key.domain, key.strings, key.mx


def _order_of_detail(d: Detail) -> tuple[str, ...]:
    return d.result.value, d.mx_host, d.mx_ip, d.sending_ip, d.reason, d.helo, d.more


def _many(key: PolicyKey) -> PolicyKey:
    return PolicyKey(key.type, MANY)


def _many_details(detail: Detail) -> Detail:
    return Detail(detail.result)


def _unseen(host: tuple[str, str]) -> tuple[str, str] | None:
    return UNKNOWN if host == UNKNOWN else None


# ---- adding


@dataclass(slots=True)
class _Row:
    successes: int = 0
    failures: int = 0
    details: dict[Detail, int] = field(default_factory=dict)
    unjudged: dict[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, totals: Totals) -> _Row:
        details, unjudged = dict(totals.details), dict(totals.unjudged)
        return cls(totals.successes, totals.failures, details, unjudged)

    def totals(self) -> Totals:
        return Totals(self.successes, self.failures, self.details, self.unjudged)


_Rows = dict[PolicyKey, _Row]


@dataclass(slots=True)
class Tallies:
    """What was added since it was last taken: the one mutable value here, with one owner.

    `size` is about the number of counters in it, `limit` its bound. Variety is cut only when it
    passes twice its limits and in `take`: adding stays cheap and the result is the same.
    """

    limit: int = MAX_SIZE
    size: int = 0
    days: dict[tuple[Day, Domain], _Rows] = field(default_factory=dict)

    def take(self) -> dict[tuple[Day, Domain], DomainTally]:
        """All of it; empty afterwards."""
        days, self.days, self.size = self.days, {}, 0
        return {at: capped(_totals(rows)) for at, rows in days.items()}


def add(
    tallies: Tallies, day: Day, domain: Domain, counted: Sequence[Counted], times: int = 1
) -> bool:
    """Add `times` sessions that are counted alike to the day of their recipient domain.

    False, and nothing is added, where that takes new counters and there is no room for any: the
    caller says how many sessions were dropped. What has counters already goes on being counted.
    """
    rows = tallies.days.get((day, domain))
    if tallies.size >= tallies.limit and not (rows is not None and _has_all(rows, counted)):
        return False
    if rows is None:
        rows = tallies.days[day, domain] = {}
    for item in counted:
        row = rows.get(item.key)
        if row is None:
            row = rows[item.key] = _Row()
            tallies.size += _weight(item.key)
        row.successes += item.successes * times
        row.failures += item.failures * times
        if item.details or item.unjudged:
            tallies.size += _add_variety(row, item, times)
    if len(rows) > 2 * MAX_POLICIES:
        tallies.size += _cut(rows)
    return True


def _has_all(rows: _Rows, counted: Sequence[Counted]) -> bool:
    """Whether nothing of it needs a new counter."""
    for item in counted:
        row = rows.get(item.key)
        if row is None:
            return False
        if not (row.details.keys() >= {*item.details} and row.unjudged.keys() >= {*item.unjudged}):
            return False
    return True


def _add_variety(row: _Row, item: Counted, times: int) -> int:
    """Count an item's details and MX hosts; by how many counters that made the row grow."""
    details, unjudged = row.details, row.unjudged
    before = len(details) + len(unjudged)
    for detail in item.details:
        details[detail] = details.get(detail, 0) + times
    for host in item.unjudged:
        unjudged[host] = unjudged.get(host, 0) + times
    if len(details) > 2 * MAX_DETAILS or len(unjudged) > 2 * MAX_UNJUDGED:
        cut = _Row.of(_capped_totals(row.totals()))
        row.details, row.unjudged = cut.details, cut.unjudged
    return len(row.details) + len(row.unjudged) - before


def _cut(rows: _Rows) -> int:
    """Cut a domain's policies to those that are told apart; by how much that made it grow (< 0)."""
    before = _size(rows)
    small = capped(_totals(rows))
    rows.clear()
    rows.update((key, _Row.of(totals)) for key, totals in small.items())
    return _size(rows) - before


def _totals(rows: _Rows) -> DomainTally:
    return {key: row.totals() for key, row in rows.items()}


def _size(rows: _Rows) -> int:
    return sum(_weight(key) + len(row.details) + len(row.unjudged) for key, row in rows.items())


def _weight(key: PolicyKey) -> int:
    return 1 + (sum(map(len, key.strings)) + sum(map(len, key.mx))) // SIZE_OF_TEXT
