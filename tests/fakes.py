"""Stand-ins for the ports."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from mtastsd.dane import KEEP_UNDER_ERRORS, Finding
from mtastsd.names import Domain
from mtastsd.ports import KnownDomain, KnownHop, StoreUnavailable
from mtastsd.timing import SPREAD


class MemoryStore:
    """A `PolicyStore` in two dictionaries, held to `tests/store_contract.py` like any other.

    `broken` makes every call raise `StoreUnavailable`, as a full disk or a lock would. Rows may be
    looked at and planted in `domains` and `hops`.
    """

    def __init__(self) -> None:
        self.domains: dict[Domain, KnownDomain] = {}
        self.hops: dict[str, KnownHop] = {}
        self.broken = False
        self.closed = False

    async def load(self, domain: Domain, hop: str) -> tuple[KnownDomain | None, KnownHop | None]:
        self._works()
        return self.domains.get(domain), self.hops.get(hop)

    async def save(self, domains: Sequence[KnownDomain], hops: Sequence[KnownHop]) -> None:
        self._works()
        self.domains.update((row.domain, row) for row in domains)
        self.hops.update((row.hop, row) for row in hops)

    async def touch(self, domains: Sequence[tuple[Domain, float]]) -> None:
        self._works()
        for domain, used_at in domains:
            row = self.domains.get(domain)
            if row is not None and row.used_at < used_at:
                self.domains[domain] = replace(row, used_at=used_at)

    async def due(
        self, *, now: float, refresh: float, used_since: float, limit: int
    ) -> Sequence[KnownDomain]:
        self._works()
        found = [
            row
            for row in self.domains.values()
            if row.sts.body is not None
            and row.used_at >= used_since
            and (row.sts.failure is None or row.sts.recheck_at <= now)
            and row.sts.fetched_at + (1 - SPREAD) * row.sts.refresh_after(refresh) <= now
        ]
        return sorted(found, key=lambda row: row.sts.fetched_at)[:limit]

    async def scan(self, *, after: str = "") -> AsyncIterator[KnownDomain]:
        self._works()
        for domain in sorted(self.domains):
            if domain > after and domain in self.domains:
                yield self.domains[domain]

    async def forget(self, *, unused_since: float, now: float) -> int:
        self._works()
        domains = [
            row
            for row in self.domains.values()
            if row.used_at < unused_since
            or (not row.sts.holds(now) and row.sts.recheck_at <= now - 86400)
        ]
        hops = [
            row
            for row in self.hops.values()
            if row.used_at < unused_since
            or (
                row.dane.recheck_at <= now - 86400
                and (
                    row.dane.finding is Finding.ERROR
                    or row.dane.expires_at <= now - KEEP_UNDER_ERRORS
                )
            )
        ]
        for domain_row in domains:
            del self.domains[domain_row.domain]
        for hop_row in hops:
            del self.hops[hop_row.hop]
        return len(domains) + len(hops)

    async def delete(self, domain: Domain) -> bool:
        self._works()
        forms = (domain, f"[{domain}]")
        hops = [
            key
            for key in self.hops
            if key in forms or key.startswith(tuple(f + ":" for f in forms))
        ]
        for key in hops:
            del self.hops[key]
        return self.domains.pop(domain, None) is not None or bool(hops)

    async def count(self) -> int:
        self._works()
        return len(self.domains)

    async def close(self) -> None:
        self.closed = True

    def _works(self) -> None:
        if self.broken:
            raise StoreUnavailable("the disk is full")


class FakeClock:
    """A `Clock` whose time moves only by `advance`; wall and monotonic time go together.

    Code that sleeps in a loop is driven by turns of `advance`, which wakes it, and `asleep`, which
    waits until it sleeps again.
    """

    def __init__(self, now: float = 1_700_000_000.0, chance: float = 0.5) -> None:
        self._start = now
        self._passed = 0.0
        self.chance = chance
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._changed = asyncio.Event()

    def now(self) -> float:
        return self._start + self._passed

    def monotonic(self) -> float:
        return 1000.0 + self._passed

    def random(self) -> float:
        return self.chance

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._passed + seconds, next(self._order), future))
        self._changed.set()
        await future

    def sleepers(self) -> int:
        """How many tasks sleep now."""
        return sum(not future.done() for _, _, future in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Let time pass and wake who is due, in order; they run when the test awaits."""
        self._passed += seconds
        while self._sleepers and self._sleepers[0][0] <= self._passed:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)

    async def asleep(self, count: int = 1) -> None:
        """Wait until so many tasks sleep."""
        while self.sleepers() < count:
            self._changed.clear()
            await self._changed.wait()
