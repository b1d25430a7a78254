"""A store's stand-in for readers of the mail log, the sample log, and what it tells."""

from __future__ import annotations

import logging
from pathlib import Path

from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.postfix.maillog import MailLog
from mtastsd.postfix.syslog import LogLine, parse_line
from mtastsd.tlsrpt.session import Session
from tests.fakes import FakeClock
from tests.unit.maillog_tools import shown

READ_AT = 1764003600.0
"""An hour after the lines of the sample were logged."""

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


class World:
    """What a reader gets handed."""

    def __init__(self) -> None:
        self.clock = FakeClock(READ_AT)
        self.kept = Kept()
        self.metrics = Metrics()
        self.log = Log(logging.getLogger("mtastsd"))

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"mtastsd_{name}", labels) or 0.0
