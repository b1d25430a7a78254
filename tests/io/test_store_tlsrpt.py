"""Tallies and outbox on SQLite: the contracts, bounds in the file, and any calls at all."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtastsd.names import Domain
from mtastsd.ports import Outbox, TallyStore
from mtastsd.store import sqlite_outbox, sqlite_tallies
from mtastsd.store.sqlite import SqliteStore
from mtastsd.tlsrpt import tally as rules
from mtastsd.tlsrpt.session import PolicyKey, ResultType
from mtastsd.tlsrpt.tally import (
    MAX_DETAILS,
    MAX_POLICIES,
    MAX_UNJUDGED,
    Day,
    DomainTally,
    Totals,
    merge,
)
from tests.fakes import MemoryOutbox, MemoryTallyStore
from tests.io.store_tools import opened, sql, wrong
from tests.outbox_contract import MAIL, NOW, POST, OutboxContract, delivery, report, send
from tests.tally_contract import (
    DAY,
    EXPIRED,
    FINDINGS,
    NONE,
    RESULTS,
    ROUND_TRIPS,
    TALLIES,
    TLSA,
    A,
    B,
    TallyStoreContract,
    batch,
    open_domains,
    put,
    varied,
)

NEXT_DAY = Day(DAY + 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "mtastsd.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(path) as store:
        yield store


class TestSqliteTallies(TallyStoreContract):
    @pytest.fixture
    def store(self, database: SqliteStore) -> TallyStore:
        return database.tallies

    @pytest.fixture
    def outbox(self, database: SqliteStore) -> Outbox:
        return database.outbox


class TestSqliteOutbox(OutboxContract):
    @pytest.fixture
    def tallies(self, database: SqliteStore) -> TallyStore:
        return database.tallies

    @pytest.fixture
    def outbox(self, database: SqliteStore) -> Outbox:
        return database.outbox


COUNTED = ("tally", "tally_detail", "tally_unjudged", "tls_policy")


def rows_in(path: Path, *tables: str) -> dict[str, int]:
    return {table: sql(path, f"SELECT count(*) FROM {table}")[0][0] for table in tables or COUNTED}


# --- size ---


def test_what_is_cut_is_less_than_what_makes_cut() -> None:
    kinds = len(ResultType)
    assert sqlite_tallies.MOST_POLICIES == 2 * MAX_POLICIES
    assert sqlite_tallies.MOST_VARIETY == 2 * (MAX_DETAILS + MAX_UNJUDGED)
    assert MAX_DETAILS + kinds + MAX_UNJUDGED + 1 < sqlite_tallies.MOST_VARIETY


async def test_a_hostile_server_fills_no_disk(path: Path, database: SqliteStore) -> None:
    parts = [varied(start, 700) for start in range(0, 7000, 700)]
    for part in reversed(parts):
        await put(database.tallies, DAY, A, part)
    await database.outbox.settle(DAY, A, "no-record", None, ())
    await put(database.tallies, DAY, A, parts[0])
    rows = rows_in(path)
    assert rows["tally"] == rows["tls_policy"] == 1
    assert rows["tally_detail"] + rows["tally_unjudged"] <= sqlite_tallies.MOST_VARIETY
    assert wrong(path) == []
    assert await database.tallies.tally(DAY, A) == reduce(merge, [*parts, parts[0]])
    assert await database.outbox.settled(DAY, after="", limit=9) == [(A, "no-record")]


async def test_nor_does_one_that_changes_its_policy_all_day(
    path: Path, database: SqliteStore
) -> None:
    keys = [PolicyKey("tlsa", A, (f"3 1 1 {n:04X}", "x" * 3000)) for n in range(600)]
    await put(database.tallies, DAY, B, {keys[7]: Totals(1), keys[599]: Totals(1)})
    parts: list[DomainTally] = [
        {key: Totals(1, 1, {EXPIRED: 1}) for key in keys[n : n + 50]} for n in range(0, 600, 50)
    ]
    for part in parts:
        await put(database.tallies, DAY, A, part)
    rows = rows_in(path)
    assert rows["tally"] <= sqlite_tallies.MOST_POLICIES + 2
    assert rows["tls_policy"] <= sqlite_tallies.MOST_POLICIES + 1  # B has one that A has not
    assert wrong(path) == []
    assert await database.tallies.tally(DAY, A) == reduce(merge, parts)
    assert await database.tallies.tally(DAY, B) == {keys[7]: Totals(1), keys[599]: Totals(1)}


async def test_a_policy_is_kept_once(path: Path, database: SqliteStore) -> None:
    domains = [Domain(f"d{n}.example") for n in range(50)]
    for day in (DAY, NEXT_DAY):
        tallies = {(day, domain): {TLSA: Totals(1), NONE: Totals(1)} for domain in domains}
        assert await database.tallies.add(batch(day, tallies))
    assert rows_in(path) == {"tally": 200, "tally_detail": 0, "tally_unjudged": 0, "tls_policy": 2}


async def test_what_is_forgotten_leaves_nothing(
    path: Path, database: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pages: what is left of a day between two is as whole as any."""
    page = sqlite_tallies._NEXT_PAGE.replace(f"OFFSET {sqlite_tallies.FORGET_AT_ONCE}", "OFFSET 2")
    assert page != sqlite_tallies._NEXT_PAGE
    monkeypatch.setattr(sqlite_tallies, "_NEXT_PAGE", page)
    domains = [Domain(f"d{n}.example") for n in range(7)]
    for day, count in ((DAY, 7), (NEXT_DAY, 4)):
        some = domains[:count]
        tally = ROUND_TRIPS["unjudged"]
        await database.tallies.add(batch(day, {(day, domain): tally for domain in some}))
        await database.tallies.note(day, [replace(FINDINGS[0], domain=domain) for domain in some])
        for domain in some:
            await database.outbox.settle(day, domain, "no-record", None, ())
    assert await database.tallies.forget_days(before=Day(DAY + 2)) == 2
    tables = ("domain_day", "finding", *COUNTED)
    assert rows_in(path, *tables) == dict.fromkeys(tables, 0)
    assert not any((await database.outbox.counts()).values())


