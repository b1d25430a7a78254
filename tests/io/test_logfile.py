"""The mail log in a file: rotated, cut short, not there, and read by a daemon that is killed."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtastsd.postfix.maillog import MailLog
from mtastsd.server import logfeed, logfile, logtail
from mtastsd.server.logfile import LogFileSource, reader_name
from tests.io.logtools import World, sample_lines, sessions_of
from tests.unit.maillog_tools import OK, OK_B, B, established, to

LIMIT = 20.0
LINES = sample_lines()
SESSIONS = sessions_of(LINES)


def line(message: str, time: str = "Nov 24 15:22:33", pid: int = 1) -> bytes:
    return f"{time} relay postfix/smtp[{pid}]: {message}\n".encode()


DELIVERY = line(established()) + line(to())
SECOND = line(established(B)) + line(to(B, queue_id="ABCDEF12345"))
OTHER = b"Nov 24 15:22:33 relay postfix/qmgr[3]: 8FB4822638D: removed\n"


class Running(World):
    """A log and its reader, which can be stopped, killed and started."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "mail.log"
        self._task: asyncio.Task[None] | None = None

    def write(self, octets: bytes, name: str = "mail.log") -> None:
        with self.path.with_name(name).open("ab") as file:
            file.write(octets)

    @property
    def alive(self) -> bool:
        return self._task is not None

    def start(self) -> None:
        source = LogFileSource(
            self.path,
            MailLog(),
            self.kept.take,
            self.kept.at,
            cursor=self.kept.cursor,
            clock=self.clock,
            log=self.log,
            metrics=self.metrics,
            utc_offset=lambda _: 0,
        )
        self._task = asyncio.create_task(source.run())

    async def read(self) -> None:
        """Let the reader come to the end of what is there."""
        assert self._task is not None
        async with asyncio.timeout(LIMIT):
            await self.clock.asleep()
            self.clock.advance(logfile.POLL)
            await self.clock.asleep()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def kill(self) -> None:
        await self.stop()
        self.kept.lose()

    async def counted(self) -> list[str]:
        """What is counted in the end."""
        if self._task is None:
            self.start()
        await self.read()
        await self.stop()
        self.kept.write()
        return self.kept.sessions

    # ---- what happens to a log

    def shift(self, *, to_number: bool = True) -> Path:
        """Make room for the next rotated file; its name."""
        if not to_number:
            count = len(list(self.path.parent.glob("mail.log-*")))
            return self.path.with_name(f"mail.log-202511{10 + count}")
        names = [self.path.with_name(f"mail.log.{n}") for n in range(1, 20)]
        last = next(i for i, name in enumerate(names) if not name.exists())
        for n in range(last, 0, -1):
            names[n - 1].rename(names[n])
        return names[0]

    def rotate(self, *, create: bool = True, to_number: bool = True) -> None:
        self.path.rename(self.shift(to_number=to_number))
        if create:
            self.path.touch()

    def copytruncate(self) -> None:
        shutil.copyfile(self.path, self.shift())
        os.truncate(self.path, 0)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    running = Running(tmp_path)
    yield running
    await running.stop()


