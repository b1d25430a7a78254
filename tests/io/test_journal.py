"""The mail log in the journal: whom it believes, and a reader that is killed, behind a journal that
forgets and fails."""

from __future__ import annotations

import asyncio
import logging
import pwd
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtastsd.postfix.syslog import LogLine
from mtastsd.server import journal, logfeed
from mtastsd.server.journal import Entry, Trust, line_of, postfix_trust
from tests.io.journalfiles import entries
from tests.io.journaltools import TRUST, Fields, RunningJournal, fields, reading
from tests.io.logtools import events, sample_lines, sessions_of
from tests.unit.maillog_tools import AT, OK, OK_B, B, established, to


@pytest.fixture(autouse=True)
def _all_events(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, "mtastsd"):
        yield


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
        ({"SYSLOG_PID": 1 << 99}, ("postfix/smtp", 1, "x")),
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
        running.write(established())
        running.start()
        await running.read()
        running.write(to())
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
    running = RunningJournal()
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


async def test_a_bug_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    async with reading() as running:
        running.disk.bug = True
        await running.read()
        running.disk.bug = False
        running.write(established(), to())
        await running.read(journal.REOPEN_AFTER)
        assert await running.counted() == [OK]
        assert events(caplog) == ["log-begun end", "bug"]


async def test_the_first_half_of_a_position_is_none() -> None:
    """Nothing is read again then, least of all what comes behind the other half."""
    async with reading() as running:
        running.write(established(), to())
        await running.read()
        running.kept.write()
        await running.kill()
        running.kept.cursor = running.kept.cursor.replace(
            running.kept.cursor.partition(" ")[0] + " ", "x "
        )
        running.write(established(B))
        running.start()
        await running.read()
        running.write(to(B))
        assert await running.counted() == [OK, OK_B]


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5, 6])
async def test_a_journal_that_fails_while_lines_are_read_again(
    after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That goes on where it was."""
    monkeypatch.setattr(journal, "BATCH", 1)
    async with reading() as running:
        running.write(established(), to(), established(B), to(B), established())
        await running.read(logfeed.COMMIT_EVERY)
        running.kept.write()
        await running.kill()
        running.disk.fails_after = after
        running.start()
        running.write(to(queue_id="ABCDEF12345"))
        await running.read(journal.REOPEN_AFTER)
        assert await running.counted() == [OK, OK_B, OK]


async def test_entries_that_can_t_be_read_are_passed_over() -> None:
    async with reading() as running:
        running.write(established(), "x", to())
        running.disk.broken.add(1)
        assert await running.counted() == [OK]
        assert running.value("log_lines_skipped_total", why="broken") == 1


async def test_a_journal_that_may_not_be_read(caplog: pytest.LogCaptureFixture) -> None:
    running = RunningJournal()
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


async def _happen(running: RunningJournal, choice: str) -> None:
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
