"""What every `ports.PolicyStore` must do, as tests: subclass and give the fixture `store`.

class TestMyStore(PolicyStoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[PolicyStore]: ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest

from mtastsd.dane import KEEP_UNDER_ERRORS, DaneBranch, Finding
from mtastsd.names import Domain
from mtastsd.ports import KnownDomain, KnownHop, PolicyStore
from mtastsd.sts.failure import Failure, Kind
from mtastsd.sts.flow import RecordState, StsBranch

NOW = 1_760_000_000.25
HOUR, DAY = 3600.0, 86400.0
BODY = b"version: STSv1\r\nmode: enforce\r\nmx: mx.example.com\r\nmax_age: 604800\r\n"


FAILED = Failure("status", "503")


def known(name: str, *, used_at: float = NOW, **changes: Any) -> KnownDomain:
    """A domain with a policy of a week, fetched an hour ago."""
    fetched = changes.get("fetched_at", NOW - HOUR)
    branch = StsBranch(
        record="present",
        checked_at=NOW - HOUR,
        recheck_at=NOW + HOUR,
        record_id="20250101T000000",
        body=BODY,
        fetched_at=fetched,
        expires_at=fetched + 7 * DAY,
    )
    return KnownDomain(Domain(name), replace(branch, **changes), used_at)


def negative(name: str, *, recheck_at: float, used_at: float = NOW) -> KnownDomain:
    """A domain without a policy."""
    return KnownDomain(Domain(name), StsBranch("absent", NOW - HOUR, recheck_at), used_at)


def hop(
    key: str, finding: Finding = Finding.ALL, *, used_at: float = NOW, **changes: Any
) -> KnownHop:
    """A next hop whose TTLs end in an hour."""
    branch = DaneBranch(finding, NOW, NOW + HOUR, NOW + HOUR)
    return KnownHop(key, replace(branch, **changes), used_at)


async def names(store: PolicyStore, after: str = "") -> list[str]:
    return [row.domain async for row in store.scan(after=after)]


async def domain_in(store: PolicyStore, name: str) -> KnownDomain | None:
    return (await store.load(Domain(name), name))[0]


async def hop_in(store: PolicyStore, name: str, key: str) -> KnownHop | None:
    return (await store.load(Domain(name), key))[1]


FULL = known(
    "full.example",
    used_at=NOW - 0.125,
    record="invalid",
    checked_at=NOW + 0.1,
    recheck_at=NOW + 0.2,
    record_id="a1",
    body=b"version: STSv1\n\x00\xff\xc3\xa4\r\n'; --",
    fetched_at=NOW + 0.3,
    expires_at=NOW + 0.4,
    failure=Failure("syntax", "bad-mx 'x\"y", 3),
    failed_id="b2",
    retry_at=NOW + 0.5,
)

ROUND_TRIPS = [
    FULL,
    known("plain.example"),
    negative("absent.example", recheck_at=NOW + 300.0),
    known("empty-body.example", body=b""),
    known("large.example", body=b"x" * 65536),
    known("no-line.example", failure=Failure("tls", "certificate has expired")),
    known("no-detail.example", failure=Failure("timeout")),
    known("zero-line.example", failure=Failure("syntax", "", 0)),
    known("at-zero.example", used_at=0.0, fetched_at=0.0),
    known("_under-score.xn--mnchen-3ya.example"),
    *(known(f"{state}.example", record=state) for state in get_args(RecordState)),
    *(known(f"{kind}.example", failure=Failure(kind, "x")) for kind in get_args(Kind)),
]

HOPS = ["example.com", "example.com:587", "[example.com]", "[example.com]:587"]


class PolicyStoreContract:
    """Run against an empty `store`."""

    async def test_nothing_is_known_at_first(self, store: PolicyStore) -> None:
        assert await store.load(Domain("a.example"), "a.example") == (None, None)
        assert await store.count() == 0
        assert await names(store) == []
        assert await store.due(now=NOW, refresh=0.0, used_since=0.0, limit=10) == []
        assert await store.delete(Domain("a.example")) is False
        assert await store.forget(unused_since=NOW, now=NOW) == 0

    @pytest.mark.parametrize("row", ROUND_TRIPS, ids=lambda row: row.domain)
    async def test_a_domain_comes_back_as_it_was(
        self, store: PolicyStore, row: KnownDomain
    ) -> None:
        await store.save([row], [])
        assert await store.load(row.domain, row.domain) == (row, None)
        assert [found async for found in store.scan()] == [row]

    @pytest.mark.parametrize("finding", Finding)
    @pytest.mark.parametrize("failing", [False, True])
    async def test_a_hop_comes_back_as_it_was(
        self, store: PolicyStore, finding: Finding, failing: bool
    ) -> None:
        row = hop(
            "a.example",
            finding,
            used_at=NOW + 0.5,
            read_at=NOW + 0.1,
            expires_at=NOW + 0.2,
            recheck_at=NOW + 0.3,
            failing=failing,
        )
        await store.save([], [row])
        assert await store.load(Domain("a.example"), "a.example") == (None, row)

    async def test_each_next_hop_has_its_own_row(self, store: PolicyStore) -> None:
        rows = [hop(key, used_at=NOW + i) for i, key in enumerate(HOPS)]
        await store.save([], rows)
        for row in rows:
            assert await store.load(Domain("example.com"), row.hop) == (None, row)

    async def test_load_takes_both_sides_in_one(self, store: PolicyStore) -> None:
        row, bracketed = known("a.example"), hop("[a.example]:587")
        await store.save([row, known("b.example")], [bracketed, hop("a.example")])
        assert await store.load(row.domain, "[a.example]:587") == (row, bracketed)

    async def test_save_replaces_the_whole_row(self, store: PolicyStore) -> None:
        after = negative("full.example", recheck_at=NOW + 1, used_at=NOW - DAY)
        await store.save([FULL], [hop("full.example", failing=True)])
        await store.save([after], [hop("full.example", Finding.NONE)])
        assert await store.load(FULL.domain, "full.example") == (
            after,
            hop("full.example", Finding.NONE),
        )
        assert await store.count() == 1

    async def test_save_twice_is_save_once(self, store: PolicyStore) -> None:
        for _ in range(2):
            await store.save([FULL], [hop("full.example")])
        assert await store.count() == 1
        assert await store.load(FULL.domain, "full.example") == (FULL, hop("full.example"))

    async def test_the_last_of_one_batch_holds(self, store: PolicyStore) -> None:
        await store.save([known("a.example", record_id="1"), known("a.example", record_id="2")], [])
        assert await domain_in(store, "a.example") == known("a.example", record_id="2")

    async def test_nothing_to_save_is_fine(self, store: PolicyStore) -> None:
        await store.save([], [])
        await store.touch([])
        assert await store.count() == 0

    async def test_calls_at_once(self, store: PolicyStore) -> None:
        rows = [known(f"d{i}.example") for i in range(50)]
        await asyncio.gather(*(store.save([row], [hop(row.domain)]) for row in rows))
        found = await asyncio.gather(*(store.load(row.domain, row.domain) for row in rows))
        assert list(found) == [(row, hop(row.domain)) for row in rows]

    async def test_a_cancelled_caller_does_no_harm(self, store: PolicyStore) -> None:
        rows = [known(f"d{i}.example") for i in range(20)]
        tasks = [asyncio.ensure_future(store.save([row], [])) for row in rows]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.save([known("last.example")], [])
        assert await domain_in(store, "last.example") is not None
        # They had been asked for before: they are written, in their order.
        assert await store.count() == 21

    async def test_touch_moves_forward_only(self, store: PolicyStore) -> None:
        await store.save([known("a.example"), known("b.example"), known("c.example")], [])
        await store.touch(
            [
                (Domain("a.example"), NOW + 5.5),
                (Domain("b.example"), NOW - 5.0),
                (Domain("unknown.example"), NOW),
            ]
        )
        assert [(row.domain, row.used_at) async for row in store.scan()] == [
            ("a.example", NOW + 5.5),
            ("b.example", NOW),
            ("c.example", NOW),
        ]
        assert await domain_in(store, "a.example") == known("a.example", used_at=NOW + 5.5)

    async def test_due_oldest_first_within_bounds(self, store: PolicyStore) -> None:
        await store.save(
            [
                known("b.example", fetched_at=NOW - 3 * DAY),
                known("a.example", fetched_at=NOW - 2 * DAY),
                known("c.example", fetched_at=NOW - 4 * DAY),
                known("expired.example", fetched_at=NOW - 30 * DAY),
                known("fresh.example", fetched_at=NOW - DAY),
                known("unused.example", fetched_at=NOW - 5 * DAY, used_at=NOW - 31 * DAY),
                known("edge.example", fetched_at=NOW - 6 * DAY, used_at=NOW - 30 * DAY),
                known("none.example", body=None, fetched_at=NOW - 9 * DAY),
                known("short.example", fetched_at=NOW - 6 * HOUR, expires_at=NOW + 6 * HOUR),
                known("young.example", fetched_at=NOW - HOUR, expires_at=NOW + 11 * HOUR),
                known("waits.example", fetched_at=NOW - 3 * DAY, failure=FAILED),
                known("tried.example", fetched_at=NOW - 2.5 * DAY, failure=FAILED, recheck_at=NOW),
                negative("absent.example", recheck_at=NOW),
            ],
            [],
        )

        async def due(limit: int) -> Sequence[str]:
            rows = await store.due(
                now=NOW, refresh=1.5 * DAY, used_since=NOW - 30 * DAY, limit=limit
            )
            return [row.domain for row in rows]

        order = [
            "expired.example",
            "edge.example",
            "c.example",
            "b.example",
            "tried.example",
            "a.example",
            "short.example",
        ]
        assert await due(20) == order
        assert await due(2) == order[:2]
        assert await due(0) == []

    async def test_due_gives_whole_rows(self, store: PolicyStore) -> None:
        await store.save([FULL], [])
        assert list(await store.due(now=NOW + DAY, refresh=1.0, used_since=0.0, limit=1)) == [FULL]

    async def test_scan_in_order_of_octets(self, store: PolicyStore) -> None:
        ordered = ["a-b.example", "a.b.example", "a.example", "a0.example", "a_b.example"]
        ordered += ["ab.example", "xn--mnchen-3ya.example", "z.example"]
        await store.save([known(name) for name in reversed(ordered)], [])
        assert await names(store) == ordered
        assert await names(store, after="a.example") == ordered[3:]
        assert await names(store, after="a.exampla") == ordered[2:]
        assert await names(store, after="zz") == []

    async def test_scan_of_many(self, store: PolicyStore) -> None:
        ordered = [f"d{i:04d}.example" for i in range(1000)]
        await store.save([known(name) for name in ordered], [])
        assert await names(store) == ordered
        assert await store.count() == 1000

    async def test_scan_while_rows_come_and_go(self, store: PolicyStore) -> None:
        ordered = [f"d{i:04d}.example" for i in range(1000)]
        await store.save([known(name) for name in ordered], [])
        seen = []
        async for row in store.scan():
            seen.append(row.domain)
            if row.domain == ordered[10]:
                await store.delete(Domain(ordered[900]))
                await store.save([known("e.example")], [])
        # Each row that is there all the time is seen, once; the others may be.
        assert [name for name in seen if name in ordered[:900] + ordered[901:]] == (
            ordered[:900] + ordered[901:]
        )

    async def test_a_scan_that_is_left_bars_nothing(self, store: PolicyStore) -> None:
        await store.save([known("a.example"), known("b.example")], [])
        scan = store.scan()
        assert (await anext(scan)).domain == "a.example"
        await store.save([known("c.example")], [])
        assert await store.delete(Domain("a.example"))
        assert await store.count() == 2

    async def test_forget_the_unused(self, store: PolicyStore) -> None:
        long_ago = NOW - 180 * DAY
        await store.save(
            [
                known("unused.example", used_at=long_ago - 1),
                known("edge.example", used_at=long_ago),
                known("used.example"),
            ],
            [
                hop("unused.example", used_at=long_ago - 1),
                hop("edge.example", used_at=long_ago),
                hop("used.example"),
            ],
        )
        assert await store.forget(unused_since=long_ago, now=NOW) == 2
        assert await names(store) == ["edge.example", "used.example"]
        assert await hop_in(store, "unused.example", "unused.example") is None
        assert await hop_in(store, "edge.example", "edge.example") is not None
        assert await store.forget(unused_since=long_ago, now=NOW) == 0

    async def test_forget_negative_domains_a_day_after_their_recheck(
        self, store: PolicyStore
    ) -> None:
        past = NOW - 10 * DAY
        await store.save(
            [
                negative("over.example", recheck_at=NOW - DAY),
                negative("not-yet.example", recheck_at=NOW - DAY + 1),
                known("expired.example", fetched_at=past, expires_at=NOW, recheck_at=NOW - DAY),
                known("expired-lately.example", fetched_at=past, expires_at=NOW - 1),
                known("holds.example", fetched_at=past, expires_at=NOW + 1, recheck_at=NOW - DAY),
            ],
            [],
        )
        assert await store.forget(unused_since=0.0, now=NOW) == 2
        assert await names(store) == [
            "expired-lately.example",
            "holds.example",
            "not-yet.example",
        ]

    async def test_forget_hops_when_they_can_answer_no_more(self, store: PolicyStore) -> None:
        # Under errors a finding answers for days past its TTL: dropping it would turn DANE off
        # for whoever makes DNS fail.
        over, stale = NOW - DAY, NOW - KEEP_UNDER_ERRORS
        await store.save(
            [],
            [
                hop("error.example", Finding.ERROR, recheck_at=over, expires_at=over),
                hop("error-late.example", Finding.ERROR, recheck_at=over + 1, expires_at=over),
                hop("all.example", recheck_at=over, expires_at=stale + 1),
                hop("all-over.example", recheck_at=over, expires_at=stale),
                hop("none.example", Finding.NONE, recheck_at=over, expires_at=stale + 1),
                hop("failing.example", recheck_at=over + 1, expires_at=stale, failing=True),
            ],
        )
        assert await store.forget(unused_since=0.0, now=NOW) == 2
        left = ["error-late.example", "all.example", "none.example", "failing.example"]
        gone = ["error.example", "all-over.example"]
        for name in left:
            assert await hop_in(store, name, name) is not None
        for name in gone:
            assert await hop_in(store, name, name) is None

    async def test_delete_takes_all_hops_of_a_domain_and_no_other(self, store: PolicyStore) -> None:
        others = ["mx.example.com", "[mx.example.com]:587", "example.com.example", "anexample.com"]
        await store.save(
            [known("example.com"), known("mx.example.com")], [hop(key) for key in HOPS + others]
        )
        assert await store.delete(Domain("example.com")) is True
        assert await names(store) == ["mx.example.com"]
        for key in HOPS:
            assert await store.load(Domain("example.com"), key) == (None, None)
        for key in others:
            name = key.removeprefix("[").partition("]")[0]
            assert await hop_in(store, name, key) == hop(key)
        assert await store.delete(Domain("example.com")) is False

    @pytest.mark.parametrize("key", HOPS)
    async def test_delete_where_only_a_hop_is_known(self, store: PolicyStore, key: str) -> None:
        await store.save([], [hop(key)])
        assert await store.delete(Domain("example.com")) is True
        assert await hop_in(store, "example.com", key) is None

    async def test_close_twice(self, store: PolicyStore) -> None:
        await store.save([FULL], [])
        await store.close()
        await store.close()
