"""The schema: its steps, and that statements find what they look for by an index."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mtastsd.ports import StoreUnavailable
from mtastsd.store import errors, files, migrations, sqlite
from mtastsd.store.migrations import Migration
from mtastsd.store.sqlite import SqliteStore
from tests.io.store_tools import (
    open_at,
    opened,
    sql,
)
from tests.store_contract import (
    FULL,
    NOW,
    names,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "mtastsd.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(path) as store:
        yield store


DUE = {"now": 1.0, "refresh": 1.0, "used_since": 1.0, "limit": 1, "share": 0.8, "retry": 1.0}
PLANS = [
    (sqlite._LOAD, ("a", "a", "a")),
    (sqlite._DUE, DUE),
    (sqlite._DUE_SHORT, DUE),
    (sqlite._SCAN, ("a",)),
    (sqlite._TOUCH, (1.0, "a", 1.0)),
    ("DELETE FROM next_hop WHERE domain = ?", ("a",)),
]


@pytest.mark.parametrize(("statement", "values"), PLANS, ids=lambda value: str(value).split()[0])
async def test_statements_use_an_index_and_sort_nothing(
    store: SqliteStore, statement: str, values: tuple[object, ...] | dict[str, object]
) -> None:
    plan = await store._scans.run(
        lambda c: [row[3] for row in c.execute("EXPLAIN QUERY PLAN " + statement, values)]
    )
    assert [step for step in plan if step.startswith("SEARCH")]
    assert not [step for step in plan if "TEMP B-TREE" in step]
    assert not [step for step in plan if step.startswith(("SCAN policy_domain", "SCAN next_hop"))]


SETTINGS = [
    ("journal_mode", "wal"),
    ("synchronous", 1),  # NORMAL
    ("foreign_keys", 1),
    ("cache_size", -files.CACHE_KIB),  # what is resident does not grow with the file
    ("busy_timeout", 5000),
    ("journal_size_limit", files.WAL_KEEP),
]


@pytest.mark.parametrize(("name", "value"), SETTINGS)
async def test_the_writers_settings(store: SqliteStore, name: str, value: object) -> None:
    assert await store._writer.run(lambda c: c.execute(f"PRAGMA {name}").fetchone()) == (value,)


async def test_readers_can_not_write(store: SqliteStore) -> None:
    for one in (store._loads, store._scans):
        assert await one.run(lambda c: c.execute("PRAGMA cache_size").fetchone()) == (
            -files.CACHE_KIB,
        )
        with pytest.raises(StoreUnavailable, match="readonly"):
            await one.run(lambda c: c.execute("DELETE FROM policy_domain"))


def test_migrations_are_numbered_without_a_gap() -> None:
    steps = migrations.load("sqlite")
    assert [step.version for step in steps] == list(range(1, len(steps) + 1))
    assert steps[0].name == "policies"


SECOND = Migration(2, "more", "-- c;\nALTER TABLE policy_domain\nADD COLUMN more TEXT;\n-- end")
BROKEN = Migration(2, "broken", "CREATE TABLE more (x);\nCREATE TABLE more (x);")
UNENDED = Migration(2, "unended", "CREATE TABLE more (x);\nCREATE TABLE other (")


async def test_an_older_schema_is_brought_up_to_date(path: Path) -> None:
    async with opened(path) as store:
        await store.save([FULL], [])
    steps = (*migrations.load("sqlite"), SECOND)
    for _ in range(2):
        files.open_writer(path, 1.0, steps, NOW + 5).close()
    assert sql(path, "SELECT domain, more FROM policy_domain") == [("full.example", None)]
    assert sql(path, "SELECT version, name, applied_at FROM schema_step") == [
        (1, "policies", NOW),
        (2, "more", NOW + 5),
    ]
    with pytest.raises(errors.StoreTooNew):
        await open_at(path)


@pytest.mark.parametrize("step", [BROKEN, UNENDED], ids=lambda step: step.name)
async def test_a_step_that_fails_leaves_the_file_as_it_was(path: Path, step: Migration) -> None:
    async with opened(path) as store:
        await store.save([FULL], [])
    before = sql(path, "SELECT name FROM sqlite_schema")
    with pytest.raises(sqlite3.OperationalError):
        files.open_writer(path, 1.0, (*migrations.load("sqlite"), step), NOW)
    assert sql(path, "SELECT name FROM sqlite_schema") == before
    async with opened(path) as store:
        assert await names(store) == ["full.example"]
