"""What the readers of the mail log have in common: lines in, sessions and a position out.

A session that a delivery's last line completes rests on the lines before it, so a restart has to
know these. The position that is kept is a pair: up to where sessions were counted, and from where
lines are read again before that, without counting. `MailLog` needs no more than lines, so the
second is simply `WINDOW` seconds of the log earlier. Sessions and position go to the collector in
one turn of the event loop, and it writes them in one transaction: a line is counted once, whatever
moment the daemon is killed at.

What a restart forgets: lines of deliveries that have lasted longer than `WINDOW`, or lie more than
the reader's limit back; the fault of a TLS session that was new before that and is resumed now,
which then is certificate-not-trusted without a reason.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.ports import Clock
from mtastsd.postfix.maillog import MailLog
from mtastsd.tlsrpt.session import Session

WINDOW = 600.0
"""Seconds of the log that a restart reads again: the longest time limit of a step of a delivery
(`smtp_data_done_timeout`), and more than any note of `MailLog` waits, but for resumed sessions."""

STEP = 10.0
"""Seconds of the log between two positions that are remembered to read again from."""

PARTS = 64
"""Into how many parts what may be read again is divided, where seconds do not divide it."""

COMMIT_EVERY = 10.0
"""Seconds between positions without a session: each costs the store a transaction."""

MAX_AGE = 7 * 86400.0
"""Seconds: a line that is older tells of a day that is long reported."""

MAX_AHEAD = 86400.0
"""Seconds that a line may be ahead of the clock."""

WARN_EVERY = 600.0
"""Seconds between warnings of one kind."""

Take = Callable[[Session, int], None]
At = Callable[[str, str], None]

SERVICES = ("/smtp", "/tlsproxy")
"""How the syslog names end that `MailLog` reads; all other lines need no parsing."""

_CURSOR = re.compile(r"(?P<since>[!-~]{1,400}) (?P<upto>[!-~]{1,400}) (?P<at>[0-9]{1,12})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """What the store keeps of a reader. Positions are printable and have no blanks.

    `since`: read again from here, without counting. `upto`: go on from here. `at`: the time of the
    last line, in whole seconds.
    """

    since: str
    upto: str
    at: int

    def encode(self) -> str:
        """One line."""
        return f"{self.since} {self.upto} {self.at}"

    @staticmethod
    def decode(text: str) -> Cursor | None:
        """What `encode` gave, None for anything else."""
        found = _CURSOR.fullmatch(text)
        return None if found is None else Cursor(found[1], found[2], int(found[3]))


@dataclass(frozen=True, slots=True)
class _Point:
    """A position. `at`: the latest time of a line before it. `amount`: what was passed by then."""

    position: str
    at: float
    amount: int


class LogFeed:
    """Feeds a `MailLog`, hands on its sessions, and tells the position with them.

    `again`: lines are read again, and sessions not handed on. `counted_until`: wall time before
    which lines were counted, where the position was lost.
    """

    def __init__(
        self,
        name: str,
        maillog: MailLog,
        take: Take,
        at: At,
        *,
        limit: int,
        clock: Clock,
        log: Log,
        metrics: Metrics,
    ) -> None:
        """`name` is the reader's in the store; `limit`: how much may be read again, in the unit of
        `passed`."""
        self.name = name
        self.again = False
        self.counted_until = 0.0
        self._maillog = maillog
        self._take = take
        self._at = at
        self._limit = limit
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._points: deque[_Point] = deque()
        self._position = self._kept = ""
        self._amount = 0
        self._latest = 0.0
        self._counted = False
        self._commit_at = 0.0
        self._warned: dict[str, float] = {}

    def begin(self, position: str, *, commit: bool) -> None:
        """Lines come from this position on. `commit`: no position is kept yet."""
        self._points.clear()
        self._points.append(_Point(position, self._latest, self._amount))
        self._position = position
        if commit:
            self._commit()

    def resumed(self, position: str, at: float) -> None:
        """What was read again is over; from this position on, which is kept, lines count.

        `at` as in the cursor; `position` "" where it is not known before the next line.
        """
        self.again = False
        self._position = self._kept = position
        self._latest = max(self._latest, at)

    def line(self, program: str, pid: int, message: str, at: float, host: str = "") -> None:
        """The next line."""
        now = self._clock.now()
        if not now - MAX_AGE <= at <= now + MAX_AHEAD:
            self.skipped("time")
            return
        self._latest = max(self._latest, at)
        try:
            for session in self._maillog.feed(program, pid, message, at, host):
                if not self.again and at >= self.counted_until:
                    self._take(session, 1)
                    self._counted = True
        except Exception as bug:
            # One line's bug must not end the reading of all others.
            self._log.error("bug", exc=bug, line=message)
            self.skipped("bug")

    def passed(self, position: str, amount: int, lines: int) -> None:
        """All before a position was fed: so many lines, and so much by the reader's own measure."""
        if not self._points:
            self.begin(position, commit=True)
        self._position = position
        self._amount += amount
        last = self._points[-1]
        far = self._latest - last.at >= STEP or self._amount - last.amount >= self._limit // PARTS
        if far:
            self._points.append(_Point(position, self._latest, self._amount))
        while len(self._points) > 1 and self._is_enough(self._points[1]):
            self._points.popleft()
        if self.again:
            return
        self._metrics.log_lines.inc(lines)
        if lines and self._latest:
            self._metrics.log_lag.set(max(self._clock.now() - self._latest, 0.0))
        if self._counted:
            self._commit()
        self.rest()

    def rest(self) -> None:
        """There is nothing to read now, or nothing that is urgent to keep."""
        if self._position != self._kept and self._clock.monotonic() >= self._commit_at:
            self._commit()

    def _is_enough(self, point: _Point) -> bool:
        """Whether reading again from this point on will do, or has to."""
        first = self._points[0]
        return point.at <= self._latest - WINDOW or self._amount - first.amount > self._limit

    def _commit(self) -> None:
        cursor = Cursor(self._points[0].position, self._position, int(self._latest))
        self._at(self.name, cursor.encode())
        self._counted = False
        self._kept = self._position
        self._commit_at = self._clock.monotonic() + COMMIT_EVERY

    def skipped(
        self, why: str, count: int = 1, fields: Mapping[str, object] = MappingProxyType({})
    ) -> None:
        """Count lines that tell nothing though they should, and warn, but not of each."""
        if not count or self.again:
            return
        self._metrics.log_skipped.labels(why).inc(count)
        if self.may_warn(why):
            self._log.warning("log-lines-skipped", reader=self.name, why=why, count=count, **fields)

    def may_warn(self, what: str) -> bool:
        """Whether the last warning of this kind is long ago."""
        now = self._clock.monotonic()
        if now < self._warned.get(what, 0.0):
            return False
        self._warned[what] = now + WARN_EVERY
        return True
