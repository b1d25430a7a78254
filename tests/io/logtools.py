"""What the tests of both readers of the mail log share: the sample, a store, a reader that runs."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.postfix.maillog import MailLog
from mtastsd.postfix.syslog import LogLine, parse_line
from mtastsd.server.journal import JournalSource
from mtastsd.server.logfile import POLL, LogFileSource
from mtastsd.tlsrpt.session import Session
from tests.fakes import FakeClock
from tests.unit.maillog_tools import shown

READ_AT = 1764003600.0
"""An hour after the lines of the sample were logged."""

LIMIT = 20.0

SAMPLE = Path(__file__).parents[1] / "data/maillog.txt"


def sample_lines() -> list[bytes]:
    """The lines as they were logged, each with its end."""
    found = SAMPLE.read_bytes().split(b"\n")
    return [line + b"\n" for line in found if b"]: " in line and not line.startswith(b"=>")]


def parsed(line: bytes) -> LogLine:
    read = parse_line(line.decode("utf-8", "replace"), READ_AT)
    assert read is not None
    return read


def sessions_of(lines: list[bytes]) -> list[str]:
    """What a run without interruption counts."""
    log = MailLog()
    found: list[str] = []
    for line in map(parsed, lines):
        found += map(shown, log.feed(line.program, line.pid, line.message, line.at, line.host))
    return found


class Kept:
    """Sessions and the position, written together or not at all; `write_every` so many positions
    by itself, 0: only when told to."""

    def __init__(self) -> None:
        self.sessions: list[str] = []
        self.cursor = ""
        self.write_every = 0
        self._calls = 0
        self._taken: list[str] = []
        self._at = ""

    @property
    def began(self) -> bool:
        """Whether a reader has told a position."""
        return bool(self.cursor or self._at)

    def take(self, session: Session, count: int) -> None:
        assert count == 1
        self._taken.append(shown(session))

    def at(self, name: str, cursor: str) -> None:
        assert name
        self._at = cursor
        self._calls += 1
        if self.write_every and self._calls % self.write_every == 0:
            self.write()

    def write(self) -> None:
        """One transaction."""
        self.sessions += self._taken
        self.cursor = self._at or self.cursor
        self.lose()

    def lose(self) -> None:
        """SIGKILL."""
        self._taken, self._at = [], ""


class Running:
    """A reader that can be stopped, killed and started, and what it gets handed."""

    def __init__(self) -> None:
        self.clock = FakeClock(READ_AT)
        self.kept = Kept()
        self.metrics = Metrics()
        self.log = Log(logging.getLogger("mtastsd"))
        self._task: asyncio.Task[None] | None = None

    def source(self) -> LogFileSource | JournalSource:
        """The reader, as it is after a start."""
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        return self._task is not None

    def start(self) -> None:
        self._task = asyncio.create_task(self.source().run())

    async def read(self, seconds: float = POLL) -> None:
        """Let the reader come to the end of what is there, twice, with a time between."""
        async with asyncio.timeout(LIMIT):
            await self.clock.asleep()
            self.clock.advance(seconds)
            await self.clock.asleep()

    async def stop(self) -> None:
        """Between two lines."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def kill(self) -> None:
        """What was not written is lost."""
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

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"mtastsd_{name}", labels) or 0.0


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Each event with what tells it from others of its kind."""
    found = []
    for record in caplog.records:
        fields = getattr(record, "fields", {})
        words = [str(fields[key]) for key in ("where", "after", "copy", "why") if key in fields]
        found.append(" ".join([record.getMessage(), *words]))
    return found
