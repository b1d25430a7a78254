"""A stand-in for the journal, and a reader of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from mtastsd.postfix.maillog import MailLog
from mtastsd.server.journal import Batch, Entry, Found, Journal, JournalSource, Trust
from tests.io.journalfiles import POSTFIX_UID, SENDER
from tests.io.logtools import READ_AT, Running
from tests.unit.maillog_tools import AT

TRUST = Trust(frozenset({0, POSTFIX_UID}))
KERNEL: Mapping[str, object] = {**SENDER, "_UID": POSTFIX_UID}
"""What the journal says of a sender that is Postfix."""

Fields = Mapping[str, object]


def fields(message: object = "x", **others: object) -> dict[str, object]:
    """An entry of postfix/smtp[1]; None leaves a field out."""
    made = {**KERNEL, "SYSLOG_IDENTIFIER": "postfix/smtp", "_PID": 1, "MESSAGE": message, **others}
    return {name: value for name, value in made.items() if value is not None}


@dataclass
class Disk:
    """A journal: entries by number, of which the first may be gone, and others broken."""

    entries: list[Entry] = field(default_factory=list)
    gone: int = 0
    broken: set[int] = field(default_factory=set)
    fails: bool = False
    fails_after: int = -1
    bug: bool = False
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
        assert not self._disk.bug
        self._disk.fails_after -= 1
        if self._disk.fails or self._disk.fails_after == 0:
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


class RunningJournal(Running):
    """A journal and its reader. `open`: how the reader opens it."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk()
        self.open: Callable[[], Journal] = self.disk.open

    def write(self, *messages: str) -> None:
        for message in messages:
            self.disk.write(message)

    def source(self) -> JournalSource:
        return JournalSource(
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


@asynccontextmanager
async def reading(*before: str, cursor: str = "") -> AsyncIterator[RunningJournal]:
    """A reader whose position is kept, behind what was there before it."""
    running = RunningJournal()
    running.kept.cursor = cursor
    for message in before:
        running.disk.write(message, at=AT)
    running.start()
    await running.read()
    running.kept.write()
    yield running
    await running.stop()
