"""Tallies and outbox on SQLite: the contracts, bounds in the file, SIGKILL, and two processes."""

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
from mtastsd.ports import Outbox, StoreUnavailable, TallyStore
from mtastsd.store import sqlite_outbox, sqlite_tallies
from mtastsd.store.sqlite import SqliteStore
from mtastsd.tlsrpt import tally as rules
from mtastsd.tlsrpt.session import Detail, PolicyKey, ResultType
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
from tests.io import store_child
from tests.io.store_tools import child, held, opened, sql
from tests.outbox_contract import MAIL, NOW, POST, OutboxContract, delivery, ids, report, send
from tests.tally_contract import (
    DAY,
    EXPIRED,
    FINDINGS,
    NONE,
    RESULTS,
    ROUND_TRIPS,
    STS,
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
WRONG = """
    SELECT 'uses', id FROM tls_policy AS p
     WHERE uses = 0 OR uses <> (SELECT count(*) FROM tally WHERE policy = p.id)
    UNION ALL SELECT 'lost', domain FROM tally WHERE policy NOT IN (SELECT id FROM tls_policy)
    UNION ALL SELECT 'policies', domain FROM domain_day AS d
     WHERE policies <> (SELECT count(*) FROM tally AS t WHERE t.day = d.day AND t.domain = d.domain)
    UNION ALL SELECT 'variety', domain FROM tally AS t
     WHERE variety <> (SELECT count(*) FROM tally_detail AS d
                        WHERE (d.day, d.domain, d.policy) = (t.day, t.domain, t.policy))
                    + (SELECT count(*) FROM tally_unjudged AS u
                        WHERE (u.day, u.domain, u.policy) = (t.day, t.domain, t.policy))
    UNION ALL SELECT 'orphan', domain FROM (
            SELECT day, domain, policy FROM tally_detail
            UNION SELECT day, domain, policy FROM tally_unjudged
            EXCEPT SELECT day, domain, policy FROM tally)
    UNION ALL SELECT 'day', domain FROM (
            SELECT day, domain FROM tally EXCEPT SELECT day, domain FROM domain_day)"""


def wrong(path: Path) -> list[Any]:
    """Where what triggers count is not what is there."""
    return sql(path, WRONG)


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


# --- SIGKILL ---


async def test_batches_survive_sigkill_whole_and_once(path: Path) -> None:
    with child("tally", path) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(30)]
        process.kill()
        told += [int(line) for line in process.stdout]  # said before the kill, read after
    async with opened(path) as store:
        taken = await store.tallies.sequence("local")
        assert taken in (told[-1], told[-1] + 1)
        assert await store.tallies.cursor("log") == str(taken)
        for domain in store_child.TALLIED:
            found = await store.tallies.tally(DAY, domain)
            assert found == {store_child.POLICY: Totals(taken, taken, {EXPIRED: taken})}
        # Whether or not the answer got lost, the batch is offered again.
        again = store_child.tally_batch(taken)
        assert await store.tallies.add(again) is False
    assert wrong(path) == []


async def test_reports_survive_sigkill_with_their_deliveries(path: Path) -> None:
    with child("settle", path) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(30)]
        process.kill()
        told += [int(line) for line in process.stdout]
    async with opened(path) as store:
        settled = await store.outbox.settled(DAY, after="", limit=10_000)
        assert len(settled) in (told[-1] + 1, told[-1] + 2)
        assert await store.outbox.waiting_since() == (0, 0.0) or len(settled) > told[-1] + 1
        for number in told:
            made = store_child.report_of(number)
            assert await store.outbox.report(made.report_id) == made
            [row] = await store.outbox.deliveries(made.report_id)
            assert row.state == "delivered"
            again = await store.outbox.settle(DAY, made.domain, "reported", made, [delivery(made)])
            assert again is False
        assert len(await ids(store.outbox, limit=10_000)) == len(settled)


# --- two processes ---


async def test_two_processes_write_to_one_file(path: Path) -> None:
    """What the daemon and its reporting child do: neither waits for the other for long."""
    async with opened(path) as store:
        with child("settle", path) as process:
            assert process.stdout is not None
            reader = asyncio.to_thread(lambda: [process.stdout.readline() for _ in range(200)])  # type: ignore[union-attr]
            reading = asyncio.ensure_future(reader)
            taken = 0
            while taken < 30 or not reading.done():
                taken += 1
                assert await store.tallies.add(store_child.tally_batch(taken))
                if taken % 10 == 0:
                    assert await store.tallies.days(before=Day(DAY + 1)) == [DAY]
            assert (await reading)[-1] == "199\n"
        assert await store.tallies.sequence("local") == taken
        assert len(await store.outbox.settled(DAY, after="", limit=10_000)) >= 200
    assert wrong(path) == []


