"""The collector: sessions in, batches out, whatever the store does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.names import Domain
from mtastsd.ports import StoreUnavailable, TallyBatch
from mtastsd.service import collector as module
from mtastsd.service.collector import Collector
from mtastsd.sts import policy as policies
from mtastsd.sts.policy import Policy
from mtastsd.tlsrpt.session import Detail, PolicyKey, ResultType, Session
from mtastsd.tlsrpt.tally import DomainTally, day_of
from mtastsd.verdict import Verdict, What
from tests.fakeworld import START, TESTING, ManualClock, settle

D = Domain("example.com")


class Batches:
    """The part of `ports.TallyStore` that a collector uses."""

    def __init__(self) -> None:
        self.taken: dict[int, TallyBatch] = {}
        self.broken = False
        self.lost_answers = 0

    async def sequence(self, source: str) -> int:
        if self.broken:
            raise StoreUnavailable("locked")
        return max(self.taken, default=0)

    async def add(self, batch: TallyBatch) -> bool:
        if self.broken:
            raise StoreUnavailable("locked")
        fresh = batch.sequence not in self.taken
        self.taken.setdefault(batch.sequence, batch)
        if self.lost_answers:
            self.lost_answers -= 1
            raise StoreUnavailable("the answer got lost")
        return fresh

    def tallies(self) -> Sequence[DomainTally]:
        return [t for batch in self.taken.values() for t in batch.tallies.values()]

    def sessions(self) -> int:
        return sum(totals.sessions for tally in self.tallies() for totals in tally.values())


class Setup:
    """A collector on batches."""

    def __init__(self) -> None:
        self.store = Batches()
        self.clock = ManualClock()
        self.metrics = Metrics()
        self.known: dict[Domain, Verdict] = {}
        self.collector = Collector(
            self.store,  # type: ignore[arg-type]
            self.known.get,
            source="test",
            both=False,
            clock=self.clock,
            log=Log(logging.getLogger("mtastsd")),
            metrics=self.metrics,
        )

    def session(self, *, success: bool = True, at: float | None = None) -> Session:
        moment = self.clock.now() if at is None else at
        return Session(moment, D, PolicyKey("no-policy-found", D), success)


@pytest.fixture
def setup() -> Setup:
    return Setup()


def a_testing_verdict() -> Verdict:
    policy = policies.parse(TESTING)
    assert isinstance(policy, Policy)
    return Verdict(D, What.NOTHING, "sts-testing", START + 60, policy=policy)


async def test_written_every_second_and_only_when_there_is_something(setup: Setup) -> None:
    running = asyncio.ensure_future(setup.collector.run())
    await settle()
    await setup.clock.advance(5)
    assert setup.store.taken == {}
    setup.collector.take(setup.session(), 7)
    setup.collector.take(setup.session(success=False))
    await setup.clock.advance(module.FLUSH_EVERY)
    assert (list(setup.store.taken), setup.store.sessions()) == ([1], 8)
    running.cancel()


async def test_a_store_that_is_away_loses_nothing_and_doubles_nothing(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    setup.store.broken = True
    with caplog.at_level(logging.INFO, "mtastsd"):
        for _ in range(5):
            setup.collector.take(setup.session())
            assert not await setup.collector.flush()
        setup.store.broken = False
        setup.store.lost_answers = 1
        assert not await setup.collector.flush()
        assert await setup.collector.flush()
    assert setup.store.sessions() == 5
    events = [r.getMessage() for r in caplog.records]
    assert events.count("store-unavailable") == 1  # once an outage
    assert events.count("store-back") == 1


async def test_numbers_go_on_after_a_restart(setup: Setup) -> None:
    setup.collector.take(setup.session())
    await setup.collector.flush()
    fresh = Setup()
    fresh.collector._store = setup.store  # type: ignore[assignment]
    fresh.collector.take(setup.session())
    await fresh.collector.flush()
    assert (list(setup.store.taken), setup.store.sessions()) == ([1, 2], 2)


async def test_a_session_counts_for_the_day_on_which_it_was(setup: Setup) -> None:
    midnight = (day_of(START) + 1) * 86400.0
    setup.collector.take(setup.session(at=midnight - 1))
    setup.collector.take(setup.session(at=midnight))
    await setup.collector.flush()
    [batch] = setup.store.taken.values()
    assert sorted(day for day, _ in batch.tallies) == [day_of(START), day_of(START) + 1]


async def test_positions_of_readers_come_with_what_was_read(setup: Setup) -> None:
    setup.collector.at("file", "17")
    await setup.collector.flush()
    setup.collector.take(setup.session())
    setup.collector.at("file", "42")
    await setup.collector.flush()
    assert [dict(b.cursors) for b in setup.store.taken.values()] == [{"file": "17"}, {"file": "42"}]


async def test_joined_with_what_was_answered_else_with_what_is_known(setup: Setup) -> None:
    setup.collector.take(setup.session())
    setup.known[D] = a_testing_verdict()
    setup.collector.take(setup.session())
    setup.known.clear()
    setup.collector.answered(a_testing_verdict())
    setup.collector.take(setup.session())
    await setup.collector.flush()
    [tally] = setup.store.tallies()
    assert {key.type: totals.sessions for key, totals in tally.items()} == {
        "no-policy-found": 1,
        "sts": 2,
    }


async def test_what_a_probe_must_judge_is_handed_on(setup: Setup) -> None:
    asked: list[Session] = []
    setup.collector.on_unjudged = asked.append
    setup.collector.take(setup.session())
    assert asked == []
    setup.collector.answered(a_testing_verdict())
    setup.collector.take(setup.session())
    assert len(asked) == 1


async def test_memory_is_bounded_and_drops_are_counted(setup: Setup) -> None:
    setup.collector._tallies.limit = 10
    for n in range(50):
        domain = Domain(f"d{n}.example.net")
        setup.collector.take(Session(START, domain, PolicyKey("no-policy-found", domain), True))
    dropped = setup.metrics.registry.get_sample_value("mtastsd_sessions_dropped_total") or 0
    await setup.collector.flush()
    assert 0 < dropped < 50
    assert setup.store.sessions() + dropped == 50


async def test_our_address_stands_in_what_a_log_tells(setup: Setup) -> None:
    setup.collector.sending_ip = "192.0.2.1"
    failed = Detail(ResultType.CERTIFICATE_EXPIRED, mx_host="mx.example.com")
    key = PolicyKey("no-policy-found", D)
    setup.collector.take(Session(START, D, key, False, (failed,), source="log"))
    setup.collector.take(Session(START, D, key, False, (failed,)))
    await setup.collector.flush()
    [tally] = setup.store.tallies()
    assert [sorted(d.sending_ip for d in t.details) for t in tally.values()] == [["", "192.0.2.1"]]
