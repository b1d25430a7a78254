"""Day totals: adding, merging in any order, bounded variety; and sessions held against findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtastsd.names import Domain
from mtastsd.ports import Finding
from mtastsd.tlsrpt import tally as tallies
from mtastsd.tlsrpt.judge import judge, judge_all
from mtastsd.tlsrpt.session import MAX_STRINGS, Detail, PolicyKey, ResultType
from mtastsd.tlsrpt.tally import (
    MANY,
    MAX_DETAILS,
    MAX_POLICIES,
    MAX_UNJUDGED,
    UNKNOWN,
    Counted,
    Day,
    DomainTally,
    Tallies,
    Totals,
    add,
    capped,
    day_of,
    merge,
)

D, E = Domain("example.com"), Domain("example.net")
DAY = Day(20_000)
R = ResultType
STS = PolicyKey("sts", D, ("version: STSv1",), ("*.example.com",))
NONE = PolicyKey("no-policy-found", D)
EXPIRED = Detail(R.CERTIFICATE_EXPIRED, mx_host="mx.example.com")
MX = ("mx.example.com", "192.0.2.1")


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (0.0, 0),
        (86399.999, 0),
        (86400.0, 1),
        (1709164800.0, 19782),  # 2024-02-29
        (1709251199.9, 19782),
        (-1.0, -1),
    ],
)
def test_days(moment: float, day: int) -> None:
    assert day_of(moment) == day


# -- adding


def test_add() -> None:
    total = Tallies()
    assert add(total, DAY, D, (Counted(STS, 1), Counted(NONE)))
    assert add(total, DAY, D, (Counted(STS, 0, 1, (EXPIRED,)),), 3)
    assert add(total, DAY, D, (Counted(STS, 1, 0, (EXPIRED,)),))
    assert add(total, DAY, E, (Counted(STS, unjudged=(UNKNOWN, MX)),), 2)
    assert add(total, Day(DAY + 1), D, (Counted(STS, 1),))
    assert add(total, DAY, Domain("example.org"), ())
    assert total.take() == {
        (DAY, D): {STS: Totals(2, 3, {EXPIRED: 4}), NONE: Totals()},
        (DAY, E): {STS: Totals(unjudged={UNKNOWN: 2, MX: 2})},
        (Day(DAY + 1), D): {STS: Totals(1)},
        (DAY, Domain("example.org")): {},
    }
    assert total.take() == {}
    assert total.size == 0


def test_what_was_taken_no_longer_changes() -> None:
    total = Tallies()
    add(total, DAY, D, (Counted(STS, 0, 1, (EXPIRED,)),))
    taken = total.take()
    add(total, DAY, D, (Counted(STS, 0, 1, (EXPIRED,)),))
    assert taken == {(DAY, D): {STS: Totals(0, 1, {EXPIRED: 1})}}


def test_sessions() -> None:
    assert Totals(1, 2, {EXPIRED: 9}, {UNKNOWN: 4, MX: 3}).sessions == 7
    assert Totals(1, 2, {}, {MX: 3}).sessions == 3


def test_memory_is_bounded() -> None:
    total = Tallies(limit=4)
    assert add(total, DAY, D, (Counted(STS, 0, 1, (EXPIRED,)),))
    assert add(total, DAY, D, (Counted(NONE, unjudged=(UNKNOWN,)),))
    assert total.size == 4
    full = total.size
    for counted in (
        (Counted(PolicyKey("sts", E), 1),),
        (Counted(STS, 0, 1, (Detail(R.DNSSEC_INVALID),)),),
        (Counted(STS, 0, 1, (EXPIRED, Detail(R.DNSSEC_INVALID))),),
        (Counted(NONE, unjudged=(UNKNOWN, MX)),),
        (Counted(STS, 1), Counted(PolicyKey("sts", E))),
    ):
        assert not add(total, DAY, D, counted)
    assert not add(total, DAY, E, (Counted(STS, 1),))
    assert total.size == full
    # What has its counters goes on.
    assert add(total, DAY, D, (Counted(STS, 0, 1, (EXPIRED,)), Counted(NONE, 1)))
    assert add(total, DAY, D, (Counted(NONE, unjudged=(UNKNOWN,)),))
    assert total.take() == {
        (DAY, D): {STS: Totals(0, 2, {EXPIRED: 2}), NONE: Totals(1, 0, {}, {UNKNOWN: 2})}
    }
    assert add(total, DAY, E, (Counted(STS, 1),))


def test_long_policies_weigh_more() -> None:
    small, large = Tallies(), Tallies()
    add(small, DAY, D, (Counted(STS, 1),))
    add(large, DAY, D, (Counted(PolicyKey("tlsa", D, ("3 0 0 " + "A" * 10_000,)), 1),))
    assert large.size > 30 * small.size


# -- variety


def detail(n: int, result: ResultType = R.VALIDATION_FAILURE) -> Detail:
    return Detail(result, mx_host="mx.example.com", helo=f"h{n:05}.example.com")


def policy(n: int) -> PolicyKey:
    return PolicyKey("tlsa", Domain(f"mx{n:05}.example.com"))


def host(n: int) -> tuple[str, str]:
    return (f"mx{n:05}.example.com", "")


def test_details_over_the_cap_lose_their_names_and_no_count() -> None:
    total = Tallies()
    n = 5 * MAX_DETAILS
    for i in reversed(range(n)):
        result = R.CERTIFICATE_EXPIRED if i % 2 else R.VALIDATION_FAILURE
        add(total, DAY, D, (Counted(STS, 0, 1, (detail(i, result),)),))
    assert total.size <= 2 * MAX_DETAILS + 2
    totals = total.take()[DAY, D][STS]
    assert totals.failures == n == sum(totals.details.values())
    assert len(totals.details) == MAX_DETAILS + 2
    assert totals.details[Detail(R.VALIDATION_FAILURE)] == n / 2
    assert totals.details[Detail(R.CERTIFICATE_EXPIRED)] == n / 2 - MAX_DETAILS


def test_the_catch_all_takes_no_place() -> None:
    details = {detail(i): 1 for i in range(MAX_DETAILS)} | {Detail(r): 1 for r in R}
    full: DomainTally = {STS: Totals(0, 9, details)}
    assert capped(full) == full
    more = merge(full, {STS: Totals(0, 1, {Detail(R.DANE_REQUIRED): 1})})
    assert more[STS].details == details | {Detail(R.DANE_REQUIRED): 2}


def test_policies_over_the_cap_become_one() -> None:
    total = Tallies()
    n = 3 * MAX_POLICIES
    for i in reversed(range(n)):
        add(total, DAY, D, (Counted(policy(i), 1), Counted(STS, 0, 1, (EXPIRED,))))
    assert total.size <= 2 * MAX_POLICIES + 5
    found = total.take()[DAY, D]
    assert len(found) == MAX_POLICIES + 1
    # "sts" comes before "tlsa"
    assert found[STS] == Totals(0, n, {EXPIRED: n})
    assert found[PolicyKey("tlsa", MANY)] == Totals(n - MAX_POLICIES + 1)


def test_details_of_many_policies_are_bounded_too() -> None:
    rows = {
        policy(i): Totals(0, MAX_DETAILS, {detail(i * 1000 + j): 1 for j in range(MAX_DETAILS)})
        for i in range(MAX_POLICIES + 3)
    }
    many = capped(rows)[PolicyKey("tlsa", MANY)]
    assert many.failures == 3 * MAX_DETAILS == sum(many.details.values())
    assert many.details[Detail(R.VALIDATION_FAILURE)] == 2 * MAX_DETAILS


def test_hosts_over_the_cap_are_unknown() -> None:
    total = Tallies()
    n = 5 * MAX_UNJUDGED
    for i in reversed(range(n)):
        add(total, DAY, D, (Counted(STS, unjudged=(UNKNOWN, host(i))),))
    assert total.size <= 2 * MAX_UNJUDGED + 3
    totals = total.take()[DAY, D][STS]
    assert totals.sessions == n
    assert totals.unjudged == {UNKNOWN: n} | {host(i): 1 for i in range(MAX_UNJUDGED)}


# -- merging

FEW = 4
K = TypeVar("K")


KEYS = [
    PolicyKey(kind, domain, strings)
    for kind in ("sts", "tlsa")
    for domain in (D, E, MANY)
    for strings in ((), ("x",))
]
DETAILS = [
    Detail(result, mx_host=mx, reason=reason)
    for result in (R.CERTIFICATE_EXPIRED, R.VALIDATION_FAILURE)
    for mx in ("", "a", "b", "c")
    for reason in ("", "x")
]
HOSTS = [UNKNOWN, *(host(i) for i in range(7))]


def counters(octets: bytes) -> dict[PolicyKey, Totals]:
    """A tally, three octets a counter: drawing it piece by piece takes seconds."""
    tally: dict[PolicyKey, Totals] = {}
    for policy_at, what, count in zip(*[iter(octets)] * 3, strict=False):
        key = KEYS[policy_at % len(KEYS) if policy_at & 128 else 0]
        there = tally.get(key, Totals())
        if what & 128:
            new = Totals(count, what & 127, {}, {})
        elif what & 64:
            new = Totals(0, 0, {DETAILS[what % len(DETAILS)]: count + 1}, {})
        else:
            new = Totals(0, 0, {}, {HOSTS[what % len(HOSTS)]: count + 1})
        tally[key] = Totals(
            there.successes + new.successes,
            there.failures + new.failures,
            plus(there.details, new.details),
            plus(there.unjudged, new.unjudged),
        )
    return tally


def plus(a: Mapping[K, int], b: Mapping[K, int]) -> dict[K, int]:
    return {key: a.get(key, 0) + b.get(key, 0) for key in {*a, *b}}


TALLY = st.one_of(st.binary(max_size=30), st.binary(min_size=90, max_size=120)).map(counters)
SESSION = st.builds(
    lambda n: Counted(
        KEYS[n % len(KEYS) if n & 4 else 0],
        n >> 4 & 1,
        1 - (n >> 4 & 1),
        (DETAILS[n >> 5 & 15],),
        (HOSTS[n >> 9 & 7],),
    ),
    st.integers(0, 0xFFF),
)


@pytest.fixture(scope="module")
def _few() -> Iterator[None]:
    """Small caps, so that drawn tallies pass them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MAX_POLICIES", "MAX_DETAILS", "MAX_UNJUDGED"):
            patch.setattr(tallies, name, FEW)
        yield


