"""The mail log in systemd's journal, from where the last run stopped on.

Anybody on the machine may write to the journal under any name, and what is counted here is
reported in our name. So the name (`SYSLOG_IDENTIFIER`) only says which lines are read; whether
they are believed rests on what the kernel says of their sender: the account (`_UID`) is root or
Postfix's own, and the process belongs to a unit of Postfix (`_SYSTEMD_UNIT`) or runs its program
(`_EXE`). Either of the last two alone would not do: a command in a user's `.forward` runs in
Postfix's unit, and with LD_PRELOAD anybody's code runs in Postfix's program.

At the first start of all reading begins with what is written from then on. Where the entry of the
position is gone, a warning says that lines may be lost, and reading goes on with the next one.

The library may be used in one thread alone, so that the source has one, which looks twice a
second. Namespaces of the journal (`LogNamespace=`) are not read, and nothing is there where Postfix
writes a file of its own (`maillog_file`).
"""

from __future__ import annotations

import asyncio
import pwd
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeVar

from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.ports import Clock
from mtastsd.postfix.maillog import MailLog
from mtastsd.postfix.syslog import LogLine
from mtastsd.server.logfeed import SERVICES, At, Cursor, LogFeed, Take

NAME = "journal"
"""The reader's name in the store."""

POLL = 0.5
"""Seconds between looks at a journal that had no more to give."""

BATCH = 64
"""Entries of a read: 15 us each in the thread, and up to 12 us to digest one."""

MAX_AGAIN = 100_000
"""Entries that are read again at most: 3 seconds, in small parts."""

REOPEN_AFTER = 10.0
"""Seconds before a journal that failed is opened anew."""

POSTFIX_ACCOUNT = "postfix"
"""Postfix's `mail_owner`, as every distribution has it."""

MAX_PID = 0xFFFF_FFFF
"""The kernel's are shorter."""

_UNIT = re.compile(r"postfix[A-Za-z0-9:_.\\@-]{0,200}\.service")
_EXE = re.compile(r"(?:/[^/]+)*/postfix(?:/s?bin)?/(?:smtp|tlsproxy)(?: \(deleted\))?")
_PID = re.compile(r"[0-9]{1,10}")
_TIME = re.compile(r"@([0-9]{1,17})")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the journal: its position, the time it was received at, fields by name.

    Values are text, numbers, or octets where they are no UTF-8; a list of them where a field stands
    twice.
    """

    cursor: str
    at: float
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a read gave. `end`: there is no more now. `broken`: entries that can't be read."""

    entries: Sequence[Entry] = ()
    end: bool = False
    broken: int = 0


Found = Literal["found", "gone", "no-cursor"]


class Journal(Protocol):
    """What is asked of the journal. All calls block, and come from one thread; OSError: it failed.

    Only entries that came by syslog are given.
    """

    def readable(self) -> bool:
        """Whether there is a journal that we may read."""
        ...

    def seek(self, cursor: str) -> Found:
        """Go behind an entry; if it is gone, the next read gives what followed it."""
        ...

    def seek_time(self, at: float) -> None:
        """Go before the first entry of a time or after."""
        ...

    def read(self, limit: int) -> Batch:
        """The next entries, so many at most."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose entries are believed. `uids`: root's and that of Postfix."""

    uids: frozenset[int]

    def believes(self, fields: Mapping[str, object]) -> bool:
        """Whether an entry is Postfix's, by the fields that no sender can set."""
        if fields.get("_TRANSPORT") != "syslog" or _number(fields.get("_UID")) not in self.uids:
            return False
        unit, exe = fields.get("_SYSTEMD_UNIT"), fields.get("_EXE")
        by_unit = isinstance(unit, str) and _UNIT.fullmatch(unit) is not None
        return by_unit or (isinstance(exe, str) and _EXE.fullmatch(exe) is not None)


def postfix_trust() -> Trust:
    """Root and Postfix's account, if there is one."""
    try:
        return Trust(frozenset({0, pwd.getpwnam(POSTFIX_ACCOUNT).pw_uid}))
    except KeyError:
        return Trust(frozenset({0}))


def line_of(entry: Entry, trust: Trust) -> LogLine | Literal["other", "untrusted", "form"]:
    """The line that an entry is; `other`: of no program that is read here."""
    program = entry.fields.get("SYSLOG_IDENTIFIER")
    if not isinstance(program, str) or not program.endswith(SERVICES):
        return "other"
    if not trust.believes(entry.fields):
        return "untrusted"
    pid = _number(entry.fields.get("SYSLOG_PID"))
    if pid is None:
        pid = _number(entry.fields.get("_PID"))
    message = entry.fields.get("MESSAGE")
    if isinstance(message, bytes):
        message = message.decode("utf-8", "replace")
    if pid is None or not isinstance(message, str):
        return "form"
    return LogLine(entry.at, "", program, pid, message)


