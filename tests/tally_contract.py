"""What every `ports.TallyStore` must do, as tests: subclass and give the fixtures.

class TestMyStore(TallyStoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[TallyStore]: ...

    @pytest.fixture
    def outbox(self, store: TallyStore) -> Outbox: ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import get_args

import pytest
from hypothesis import strategies as st

from mtastsd.names import Domain
from mtastsd.ports import Finding, Outbox, TallyBatch, TallyStore
from mtastsd.tlsrpt.session import MAX_STRINGS_SIZE, Detail, PolicyKey, PolicyType, ResultType
from mtastsd.tlsrpt.tally import (
    MANY,
    MAX_DETAILS,
    MAX_POLICIES,
    MAX_UNJUDGED,
    UNKNOWN,
    Day,
    DomainTally,
    Totals,
    merge,
)

DAY = Day(20_000)
A, B, C = Domain("a.example"), Domain("b.example"), Domain("c.example")
STS = PolicyKey("sts", A, ("version: STSv1", "mode: enforce"), ("*.a.example",))
TLSA = PolicyKey("tlsa", Domain("mx.a.example"), ("3 1 1 00FF",))
NONE = PolicyKey("no-policy-found", A)
MX = ("mx.a.example", "2001:db8::1")
EXPIRED = Detail(ResultType.CERTIFICATE_EXPIRED, mx_host="mx.a.example")
FULL = Detail(
    ResultType.VALIDATION_FAILURE,
    sending_ip="192.0.2.1",
    mx_host="mx.a.example",
    mx_ip="198.51.100.1",
    helo="mx1.a.example",
    reason="x'\"\\;-- %s ?",
    more='https://a.example/?x=["y"]',
)


def batch(
    sequence: int,
    tallies: Mapping[tuple[Day, Domain], DomainTally] | None = None,
    *,
    source: str = "local",
    **cursors: str,
) -> TallyBatch:
    return TallyBatch(source, sequence, tallies or {}, cursors)


async def put(store: TallyStore, day: Day, domain: Domain, tally: DomainTally) -> None:
    """Add one domain's tally as the next batch."""
    assert await store.add(batch(await store.sequence("local") + 1, {(day, domain): tally}))


async def open_domains(store: TallyStore, day: Day = DAY) -> list[str]:
    return list(await store.waiting(day, after="", limit=1000))


ROUND_TRIPS: dict[str, DomainTally] = {
    "successes": {NONE: Totals(3)},
    "failures": {STS: Totals(0, 2, {EXPIRED: 2})},
    "listed": {TLSA: Totals(1), STS: Totals()},
    "details-alone": {STS: Totals(details={EXPIRED: 1})},
    "unjudged": {STS: Totals(1, 2, {FULL: 1}, {UNKNOWN: 7, MX: 3, ("", "192.0.2.9"): 1})},
    "seen-alone": {STS: Totals(unjudged={MX: 3})},
    "results": {STS: Totals(0, 5, {Detail(result): 5 for result in ResultType})},
    "details": {
        STS: Totals(
            0,
            9,
            {
                FULL: 1,
                Detail(FULL.result): 2,
                Detail(FULL.result, sending_ip="x"): 3,
                Detail(FULL.result, mx_host="x"): 4,
                Detail(FULL.result, mx_ip="x"): 5,
                Detail(FULL.result, helo="x"): 6,
                Detail(FULL.result, reason="x"): 7,
                Detail(FULL.result, more="x"): 8,
            },
        )
    },
    "types": {PolicyKey(kind, A): Totals(1) for kind in get_args(PolicyType)},
    "many": {PolicyKey(kind, MANY): Totals(1, 1) for kind in get_args(PolicyType)},
    # Each but one thing apart from the others.
    "policies": {
        PolicyKey("sts", A): Totals(1),
        PolicyKey("sts", B): Totals(2),
        PolicyKey("sts", A, ("",)): Totals(3),
        PolicyKey("sts", A, ("", "")): Totals(4),
        PolicyKey("sts", A, ("x", "y")): Totals(5),
        PolicyKey("sts", A, ("y", "x")): Totals(6),
        PolicyKey("sts", A, ("x, y",)): Totals(7),
        PolicyKey("sts", A, ('x","y',)): Totals(8),
        PolicyKey("sts", A, (), ("x", "y")): Totals(9),
        PolicyKey("sts", A, ("x",), ("y",)): Totals(10),
        PolicyKey("sts", A, ("\\u0041",)): Totals(11),
        PolicyKey("sts", A, ("A",)): Totals(12),
    },
    "large": {PolicyKey("sts", A, ("x" * MAX_STRINGS_SIZE,), ("y" * 300,) * 100): Totals(1)},
    "huge-counts": {STS: Totals(2**53, 2**53, {EXPIRED: 2**53}, {UNKNOWN: 2**53})},
}

