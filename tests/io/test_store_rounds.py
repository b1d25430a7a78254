"""Calls that are made together: who gets which result, and that none takes another with it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from mtastsd.names import Domain
from mtastsd.ports import StoreUnavailable
from mtastsd.store.lane import Lane
from mtastsd.store.rounds import Rounds
from tests.io.store_tools import opened
from tests.io.test_store_lane import busy
from tests.store_contract import hop, known


class Doubles:
    """Doubles numbers; notes each round; fails where a round has a number below zero."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.lane = Lane("test", lambda: sqlite3.connect(":memory:"), lambda: None)
        self.made = Rounds(self.lane, self._work)

    def _work(self, numbers: Sequence[int], connection: sqlite3.Connection) -> Sequence[int]:
        self.rounds.append(list(numbers))
        if min(numbers) < 0:
            raise sqlite3.OperationalError("below zero")
        return [2 * number for number in numbers]


@pytest.fixture
async def doubles() -> AsyncIterator[Doubles]:
    doubles = Doubles()
    yield doubles
    await doubles.lane.close()


async def test_one_call_is_made_at_once(doubles: Doubles) -> None:
    assert await doubles.made.call(1) == 2
    assert await doubles.made.call(2) == 4
    assert doubles.rounds == [[1], [2]]


async def test_what_waits_is_made_together(doubles: Doubles) -> None:
    async with busy(doubles.lane):
        calls = [doubles.made.call(number) for number in range(200)]
        doubles.made.begin()
    assert await asyncio.gather(*calls) == [2 * number for number in range(200)]
    assert doubles.rounds == [list(range(200))]


async def test_one_that_fails_fails_alone(doubles: Doubles) -> None:
    async with busy(doubles.lane):
        calls = [doubles.made.call(number) for number in (1, -2, 3)]
        doubles.made.begin()
    one, two, three = await asyncio.gather(*calls, return_exceptions=True)
    assert (one, three) == (2, 6)
    assert isinstance(two, sqlite3.OperationalError)
    assert doubles.rounds == [[1, -2, 3], [1], [-2], [3]]


async def test_one_alone_is_not_tried_twice(doubles: Doubles) -> None:
    with pytest.raises(sqlite3.OperationalError):
        await doubles.made.call(-1)
    assert doubles.rounds == [[-1]]


async def test_a_caller_that_goes_away_stops_nothing(doubles: Doubles) -> None:
    async with busy(doubles.lane):
        calls = [doubles.made.call(number) for number in (1, 2, 3)]
        calls[0].cancel()
        doubles.made.begin()
    assert await asyncio.gather(*calls[1:]) == [4, 6]
    assert doubles.rounds == [[1, 2, 3]]


async def test_one_that_comes_later_waits_for_what_came_between(doubles: Doubles) -> None:
    order: list[object] = []
    async with busy(doubles.lane):
        first = doubles.made.call(1)
        doubles.made.begin()
        between = doubles.lane.call(lambda: order.append(list(doubles.rounds)))
    await first
    second = doubles.made.call(2)
    await asyncio.gather(between, second)
    assert order == [[[1]]]
    assert doubles.rounds == [[1], [2]]


async def test_what_waits_when_the_lane_is_closed_is_made(doubles: Doubles) -> None:
    async with busy(doubles.lane):
        calls = [doubles.made.call(number) for number in (1, 2)]
        doubles.made.begin()
        closing = doubles.lane.close()
        doubles.made.begin()  # the loop's own turn, which comes after the close
    assert await asyncio.gather(*calls) == [2, 4]
    await closing
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="closed"):
            await doubles.made.call(3)
    assert doubles.rounds == [[1, 2]]


@pytest.mark.parametrize("gather", [0.0, 0.001])
async def test_calls_of_one_turn_or_span_are_gathered(doubles: Doubles, gather: float) -> None:
    made = Rounds(doubles.lane, doubles._work, gather)
    calls = [made.call(number) for number in range(5)]
    if gather:
        await asyncio.sleep(0)
        calls.append(made.call(5))
    await asyncio.gather(*calls)
    assert doubles.rounds == [list(range(len(calls)))]


def test_a_loop_that_is_gone_begins_no_round_and_bars_none() -> None:
    async def leave() -> Doubles:
        doubles = Doubles()
        doubles.made = Rounds(doubles.lane, doubles._work, 0.05)
        doubles.made.call(1)
        return doubles

    doubles = asyncio.run(leave())

    async def come_back() -> None:
        assert await doubles.made.call(2) == 4
        await doubles.lane.close()

    asyncio.run(come_back())
    assert [number for numbers in doubles.rounds for number in numbers] == [1, 2]


async def test_saves_are_committed_together(tmp_path: Path) -> None:
    said: list[str] = []
    names = [f"d{number}.example" for number in range(50)]
    async with opened(tmp_path / "x.db") as store:
        await store._writer.run(lambda connection: connection.set_trace_callback(said.append))
        async with busy(store._writer):
            saves = [asyncio.ensure_future(store.save([known(n)], [hop(n)])) for n in names]
            await asyncio.sleep(0)
        await asyncio.gather(*saves)
        assert [said.count("BEGIN IMMEDIATE"), said.count("COMMIT")] == [1, 1]
        async with busy(store._loads):
            loads = [asyncio.ensure_future(store.load(Domain(n), n)) for n in names]
            await asyncio.sleep(0)
        assert await asyncio.gather(*loads) == [(known(n), hop(n)) for n in names]