@pytest.mark.usefixtures("_few")
class TestMerge:
    @given(TALLY, TALLY)
    def test_commutes(self, a: DomainTally, b: DomainTally) -> None:
        assert merge(a, b) == merge(b, a)

    @given(TALLY, TALLY, TALLY)
    @settings(max_examples=300)
    def test_associates(self, a: DomainTally, b: DomainTally, c: DomainTally) -> None:
        assert merge(merge(a, b), c) == merge(a, merge(b, c))

    @given(TALLY)
    def test_has_an_identity(self, a: DomainTally) -> None:
        a = capped(a)
        assert merge(a, {}) == a == merge({}, a)

    @given(TALLY, TALLY)
    def test_capping_early_or_late_is_the_same(self, a: DomainTally, b: DomainTally) -> None:
        assert merge(capped(a), capped(b)) == merge(a, b)

    @given(TALLY, TALLY)
    def test_no_count_is_lost(self, a: DomainTally, b: DomainTally) -> None:
        assert sums(merge(a, b)) == tuple(x + y for x, y in zip(sums(a), sums(b), strict=True))

    @given(TALLY, TALLY)
    def test_variety_is_bounded(self, a: DomainTally, b: DomainTally) -> None:
        merged = merge(a, b)
        assert len(merged) <= FEW + 2
        for totals in merged.values():
            assert len(totals.details) <= FEW + 2
            assert len(totals.unjudged) <= FEW + 1

    @given(st.lists(SESSION, max_size=60), st.data())
    def test_adding_in_batches_is_merging(
        self, counted: list[Counted], data: st.DataObject
    ) -> None:
        """One by one, in batches, and in another order: the same totals."""
        whole = taken(counted)
        cut = data.draw(st.integers(0, len(counted)))
        assert merge(taken(counted[:cut]), taken(counted[cut:])) == whole
        assert taken(data.draw(st.permutations(counted))) == whole


