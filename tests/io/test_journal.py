"""The mail log in the journal: whom it believes, and a reader that is killed, behind a journal that
forgets and fails. What the stand-in says is what the real library says of real files."""

from __future__ import annotations

import asyncio
import builtins
import logging
import pwd
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from systemd import journal as library

from mtastsd.postfix.maillog import MailLog
from mtastsd.postfix.syslog import LogLine
from mtastsd.server import journal, journalreader, logfeed
from mtastsd.server.journal import (
    Batch,
    Entry,
    Found,
    Journal,
    JournalSource,
    Trust,
    line_of,
    postfix_trust,
)
from mtastsd.server.journalreader import JournalUnavailable, SystemdJournal, system_journal
from tests.io.journalfiles import POSTFIX_UID, SENDER, entries, unpacked
from tests.io.logtools import READ_AT, World, sample_lines, sessions_of
from tests.unit.maillog_tools import AT, OK, OK_B, B, established, to

LIMIT = 20.0
TRUST = Trust(frozenset({0, POSTFIX_UID}))
KERNEL: Mapping[str, object] = {**SENDER, "_UID": POSTFIX_UID}
"""What the journal says of a sender that is Postfix."""

Fields = Mapping[str, object]


def fields(message: object = "x", **others: object) -> dict[str, object]:
    """An entry of postfix/smtp[1]; None leaves a field out."""
    made = {**KERNEL, "SYSLOG_IDENTIFIER": "postfix/smtp", "_PID": 1, "MESSAGE": message, **others}
    return {name: value for name, value in made.items() if value is not None}


# ---- who is believed


@pytest.mark.parametrize(
    ("others", "wanted"),
    [
        ({}, True),
        ({"_SYSTEMD_UNIT": None}, True),
        ({"_EXE": None}, True),
        ({"_UID": 0}, True),
        ({"_UID": "106"}, True),
        ({"_SYSTEMD_UNIT": "postfix.service", "_EXE": None}, True),
        ({"_SYSTEMD_UNIT": "postfix-out@x\\x2d1.service", "_EXE": None}, True),
        ({"_SYSTEMD_UNIT": None, "_EXE": "/usr/libexec/postfix/smtp"}, True),
        ({"_SYSTEMD_UNIT": None, "_EXE": "/usr/lib/postfix/bin/tlsproxy"}, True),
        ({"_SYSTEMD_UNIT": None, "_EXE": "/usr/lib/postfix/sbin/smtp (deleted)"}, True),
        # logger -t postfix/smtp
        ({"_UID": 1000, "_EXE": "/usr/bin/logger", "_SYSTEMD_UNIT": "user@1000.service"}, False),
        ({"_EXE": "/usr/bin/logger", "_SYSTEMD_UNIT": "cron.service"}, False),
        ({"_UID": 0, "_EXE": "/usr/bin/logger", "_SYSTEMD_UNIT": "cron.service"}, False),
        # a command in .forward; somebody's own code in Postfix's program
        ({"_UID": 1000, "_EXE": "/usr/bin/logger"}, False),
        ({"_UID": 1000, "_SYSTEMD_UNIT": "user@1000.service"}, False),
        ({"_UID": None}, False),
        ({"_UID": b"\xff"}, False),
        ({"_UID": "0x0"}, False),
        ({"_UID": [0, 1000]}, False),
        ({"_UID": True}, False),
        ({"_SYSTEMD_UNIT": None, "_EXE": None}, False),
        ({"_SYSTEMD_UNIT": "postfix.service/x", "_EXE": None}, False),
        ({"_SYSTEMD_UNIT": "xpostfix.service", "_EXE": None}, False),
        ({"_SYSTEMD_UNIT": "postfix.service\n", "_EXE": None}, False),
        ({"_SYSTEMD_UNIT": None, "_EXE": "/usr/lib/postfix/sbin/local"}, False),
        ({"_SYSTEMD_UNIT": None, "_EXE": "/usr/lib/postfixed/smtp"}, False),
        ({"_SYSTEMD_UNIT": None, "_EXE": "postfix/smtp"}, False),
        ({"_SYSTEMD_UNIT": [b"postfix.service"], "_EXE": None}, False),
        # by another way than syslog a sender sets what it likes, but for the fields with _
        ({"_TRANSPORT": "journal"}, False),
        ({"_TRANSPORT": "stdout"}, False),
        ({"_TRANSPORT": None}, False),
    ],
)
def test_whom_it_believes(others: Fields, wanted: bool) -> None:
    assert TRUST.believes(fields(**others)) is wanted