def _number(value: object) -> int | None:
    """A number as the library gives it, or in digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value <= MAX_PID else None
    return int(value) if isinstance(value, str) and _PID.fullmatch(value) else None


class JournalSource:
    """Follows the journal; hands sessions to `take` and its position to `at`."""

    def __init__(
        self,
        open_journal: Callable[[], Journal],
        maillog: MailLog,
        take: Take,
        at: At,
        *,
        cursor: str,
        trust: Trust,
        clock: Clock,
        log: Log,
        metrics: Metrics,
    ) -> None:
        """`cursor` is what `at` was given last under `NAME`, "" at first."""
        self._open = open_journal
        self._cursor = cursor
        self._trust = trust
        self._clock = clock
        self._log = log
        self._position = ""
        self._feed = LogFeed(
            NAME, maillog, take, at, limit=MAX_AGAIN, clock=clock, log=log, metrics=metrics
        )

    async def run(self) -> None:
        """Read for ever. When cancelled, each line that was read is counted and its position told,
        and others are not."""
        with _Lane(self._open) as lane:
            while True:
                try:
                    await self._read(lane)
                except OSError as error:
                    if self._feed.may_warn("failed"):
                        self._log.warning("journal-failed", error=str(error))
                except Exception as bug:
                    # Look-ups go on without the log.
                    self._log.error("bug", exc=bug)
                await self._clock.sleep(REOPEN_AFTER)

    async def _read(self, lane: _Lane) -> None:
        if not await lane.open() and self._feed.may_warn("unreadable"):
            self._log.warning("journal-unreadable", hint="is the user in group systemd-journal?")
        await self._begin(lane)
        while True:
            batch = await lane.read()
            self._feed.skipped("broken", batch.broken)
            self._digest(batch.entries)
            if batch.end:
                self._feed.rest()
                await self._clock.sleep(POLL)

    def _digest(self, entries: Sequence[Entry]) -> None:
        """Feed lines and tell the position behind them, in one turn of the event loop."""
        if not entries:
            return
        for entry in entries:
            line = line_of(entry, self._trust)
            if isinstance(line, LogLine):
                self._feed.line(line.program, line.pid, line.message, line.at)
            elif line != "other":
                sender = {k.lower(): entry.fields.get(k) for k in ("_UID", "_EXE", "_SYSTEMD_UNIT")}
                self._feed.skipped(line, fields=sender)
        self._position = entries[-1].cursor
        self._feed.passed(self._position, len(entries), len(entries))

    # ---- the beginning

    async def _begin(self, lane: _Lane) -> None:
        cursor = Cursor.decode(self._cursor)
        if self._position:  # it failed and was opened anew
            await self._go(lane, self._position)
        elif cursor is None:
            if self._cursor:
                self._lost(self._cursor)
            await self._first(lane)
        else:
            await self._resume(lane, cursor)
        if cursor is not None and self._feed.again:
            await self._again(lane, cursor)

    async def _resume(self, lane: _Lane, cursor: Cursor) -> None:
        found = await self._go(lane, cursor.upto)
        if found == "no-cursor":
            await self._first(lane)
            return
        self._feed.begin(cursor.since, commit=False)
        again = found == "found" and cursor.since != cursor.upto
        if again and await lane.go(cursor.since) != "no-cursor":  # gone: there is less to read
            self._position = cursor.since
            self._feed.again = True
            return
        self._position = cursor.upto
        self._feed.resumed(cursor.upto, cursor.at)
        if found == "found":
            self._log.info("log-begun", reader=NAME, where="position", again=0)

    async def _first(self, lane: _Lane) -> None:
        """Begin with what is written from now on. A time is a position as well, for there may be
        no entry yet."""
        self._position = f"@{int(self._clock.now() * 1e6)}"
        await self._go(lane, self._position)
        self._feed.begin(self._position, commit=True)
        self._log.info("log-begun", reader=NAME, where="end")

    async def _again(self, lane: _Lane, cursor: Cursor) -> None:
        """Read the entries before the position once more, to know of deliveries under way."""
        count, ended = 0, False
        while not ended:
            batch = await lane.read()
            places = [entry.cursor for entry in batch.entries]
            ended = batch.end or cursor.upto in places
            last = places.index(cursor.upto) + 1 if cursor.upto in places else len(places)
            self._digest(batch.entries[:last])
            count += last
        await self._go(lane, cursor.upto)
        self._position = cursor.upto
        self._feed.resumed(cursor.upto, cursor.at)
        self._log.info("log-begun", reader=NAME, where="position", again=count)

    async def _go(self, lane: _Lane, position: str) -> Found:
        found = await lane.go(position)
        if found != "found":
            self._lost(position)
        return found

    def _lost(self, position: str) -> None:
        self._log.warning("log-position-lost", reader=NAME, cursor=position)


class _Lane:
    """The one thread that the journal is used in."""

    def __init__(self, open_journal: Callable[[], Journal]) -> None:
        self._open = open_journal
        self._thread = ThreadPoolExecutor(1, "journal")
        self._journal: Journal | None = None

    def __enter__(self) -> _Lane:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    async def open(self) -> bool:
        """Open the journal anew; whether it may be read."""

        def opened() -> bool:
            self._close()
            self._journal = self._open()
            return self._journal.readable()

        return await self._run(opened)

    async def go(self, position: str) -> Found:
        """Go behind an entry, or to a time."""
        time = _TIME.fullmatch(position)

        def gone_to() -> Found:
            assert self._journal is not None
            if time is None:
                return self._journal.seek(position)
            self._journal.seek_time(int(time[1]) / 1e6)
            return "found"

        return await self._run(gone_to)

    async def read(self) -> Batch:
        """The next entries."""
        assert self._journal is not None
        return await self._run(partial(self._journal.read, BATCH))

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._thread.submit(call))

    def _close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