def sums(tally: DomainTally) -> tuple[int, ...]:
    rows = tally.values()
    return (
        sum(t.successes for t in rows),
        sum(t.failures for t in rows),
        sum(sum(t.details.values()) for t in rows),
        sum(t.unjudged.get(UNKNOWN, 0) for t in rows),
    )


def taken(counted: Sequence[Counted]) -> DomainTally:
    total = Tallies()
    for item in counted:
        add(total, DAY, D, (item,))
    return total.take().get((DAY, D), {})


# -- findings


def finding(
    mx: tuple[str, str], result: ResultType | None, reason: str = "", *, preferred: bool = True
) -> Finding:
    return Finding(D, *mx, preferred, result, reason, "192.0.2.99", f"helo.{mx[0]}")


A, A6, B = ("a.example.com", "192.0.2.1"), ("a.example.com", "2001:db8::1"), ("b.example.com", "")
A_BAD = finding(A, R.CERTIFICATE_EXPIRED)
A6_BAD = finding(A6, R.CERTIFICATE_EXPIRED)
A_GOOD, A6_GOOD = finding(A, None), finding(A6, None)
B_BAD = finding(B, R.CERTIFICATE_HOST_MISMATCH, "x")
B_GOOD = finding(B, None)


def told(f: Finding) -> Detail:
    assert f.result is not None
    return Detail(f.result, f.sending_ip, f.mx_host, f.mx_ip, f.helo, f.reason)