@pytest.mark.parametrize(
    ("others", "wanted"),
    [
        ({}, ("postfix/smtp", 1, "x")),
        ({"SYSLOG_PID": 7}, ("postfix/smtp", 7, "x")),
        ({"SYSLOG_PID": "7", "_PID": None}, ("postfix/smtp", 7, "x")),
        ({"SYSLOG_PID": "x"}, ("postfix/smtp", 1, "x")),
        ({"SYSLOG_PID": -7}, ("postfix/smtp", 1, "x")),
        ({"SYSLOG_IDENTIFIER": "postfix-out/smtp"}, ("postfix-out/smtp", 1, "x")),
        ({"SYSLOG_IDENTIFIER": "mta/tlsproxy"}, ("mta/tlsproxy", 1, "x")),
        ({"MESSAGE": b"x\xff"}, ("postfix/smtp", 1, "x\ufffd")),
        ({"SYSLOG_IDENTIFIER": "postfix/qmgr"}, "other"),
        ({"SYSLOG_IDENTIFIER": "smtp"}, "other"),
        ({"SYSLOG_IDENTIFIER": b"\xff/smtp"}, "other"),
        ({"SYSLOG_IDENTIFIER": None}, "other"),
        ({"_UID": 1000}, "untrusted"),
        ({"_PID": None}, "form"),
        ({"MESSAGE": None}, "form"),
        ({"MESSAGE": ["x", "y"]}, "form"),
    ],
)
def test_the_line_of_an_entry(others: Fields, wanted: object) -> None:
    read = line_of(Entry("c", 7.0, fields(**others)), TRUST)
    if isinstance(read, LogLine):
        assert (read.at, read.host) == (7.0, "")
        assert (read.program, read.pid, read.message) == wanted
    else:
        assert read == wanted


def test_postfix_s_account(monkeypatch: pytest.MonkeyPatch) -> None:
    account = SimpleNamespace(pw_uid=106)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: {"postfix": account}[name])
    assert postfix_trust() == TRUST
    monkeypatch.setattr(pwd, "getpwnam", lambda name: {}[name])
    assert postfix_trust() == Trust(frozenset({0}))


# ---- the stand-in


@dataclass
class Disk:
    """A journal: entries by number, of which the first may be gone, and others broken."""

    entries: list[Entry] = field(default_factory=list)
    gone: int = 0
    broken: set[int] = field(default_factory=set)
    fails: bool = False
    refuses: bool = False
    readable: bool = True
    opened: int = 0
    read: int = 0

    def write(self, message: str, at: float = READ_AT + 1, **others: object) -> None:
        self.entries.append(Entry(cursor_of(len(self.entries)), at, fields(message, **others)))

    def open(self) -> FakeJournal:
        if self.refuses:
            raise PermissionError(13, "Permission denied")
        self.opened += 1
        return FakeJournal(self)


def cursor_of(number: int) -> str:
    return f"s=0;i={number:x}"


