"""Tallies and outbox on SQLite when things go wrong: SIGKILL, two processes, locks, full disks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mtastsd.names import Domain
from mtastsd.ports import StoreUnavailable
from mtastsd.store.sqlite import SqliteStore
from mtastsd.tlsrpt import tally as rules
from mtastsd.tlsrpt.session import Detail, PolicyKey
from mtastsd.tlsrpt.tally import Day, Totals
from tests.io import store_child
from tests.io.store_tools import child, held, opened, sql, wrong
from tests.outbox_contract import MAIL, POST, delivery, ids, report, send
from tests.tally_contract import (
    DAY,
    EXPIRED,
    FINDINGS,
    RESULTS,
    ROUND_TRIPS,
    STS,
    A,
    B,
    batch,
    open_domains,
    put,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "mtastsd.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(path) as store:
        yield store


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