def plain(mx: tuple[str, str], result: ResultType = R.CERTIFICATE_EXPIRED) -> Detail:
    return Detail(result, mx_host=mx[0], mx_ip=mx[1])


@pytest.mark.parametrize(
    ("unjudged", "findings", "successes", "failures", "details"),
    [
        ({UNKNOWN: 5}, [], 5, 0, {}),
        ({UNKNOWN: 5, A: 5}, [], 5, 0, {}),
        # the session's own MX
        ({UNKNOWN: 5, A: 5}, [A_BAD], 0, 5, {told(A_BAD): 5}),
        ({UNKNOWN: 5, A: 5}, [A_GOOD], 5, 0, {}),
        ({UNKNOWN: 5, A: 5}, [A_BAD, B_GOOD], 0, 5, {told(A_BAD): 5}),
        ({UNKNOWN: 5, A: 5}, [B_BAD], 5, 0, {}),
        ({UNKNOWN: 5, A: 5}, [A_BAD, A6_GOOD], 0, 5, {told(A_BAD): 5}),
        ({UNKNOWN: 5, A: 2, B: 3}, [A_BAD, B_GOOD], 3, 2, {told(A_BAD): 2}),
        ({UNKNOWN: 5, A: 2, B: 3}, [A_BAD, B_BAD], 0, 5, {told(A_BAD): 2, told(B_BAD): 3}),
        # its address was not probed, or is not known
        ({UNKNOWN: 5, A6: 5}, [A_BAD], 0, 5, {plain(A6): 5}),
        ({UNKNOWN: 5, A6: 5}, [A_GOOD], 5, 0, {}),
        ({UNKNOWN: 5, (A[0], ""): 5}, [A_BAD], 0, 5, {told(A_BAD): 5}),
        ({UNKNOWN: 5, (A[0], ""): 5}, [A_BAD, A6_BAD], 0, 5, {plain((A[0], "")): 5}),
        ({UNKNOWN: 5, (A[0], ""): 5}, [A_BAD, A6_GOOD], 5, 0, {}),
        # MX not known: all of best preference
        ({UNKNOWN: 5}, [A_BAD], 0, 5, {told(A_BAD): 5}),
        ({UNKNOWN: 5}, [A_BAD, A6_BAD], 0, 5, {plain(("", "")): 5}),
        ({UNKNOWN: 5}, [A_BAD, B_BAD], 0, 5, {told(A_BAD): 5, told(B_BAD): 5}),
        ({UNKNOWN: 5}, [A_BAD, B_GOOD], 5, 0, {}),
        ({UNKNOWN: 5}, [A_BAD, A6_GOOD], 5, 0, {}),
        ({UNKNOWN: 5}, [A_BAD, finding(B, None, preferred=False)], 0, 5, {told(A_BAD): 5}),
        ({UNKNOWN: 5}, [finding(B, R.CERTIFICATE_EXPIRED, preferred=False)], 5, 0, {}),
        # some were seen
        ({UNKNOWN: 5, A: 2}, [A_BAD, B_GOOD], 3, 2, {told(A_BAD): 2}),
        ({UNKNOWN: 5, B: 2}, [A_BAD, B_BAD], 0, 5, {told(B_BAD): 5, told(A_BAD): 3}),
        # more were seen than there are
        ({A: 7}, [A_BAD], 0, 0, {}),
        ({UNKNOWN: 5, A: 10}, [A_BAD], 0, 5, {told(A_BAD): 5}),
        ({UNKNOWN: 5, A: 6, B: 6}, [A_BAD, B_GOOD], 2, 3, {told(A_BAD): 3}),
        ({UNKNOWN: 1, A: 9, B: 1}, [A_BAD, B_GOOD], 0, 1, {told(A_BAD): 1}),
    ],
)
def test_judge(
    unjudged: Mapping[tuple[str, str], int],
    findings: Sequence[Finding],
    successes: int,
    failures: int,
    details: Mapping[Detail, int],
) -> None:
    for order in permutations(findings):
        got = judge(Totals(10, 1, {EXPIRED: 1}, unjudged), order)
        assert got == Totals(10 + successes, 1 + failures, {EXPIRED: 1, **details})