class FakeJournal:
    """A `Journal` on a `Disk`."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._next = 0

    def readable(self) -> bool:
        return self._disk.readable

    def seek(self, cursor: str) -> Found:
        if not cursor.startswith("s=0;i="):
            return "no-cursor"
        number = int(cursor[6:], 16)
        found = self._disk.gone <= number < len(self._disk.entries)
        self._next = number + found
        return "found" if found else "gone"

    def seek_time(self, at: float) -> None:
        later = [n for n, entry in enumerate(self._disk.entries) if entry.at >= at]
        self._next = later[0] if later else len(self._disk.entries)

    def read(self, limit: int) -> Batch:
        if self._disk.fails:
            raise OSError(5, "Input/output error")
        found: list[Entry] = []
        broken = 0
        self._next = max(self._next, self._disk.gone)
        while self._next < len(self._disk.entries) and len(found) < limit:
            if self._next in self._disk.broken:
                broken += 1
            else:
                found.append(self._disk.entries[self._next])
            self._next += 1
        self._disk.read += len(found)
        return Batch(tuple(found), len(found) < limit, broken)

    def close(self) -> None:
        self._disk.opened -= 1


class Running(World):
    """A journal and its reader, which can be stopped, killed and started."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk()
        self.open: Callable[[], Journal] = self.disk.open
        self._task: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        return self._task is not None

    def write(self, *messages: str) -> None:
        for message in messages:
            self.disk.write(message)

    def start(self) -> None:
        source = JournalSource(
            self.open,
            MailLog(),
            self.kept.take,
            self.kept.at,
            cursor=self.kept.cursor,
            trust=TRUST,
            clock=self.clock,
            log=self.log,
            metrics=self.metrics,
        )
        self._task = asyncio.create_task(source.run())

    async def read(self, seconds: float = journal.POLL) -> None:
        """Let the reader come to the end of what is there."""
        async with asyncio.timeout(LIMIT):
            await self.clock.asleep()
            self.clock.advance(seconds)
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


