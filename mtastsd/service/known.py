"""What is known of domains and next hops: memory in front of the store.

The store may be slow, full or away; then what it did not take is kept, bounded, and offered again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from mtastsd.dane import WEAK, DaneBranch
from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.names import Domain
from mtastsd.ports import Clock, KnownDomain, KnownHop, PolicyStore, StoreUnavailable
from mtastsd.postfix.nexthop import NextHop
from mtastsd.service.memory import Memory
from mtastsd.sts.flow import StsBranch

FLUSH_EVERY = 60.0
"""Seconds between two writes of "last used" times and of what the store refused before."""

FORGET_EVERY = 6 * 3600.0
"""Seconds between two sweeps for what nobody mails any more."""

MAX_UNSAVED = 20_000
"""Rows kept for a store that takes nothing: a day of new domains on a busy relay, some 20 MB."""


class Known:
    """Memory and store. Nothing here raises for a store that fails."""

    def __init__(
        self, store: PolicyStore, *, clock: Clock, log: Log, metrics: Metrics, memory: int
    ) -> None:
        self._store = store
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._sts: Memory[Domain, StsBranch] = Memory(memory)
        self._dane: Memory[str, DaneBranch] = Memory(memory)
        self._used: dict[Domain, float] = {}
        self._used_now = 0.0
        self._unsaved_domains: dict[Domain, KnownDomain] = {}
        self._unsaved_hops: dict[str, KnownHop] = {}
        self._store_works = True
        self.on_change: Callable[[], None] = lambda: None
        metrics.known.labels("policies").set_function(lambda: len(self._sts))
        metrics.known.labels("findings").set_function(lambda: len(self._dane))
        metrics.unsaved.set_function(lambda: len(self._unsaved_domains) + len(self._unsaved_hops))

    def sts(self, domain: Domain) -> StsBranch | None:
        """From memory alone."""
        return self._sts.get(domain)

    def dane(self, hop: NextHop) -> DaneBranch | None:
        """From memory alone."""
        return self._dane.get(hop.key)

    def use(self, domain: Domain) -> None:
        """Note that a look-up asked for the domain."""
        now = self._clock.now()
        if now - self._used_now >= 1.0 or now < self._used_now:
            self._used_now = now
        self._used[domain] = self._used_now  # one object for all of a second
        if len(self._used) > 2 * self._sts.limit:
            self._used.pop(next(iter(self._used)))

    async def recall(self, hop: NextHop, ends: float) -> bool:
        """Bring into memory what the store has and memory lacks, before loop time `ends`.

        Whether the store had anything. An unsaved row is newer than the store's.
        """
        try:
            async with asyncio.timeout_at(ends):
                domain_row, hop_row = await self._store.load(hop.domain, hop.key)
        except TimeoutError:
            self._failed("load", "timeout")
            return False
        except StoreUnavailable as error:
            self._failed("load", str(error))
            domain_row, hop_row = None, None
        domain_row = self._unsaved_domains.get(hop.domain, domain_row)
        hop_row = self._unsaved_hops.get(hop.key, hop_row)
        # While this waited, a flight may have learnt more: memory wins.
        if domain_row is not None and self._sts.get(hop.domain) is None:
            self._sts.put(hop.domain, domain_row.sts)
        if hop_row is not None and self._dane.get(hop.key) is None:
            self._dane.put(hop.key, hop_row.dane)
        return domain_row is not None or hop_row is not None

    def remember_sts(self, domain: Domain, branch: StsBranch, *, anew: bool) -> None:
        """Answer from this branch from now on; `anew`: also where memory does not hold the
        domain yet."""
        if anew or domain in self._sts:
            self._sts.put(domain, branch)

    def note_sts(
        self, domain: Domain, before: StsBranch | None, branch: StsBranch
    ) -> KnownDomain | None:
        """The row to `store` for a branch, if it is worth one; until then a stop writes it.

        "No record" of a name that nobody heard of stays off the disk: random names would fill it.
        """
        if not _worth_a_row(branch) and (before is None or not _worth_a_row(before)):
            return None
        row = KnownDomain(domain, branch, self._used.get(domain, self._clock.now()))
        self._unsaved_domains[domain] = row
        return row

    def remember_dane(self, hop: NextHop, branch: DaneBranch) -> None:
        """Answer from this finding from now on."""
        self._dane.put(hop.key, branch)

    def note_dane(
        self, hop: NextHop, before: DaneBranch | None, branch: DaneBranch
    ) -> KnownHop | None:
        """The row to `store` for a finding that protects, or follows one that did."""
        if branch.finding in WEAK and (before is None or before.finding in WEAK):
            return None
        row = KnownHop(hop.key, branch, self._clock.now())
        self._unsaved_hops[hop.key] = row
        return row

    async def forget(self, domain: Domain) -> bool:
        """Drop all that is known of a domain; whether there was anything.

        Raises StoreUnavailable.
        """
        had = self._sts.get(domain) is not None
        self._sts.drop(domain)
        self._unsaved_domains.pop(domain, None)
        for key in [key for key in self._dane if domain_of(key) == domain]:
            self._dane.drop(key)
            self._unsaved_hops.pop(key, None)
        self.on_change()
        return await self._store.delete(domain) or had

    async def store(self, domains: Sequence[KnownDomain], hops: Sequence[KnownHop]) -> None:
        """Write rows. No look-up waits for this; what the store refuses is offered again."""
        try:
            await self._store.save(domains, hops)
        except StoreUnavailable as error:
            self._failed("save", str(error))
            _bound(self._unsaved_domains)
            _bound(self._unsaved_hops)
        else:
            for row in domains:
                if self._unsaved_domains.get(row.domain) is row:
                    del self._unsaved_domains[row.domain]
            for hop_row in hops:
                if self._unsaved_hops.get(hop_row.hop) is hop_row:
                    del self._unsaved_hops[hop_row.hop]
            self._works()

    def _failed(self, doing: str, reason: str) -> None:
        self._metrics.store_errors.labels(doing).inc()
        if self._store_works:  # once an outage, not once a look-up
            self._log.error("store-unavailable", doing=doing, reason=reason)
        self._store_works = False

    def _works(self) -> None:
        if not self._store_works:
            self._log.info("store-back", unsaved=len(self._unsaved_domains))
        self._store_works = True

    async def flush(self) -> None:
        """Write "last used" times and what the store refused: at intervals, and at the end."""
        if self._unsaved_domains or self._unsaved_hops:
            await self.store(
                list(self._unsaved_domains.values()), list(self._unsaved_hops.values())
            )
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._store.touch(list(used.items()))
        except StoreUnavailable as error:
            self._failed("touch", str(error))
            self._used = {**used, **self._used}

    async def run(self, forget_unused: float) -> None:
        """Flush and sweep for ever; `forget_unused` in seconds."""
        guard = JumpGuard(self._clock)
        next_sweep = self._clock.monotonic() + FLUSH_EVERY
        while True:
            await self._clock.sleep(FLUSH_EVERY)
            await self.flush()
            if not guard.steady():
                # A clock that jumped would make every policy look forgotten; whether it is right
                # now is known when it has gone on steadily.
                self._log.warning("clock-jump", now=self._clock.now())
                next_sweep = self._clock.monotonic() + FORGET_EVERY
                self.on_change()
            elif self._clock.monotonic() >= next_sweep:
                next_sweep = self._clock.monotonic() + FORGET_EVERY
                await self._sweep(forget_unused)

    async def _sweep(self, forget_unused: float) -> None:
        now = self._clock.now()
        try:
            gone = await self._store.forget(unused_since=now - forget_unused, now=now)
        except StoreUnavailable as error:
            self._failed("forget", str(error))
        else:
            self._log.info("forgot", rows=gone)


class JumpGuard:
    """Whether wall time went as monotonic time did since the last question."""

    AHEAD = 3600.0
    """Seconds that wall time may run ahead: more is a clock that was set, not one that drifts."""
    BACK = 60.0
    """Seconds that it may fall behind, as NTP's steps do."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wall, self._monotonic = clock.now(), clock.monotonic()

    def steady(self) -> bool:
        """Whether there was no jump; the next question starts from now."""
        wall, monotonic = self._clock.now(), self._clock.monotonic()
        drift = (wall - self._wall) - (monotonic - self._monotonic)
        self._wall, self._monotonic = wall, monotonic
        return -self.BACK <= drift <= self.AHEAD


def domain_of(key: str) -> str:
    """The policy domain of a next hop's canonical key."""
    return key.removeprefix("[").partition("]")[0].partition(":")[0]


def _worth_a_row(branch: StsBranch) -> bool:
    return branch.body is not None or branch.record in ("present", "invalid")


def _bound(rows: dict[Any, Any]) -> None:
    while len(rows) > MAX_UNSAVED:
        rows.pop(next(iter(rows)))
