"""Delivery results: joined with what was answered, added up in memory, written every second.

The store may be slow, full or away: then what was added up stays in memory, bounded, and is
offered again under the same number, so that nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.names import Domain
from mtastsd.ports import Clock, StoreUnavailable, TallyBatch, TallyStore
from mtastsd.service.memory import Memory
from mtastsd.tlsrpt import join, tally
from mtastsd.tlsrpt.session import Detail, Session
from mtastsd.tlsrpt.tally import Tallies, day_of
from mtastsd.verdict import Verdict

FLUSH_EVERY = 0.8
"""Seconds between writes. With what the receiver holds, SIGKILL loses a second at most."""

ANSWERED = 2_000
"""Verdicts remembered for the sessions that follow them: those of the domains that were asked for
last. One that is older is decided again from what is known."""

Decide = Callable[[Domain], Verdict | None]


class Collector:
    """Takes sessions of all sources."""

    def __init__(
        self,
        store: TallyStore,
        decide: Decide,
        *,
        source: str,
        both: bool,
        sending_ip: str = "",
        clock: Clock,
        log: Log,
        metrics: Metrics,
    ) -> None:
        """`source` names this relay for the store; `both`: datagrams and a log are read.

        `sending_ip` is our address, for sessions of a log, which does not have it.
        `decide` gives the verdict that would be answered now, from memory alone.
        """
        self._store = store
        self._decide = decide
        self._source = source
        self._both = both
        self.sending_ip = sending_ip
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._answered: Memory[Domain, Verdict] = Memory(ANSWERED)
        self._tallies = Tallies()
        self._offered: TallyBatch | None = None
        self._sequence: int | None = None
        self._cursors: dict[str, str] = {}
        self._store_works = True
        self.on_unjudged: Callable[[Session], None] = lambda session: None
        metrics.tally_pending.set_function(lambda: len(self._tallies.days))

    def answered(self, verdict: Verdict) -> None:
        """Remember what a look-up was answered; a session of the domain may follow."""
        self._answered.put(verdict.domain, verdict)

    def take(self, session: Session, count: int = 1) -> None:
        """Count `count` sessions that were alike."""
        if session.source == "log" and session.details and self.sending_ip:
            session = replace(session, details=tuple(self._from_here(d) for d in session.details))
        outcome = "success" if session.success else "failure"
        self._metrics.sessions.labels(session.source, outcome).inc(count)
        verdict = self._answered.get(session.domain) or self._decide(session.domain)
        counted = join.join(session, verdict, both=self._both)
        if not counted:
            return
        if not tally.add(self._tallies, day_of(session.at), session.domain, counted, count):
            self._metrics.sessions_dropped.inc(count)
            return
        if any(item.unjudged for item in counted):
            self.on_unjudged(session)

    def _from_here(self, detail: Detail) -> Detail:
        return detail if detail.sending_ip else replace(detail, sending_ip=self.sending_ip)

    def at(self, reader: str, cursor: str) -> None:
        """A log reader has handed over everything up to this position."""
        self._cursors[reader] = cursor

    async def run(self) -> None:
        """Write what was added up, for ever."""
        while True:
            await self._clock.sleep(FLUSH_EVERY)
            await self.flush()

    async def flush(self) -> bool:
        """Write what waits; whether the store has it all."""
        try:
            if self._sequence is None:
                self._sequence = await self._store.sequence(self._source)
            while self._offer() is not None:
                batch = self._offered
                assert batch is not None
                await self._store.add(batch)
                self._offered = None
                self._works()
        except StoreUnavailable as error:
            self._failed(str(error))
            return False
        return True

    def _offer(self) -> TallyBatch | None:
        """The batch to write next: one that was not confirmed, else what has come since."""
        if self._offered is None and (self._tallies.days or self._cursors):
            assert self._sequence is not None
            self._sequence += 1
            cursors, self._cursors = self._cursors, {}
            taken = self._tallies.take()
            self._offered = TallyBatch(self._source, self._sequence, taken, cursors)
        return self._offered

    def _failed(self, reason: str) -> None:
        self._metrics.store_errors.labels("tally").inc()
        if self._store_works:
            self._log.error("store-unavailable", doing="tally", reason=reason)
        self._store_works = False

    def _works(self) -> None:
        if not self._store_works:
            self._log.info("store-back", waiting=len(self._tallies.days))
        self._store_works = True
