"""The mail log in a file, read by a daemon that is stopped, killed and started: each line counts
once, whatever became of the file meanwhile."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtastsd.metrics import Metrics
from mtastsd.names import Domain
from mtastsd.server import logfeed, logfile, logtail
from mtastsd.server.logfeed import Cursor
from mtastsd.server.logfile import LogFileSource, reader_name
from mtastsd.service.collector import Collector
from mtastsd.store.sqlite import SqliteStore
from mtastsd.tlsrpt.tally import DomainTally, day_of
from tests.io.logfiles import DELIVERY, OTHER, SECOND, RunningFile, line, reading
from tests.io.logtools import READ_AT, events, sample_lines, sessions_of
from tests.io.store_tools import opened
from tests.unit.maillog_tools import OK, OK_B, B, established, to

LINES = sample_lines()
SESSIONS = sessions_of(LINES)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[RunningFile]:
    running = RunningFile(tmp_path)
    yield running
    await running.stop()


@pytest.fixture(autouse=True)
def _all_events(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, "mtastsd"):
        yield


@pytest.mark.parametrize("to_number", [True, False])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_rotated_while_nobody_read(tmp_path: Path, times: int, to_number: bool) -> None:
    async with reading(tmp_path) as running:
        running.write(line(established()))
        await running.read()
        running.kept.write()
        await running.kill()
        parts = [line(to()), line(established(B)), OTHER]
        for part in parts[:times]:
            running.write(part)
            running.rotate(to_number=to_number)
        running.write(b"".join(parts[times:]) + line(to(B, queue_id="ABCDEF12345")))
        assert await running.counted() == [OK, OK_B]


async def test_copied_and_truncated_while_nobody_read(tmp_path: Path) -> None:
    async with reading(tmp_path) as running:
        running.write(line(established()))
        await running.read()
        running.kept.write()
        await running.kill()
        running.write(line(to()))
        running.copytruncate()
        running.write(SECOND)
        assert await running.counted() == [OK, OK_B]


async def test_the_position_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The new file is read from its beginning, and the log says that lines may be lost."""
    async with reading(tmp_path) as running:
        running.write(line(established()))
        await running.read()
        running.kept.write()
        await running.kill()
        running.write(line(to()))
        running.path.unlink()
        running.write(SECOND)
        assert await running.counted() == [OK_B]
        assert events(caplog)[1:] == ["log-position-lost", "log-opened opened"]


async def test_a_log_that_was_edited_is_not_counted_twice(tmp_path: Path) -> None:
    async with reading(tmp_path) as running:
        running.write(DELIVERY + line("x", "Nov 24 15:22:34"))
        await running.read()
        running.kept.write()
        await running.kill()
        lines = running.path.read_bytes().replace(b"qmgr", b"pickup")
        running.path.unlink()
        running.write(lines + SECOND.replace(b"15:22:33", b"15:22:34"))
        assert await running.counted() == [OK, OK_B]


async def test_an_inode_that_is_used_again(tmp_path: Path) -> None:
    """As large as the old one, or larger: the octets before the position tell."""
    async with reading(tmp_path) as running:
        running.write(line(established()) + line(to()))
        await running.read()
        running.kept.write()
        await running.kill()
        running.path.write_bytes(line("x", pid=9) * 20 + SECOND)  # the same inode
        assert await running.counted() == [OK, OK_B]


async def test_what_is_to_be_read_again_is_gone(tmp_path: Path) -> None:
    """There is less to read again, and no position before the kept one is written for it."""
    async with reading(tmp_path) as running:
        running.rotate()
        running.write(DELIVERY)
        await running.read()
        running.kept.write()
        await running.kill()
        running.path.with_name("mail.log.1").unlink()
        running.start()
        await running.read(logfeed.COMMIT_EVERY)
        running.kept.write()
        await running.kill()
        running.write(SECOND)
        assert await running.counted() == [OK, OK_B]


async def test_killed_at_the_beginning_of_a_file_that_was_not_there(tmp_path: Path) -> None:
    running = RunningFile(tmp_path)
    running.start()
    await running.read()
    running.write(line(established()))
    await running.read()
    running.kept.write()
    await running.kill()
    running.write(line(to()))
    assert await running.counted() == [OK]