FINDINGS = [
    Finding(A, "mx1.a.example", "192.0.2.1", True, None, "", "192.0.2.9", "relay.example"),
    *(
        Finding(A, "mx2.a.example", f"192.0.2.{number}", False, result, "why 'x'", "2001:db8::1")
        for number, result in enumerate(ResultType, start=100)
    ),
]


_TEXTS = st.sampled_from(["", "x", "y"])
_KEYS = st.builds(
    PolicyKey,
    st.sampled_from(get_args(PolicyType)),
    st.sampled_from([A, B, MANY]),
    st.sampled_from([(), ("x",), ("x", "y")]),
    st.sampled_from([(), ("x",)]),
)
_COUNTS = st.integers(0, 5)
RESULTS = [ResultType.TLSA_INVALID, ResultType.CERTIFICATE_EXPIRED]
_DETAILS = st.builds(
    Detail, st.sampled_from(RESULTS), mx_host=_TEXTS, mx_ip=_TEXTS, reason=_TEXTS, more=_TEXTS
)
_TOTALS = st.builds(
    Totals,
    _COUNTS,
    _COUNTS,
    st.dictionaries(_DETAILS, st.integers(1, 5), max_size=5),
    st.dictionaries(st.tuples(_TEXTS, _TEXTS), st.integers(1, 5), max_size=4),
)
TALLIES = st.dictionaries(_KEYS, _TOTALS, max_size=4)


def varied(start: int, count: int) -> DomainTally:
    """A tally of one policy with details and hosts as a hostile server would make them."""
    numbers = range(start, start + count)
    details = {
        Detail(FULL.result, helo=f"x{n % 1000:03}.example", reason=f"{n}"): 1 for n in numbers
    }
    return {STS: Totals(0, count, details, {UNKNOWN: count, **{("x", f"{n}"): 1 for n in numbers}})}