async def test_reports_are_forgotten_in_pages(
    path: Path, database: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = sqlite_outbox._FORGET.replace(f"LIMIT {sqlite_outbox.FORGET_AT_ONCE}", "LIMIT 2")
    assert page != sqlite_outbox._FORGET
    monkeypatch.setattr(sqlite_outbox, "_FORGET", page)
    for n in range(7):
        await send(database.outbox, report(Domain(f"d{n}.example"), created_at=NOW + n), MAIL, POST)
    assert await database.outbox.forget_reports(before=NOW + 6) == 6
    assert rows_in(path, "report", "delivery") == {"report": 1, "delivery": 2}
    assert (await database.outbox.counts())["waiting"] == 2


# --- merging ---


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=st.lists(TALLIES, max_size=5), day=st.integers(0, 2**40).map(Day))
async def test_batches_are_merged(
    database: SqliteStore, parts: list[DomainTally], day: Day
) -> None:
    before = await database.tallies.tally(day, A)
    for part in parts:
        await put(database.tallies, day, A, part)
    assert await database.tallies.tally(day, A) == reduce(merge, parts, before)


_PLACES = st.tuples(st.sampled_from([DAY, NEXT_DAY]), st.sampled_from([A, B]))
_BATCHES = st.lists(st.dictionaries(_PLACES, TALLIES, max_size=3), max_size=6)


async def _cut_at_once(path: Path, batches: list[Any]) -> None:
    model = MemoryTallyStore()
    async with opened(path) as store:
        for number, tallies in enumerate(batches, start=1):
            for each in (store.tallies, model):
                await each.add(batch(number, tallies))
        for day in (DAY, NEXT_DAY):
            for domain in (A, B):
                assert await store.tallies.tally(day, domain) == await model.tally(day, domain)
    assert wrong(path) == []
    kinds = len(RESULTS)
    assert (sql(path, "SELECT max(variety) FROM tally")[0][0] or 0) <= 2 + kinds + 1 + 1
    assert (sql(path, "SELECT max(policies) FROM domain_day")[0][0] or 0) <= 2 + 3


