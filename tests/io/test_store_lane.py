"""The lanes of the SQLite store: who waits for whom, and what errors do to a connection."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mtastsd.ports import StoreUnavailable
from mtastsd.store import errors, lane
from mtastsd.store.sqlite import SqliteStore
from tests.io.store_tools import (
    failing,
    files_beside,
    open_at,
    opened,
)
from tests.store_contract import (
    FULL,
    domain_in,
    known,
    names,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "mtastsd.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(path) as store:
        yield store


@asynccontextmanager
async def busy(one: lane.Lane) -> AsyncIterator[None]:
    """A job holds the lane's thread."""
    begun, end = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def job(_connection: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        assert end.wait(30)

    async with asyncio.TaskGroup() as group:
        group.create_task(one.run(job))
        await begun.wait()
        try:
            yield
        finally:
            end.set()


async def test_neither_writes_nor_scans_delay_a_load(store: SqliteStore) -> None:
    await store.save([FULL], [])
    async with busy(store._writer), busy(store._scans):
        assert await domain_in(store, "full.example") == FULL


async def test_writes_do_not_delay_scans(store: SqliteStore) -> None:
    async with busy(store._writer):
        assert await names(store) == []


async def test_close_waits_for_what_was_asked_for(path: Path) -> None:
    store = await open_at(path)
    async with busy(store._writer):
        saves = [
            asyncio.ensure_future(store.save([known(f"d{i}.example")], [])) for i in range(100)
        ]
        await asyncio.sleep(0)
        for save in saves[50:]:
            save.cancel()
        closing = asyncio.ensure_future(store.close())
        await asyncio.sleep(0)
    await closing
    assert all(save.done() for save in saves)
    async with opened(path) as store:
        assert await store.count() == 100


async def test_a_close_that_is_cancelled_still_closes(path: Path) -> None:
    store = await open_at(path)
    async with busy(store._writer):
        save = asyncio.ensure_future(store.save([FULL], []))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(store.close())
        await asyncio.sleep(0)
        closing.cancel()
    await save
    await store.close()
    assert files_beside(path) == ["mtastsd.db"]


async def test_nothing_after_close(path: Path) -> None:
    store = await open_at(path)
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.save([FULL], [])
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.load(FULL.domain, "full.example")


async def test_what_waits_is_bounded(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "MAX_PENDING", 3)
    async with busy(store._writer):
        saves = [asyncio.ensure_future(store.save([known(f"d{i}.example")], [])) for i in range(5)]
        await asyncio.sleep(0)
        assert [save.done() for save in saves] == [False, False, False, True, True]
        assert await names(store) == []
    results = await asyncio.gather(*saves, return_exceptions=True)
    assert [type(result) for result in results] == [type(None)] * 3 + [StoreUnavailable] * 2


# --- errors ---


class Base:
    """A lane of its own, that counts."""

    def __init__(self) -> None:
        self.made = 0
        self.corrupt = 0
        self.refusal: Exception | None = None
        self.lane = lane.Lane("test", self._connect, self._on_corrupt)

    def _connect(self) -> sqlite3.Connection:
        if self.refusal is not None:
            raise self.refusal
        self.made += 1
        return sqlite3.connect(":memory:", isolation_level=None)

    def _on_corrupt(self) -> None:
        self.corrupt += 1


@pytest.fixture
async def base() -> AsyncIterator[Base]:
    base = Base()
    yield base
    await base.lane.close()


async def fine(base: Base) -> bool:
    row: object = await base.lane.run(lambda c: c.execute("SELECT 1").fetchone())
    return row == (1,)


KEEPS, RENEWS, TELLS = (1, 0), (2, 0), (1, 1)
UNAVAILABLE = [
    (sqlite3.SQLITE_BUSY, KEEPS),
    (sqlite3.SQLITE_BUSY_RECOVERY, KEEPS),
    (sqlite3.SQLITE_LOCKED, KEEPS),
    (sqlite3.SQLITE_FULL, KEEPS),
    (sqlite3.SQLITE_IOERR, RENEWS),
    (sqlite3.SQLITE_IOERR_WRITE, RENEWS),
    (sqlite3.SQLITE_IOERR_CORRUPTFS, RENEWS),
    (sqlite3.SQLITE_READONLY, RENEWS),
    (sqlite3.SQLITE_READONLY_DBMOVED, RENEWS),
    (sqlite3.SQLITE_CANTOPEN, RENEWS),
    (sqlite3.SQLITE_NOMEM, RENEWS),
    (sqlite3.SQLITE_CORRUPT, TELLS),
    (sqlite3.SQLITE_CORRUPT_INDEX, TELLS),
    (sqlite3.SQLITE_NOTADB, TELLS),
]


@pytest.mark.parametrize(("code", "counts"), UNAVAILABLE)
async def test_an_outage_and_what_it_does_to_the_connection(
    base: Base, code: int, counts: tuple[int, int]
) -> None:
    assert await fine(base)
    with pytest.raises(StoreUnavailable, match=f"code {code}"):
        await base.lane.run(failing(code))
    assert await fine(base)
    assert (base.made, base.corrupt) == counts


@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT_NOTNULL, sqlite3.SQLITE_MISUSE]
)
async def test_what_is_a_bug_comes_through(base: Base, code: int) -> None:
    with pytest.raises(sqlite3.OperationalError, match=f"code {code}"):
        await base.lane.run(failing(code))
    assert await fine(base)
    assert base.made == 1


@pytest.mark.parametrize("refusal", [errors.StoreLocked, errors.StoreTooNew, errors.StoreCorrupt])
async def test_a_connection_that_is_not_to_be_had(
    base: Base, refusal: type[errors.StoreError]
) -> None:
    base.refusal = refusal("no")
    with pytest.raises(StoreUnavailable, match="no"):
        await fine(base)
    assert base.corrupt == (1 if refusal is errors.StoreCorrupt else 0)
    base.refusal = None
    assert await fine(base)


async def test_a_caller_that_went_away_leaves_no_trace(
    base: Base, caplog: pytest.LogCaptureFixture
) -> None:
    async with busy(base.lane):
        waits = [asyncio.ensure_future(fine(base)) for _ in range(3)]
        waits.append(asyncio.ensure_future(base.lane.run(failing(sqlite3.SQLITE_FULL))))
        await asyncio.sleep(0)
        for wait in waits:
            wait.cancel()
    assert await fine(base)
    assert [wait.cancelled() for wait in waits] == [True] * 4
    assert caplog.records == []  # asyncio logs what goes wrong in a callback


def test_a_loop_that_is_gone() -> None:
    base = Base()
    gate = threading.Event()

    async def leave() -> None:
        base.lane.call(lambda: gate.wait(30))

    asyncio.run(leave())
    gate.set()  # the answer finds no loop

    async def come_back() -> None:
        assert await fine(base)
        await base.lane.close()

    asyncio.run(come_back())


async def test_disconnect_from_outside(base: Base) -> None:
    assert await fine(base)
    await asyncio.to_thread(base.lane.disconnect_from_outside)
    assert await fine(base)
    assert base.made == 2
    await base.lane.close()
    await asyncio.to_thread(base.lane.disconnect_from_outside)
    assert base.lane._connection is None