class TallyStoreContract:
    """Run against an empty `store`, and the `outbox` beside it."""

    async def test_nothing_is_there_at_first(self, store: TallyStore) -> None:
        assert await store.sequence("local") == 0
        assert await store.cursor("log") == ""
        assert await store.days(before=Day(99_999)) == []
        assert await open_domains(store) == []
        assert await store.tally(DAY, A) == {}
        assert await store.findings(DAY, A) == []
        assert await store.forget_days(before=Day(99_999)) == 0

    @pytest.mark.parametrize("tally", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
    async def test_a_tally_comes_back_as_it_was(
        self, store: TallyStore, tally: DomainTally
    ) -> None:
        await put(store, DAY, A, tally)
        assert await store.tally(DAY, A) == tally
        await put(store, DAY, B, tally)
        assert await store.tally(DAY, A) == await store.tally(DAY, B) == tally

    @pytest.mark.parametrize("tally", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
    async def test_what_comes_again_is_added_to_it(
        self, store: TallyStore, tally: DomainTally
    ) -> None:
        await put(store, DAY, A, tally)
        await put(store, DAY, A, tally)
        assert await store.tally(DAY, A) == merge(tally, tally)

    async def test_days_and_domains_are_apart(self, store: TallyStore) -> None:
        places = [(day, domain) for day in (DAY, Day(DAY + 1)) for domain in (A, B)]
        tallies = {place: {STS: Totals(number)} for number, place in enumerate(places)}
        await store.add(batch(1, tallies))
        for place in places:
            assert await store.tally(*place) == tallies[place]
        assert await store.tally(Day(DAY - 1), A) == {}
        assert await store.tally(DAY, C) == {}

    async def test_a_policy_is_the_same_for_many_domains(self, store: TallyStore) -> None:
        hosted = [Domain(f"d{n}.example") for n in range(20)]
        await store.add(batch(1, {(DAY, domain): {TLSA: Totals(1)} for domain in hosted}))
        await store.add(batch(2, {(DAY, domain): {TLSA: Totals(0, 1)} for domain in hosted}))
        for domain in hosted:
            assert await store.tally(DAY, domain) == {TLSA: Totals(1, 1)}

    # --- batches

    async def test_a_batch_that_is_offered_twice_counts_once(self, store: TallyStore) -> None:
        one = batch(1, {(DAY, A): {STS: Totals(1, 1, {EXPIRED: 1}, {UNKNOWN: 1})}}, log="x")
        assert await store.add(one) is True
        assert await store.add(one) is False
        assert await store.tally(DAY, A) == one.tallies[DAY, A]
        assert await store.sequence("local") == 1

    async def test_an_old_batch_changes_nothing(self, store: TallyStore) -> None:
        assert await store.add(batch(5, log="new"))
        for sequence in (5, 4, 1):
            old = batch(sequence, {(DAY, A): {STS: Totals(1)}}, log="old", other="old")
            assert await store.add(old) is False
        assert await store.tally(DAY, A) == {}
        assert await open_domains(store) == []
        assert [await store.cursor(name) for name in ("log", "other")] == ["new", ""]
        assert await store.sequence("local") == 5

    async def test_sources_have_their_own_sequences(self, store: TallyStore) -> None:
        for source in ("one", "two"):
            for sequence in (1, 2, 7):
                added = batch(sequence, {(DAY, A): {STS: Totals(1)}}, source=source)
                assert await store.add(added) is True
        assert await store.sequence("one") == await store.sequence("two") == 7
        assert await store.sequence("three") == 0
        assert await store.tally(DAY, A) == {STS: Totals(6)}

    async def test_cursors_go_with_their_batch(self, store: TallyStore) -> None:
        await store.add(batch(1, journal="s=1;i=2", file="10:20"))
        await store.add(batch(2, file="10:30"))
        await store.add(batch(1, source="two", journal="s=9"))
        assert await store.cursor("journal") == "s=9"
        assert await store.cursor("file") == "10:30"

    async def test_nothing_makes_no_day(self, store: TallyStore) -> None:
        await store.add(batch(1, {(DAY, A): {}}))
        assert await store.days(before=Day(99_999)) == []
        assert await open_domains(store) == []

    async def test_batches_at_once(self, store: TallyStore) -> None:
        batches = [
            batch(1, {(DAY, A): {STS: Totals(1, 1, {EXPIRED: 1})}}, source=f"relay{n}")
            for n in range(20)
        ]
        assert all(await asyncio.gather(*map(store.add, batches)))
        assert await store.tally(DAY, A) == {STS: Totals(20, 20, {EXPIRED: 20})}

    # --- merging

    async def test_variety_is_bounded_in_any_order(self, store: TallyStore) -> None:
        parts = [varied(start, 400) for start in (1600, 0, 2800, 400, 2000, 1200)]
        for part in parts:
            await put(store, DAY, A, part)
        found = await store.tally(DAY, A)
        assert found == reduce(merge, parts)
        assert len(found[STS].details) == MAX_DETAILS + 1
        assert len(found[STS].unjudged) == MAX_UNJUDGED + 1
        assert sum(found[STS].details.values()) == found[STS].failures == 2400

    async def test_policies_are_bounded_in_any_order(self, store: TallyStore) -> None:
        keys = [PolicyKey("tlsa", A, (f"3 1 1 {n:04X}",)) for n in range(300)]
        parts: list[DomainTally] = [
            {key: Totals(1, 1, {EXPIRED: 1})} for key in keys[::2] + keys[1::2]
        ]
        whole = [reduce(merge, parts[start : start + 50]) for start in range(0, 300, 50)]
        for part in whole:
            await put(store, DAY, A, part)
        found = await store.tally(DAY, A)
        assert found == reduce(merge, parts)
        assert len(found) == MAX_POLICIES + 1
        assert sum(totals.sessions for totals in found.values()) == 600

    # --- what waits

    async def test_what_waits_in_order_by_pages(self, store: TallyStore) -> None:
        ordered = ["a-b.example", "a.b.example", "a.example", "a0.example", "xn--a-7ga.example"]
        tallies = {(DAY, Domain(name)): {STS: Totals(1)} for name in reversed(ordered)}
        await store.add(batch(1, tallies))
        assert await open_domains(store) == ordered
        assert await store.waiting(DAY, after="", limit=2) == ordered[:2]
        assert await store.waiting(DAY, after=ordered[1], limit=2) == ordered[2:4]
        assert await store.waiting(DAY, after=ordered[3], limit=2) == ordered[4:]
        assert await store.waiting(DAY, after="a.exampla", limit=9) == ordered[2:]
        assert await store.waiting(DAY, after=ordered[4], limit=2) == []
        assert await store.waiting(DAY, after="", limit=0) == []
        assert await open_domains(store, Day(DAY + 1)) == []

    async def test_days_that_are_not_settled(self, store: TallyStore, outbox: Outbox) -> None:
        days = [Day(DAY + n) for n in (3, 0, 7, 1)]
        await store.add(batch(1, {(day, d): {STS: Totals(1)} for day in days for d in (A, B)}))
        assert await store.days(before=Day(DAY + 9)) == sorted(days)
        assert await store.days(before=Day(DAY + 7)) == sorted(days)[:3]
        assert await store.days(before=DAY) == []
        await outbox.settle(Day(DAY + 1), A, "no-record", None, ())
        assert await store.days(before=Day(DAY + 7)) == sorted(days)[:3]
        await outbox.settle(Day(DAY + 1), B, "no-record", None, ())
        assert await store.days(before=Day(DAY + 7)) == [DAY, DAY + 3]
        assert await open_domains(store, Day(DAY + 1)) == []

    async def test_what_comes_late_is_kept_and_does_not_wait(
        self, store: TallyStore, outbox: Outbox
    ) -> None:
        await put(store, DAY, A, {STS: Totals(1)})
        await outbox.settle(DAY, A, "no-record", None, ())
        await outbox.settle(DAY, B, "nothing", None, ())
        await put(store, DAY, A, {STS: Totals(1), TLSA: Totals(2)})
        await put(store, DAY, B, {STS: Totals(1)})
        assert await store.tally(DAY, A) == {STS: Totals(2), TLSA: Totals(2)}
        assert await store.days(before=Day(DAY + 9)) == []
        assert await open_domains(store) == []
        assert await outbox.settle(DAY, B, "reported", None, ()) is False
        assert await outbox.settled(DAY, after="", limit=9) == [(A, "no-record"), (B, "nothing")]

    # --- findings

    async def test_findings_come_back_as_they_were(self, store: TallyStore) -> None:
        await store.note(DAY, FINDINGS[::-1])
        assert await store.findings(DAY, A) == FINDINGS
        assert await store.findings(Day(DAY + 1), A) == []
        assert await store.findings(DAY, B) == []

    async def test_the_first_finding_of_a_day_stays(self, store: TallyStore) -> None:
        bad = Finding(A, "mx.a.example", "192.0.2.1", True, ResultType.CERTIFICATE_EXPIRED)
        good = Finding(A, "mx.a.example", "192.0.2.1", True, None)
        elsewhere = Finding(A, "mx.a.example", "192.0.2.2", True, None)
        await store.note(DAY, [bad, good])
        await store.note(DAY, [good, elsewhere])
        await store.note(Day(DAY + 1), [good])
        await store.note(DAY, [])
        assert await store.findings(DAY, A) == [bad, elsewhere]
        assert await store.findings(Day(DAY + 1), A) == [good]

    # --- forgetting

    async def test_settled_days_are_forgotten_whole(
        self, store: TallyStore, outbox: Outbox
    ) -> None:
        days: Sequence[Day] = [Day(DAY + n) for n in range(4)]
        tally = ROUND_TRIPS["unjudged"]
        await store.add(batch(1, {(day, d): tally for day in days for d in (A, B)}))
        for day in days:
            await store.note(day, FINDINGS)
            await outbox.settle(day, A, "no-record", None, ())
        for day in (days[0], days[2], days[3]):
            await outbox.settle(day, B, "no-record", None, ())
        assert await store.forget_days(before=days[3]) == 2
        assert await store.forget_days(before=days[3]) == 0
        for day, kept in zip(days, (False, True, False, True), strict=True):
            assert await store.tally(day, A) == (tally if kept else {})
            assert await store.findings(day, A) == (FINDINGS if kept else [])
        assert await store.days(before=days[3]) == [days[1]]
        assert await store.sequence("local") == 1

    async def test_findings_of_a_day_without_mail_are_forgotten(self, store: TallyStore) -> None:
        await store.note(DAY, FINDINGS)
        assert await store.forget_days(before=DAY) == 0
        assert await store.findings(DAY, A) == FINDINGS
        assert await store.forget_days(before=Day(DAY + 1)) == 0
        assert await store.findings(DAY, A) == []

    async def test_a_policy_that_other_days_have_stays(
        self, store: TallyStore, outbox: Outbox
    ) -> None:
        for day in (DAY, Day(DAY + 1)):
            await put(store, day, A, {STS: Totals(1)})
        await outbox.settle(DAY, A, "no-record", None, ())
        assert await store.forget_days(before=Day(DAY + 1)) == 1
        await put(store, Day(DAY + 1), A, {STS: Totals(1), TLSA: Totals(1)})
        assert await store.tally(Day(DAY + 1), A) == {STS: Totals(2), TLSA: Totals(1)}