@asynccontextmanager
async def reading(*before: str, cursor: str = "") -> AsyncIterator[Running]:
    """A reader whose position is kept, behind what was there before it."""
    running = Running()
    running.kept.cursor = cursor
    for message in before:
        running.disk.write(message, at=AT)
    running.start()
    await running.read()
    running.kept.write()
    yield running
    await running.stop()


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Event and what tells it from others of its kind."""
    found = []
    for record in caplog.records:
        said = getattr(record, "fields", {})
        found.append(
            " ".join([record.getMessage(), *(said[k] for k in ("where", "why") if k in said)])
        )
    return found


@pytest.fixture(autouse=True)
def _all_events(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, "mtastsd"):
        yield


# ---- the source


async def test_the_first_start_is_now(caplog: pytest.LogCaptureFixture) -> None:
    async with reading(established(), to()) as running:
        running.write(established(B), to(B))
        assert await running.counted() == [OK_B]
        assert events(caplog) == ["log-begun end"]
        assert running.value("log_lines_total") == 2


async def test_an_empty_journal_has_a_position_too() -> None:
    async with reading() as running:
        await running.kill()
        running.write(established(), to())
        assert await running.counted() == [OK]


async def test_what_is_not_believed_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async with reading() as running:
        running.write(established())
        for _ in range(3):
            running.disk.write(to(), _UID=1000)
        running.write(to(B, queue_id="ABCDEF12345"))
        assert await running.counted() == []
        assert running.value("log_lines_skipped_total", why="untrusted") == 3
        assert events(caplog)[1:] == ["log-lines-skipped untrusted"]


async def test_killed_within_a_delivery() -> None:
    async with reading() as running:
        running.write(established())
        await running.read()
        running.write(established(B), to(B))
        await running.read()
        running.kept.write()
        await running.kill()
        assert running.kept.sessions == [OK_B]
        running.disk.write(established(), SYSLOG_PID=2)
        running.disk.write(to(), SYSLOG_PID=2)
        assert await running.counted() == [OK_B, OK]


async def test_entries_that_are_gone(caplog: pytest.LogCaptureFixture) -> None:
    """The next ones are read, none twice, and the log says that others may be lost."""
    async with reading() as running:
        running.write(established(), to())
        await running.read()
        running.kept.write()
        await running.kill()
        running.write("a", established(B), to(B))
        running.disk.gone = 2
        running.start()
        await running.read(logfeed.COMMIT_EVERY)
        running.kept.write()
        assert running.kept.sessions == [OK, OK_B]
        await running.kill()
        assert await running.counted() == [OK, OK_B]
        assert events(caplog)[1:] == ["log-position-lost", "log-begun position"]


async def test_the_beginning_of_what_is_read_again_is_gone() -> None:
    """There is less to read again, and no position before the kept one is written for it."""
    async with reading() as running:
        running.write(*["x"] * 5, established(B), to(B), established())
        await running.read(logfeed.COMMIT_EVERY)
        await running.read()
        running.kept.write()
        await running.kill()
        running.disk.gone = 7
        running.start()
        await running.read(logfeed.COMMIT_EVERY)
        await running.read()
        running.kept.write()
        await running.kill()
        running.write(to())
        assert await running.counted() == [OK_B, OK]


@pytest.mark.parametrize("cursor", ["x", "é", "s=0 s=0 7", "i=0 i=0 7"])
async def test_a_position_that_is_none(cursor: str, caplog: pytest.LogCaptureFixture) -> None:
    running = Running()
    running.kept.cursor = cursor
    running.disk.write(established(), at=AT)
    running.disk.write(to(), at=AT)
    running.start()
    await running.read()
    running.write(established(B), to(B))
    assert await running.counted() == [OK_B]
    assert events(caplog) == ["log-position-lost", "log-begun end"]


async def test_a_journal_that_fails_is_opened_anew(caplog: pytest.LogCaptureFixture) -> None:
    """Deliveries under way are known still; nothing is lost or doubled."""
    async with reading() as running:
        running.write(established(), established(B), to(B))
        await running.read()
        for _ in range(3):
            running.disk.fails = True
            await running.read()
            running.write("x")
            running.disk.fails = False
            await running.read(journal.REOPEN_AFTER)
        running.disk.refuses, running.disk.fails = True, True
        await running.read()
        await running.read(journal.REOPEN_AFTER)
        running.disk.refuses, running.disk.fails = False, False
        running.disk.write(to(B), SYSLOG_PID=1)
        running.clock.advance(journal.REOPEN_AFTER)
        assert await running.counted() == [OK_B]
        assert events(caplog).count("journal-failed") == 1
        await asyncio.sleep(0)
        assert running.disk.opened <= 1


async def test_a_journal_that_fails_while_lines_are_read_again() -> None:
    async with reading() as running:
        running.write(established(), established(B), to(B))
        await running.read()
        running.kept.write()
        await running.kill()
        running.disk.fails = True
        running.start()
        await running.clock.asleep()
        running.disk.fails = False
        running.write(*["x"] * 3, established(B), to(B, queue_id="ABCDEF12345"))
        await running.read(journal.REOPEN_AFTER)
        assert await running.counted() == [OK_B, OK_B]


async def test_entries_that_can_t_be_read_are_passed_over() -> None:
    async with reading() as running:
        running.write(established(), "x", to())
        running.disk.broken.add(1)
        assert await running.counted() == [OK]
        assert running.value("log_lines_skipped_total", why="broken") == 1


async def test_a_journal_that_may_not_be_read(caplog: pytest.LogCaptureFixture) -> None:
    running = Running()
    running.disk.readable = False
    running.start()
    await running.read()
    await running.stop()
    assert events(caplog) == ["journal-unreadable", "log-begun end"]


async def test_no_more_is_read_again_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_AGAIN", 640)
    async with reading() as running:
        running.write(*["x"] * 10_000, established(), to())
        await running.read()
        running.kept.write()
        await running.kill()
        before = running.disk.read
        assert await running.counted() == [OK]
        assert 500 < running.disk.read - before < 1000


LINES = sample_lines()
SESSIONS = sessions_of(LINES)
SAMPLE = list(entries())
CHOICES = ("read", "read", "write", "kill", "stop", "vacuum", "fail")


@given(
    st.lists(st.tuples(st.integers(0, len(SAMPLE)), st.sampled_from(CHOICES)), max_size=12),
    st.integers(0, 3),
    st.sampled_from([7, 64]),
)
@settings(max_examples=40, deadline=None)
def test_any_history_counts_each_session_once(
    history: list[tuple[int, str]], every: int, batch: int
) -> None:
    """The daemon killed and the store written between any two entries; the journal fails, and
    forgets what needs not be read again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "BATCH", batch)
        asyncio.run(_live(sorted(history), every))