def test_a_finding_adds_to_what_is_there() -> None:
    totals = Totals(0, 1, {told(A_BAD): 1}, {UNKNOWN: 2})
    assert judge(totals, [A_BAD]) == Totals(0, 3, {told(A_BAD): 3})


def test_the_judged_are_left_alone() -> None:
    totals = Totals(3, 1, {EXPIRED: 1})
    assert judge(totals, [A_BAD]) is totals


def mismatch(mx: tuple[str, str]) -> Detail:
    return Detail(R.VALIDATION_FAILURE, "", *mx, "", "mtasts-policy-mx-mismatch")


def test_a_host_that_no_pattern_lists_fails_whatever_its_certificate() -> None:
    key = PolicyKey("sts", D, (), ("a.example.com", "*.example.net"))
    other, single = ("mx.example.org", "192.0.2.9"), ("localhost", "")
    deep = ("a.mx.example.net", "192.0.2.8")
    unjudged = {UNKNOWN: 10, A: 1, other: 2, single: 3, deep: 1, ("mx.example.net", ""): 1}
    got = judge_all({key: Totals(unjudged=unjudged), STS: Totals(1)}, [finding(other, None)])
    details = {mismatch(other): 2, mismatch(single): 3, mismatch(deep): 1}
    assert got == {key: Totals(4, 6, details), STS: Totals(1)}


@pytest.mark.parametrize("count", [MAX_STRINGS, 150])
def test_patterns_that_were_cut_convict_nobody(count: int) -> None:
    width = 30_000 // count
    long = tuple(f"{'x' * width}{n}.example.org" for n in range(count))
    totals = Totals(unjudged={UNKNOWN: 1, A: 1})
    whole = long[: count // 2]
    assert judge(totals, [], whole) == Totals(0, 1, {mismatch(A): 1})
    if count == 150:
        long += ("y" * 3000,)
    assert judge(totals, [], long) == Totals(1)