def test_cutting_at_every_chance_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_POLICIES", 2)
    monkeypatch.setattr(rules, "MAX_DETAILS", 2)
    monkeypatch.setattr(rules, "MAX_UNJUDGED", 1)
    for name, most in (("_CROWDED_TALLIES", "MOST_VARIETY"), ("_CROWDED_DAYS", "MOST_POLICIES")):
        found = getattr(sqlite_tallies, name)
        monkeypatch.setattr(
            sqlite_tallies, name, found.replace(f"> {getattr(sqlite_tallies, most)}", "> 1")
        )

    @settings(max_examples=40, deadline=None)
    @given(_BATCHES)
    def check(batches: list[Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(_cut_at_once(Path(folder) / "x.db", batches))

    check()


# --- against the model ---


_DESTINATIONS = st.lists(st.sampled_from([MAIL, POST]), max_size=3)
_STATES = st.sampled_from(["waiting", "delivered", "failed", "suppressed"])
_LAST = st.sampled_from(["", "550 no", "RCPT: 421 busy", "connect: refused", "?"])
_CALLS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 9), st.dictionaries(_PLACES, TALLIES, max_size=3)),
    st.tuples(st.just("settle"), _PLACES, st.booleans(), _DESTINATIONS),
    st.tuples(st.just("update"), _PLACES, st.sampled_from([MAIL, POST]), _STATES, _LAST),
    st.tuples(st.just("mailed"), _PLACES, st.integers(1, 3)),
    st.tuples(st.just("note"), st.sampled_from([DAY, NEXT_DAY]), st.sampled_from(FINDINGS)),
    st.tuples(st.just("forget_days"), st.sampled_from([DAY, NEXT_DAY, Day(DAY + 2)])),
    st.tuples(st.just("forget_reports"), st.sampled_from([0.0, NOW, NOW + 1, NOW + 86400])),
)


async def _apply(tallies: TallyStore, outbox: Outbox, call: tuple[Any, ...]) -> object:
    match call:
        case ("add", sequence, what):
            return await tallies.add(batch(sequence, what))
        case ("settle", (day, domain), reported, destinations):
            made = report(domain, day) if reported else None
            rows = [delivery(made, to) for to in destinations] if made else []
            return await outbox.settle(day, domain, "reported" if made else "nothing", made, rows)
        case ("update", (day, domain), to, state, last):
            row = delivery(report(domain, day), to, state=state, last=last, tries=1)
            await outbox.update(row)
        case ("mailed", (day, domain), count):
            await outbox.mailed(day, domain, count)
        case ("note", day, finding):
            await tallies.note(day, [finding])
        case ("forget_days", day):
            return await tallies.forget_days(before=day)
        case ("forget_reports", before):
            return await outbox.forget_reports(before=before)
        case _:
            raise AssertionError(call)
    return None


async def _seen(tallies: TallyStore, outbox: Outbox) -> list[object]:
    """All that can be asked."""
    seen: list[object] = [
        await tallies.days(before=Day(DAY + 9)),
        await tallies.sequence("local"),
        {name: count for name, count in (await outbox.counts()).items() if count},
        await outbox.waiting_since(),
        await outbox.reports(day=None, domain=None, after="", limit=99),
        sorted(map(str, await outbox.due(NOW, limit=99))),
    ]
    for day in (DAY, NEXT_DAY):
        seen += [await open_domains(tallies, day), await outbox.settled(day, after="", limit=99)]
        seen += [await outbox.destination_load(day, to) for to in (MAIL, POST)]
        for domain in (A, B):
            seen.append(await tallies.tally(day, domain))
            seen.append(await tallies.findings(day, domain))
            seen.append(await outbox.mailed_to(day, domain))
            seen.append(await outbox.deliveries(report(domain, day).report_id))
    return seen


async def _agree(path: Path, calls: list[tuple[Any, ...]]) -> None:
    tallies = MemoryTallyStore()
    outbox = MemoryOutbox(tallies)
    async with opened(path) as store:
        for call in calls:
            ours = await _apply(store.tallies, store.outbox, call)
            assert ours == await _apply(tallies, outbox, call), call
        assert await _seen(store.tallies, store.outbox) == await _seen(tallies, outbox)
    assert wrong(path) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(_CALLS, max_size=12))
def test_any_calls_do_what_they_do_to_the_model(calls: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_agree(Path(folder) / "x.db", calls))