@asynccontextmanager
async def reading(folder: Path, *, begun: bytes = OTHER) -> AsyncIterator[Running]:
    """A reader whose position is kept, at the end of a file that has a line."""
    running = Running(folder)
    running.write(begun)
    running.start()
    await running.read()
    running.kept.write()
    yield running
    await running.stop()


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Event and what tells it from others of its kind."""
    found = []
    for record in caplog.records:
        fields = getattr(record, "fields", {})
        words = [str(fields[key]) for key in ("where", "after", "copy", "why") if key in fields]
        found.append(" ".join([record.getMessage(), *words]))
    return found


@pytest.fixture(autouse=True)
def _all_events(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, "mtastsd"):
        yield


# ---- where reading begins


async def test_the_first_start_is_at_the_end(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    running.write(DELIVERY + line(established(B))[:-20])
    running.start()
    await running.read()
    running.write(line(established(B))[-20:] + line(to(B)))
    assert await running.counted() == [OK_B]
    assert events(caplog) == ["log-begun end"]


async def test_the_first_position_is_kept_before_a_line_comes(tmp_path: Path) -> None:
    async with reading(tmp_path) as running:
        await running.kill()
        running.write(DELIVERY)
        assert await running.counted() == [OK]


async def test_a_file_that_is_not_there_yet_is_read_from_its_beginning(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    running.start()
    await running.read()
    await running.read()
    running.write(DELIVERY)
    assert await running.counted() == [OK]
    assert events(caplog) == ["log-missing", "log-begun beginning", "log-opened opened"]


async def test_a_file_that_may_not_be_read_is_waited_for_and_told_once(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    running.path.mkdir()  # what root may not read either
    running.start()
    await running.read()
    await running.read()
    running.path.rmdir()
    running.write(DELIVERY)
    await running.read()
    running.write(SECOND)
    assert await running.counted() == [OK_B]  # the first was there when it could first be read
    assert events(caplog) == ["log-unreadable", "log-begun end"]


async def test_a_pipe_is_no_log(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(running.path)
    running.start()
    await running.read()
    assert events(caplog) == ["log-unreadable"]


# ---- lines


async def test_a_line_is_read_when_its_end_is_there(tmp_path: Path) -> None:
    async with reading(tmp_path) as running:
        for octet in DELIVERY[:-1]:
            running.write(bytes([octet]))
            if octet in b" [:":
                await running.read()
        running.kept.write()
        assert running.kept.sessions == []
        running.write(b"\n")
        assert await running.counted() == [OK]


@pytest.mark.parametrize(
    "size", [logtail.LONGEST - 1, logtail.LONGEST, logtail.LONGEST + 1, 100_000]
)
@pytest.mark.parametrize("restart", [False, True])
async def test_a_line_that_is_too_long(tmp_path: Path, size: int, restart: bool) -> None:
    """It is skipped whole: its end would look like a line of its own."""
    start = line(established(B))[:-1]
    forged = line(to(B))
    junk = start + b"x" * (size - len(start) - len(forged) + 1) + forged
    assert len(junk) == size + 1
    async with reading(tmp_path) as running:
        running.write(line(established()) + junk[: -len(forged)])
        await running.read()
        if restart:
            running.kept.write()
            await running.kill()
            running.start()
            await running.read()
        running.write(forged + line(to()))
        assert await running.counted() == [OK]
        too_long = size > logtail.LONGEST
        assert running.value("log_lines_skipped_total", why="long") == too_long


JUNK = [
    b"\n",
    b"\0" * 100 + b"\n",
    b"\xff\xfe postfix/smtp[1]: \xc3\n",
    b"Nov 24 15:22:33 relay postfix/smtp[1]: \xff\xff: to=<\xff>, relay=\xff\n",
    b"Nov 24 15:22:33 relay postfix/smtp[99999999999999999999]: x\n",
    b"Feb 31 15:22:33 relay postfix/smtp[1]: x\n",
    b"\r\n",
    "Nov 24 15:22:33 relay postfix/smtp[\u0661]: x\u2028y\n".encode(),
]


async def test_junk_does_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with reading(tmp_path) as running:
        running.write(line(established()) + b"".join(JUNK) * 3 + line(to()))
        assert await running.counted() == [OK]
        assert running.value("log_lines_total") == 2 + 3 * len(JUNK)
        assert running.value("log_lines_skipped_total", why="form") == 3 * 4
        assert events(caplog)[1:] == ["log-lines-skipped form"]


@pytest.mark.parametrize(
    ("time", "counts"),
    [
        ("2025-11-24T17:00:00+00:00", True),
        ("2025-11-17T18:00:00+00:00", True),
        ("2025-11-17T16:00:00+00:00", False),
        ("2025-11-25T16:00:00+00:00", True),
        ("2025-11-25T18:00:00+00:00", False),
        ("1970-01-01T00:00:00+00:00", False),
        ("9999-12-31T23:59:59+00:00", False),
    ],
)
async def test_times_that_can_t_be(tmp_path: Path, time: str, counts: bool) -> None:
    async with reading(tmp_path) as running:
        running.write(line(established(), time) + line(to(), time))
        assert await running.counted() == [OK] * counts
        assert running.value("log_lines_skipped_total", why="time") == 2 * (not counts)


async def test_a_bug_in_one_line_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = MailLog.feed

    def broken(self: MailLog, program: str, pid: int, *rest: object) -> object:
        assert pid != 7
        return feed(self, program, pid, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(MailLog, "feed", broken)
    async with reading(tmp_path) as running:
        running.write(line(established(), pid=7) + DELIVERY)
        assert await running.counted() == [OK]
        assert running.value("log_lines_skipped_total", why="bug") == 1


async def test_a_burst_comes_in_bounded_pieces(tmp_path: Path) -> None:
    async with reading(tmp_path) as running:
        running.write(b"".join(LINES) * 50)
        assert 50 * len(b"".join(LINES)) > 50 * logtail.CHUNK
        assert await running.counted() == sessions_of(LINES * 50)


async def test_how_late_lines_are_read(tmp_path: Path) -> None:
    async with reading(tmp_path) as running:
        running.write(line("x", "2025-11-24T16:59:00Z"))
        await running.read()
        assert running.value("log_lag_seconds") == pytest.approx(60.0, abs=2.0)


# ---- rotation and truncation


async def test_the_old_file_is_read_to_its_end_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with reading(tmp_path) as running:
        running.write(line(established()))
        running.rotate(create=False)
        await running.read()
        running.write(line(to()), "mail.log.1")  # the writer has not yet been told
        await running.read()
        running.path.touch()
        await running.read()
        running.write(line(established(B)), "mail.log.1")
        running.write(line(to(B, queue_id="ABCDEF12345")))
        assert await running.counted() == [OK, OK_B]
        assert events(caplog) == ["log-begun end", "log-opened rotated"]


@pytest.mark.parametrize("to_number", [True, False])
async def test_rotations_between_two_reads(tmp_path: Path, to_number: bool) -> None:
    async with reading(tmp_path) as running:
        for part in (line(established()), line(to()), line(established(B)), b""):
            running.write(part)
            running.rotate(to_number=to_number)
        running.write(line(to(B, queue_id="ABCDEF12345")))
        assert await running.counted() == [OK, OK_B]


async def test_files_of_another_kind_of_rotation_are_left_alone(tmp_path: Path) -> None:
    """Left over from other days, or made by somebody else."""
    async with reading(tmp_path) as running:
        for name in (".1", ".2", ".bak", ".1.gz", ".save.1", "-20251101.gz"):
            running.write(DELIVERY * 3, f"mail.log{name}")
        running.write(DELIVERY, "mail.logs")
        running.rotate(to_number=False)
        running.write(SECOND)
        assert await running.counted() == [OK_B]


async def test_the_old_file_is_gone_at_once(tmp_path: Path) -> None:
    async with reading(tmp_path) as running:
        running.write(line(established()))
        running.path.unlink()
        await running.read()
        running.write(line(to()))
        assert await running.counted() == [OK]


async def test_a_rotated_file_that_ends_within_a_line(tmp_path: Path) -> None:
    async with reading(tmp_path) as running:
        running.write(line(established()) + line(to())[:-1])
        running.rotate()
        running.write(SECOND)
        assert await running.counted() == [OK_B]
        assert running.value("log_lines_skipped_total", why="partial") == 1


@pytest.mark.parametrize("read_before", [True, False])
@pytest.mark.parametrize("grown", [True, False])
async def test_copy_and_truncation(
    tmp_path: Path, read_before: bool, grown: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether or not all was read before, and the file has outgrown its old size since."""
    async with reading(tmp_path) as running:
        running.write(line(established()))
        if read_before:
            await running.read()
        running.copytruncate()
        if not grown:
            await running.read()
        running.write(line(to()) + OTHER * 50 * grown)
        assert await running.counted() == [OK]
        assert "log-truncated read" in events(caplog)


async def test_truncation_without_a_copy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with reading(tmp_path) as running:
        running.write(DELIVERY)
        await running.read()
        os.truncate(running.path, 0)
        running.write(SECOND)
        assert await running.counted() == [OK, OK_B]
        assert events(caplog)[1:] == ["log-truncated none"]


# ---- restarts


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
    running: Running, cursor: str, caplog: pytest.LogCaptureFixture
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


async def _happen(running: Running, choice: str) -> None:
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
