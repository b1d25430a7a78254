"""The SQLite store: the contract, SIGKILL, and faults while it runs."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtastsd.dane import Finding
from mtastsd.names import Domain
from mtastsd.ports import PolicyStore, StoreUnavailable
from mtastsd.store.sqlite import SqliteStore
from tests.fakes import MemoryStore
from tests.io import store_child
from tests.io.store_tools import (
    child,
    failing,
    files_beside,
    held,
    opened,
    said_by_child,
    sql,
)
from tests.store_contract import (
    DAY,
    FULL,
    HOPS,
    NOW,
    PolicyStoreContract,
    domain_in,
    hop,
    known,
    names,
    negative,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "mtastsd.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(path) as store:
        yield store


class TestSqliteStore(PolicyStoreContract):
    @pytest.fixture
    async def store(self, path: Path) -> AsyncIterator[PolicyStore]:
        async with opened(path) as store:
            yield store


# --- SIGKILL ---


async def test_what_was_saved_survives_sigkill(path: Path) -> None:
    with child("fill", path) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(30)]
        process.kill()
        told += [int(line) for line in process.stdout]  # said before the kill, read after
    async with opened(path) as store:
        rows = {row.domain: row async for row in store.scan()}
        for number in told:
            for name in store_child.batch(number):
                assert rows.get(Domain(name)) == known(name)
                assert (await store.load(Domain(name), name))[1] == hop(name)
    # The batch under way is there whole or not at all.
    assert len(rows) % store_child.BATCH == 0


# --- faults while it runs ---


async def test_a_lock_while_it_runs(path: Path) -> None:
    async with opened(path, write_wait=0.05) as store:
        await store.save([FULL], [])
        with held(path, "write"):
            saves = [store.save([known(f"d{i}.example")], []) for i in range(20)]
            results = await asyncio.gather(*saves, return_exceptions=True)
            assert all(isinstance(result, StoreUnavailable) for result in results)
            with pytest.raises(StoreUnavailable, match="locked"):
                await store.forget(unused_since=NOW + 1, now=NOW)
            assert await domain_in(store, "full.example") == FULL
            assert await names(store) == ["full.example"]
            assert await _busy_timeout(store) == 0  # the twenty did not wait one after the other
        await store.save([known("after.example")], [])
        assert await names(store) == ["after.example", "full.example"]
        assert await _busy_timeout(store) == 50


async def _busy_timeout(store: SqliteStore) -> int:
    row = await store._writer.run(lambda c: c.execute("PRAGMA busy_timeout").fetchone())
    return int(row[0])


async def test_a_full_disk_while_it_runs(store: SqliteStore) -> None:
    async def pages(most: int) -> None:
        await store._writer.run(lambda c: c.execute(f"PRAGMA max_page_count = {most}").fetchall())

    await store.save([FULL], [])
    await pages(20)
    with pytest.raises(StoreUnavailable, match="full"):
        await store.save([known(f"d{i}.example", body=b"x" * 8192) for i in range(50)], [])
    assert await names(store) == ["full.example"]  # no half of a batch
    assert await domain_in(store, "full.example") == FULL
    await pages(100_000)
    await store.save([known("after.example")], [])
    assert await names(store) == ["after.example", "full.example"]


def test_files_that_can_not_grow(path: Path) -> None:
    assert said_by_child("limit", path) == ["failed", "read", "whole", "back"]


async def test_a_file_that_was_removed_is_made_anew(path: Path, store: SqliteStore) -> None:
    await store.save([FULL], [])
    assert await domain_in(store, "full.example") == FULL
    for name in files_beside(path):
        os.unlink(path.with_name(name))
    with pytest.raises(StoreUnavailable):
        await store._writer.run(failing(sqlite3.SQLITE_IOERR))
    await store.save([known("after.example")], [])
    assert await domain_in(store, "full.example") is None
    assert await names(store) == ["after.example"]


async def test_a_bug_is_no_outage(store: SqliteStore) -> None:
    with pytest.raises(sqlite3.OperationalError, match="nonsense"):
        await store.write(lambda connection: connection.execute("nonsense"))
    with pytest.raises(ZeroDivisionError):
        await store.write(lambda connection: 1 // 0)
    await store.save([FULL], [])
    assert await names(store) == ["full.example"]


async def test_words_of_another_version_are_not_known(path: Path, store: SqliteStore) -> None:
    rows = [known(f"{name}.example") for name in "abc"]
    await store.save(rows, [hop("b.example")])
    sql(path, "UPDATE policy_domain SET record = 'new' WHERE domain = 'b.example'")
    sql(path, "UPDATE next_hop SET finding = 'new'")
    assert await store.load(Domain("b.example"), "b.example") == (None, None)
    assert [row async for row in store.scan()] == [rows[0], rows[2]]
    assert len(await store.due(now=NOW, refresh=1.0, used_since=0.0, limit=9)) == 2
    await store.save([rows[1]], [hop("b.example")])
    assert await store.load(Domain("b.example"), "b.example") == (rows[1], hop("b.example"))


# --- against the model ---


_NAMES = st.sampled_from(["a.example", "b.a.example", "a-.example", "z.example"])
_TIMES = st.integers(-12, 3).map(lambda days: NOW + days * DAY)
_DOMAINS = st.one_of(
    st.builds(known, _NAMES, used_at=_TIMES, fetched_at=_TIMES, recheck_at=_TIMES),
    st.builds(negative, _NAMES, used_at=_TIMES, recheck_at=_TIMES),
)
_KEYS = _NAMES.flatmap(
    lambda name: st.sampled_from([key.replace("example.com", name) for key in HOPS])
)
_HOPS = st.builds(
    hop, _KEYS, st.sampled_from(Finding), used_at=_TIMES, expires_at=_TIMES, recheck_at=_TIMES
)
_CALLS = st.one_of(
    st.tuples(st.just("save"), st.lists(_DOMAINS, max_size=3), st.lists(_HOPS, max_size=3)),
    st.tuples(st.just("touch"), st.lists(st.tuples(_NAMES, _TIMES), max_size=3)),
    st.tuples(st.just("forget"), _TIMES),
    st.tuples(st.just("delete"), _NAMES),
    _KEYS.map(lambda key: ("load", _domain_of(key), key)),
)


async def _apply(store: PolicyStore, call: tuple[Any, ...]) -> object:
    name, *args = call
    if name == "forget":
        return await store.forget(unused_since=args[0], now=NOW)
    return await getattr(store, name)(*args)


def _domain_of(key: str) -> Domain:
    return Domain(key.strip("[]:0123456789"))


async def _agree(path: Path, calls: list[tuple[Any, ...]]) -> None:
    model = MemoryStore()
    async with opened(path) as store:
        for call in calls:
            assert await _apply(store, call) == await _apply(model, call), call
        assert [row async for row in store.scan()] == [row async for row in model.scan()]
        for key, row in model.hops.items():
            domain = _domain_of(key)
            assert await store.load(domain, key) == (model.domains.get(domain), row)
        bounds = {"now": NOW, "refresh": DAY, "used_since": NOW - 5 * DAY}
        due = await store.due(**bounds, limit=100)
        assert set(due) == set(await model.due(**bounds, limit=100))
        fetched = [row.sts.fetched_at for row in due]
        assert fetched == sorted(fetched)


@settings(max_examples=50, deadline=None)
@given(st.lists(_CALLS, max_size=12))
def test_any_calls_do_what_they_do_to_the_model(calls: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_agree(Path(folder) / "x.db", calls))
