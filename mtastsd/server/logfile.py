"""The mail log in a file, from where the last run stopped on.

At the first start of all reading begins at the end of the file: what was delivered before is no
business of a daemon that had not answered then. After a restart it goes on where it was, in a file
that was rotated meanwhile too, unless that was compressed or removed: then a warning says that
lines may be lost, and the file that is there is read from its beginning, sessions of times that
were counted before left out.

The system's log writer may escape or cut lines; what `parse_line` can't read is counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.ports import Clock
from mtastsd.postfix.maillog import MailLog
from mtastsd.postfix.syslog import parse_line
from mtastsd.server.logfeed import SERVICES, At, Cursor, LogFeed, Take
from mtastsd.server.logtail import Mark, Note, NotOpen, Step, Tail

POLL = 0.5
"""Seconds between looks at a file that had no more to give."""

AFTER_BUG = 10.0
"""Seconds before a reader that met a bug goes on."""

MAX_AGAIN = 32 << 20
"""Octets of the log that are read again at most: 3.5 seconds of work if all lines tell of TLS, in
parts of milliseconds."""

_SIGNS = tuple(service.encode() + b"[" for service in SERVICES)


def local_offset(at: float) -> int:
    """Seconds by which local time is ahead of UTC then: in old syslog lines time is local."""
    return time.localtime(at).tm_gmtoff


class LogFileSource:
    """Follows a file; hands sessions to `take` and its position to `at`."""

    def __init__(
        self,
        path: Path,
        maillog: MailLog,
        take: Take,
        at: At,
        *,
        cursor: str,
        clock: Clock,
        log: Log,
        metrics: Metrics,
        utc_offset: Callable[[float], int] = local_offset,
    ) -> None:
        """`cursor` is what `at` was given last under the name `reader_name(path)`, "" at first."""
        self._cursor = cursor
        self._tail = Tail(path)
        self._feed = LogFeed(
            reader_name(path),
            maillog,
            take,
            at,
            limit=MAX_AGAIN,
            clock=clock,
            log=log,
            metrics=metrics,
        )
        self._clock = clock
        self._log = log
        self._utc_offset = utc_offset
        self._trouble: Note = ""

    async def run(self) -> None:
        """Read for ever. When cancelled, each line that was read is counted and its position told,
        and others are not."""
        begun = False
        try:
            while True:
                try:
                    if not begun:
                        await self._begin()
                        begun = True
                    await self._turn()
                except Exception as bug:
                    # Look-ups go on without the log.
                    self._log.error("bug", exc=bug)
                    await self._clock.sleep(AFTER_BUG)
        finally:
            self._tail.close()

    async def _turn(self) -> None:
        """One look at the file, in a thread, for a disk may take its time."""
        try:
            step = await asyncio.to_thread(self._tail.step)
        except OSError as error:
            step = Step(note="denied", idle=True, why=str(error))
        self._tell(step.note, step.why, found=step.found)
        self._feed.skipped("partial", int(step.partial))
        # At the beginning of the file that follows another the position stays at the end of that
        # one: octets before a position are what it is known by.
        if step.octets or step.note == "opened":
            self._digest(step)
        if step.idle:
            self._feed.rest()
            await self._clock.sleep(POLL)
        elif step.octets:
            self._trouble = ""

    # ---- the beginning

    async def _begin(self) -> None:
        cursor = Cursor.decode(self._cursor)
        upto = Mark.decode(cursor.upto) if cursor else None
        if cursor is None or upto is None:
            await self._first()
        elif await self._resumed(upto):
            await self._again(cursor)
        else:
            self._lost(cursor.at)

    async def _first(self) -> None:
        """Begin at the end, or at the beginning of a file that is not there yet."""
        if self._cursor:
            self._log.warning("log-position-lost", reader=self._feed.name, cursor=self._cursor)
        where = "end"
        while isinstance(mark := await asyncio.to_thread(self._tail.begin), NotOpen):
            self._not_open(mark)
            if mark.missing:
                where = "beginning"
                break
            await self._clock.sleep(POLL)
        self._log.info("log-begun", reader=self._feed.name, where=where)
        if isinstance(mark, Mark):
            self._feed.begin(mark.encode(), commit=True)

    async def _resumed(self, mark: Mark) -> bool:
        """Whether the position is found; as long as there is no file, it may be yet."""
        while isinstance(found := await asyncio.to_thread(self._tail.resume, mark), NotOpen):
            self._not_open(found)
            await self._clock.sleep(POLL)
        return found

    async def _again(self, cursor: Cursor) -> None:
        """Read the lines before the position once more, to know of deliveries under way."""
        self._feed.begin(cursor.since, commit=False)
        self._feed.again = True
        octets = 0
        since = Mark.decode(cursor.since)
        steps: Iterator[Step] = self._tail.again(since) if since else iter(())
        try:
            while (step := await asyncio.to_thread(next, steps, None)) is not None:
                octets += step.octets
                self._digest(step)
        except OSError as error:
            self._tell("denied", str(error))
        self._feed.resumed(cursor.upto, cursor.at)
        self._log.info("log-begun", reader=self._feed.name, where="position", again=octets)

    def _lost(self, at: float) -> None:
        """The position is not found: read what is there, but for what was counted already."""
        self._log.warning("log-position-lost", reader=self._feed.name, last_line=int(at))
        self._feed.resumed("", at)
        if at <= self._clock.now():
            self._feed.counted_until = at

    # ---- lines

    def _digest(self, step: Step) -> None:
        """Feed lines and tell the position behind them, in one turn of the event loop."""
        assert step.mark is not None
        now = self._clock.now()
        offset = self._utc_offset(now)
        for line in step.lines:
            if any(sign in line for sign in _SIGNS):
                self._line(line, now, offset)
        self._feed.skipped("long", step.long)
        self._feed.passed(step.mark.encode(), step.octets, len(step.lines))

    def _line(self, line: bytes, now: float, offset: int) -> None:
        read = parse_line(line.decode("utf-8", "replace"), now, offset)
        if read is None:
            self._feed.skipped("form", fields={"line": line.decode("utf-8", "replace")})
        else:
            self._feed.line(read.program, read.pid, read.message, read.at, read.host)

    # ---- what is told

    def _not_open(self, file: NotOpen) -> None:
        self._tell("missing" if file.missing else "denied", file.why)

    def _tell(self, note: Note, why: str = "", *, found: bool = False) -> None:
        match note:
            case "missing" | "denied":
                if self._trouble != note:  # once, not with each look
                    if note == "missing":
                        self._log.warning("log-missing", reader=self._feed.name)
                    else:
                        self._log.warning("log-unreadable", reader=self._feed.name, error=why)
                self._trouble = note
            case "opened" | "rotated":
                self._log.info("log-opened", reader=self._feed.name, after=note)
                self._trouble = ""
            case "truncated":
                if found:
                    self._log.info("log-truncated", reader=self._feed.name, copy="read")
                else:
                    self._log.warning("log-truncated", reader=self._feed.name, copy="none")
                self._trouble = ""
            case "":
                pass


def reader_name(path: Path) -> str:
    """The reader's name in the store. Each file has its own position."""
    return f"logfile:{path}"
