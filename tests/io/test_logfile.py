"""The mail log in a file: where reading begins, lines of any kind, rotation and truncation."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mtastsd.postfix.maillog import MailLog
from mtastsd.server import logfeed, logfile, logtail
from tests.io.logfiles import DELIVERY, OTHER, SECOND, RunningFile, line, reading
from tests.io.logtools import events, sample_lines, sessions_of
from tests.unit.maillog_tools import OK, OK_B, B, established, to

LINES = sample_lines()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[RunningFile]:
    running = RunningFile(tmp_path)
    yield running
    await running.stop()


@pytest.fixture(autouse=True)
def _all_events(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, "mtastsd"):
        yield


# ---- where reading begins


async def test_the_first_start_is_at_the_end(
    running: RunningFile, caplog: pytest.LogCaptureFixture
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
    running: RunningFile, caplog: pytest.LogCaptureFixture
) -> None:
    running.start()
    await running.read()
    await running.read()
    running.write(DELIVERY)
    assert await running.counted() == [OK]
    assert events(caplog) == ["log-missing", "log-begun beginning", "log-opened opened"]


async def test_a_file_that_may_not_be_read_is_waited_for_and_told_once(
    running: RunningFile, caplog: pytest.LogCaptureFixture
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


async def test_a_pipe_is_no_log(running: RunningFile, caplog: pytest.LogCaptureFixture) -> None:
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
        await running.read(logfeed.COMMIT_EVERY)
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


async def test_a_bug_in_the_reader_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with reading(tmp_path) as running:
        with monkeypatch.context() as patch:
            patch.setattr(logtail.TailedFile, "read", lambda self: 1 / 0)
            await running.read()
        running.write(DELIVERY)
        await running.read(logfile.AFTER_BUG)
        assert await running.counted() == [OK]
        assert events(caplog) == ["log-begun end", "bug"]


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


async def test_a_line_that_comes_while_the_next_file_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer is told to begin a new file between our two looks."""
    successor = logtail._successor
    late = [line(to())]

    def looking(path: Path, file: logtail.TailedFile) -> object:
        if late and not log.path.stat().st_size:
            log.write(late.pop(), "mail.log.1")
            log.write(SECOND)
        return successor(path, file)

    async with reading(tmp_path) as running:
        log = running
        running.write(line(established()))
        await running.read()
        running.rotate()
        monkeypatch.setattr(logtail, "_successor", looking)
        assert await running.counted() == [OK, OK_B]


async def test_a_rotation_while_the_next_file_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = logtail.open_log
    parts = [line(to()) + line(established(B))]

    def rotated(path: Path) -> object:
        if parts and path == log.path and log.path.stat().st_size:
            log.rotate()
            log.write(parts.pop())
        return opening(path)

    async with reading(tmp_path) as running:
        log = running
        running.rotate()
        running.write(line(established()))
        monkeypatch.setattr(logtail, "open_log", rotated)
        await running.read()
        running.write(line(to(B, queue_id="ABCDEF12345")))
        assert await running.counted() == [OK, OK_B]
        assert not parts


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
