"""The schema: its steps, and that statements find what they look for by an index."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mtastsd.names import Domain
from mtastsd.ports import StoreUnavailable, TallyBatch
from mtastsd.store import errors, files, migrations, rows, sqlite, tlsrptrows
from mtastsd.store import sqlite_outbox as outbox
from mtastsd.store import sqlite_tallies as tallies
from mtastsd.store.migrations import Migration
from mtastsd.store.sqlite import SqliteStore
from mtastsd.tlsrpt.session import PolicyKey
from mtastsd.tlsrpt.tally import Day, DomainTally, Totals
from tests.io.store_tools import (
    open_at,
    opened,
    sql,
)
from tests.store_contract import (
    FULL,
    NOW,
    domain_in,
    names,
)

STEPS = migrations.load("sqlite")
NEXT = len(STEPS) + 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "mtastsd.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(path) as store:
        yield store


DUE = {"now": 1.0, "refresh": 1.0, "used_since": 1.0, "limit": 1, "share": 0.8, "retry": 1.0}
DELIVERY = dict.fromkeys((*tlsrptrows.DELIVERY_COLUMNS, "reason"), 1)
PLANS = [
    (sqlite._LOAD, ("a", "a", "a")),
    (sqlite._DUE, DUE),
    (sqlite._DUE_SHORT, DUE),
    (sqlite._SCAN, ("a",)),
    (sqlite._TOUCH, (1.0, "a", 1.0)),
    ("DELETE FROM next_hop WHERE domain = ?", ("a",)),
    (tallies._DAYS, {"before": 1}),
    (tallies._OVER, {"before": 1}),
    (tallies._WAITING, (1, "a", 1)),
    (tallies._READ_TOTALS, (1, "a")),
    (tallies._READ_DETAILS, (1, "a")),
    (tallies._READ_UNJUDGED, (1, "a")),
    (tallies._READ_DETAILS + " AND policy = ?", (1, "a", 1)),
    (tallies._FINDINGS, (1, "a")),
    (tallies._NEXT_PAGE, (1,)),
    (tallies._LONE_FINDINGS, (1,)),
    (outbox._SETTLED, (1, "a", 1)),
    (outbox._DUE, (1.0, 1)),
    (outbox._WAITING, ()),
    (outbox._UPDATE, DELIVERY),
    (outbox._LOAD, (1, "a")),
    (outbox._FORGET, (1.0,)),
    outbox.reports_query(None, None, "", 1),
    outbox.reports_query(Day(1), None, "", 1),
]
SORTED = [  # a few rows: those of one domain, or of one report
    outbox.reports_query(None, Domain("a.example"), "", 1),
    outbox.reports_query(Day(1), Domain("a.example"), "", 1),
    (outbox._DELIVERIES, ("a",)),
]


Values = tuple[object, ...] | dict[str, object]


def ids(value: object) -> str:
    return str(value).split()[0]


async def steps_of(store: SqliteStore, statement: str, values: Values) -> list[str]:
    return await store.read(
        lambda c: [row[3] for row in c.execute("EXPLAIN QUERY PLAN " + statement, values)]
    )


@pytest.mark.parametrize(("statement", "values"), PLANS, ids=ids)
async def test_statements_use_an_index_and_sort_nothing(
    store: SqliteStore, statement: str, values: Values
) -> None:
    plan = await steps_of(store, statement, values)
    assert [step for step in plan if step.startswith("SEARCH")]
    assert not [step for step in plan if "TEMP B-TREE" in step]
    # Other scans are of what the statement itself makes.
    assert not [step for step in plan if re.match(r"SCAN (TABLE )?([a-z]+_[a-z]+|[dhpt])\b", step)]
    assert not [step for step in plan if re.match(r"SCAN (TABLE )?(tally|finding|report)", step)]


@pytest.mark.parametrize(("statement", "values"), SORTED, ids=ids)
async def test_statements_that_sort_use_an_index(
    store: SqliteStore, statement: str, values: Values
) -> None:
    plan = await steps_of(store, statement, values)
    assert [step for step in plan if step.startswith("SEARCH")]
    assert not [step for step in plan if step.startswith("SCAN")]


CROWDED = [
    (tallies._CROWDED_TALLIES, "SCAN tally USING INDEX tally_crowded"),
    (tallies._CROWDED_DAYS, "SCAN domain_day USING INDEX domain_day_crowded"),
]


@pytest.mark.parametrize(("statement", "plan"), CROWDED, ids=ids)
async def test_what_is_crowded_is_found_without_a_search(
    store: SqliteStore, statement: str, plan: str
) -> None:
    """The index holds only such rows; it is used only where schema and code name one limit."""
    assert await steps_of(store, statement, ()) == [plan]


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
    assert [step.version for step in STEPS] == list(range(1, len(STEPS) + 1))
    assert [step.name for step in STEPS] == ["policies", "tlsrpt"]


ONE: DomainTally = {PolicyKey("no-policy-found", FULL.domain): Totals(1)}
MORE = Migration(NEXT, "more", "-- c;\nALTER TABLE policy_domain\nADD COLUMN more TEXT;\n-- end")
BROKEN = Migration(NEXT, "broken", "CREATE TABLE more (x);\nCREATE TABLE more (x);")
UNENDED = Migration(NEXT, "unended", "CREATE TABLE more (x);\nCREATE TABLE other (")


async def test_an_older_schema_is_brought_up_to_date(path: Path) -> None:
    async with opened(path) as store:
        await store.save([FULL], [])
    steps = (*STEPS, MORE)
    for _ in range(2):
        files.open_writer(path, 1.0, steps, NOW + 5).close()
    assert sql(path, "SELECT domain, more FROM policy_domain") == [("full.example", None)]
    assert sql(path, "SELECT version, name, applied_at FROM schema_step") == [
        *((step.version, step.name, NOW) for step in STEPS),
        (NEXT, "more", NOW + 5),
    ]
    with pytest.raises(errors.StoreTooNew):
        await open_at(path)


async def test_a_store_from_before_tls_rpt(path: Path) -> None:
    old = files.open_writer(path, 1.0, STEPS[:1], NOW - 5)
    old.execute(sqlite._SAVE_DOMAIN, rows.domain_values(FULL))
    old.close()
    async with opened(path) as store:
        assert await domain_in(store, "full.example") == FULL
        batch = TallyBatch("local", 1, {(Day(1), FULL.domain): ONE}, {})
        assert await store.tallies.add(batch)
        assert await store.tallies.tally(Day(1), FULL.domain) == ONE
        assert await store.outbox.settle(Day(1), FULL.domain, "no-record", None, ())
    assert sql(path, "SELECT version, applied_at FROM schema_step") == [(1, NOW - 5), (2, NOW)]


@pytest.mark.parametrize("step", [BROKEN, UNENDED], ids=lambda step: step.name)
async def test_a_step_that_fails_leaves_the_file_as_it_was(path: Path, step: Migration) -> None:
    async with opened(path) as store:
        await store.save([FULL], [])
    before = sql(path, "SELECT name FROM sqlite_schema")
    with pytest.raises(sqlite3.OperationalError):
        files.open_writer(path, 1.0, (*STEPS, step), NOW)
    assert sql(path, "SELECT name FROM sqlite_schema") == before
    async with opened(path) as store:
        assert await names(store) == ["full.example"]