async def _live(history: list[tuple[int, str]], every: int) -> None:
    async with reading(cursor="@1 @1 0") as running:
        running.kept.write_every = every
        written = 0
        for cut, choice in [*history, (len(SAMPLE), "read")]:
            for entry in SAMPLE[written:cut]:
                own = {k: v for k, v in entry.items() if not k.startswith("__")}
                at = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
                running.disk.write(at=at, **{"message": own.pop("MESSAGE"), **own})
            written = max(cut, written)
            await _happen(running, choice)
        assert await running.counted() == SESSIONS
        untrusted = len(SAMPLE) // 3
        assert running.value("log_lines_skipped_total", why="untrusted") >= untrusted


async def _happen(running: Running, choice: str) -> None:
    match choice:
        case "read" | "fail" if not running.alive:
            running.start()
            await running.clock.asleep()
        case "fail":
            running.disk.fails = True
            await running.read(journal.REOPEN_AFTER)
            running.disk.fails = False
            await running.read(journal.REOPEN_AFTER)
        case "read":
            await running.read()
        case "write":
            running.kept.write()
        case "kill":
            await running.kill()
        case "stop":
            await running.stop()
            running.kept.write()
        case _:
            running.disk.gone = _number(running.kept.cursor.partition(" ")[0])


def _number(cursor: str) -> int:
    return int(cursor.rpartition("=")[2], 16) if cursor.startswith("s=") else 0


# ---- the real library on real files; the stand-in does as it does