async def test_a_batch_that_a_lock_kept_out_is_taken_later(path: Path) -> None:
    async with opened(path, write_wait=0.05) as store:
        await put(store.tallies, DAY, A, {STS: Totals(1)})
        with held(path, "write"):
            with pytest.raises(StoreUnavailable, match="locked"):
                await put(store.tallies, DAY, A, {STS: Totals(1)})
            with pytest.raises(StoreUnavailable, match="locked"):
                await store.outbox.settle(DAY, A, "no-record", None, ())
            assert await store.tallies.tally(DAY, A) == {STS: Totals(1)}
            assert await open_domains(store.tallies) == [A]
        await put(store.tallies, DAY, A, {STS: Totals(1)})
        assert await store.tallies.tally(DAY, A) == {STS: Totals(2)}
        assert await store.outbox.settle(DAY, A, "no-record", None, ()) is True


# --- faults ---


async def test_a_full_disk_takes_no_half_of_a_batch(path: Path, database: SqliteStore) -> None:
    async def pages(most: int) -> None:
        await database.write(lambda c: c.execute(f"PRAGMA max_page_count = {most}").fetchall())

    domains = [Domain(f"d{n}.example") for n in range(2000)]
    large = batch(2, {(DAY, domain): {PolicyKey("sts", domain): Totals(1)} for domain in domains})
    await put(database.tallies, DAY, A, {STS: Totals(1)})
    await pages(1)  # as many as there are
    with pytest.raises(StoreUnavailable, match="full"):
        await database.tallies.add(replace(large, cursors={"log": "2"}))
    assert await database.tallies.sequence("local") == 1
    assert await database.tallies.cursor("log") == ""
    assert await open_domains(database.tallies) == [A]
    await pages(100_000)
    assert await database.tallies.add(large)
    assert len(await open_domains(database.tallies)) == 1000
    assert wrong(path) == []


async def test_a_report_for_which_there_is_no_room_settles_nothing(database: SqliteStore) -> None:
    await put(database.tallies, DAY, A, {STS: Totals(1)})
    await database.write(lambda c: c.execute("PRAGMA max_page_count = 1").fetchall())
    made = report(body=b"x" * 1_000_000)
    with pytest.raises(StoreUnavailable, match="full"):
        await database.outbox.settle(DAY, A, "reported", made, [delivery(made)])
    assert await open_domains(database.tallies) == [A]
    assert await ids(database.outbox) == []


async def test_a_delivery_of_another_report_is_a_bug(database: SqliteStore) -> None:
    with pytest.raises(Exception, match="FOREIGN KEY"):
        await database.outbox.settle(DAY, A, "reported", report(), [delivery(report(B))])
    assert await database.outbox.settled(DAY, after="", limit=9) == []


async def test_words_of_another_version_are_left_out(path: Path, database: SqliteStore) -> None:
    await put(database.tallies, DAY, A, ROUND_TRIPS["types"])
    await put(database.tallies, DAY, B, {STS: Totals(0, 2, {EXPIRED: 1, Detail(RESULTS[0]): 1})})
    await database.tallies.note(DAY, FINDINGS[:2])
    await send(database.outbox, report(), MAIL, POST)
    sql(path, "UPDATE tls_policy SET type = 'new' WHERE type = 'tlsa'")
    sql(path, f"UPDATE tally_detail SET result = 'new' WHERE result = '{RESULTS[0].value}'")
    sql(path, "UPDATE finding SET result = 'new' WHERE result IS NOT NULL")
    sql(path, f"UPDATE delivery SET state = 'new' WHERE destination = '{MAIL}'")
    assert len(await database.tallies.tally(DAY, A)) == 2
    assert await database.tallies.tally(DAY, B) == {STS: Totals(0, 2, {EXPIRED: 1})}
    assert await database.tallies.findings(DAY, A) == FINDINGS[:1]
    assert await database.outbox.deliveries(report().report_id) == [delivery(report(), POST)]


async def test_a_tally_is_read_as_of_one_moment(database: SqliteStore) -> None:
    """A batch that comes between two tables would make details without sessions."""
    tally = {STS: Totals(0, 1, {EXPIRED: 1}, {rules.UNKNOWN: 1})}

    async def write() -> None:
        for _ in range(100):
            await put(database.tallies, DAY, A, tally)

    writing = asyncio.ensure_future(write())
    while not writing.done():
        for totals in (await database.tallies.tally(DAY, A)).values():
            assert totals.failures == totals.details[EXPIRED] == totals.unjudged[rules.UNKNOWN]
    await writing
