"""Fetches policies anew before they age, whether or not their id changed (RFC 8461 §3.3, §10.2).

Only for domains that somebody mailed lately: policy hosts complain of fetches without mail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.names import Domain
from mtastsd.ports import Clock, KnownDomain, PolicyStore, StoreUnavailable
from mtastsd.service.branches import StsBranches
from mtastsd.service.current import Current
from mtastsd.timing import refresh_now

INTERVAL = 60.0
"""Seconds between rounds."""

BATCH = 500
"""Policies taken into memory in a round, the longest unfetched first; each may have 64 KB."""

AT_ONCE = 16
"""Fetches of one round under way at once: look-ups come first."""

WARN_BEFORE = 86400.0
"""Seconds before expiry from which a policy that can't be renewed is warned of."""


class Refresher:
    """Runs the rounds."""

    def __init__(
        self,
        current: Current,
        store: PolicyStore,
        branches: StsBranches,
        *,
        clock: Clock,
        log: Log,
        metrics: Metrics,
    ) -> None:
        self._current = current
        self._store = store
        self._branches = branches
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._warned: set[Domain] = set()

    async def run(self, refresh_if_used: float) -> None:
        """A round every `INTERVAL`, for ever; `refresh_if_used` in seconds."""
        while True:
            await self._clock.sleep(INTERVAL)
            await self.round(refresh_if_used)

    async def round(self, refresh_if_used: float) -> None:
        """Fetch what is due now; returns when all of it has landed."""
        now = self._clock.now()
        refresh = self._current.settings.timing.refresh
        try:
            rows = await self._store.due(
                now=now, refresh=refresh, used_since=now - refresh_if_used, limit=BATCH
            )
        except StoreUnavailable:
            return  # told and counted by those who need the store more
        due = [row for row in rows if self._is_due(row, now, refresh)]
        places = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for row in due:
                group.create_task(self._renew(row, places))
        self._watch_expiry(rows, now)

    def _is_due(self, row: KnownDomain, now: float, refresh: float) -> bool:
        after = row.sts.refresh_after(refresh)
        return refresh_now(now - row.sts.fetched_at, after, INTERVAL, self._clock.random())

    async def _renew(self, row: KnownDomain, places: asyncio.Semaphore) -> None:
        async with places:
            flight = self._branches.ask(row.domain, stored=row.sts)
            branch = await asyncio.shield(flight) if flight is not None else None
        renewed = branch is not None and branch.fetched_at > row.sts.fetched_at
        self._metrics.refreshes.labels("renewed" if renewed else "failed").inc()

    def _watch_expiry(self, rows: Sequence[KnownDomain], now: float) -> None:
        """Tell, once for each domain, what will expire because it can't be renewed."""
        failing = [row for row in rows if row.sts.failure is not None and row.sts.holds(now)]
        left = [row.sts.expires_at - now for row in failing]
        self._metrics.expiry.set(min(left, default=0.0))
        for row in failing:
            if row.sts.expires_at - now < WARN_BEFORE and row.domain not in self._warned:
                self._log.warning(
                    "policy-expires",
                    domain=row.domain,
                    seconds=row.sts.expires_at - now,
                    failure=row.sts.failure,
                )
        self._warned = {row.domain for row in failing if row.sts.expires_at - now < WARN_BEFORE}