class Real:
    """A folder of journal files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        unpacked(folder, "first")

    def open(self) -> Journal:
        return SystemdJournal(library.Reader(path=str(self.folder)))

    def more(self) -> None:
        """A file comes, as when the journal is rotated."""
        unpacked(self.folder, "second")


class Fake:
    """The same on a `Disk`."""

    def __init__(self, folder: Path) -> None:
        self.disk = Disk()
        self._all = [e for e in SAMPLE if e["_TRANSPORT"] == "syslog"]
        self._write([e for e in self._all if e in SAMPLE[: len(SAMPLE) // 2]])

    def _write(self, part: list[Mapping[str, str]]) -> None:
        for entry in part:
            at = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
            self.disk.entries.append(Entry(cursor_of(len(self.disk.entries)), at, entry))

    def open(self) -> Journal:
        return self.disk.open()

    def more(self) -> None:
        self._write(self._all[len(self.disk.entries) :])


@pytest.fixture(params=[Real, Fake])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Real | Fake:
    return request.param(tmp_path)  # type: ignore[no-any-return]


def messages(batch: Batch) -> list[object]:
    return [entry.fields["MESSAGE"] for entry in batch.entries]


WANTED = [e["MESSAGE"] for e in SAMPLE if e["_TRANSPORT"] == "syslog"]
FIRST = len([e for e in SAMPLE[: len(SAMPLE) // 2] if e["_TRANSPORT"] == "syslog"])


def test_reading_to_the_end_and_on(files: Real | Fake) -> None:
    journal = files.open()
    journal.seek_time(0.0)
    one, rest, none = journal.read(1), journal.read(1000), journal.read(10)
    assert messages(one) + messages(rest) == WANTED[:FIRST]
    assert (one.end, rest.end, none) == (False, True, Batch(end=True))
    files.more()
    assert messages(journal.read(1000)) == WANTED[FIRST:]
    journal.close()


def test_going_behind_an_entry(files: Real | Fake) -> None:
    files.more()
    journal = files.open()
    journal.seek_time(0.0)
    batch = journal.read(1000)
    assert len({entry.cursor for entry in batch.entries}) == len(WANTED)
    for n in (0, 7, FIRST - 1, FIRST, len(WANTED) - 1):
        again = files.open()
        assert again.seek(batch.entries[n].cursor) == "found"
        assert messages(again.read(1000)) == WANTED[n + 1 :]
        again.close()
    assert journal.seek(batch.entries[3].cursor) == "found"  # back in the same one
    assert messages(journal.read(2)) == WANTED[4:6]
    journal.close()


def test_going_to_a_time(files: Real | Fake) -> None:
    journal = files.open()
    journal.seek_time(0.0)
    batch = journal.read(1000)
    for n in (0, 10, FIRST - 1):
        journal.seek_time(batch.entries[n].at)
        assert messages(journal.read(1)) == WANTED[n : n + 1]
    journal.seek_time(READ_AT)
    assert journal.read(1) == Batch(end=True)
    journal.close()


def test_what_is_no_cursor(files: Real | Fake) -> None:
    journal = files.open()
    assert journal.seek("x") == "no-cursor"
    assert journal.readable()
    journal.close()


def test_an_entry_that_is_gone(tmp_path: Path) -> None:
    """With its file, as when the journal is vacuumed: the next one is read, not passed over."""
    files = Real(tmp_path)
    files.more()
    journal = files.open()
    journal.seek_time(0.0)
    cursor = journal.read(5).entries[-1].cursor
    journal.close()
    tmp_path.joinpath("first.journal").unlink()
    journal = files.open()
    assert journal.seek(cursor) == "gone"
    assert messages(journal.read(1000)) == WANTED[FIRST:]
    journal.close()


async def test_a_real_journal_from_beginning_to_end(tmp_path: Path) -> None:
    """Killed at each turn, with a file that comes meanwhile; forged entries count nothing."""
    files = Real(tmp_path)
    running = Running()
    running.open = files.open
    running.kept.cursor = "@1 @1 0"
    running.kept.write_every = 1
    for n in range(3):
        if n == 1:
            files.more()
        running.start()
        await running.read()
        await running.kill()
    assert running.kept.sessions == SESSIONS
    by_syslog = [e for e in SAMPLE if e["_TRANSPORT"] == "syslog"]
    assert running.value("log_lines_total") == len(by_syslog)
    untrusted = len(by_syslog) - 2 * len(LINES)
    assert running.value("log_lines_skipped_total", why="untrusted") == untrusted > 50


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def importing(name: str, *rest: object) -> object:
        if name.startswith("systemd"):
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(JournalUnavailable, match=r"mtastsd\[systemd\]"):
        system_journal()


def test_the_system_s_journal_can_be_opened() -> None:
    """Whether or not there is one here."""
    journal = system_journal()()
    assert journal.readable() in (True, False)
    journal.seek_time(0.0)
    assert len(journal.read(3).entries) <= 3
    journal.close()


class Broken:
    """A library whose entries can't be read, from one on."""

    def __init__(self, row: int) -> None:
        self._left = row

    def get_next(self) -> dict[str, object]:
        self._left -= 1
        if self._left >= 0:
            raise OSError(74, "Bad message")
        return {}

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def test_many_entries_in_a_row_that_can_t_be_read() -> None:
    few = SystemdJournal(Broken(journalreader.MAX_BROKEN - 1))
    assert few.read(9) == Batch(end=True, broken=journalreader.MAX_BROKEN - 1)
    assert SystemdJournal(Broken(1)).seek("s=0") == "gone"
    with pytest.raises(OSError, match="Bad message"):
        SystemdJournal(Broken(journalreader.MAX_BROKEN)).read(9)