async def test_the_beginning_of_a_file_is_no_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not be told from that of another file with the same inode."""
    monkeypatch.setattr(logfeed, "COMMIT_EVERY", 0.0)
    told: list[str] = []
    async with reading(tmp_path) as running:
        await running.stop()
        running.kept.at = lambda name, cursor: told.append(cursor)  # type: ignore[method-assign]
        running.start()
        for n in range(5):
            running.write(OTHER)
            await running.read()
            running.rotate() if n % 2 else running.copytruncate()
    upto = [Cursor.decode(cursor) for cursor in told]
    assert len(upto) > 3
    assert not [c for c in upto if c is None or ":0:0:" in c.upto]


async def test_waits_for_a_file_that_is_not_there_after_a_restart(tmp_path: Path) -> None:
    async with reading(tmp_path) as running:
        running.write(line(established()))
        await running.read()
        running.kept.write()
        await running.kill()
        running.path.rename(running.path.with_name("elsewhere"))
        running.start()
        await running.read()
        running.path.with_name("elsewhere").rename(running.path)
        running.write(line(to()))
        assert await running.counted() == [OK]


@pytest.mark.parametrize(
    "cursor", ["x", "1:2:3:4:x 1:2:3:4:x 7", "é", "a b 1", "0:0:0:9:" + "0" * 16]
)
async def test_a_position_that_is_none(
    running: RunningFile, cursor: str, caplog: pytest.LogCaptureFixture
) -> None:
    running.kept.cursor = cursor
    running.write(DELIVERY)
    running.start()
    await running.read()
    running.write(SECOND)
    assert await running.counted() == [OK_B]
    assert events(caplog) == ["log-position-lost", "log-begun end"]


async def test_a_delivery_longer_than_the_window_loses_its_beginning(tmp_path: Path) -> None:
    """And no more is read again than the window."""
    late = "Nov 24 15:40:00"
    async with reading(tmp_path) as running:
        running.write(line(established()))
        await running.read()
        running.write(line(established(B), late, pid=2))
        await running.read()
        running.write(line(established(B), late, pid=3))
        await running.read()
        running.clock.advance(logfeed.COMMIT_EVERY)
        running.write(OTHER)
        await running.read()
        running.kept.write()
        await running.kill()
        running.write(line(to(), late))
        running.write(line(to(B), late, pid=2))
        running.write(line(to(B), late, pid=3))
        assert await running.counted() == [OK_B, OK_B]


async def test_no_more_is_read_again_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logfile, "MAX_AGAIN", 100_000)
    async with reading(tmp_path) as running:
        for _ in range(100):
            running.write(OTHER * 100)
            await running.read()
        running.clock.advance(logfeed.COMMIT_EVERY)
        running.write(OTHER)
        await running.read()
        running.kept.write()
        await running.kill()
        running.start()
        await running.read()
        [again] = [f["again"] for r in caplog.records if "again" in (f := r.fields)]  # type: ignore[attr-defined]
        assert 90_000 < again < 120_000


async def test_a_position_costs_a_write_only_with_a_session_or_now_and_then(tmp_path: Path) -> None:
    async with reading(tmp_path) as running:
        told: list[str] = []
        running.kept.at = lambda name, cursor: told.append(name)  # type: ignore[method-assign]
        await running.stop()
        running.start()
        for octets, count in ((OTHER, 1), (OTHER, 1), (OTHER, 1), (DELIVERY, 2), (OTHER, 2)):
            running.write(octets)
            await running.read()
            assert len(told) == count
        running.clock.advance(logfeed.COMMIT_EVERY)
        await running.read()
        assert told == [reader_name(running.path)] * 3


# ---- properties

CHOICES = ("read", "read", "write", "kill", "stop", "rotate", "rotate-late", "copytruncate")


@given(
    st.lists(
        st.tuples(st.integers(0, len(b"".join(LINES))), st.sampled_from(CHOICES)), max_size=12
    ),
    st.integers(0, 3),
    st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_any_history_counts_each_session_once(
    history: list[tuple[int, str]], every: int, small: bool
) -> None:
    """Cut at any octet, the daemon killed and the log rotated there in any order, and the store
    written at any moment: it has in the end what an undisturbed run would have counted."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(logtail, "CHUNK", 1000)
            patch.setattr(logtail, "LONGEST", 900)
        asyncio.run(_live(Path(folder), sorted(history), b"".join(LINES), every))


async def _live(folder: Path, history: list[tuple[int, str]], log: bytes, every: int) -> None:
    async with reading(folder) as running:
        running.kept.write_every = every
        written = 0
        for cut, choice in history:
            if choice.startswith(("rotate", "copy")):  # a writer writes whole lines
                cut = log.find(b"\n", cut) + 1 or len(log)
            running.write(log[written : max(cut, written)])
            written = max(cut, written)
            await _happen(running, choice)
        running.write(log[written:])
        assert await running.counted() == SESSIONS


async def _happen(running: RunningFile, choice: str) -> None:
    match choice:
        case "read" if running.alive:
            await running.read()
        case "read":
            running.start()
            await running.clock.asleep()
        case "write":
            running.kept.write()
        case "kill":
            await running.kill()
        case "stop":
            await running.stop()
            running.kept.write()
        case "rotate" | "rotate-late":
            running.rotate(create=choice == "rotate")
        case _:
            running.copytruncate()


# ---- with the collector and the store


class Counting(RunningFile):
    """A reader that hands over to a real collector with a real store."""

    def __init__(self, folder: Path, store: SqliteStore) -> None:
        super().__init__(folder)
        self.store = store
        self.cursor = ""
        self.collector = self._new()

    def _new(self) -> Collector:
        return Collector(
            self.store.tallies,
            lambda _: None,
            source="local",
            both=False,
            clock=self.clock,
            log=self.log,
            metrics=Metrics(),
        )

    def source(self) -> LogFileSource:
        return self.reader(self.collector.take, self.collector.at, self.cursor)

    async def restart(self) -> None:
        """What the collector had not written is lost."""
        await self.stop()
        self.collector = self._new()
        self.cursor = await self.store.tallies.cursor(reader_name(self.path))
        self.start()
        await self.read()

    async def tallies(self) -> dict[Domain, DomainTally]:
        day, store = day_of(READ_AT), self.store.tallies
        return {d: await store.tally(day, d) for d in await store.waiting(day, after="", limit=999)}


async def test_the_store_has_what_an_undisturbed_run_has(tmp_path: Path) -> None:
    """Whatever of it was written before the collector was killed."""
    found = []
    for size in (len(LINES), 15):
        folder = tmp_path / str(size)
        folder.mkdir()
        async with opened(folder / "state/mtastsd.db") as store:
            running = Counting(folder, store)
            running.write(OTHER)
            for n, begin in enumerate(range(0, len(LINES), size)):
                await running.restart()
                running.write(b"".join(LINES[begin : begin + size]))
                if n % 2 == 0:
                    await running.collector.flush()
                await running.read()
                if n % 3 == 0:
                    await running.collector.flush()
            await running.restart()
            await running.collector.flush()
            await running.stop()
            found.append(await running.tallies())
    assert found[0] == found[1]
    assert len(found[0]) > 10
