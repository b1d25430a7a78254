"""From a next hop to a verdict: memory, then the store, then a flight for each branch.

A known domain is answered at once; what is due is asked for behind it. First contact waits until
its deadline, and what was begun goes on in the background. Nothing here waits longer, whatever
DNS, a policy host or the store does.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from mtastsd.dane import STALE_USE, DaneBranch, Finding
from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.names import Domain
from mtastsd.ports import Clock
from mtastsd.postfix.nexthop import NextHop
from mtastsd.service.branches import DaneBranches, StsBranches
from mtastsd.service.current import Current
from mtastsd.service.known import Known
from mtastsd.sts import flow
from mtastsd.sts.flow import StsBranch
from mtastsd.verdict import Verdict, decide

Source = Literal["memory", "store", "discovery", "deadline", "busy"]

DECISIVE = frozenset({Finding.ALL, Finding.NULL_MX})
"""Findings that decide whatever MTA-STS says, so that nobody waits for a policy host."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A verdict and where it came from."""

    verdict: Verdict
    source: Source


B = TypeVar("B", StsBranch, DaneBranch)


@dataclass(frozen=True, slots=True)
class _Wait(Generic[B]):
    """The flight that reads a branch anew, if any, and whether the answer waits for it."""

    flight: asyncio.Future[B | None] | None = None
    needed: bool = False

    def landed(self, before: B | None) -> B | None:
        """What the flight brought, if it has landed with anything; else what was known before."""
        if self.flight is None or not self.flight.done():
            return before
        return self.flight.result() or before


class Discovery:
    """The verdicts."""

    def __init__(
        self,
        current: Current,
        known: Known,
        sts: StsBranches,
        dane: DaneBranches,
        *,
        clock: Clock,
        log: Log,
        metrics: Metrics,
    ) -> None:
        self._current = current
        self._known = known
        self._sts = sts
        self._dane = dane
        self._clock = clock
        self._log = log
        self._metrics = metrics

    def at_once(self, hop: NextHop) -> Answered | None:
        """The verdict if memory has it and nothing is due; None says: ask `verdict`."""
        now = self._clock.now()
        sts = self._known.sts(hop.domain)
        if sts is None or not isinstance(flow.begin(sts, now), flow.Use):
            return None
        dane = self._known.dane(hop)
        if self._dane_due(sts, dane, now):
            return None
        self._known.use(hop.domain)
        return Answered(self._decide(hop.domain, sts, dane, now), "memory")

    def remembered(self, domain: Domain) -> Verdict | None:
        """What would be answered for a domain from memory alone, due or not; None for nothing."""
        sts = self._known.sts(domain)
        if sts is None:
            return None
        dane = self._known.dane(NextHop(domain))
        return self._decide(domain, sts, dane, self._clock.now())

    async def verdict(self, hop: NextHop, deadline: float) -> Answered:
        """The verdict for a next hop within `deadline` seconds."""
        loop = asyncio.get_running_loop()
        started, ends = loop.time(), loop.time() + deadline
        try:
            return await self._verdict(hop, ends)
        finally:
            self._metrics.discovery_seconds.observe(loop.time() - started)

    async def _verdict(self, hop: NextHop, ends: float) -> Answered:
        source: Source = "memory"
        sts, dane = self._known.sts(hop.domain), self._known.dane(hop)
        if sts is None or (dane is None and self._current.settings.rules.dane):
            if await self._known.recall(hop, ends):
                source = "store"
            sts, dane = self._known.sts(hop.domain), self._known.dane(hop)
        self._known.use(hop.domain)
        now = self._clock.now()
        sts_wait = self._ask_sts(hop.domain, sts, now)
        dane_wait = self._ask_dane(hop, sts, dane, now)
        if not sts_wait.needed and not dane_wait.needed:
            return Answered(self._decide(hop.domain, sts, dane, now), source)
        if any(w.needed and w.flight is None for w in (sts_wait, dane_wait)):
            self._metrics.busy.inc()
            return Answered(self._decide(hop.domain, sts, dane, now, "busy"), "busy")
        try:
            async with asyncio.timeout_at(ends):
                await self._landing(dane_wait, sts_wait)
        except TimeoutError:
            return self._at_deadline(hop, sts, dane, sts_wait, dane_wait)
        sts, dane = sts_wait.landed(sts), dane_wait.landed(dane)
        nothing = sts is None and not (dane is not None and dane.finding in DECISIVE)
        pending: Literal["", "pending"] = "pending" if nothing else ""
        return Answered(
            self._decide(hop.domain, sts, dane, self._clock.now(), pending), "discovery"
        )

    async def _landing(self, dane: _Wait[DaneBranch], sts: _Wait[StsBranch]) -> None:
        """Until what decides has landed; the flights go on if this is cancelled."""
        if dane.needed and dane.flight is not None:
            branch = await asyncio.shield(dane.flight)
            if branch is not None and branch.finding in DECISIVE:
                return
        if sts.needed and sts.flight is not None:
            await asyncio.shield(sts.flight)

    def _at_deadline(
        self,
        hop: NextHop,
        sts: StsBranch | None,
        dane: DaneBranch | None,
        sts_wait: _Wait[StsBranch],
        dane_wait: _Wait[DaneBranch],
    ) -> Answered:
        sts, dane = sts_wait.landed(sts), dane_wait.landed(dane)
        verdict = self._decide(hop.domain, sts, dane, self._clock.now(), "pending")
        self._metrics.deadlines.inc()
        self._log.info("deadline", hop=hop.key, answer=verdict.what.value or "notfound")
        return Answered(verdict, "deadline")

    def _ask_sts(self, domain: Domain, sts: StsBranch | None, now: float) -> _Wait[StsBranch]:
        match flow.begin(sts, now):
            case flow.Use():
                return _Wait()
            case flow.UseAndAsk():
                return _Wait(self._sts.ask(domain), needed=False)
            case flow.Ask():
                return _Wait(self._sts.ask(domain), needed=True)

    def _ask_dane(
        self, hop: NextHop, sts: StsBranch | None, dane: DaneBranch | None, now: float
    ) -> _Wait[DaneBranch]:
        if not self._dane_due(sts, dane, now):
            return _Wait()
        flight = self._dane.ask(hop)
        if dane is None or self._unread(sts, dane, now):
            return _Wait(flight, needed=True)
        return _Wait(flight, needed=not dane.failing and now >= dane.expires_at + STALE_USE)

    def _dane_due(self, sts: StsBranch | None, dane: DaneBranch | None, now: float) -> bool:
        settings = self._current.settings
        if not settings.rules.dane:
            return False
        if dane is None or now >= dane.recheck_at or now < dane.read_at:
            return True
        return self._unread(sts, dane, now)

    def _unread(self, sts: StsBranch | None, dane: DaneBranch, now: float) -> bool:
        """The hosts were not asked for because a policy enforced, and now none does."""
        unread = dane.finding is Finding.UNSIGNED_UNREAD
        return unread and not self._current.settings.enforces(sts, now)

    def _decide(
        self,
        domain: Domain,
        sts: StsBranch | None,
        dane: DaneBranch | None,
        now: float,
        pending: Literal["", "pending", "busy"] = "",
    ) -> Verdict:
        settings = self._current.settings
        if not settings.rules.dane:
            dane = None
        override = settings.overrides.get(domain)
        return decide(domain, sts, dane, override, settings.rules, now, pending=pending)
