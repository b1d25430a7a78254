"""What the command line may ask of the running daemon, as plain values."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from mtastsd.dane import DaneBranch
from mtastsd.names import Domain
from mtastsd.ports import Clock, KnownDomain, PolicyStore, StoreUnavailable
from mtastsd.postfix.nexthop import NextHop
from mtastsd.service.branches import StsBranches
from mtastsd.service.discovery import Discovery
from mtastsd.service.known import Known
from mtastsd.sts.flow import StsBranch

PAGE = 500
"""Domains a page of `policy list`."""

LOAD_TIMEOUT = 10.0
"""Seconds that a reading of the store may take here."""

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of domains, and the name behind which the next begins, "" at the end."""

    rows: tuple[Row, ...]
    next: str


class Control:
    """Lists, shows, refreshes and flushes what is known."""

    def __init__(
        self,
        known: Known,
        store: PolicyStore,
        branches: StsBranches,
        discovery: Discovery,
        clock: Clock,
    ) -> None:
        self._known = known
        self._store = store
        self._branches = branches
        self._discovery = discovery
        self._clock = clock

    async def policies(self, after: str) -> Page:
        """A page of what the store holds, in order of name. Raises StoreUnavailable."""
        rows: list[Row] = []
        now = self._clock.now()
        async for row in self._store.scan(after=after):
            if len(rows) == PAGE:
                return Page(tuple(rows), str(rows[-1]["domain"]))
            rows.append(domain_row(row, now))
        return Page(tuple(rows), "")

    async def show(self, hop: NextHop) -> Row | None:
        """All that is known of a next hop; None where nothing is. Raises StoreUnavailable."""
        loop = asyncio.get_running_loop()
        await self._known.recall(hop, loop.time() + LOAD_TIMEOUT)
        sts, dane = self._known.sts(hop.domain), self._known.dane(hop)
        if sts is None and dane is None:
            return None
        now = self._clock.now()
        answered = self._discovery.at_once(hop)
        return {
            "domain": hop.domain,
            "hop": hop.key,
            "now": now,
            "sts": sts_row(sts, now) if sts is not None else None,
            "dane": dane_row(dane) if dane is not None else None,
            "verdict": answered.verdict.what.value or "notfound" if answered else None,
            "why": answered.verdict.why if answered else None,
        }

    async def refresh(self, domain: Domain) -> Row:
        """Fetch the policy now, whatever is known; what came of it."""
        hop = NextHop(domain)
        loop = asyncio.get_running_loop()
        await self._known.recall(hop, loop.time() + LOAD_TIMEOUT)
        flight = self._branches.ask(domain, force=True)
        branch = await asyncio.shield(flight) if flight is not None else None
        if branch is None:
            return {"domain": domain, "error": "too many discoveries are under way"}
        return {"domain": domain, **sts_row(branch, self._clock.now())}

    async def flush(self, domain: Domain) -> bool:
        """Forget a domain; whether anything was known. Raises StoreUnavailable."""
        return await self._known.forget(domain)

    async def stored(self) -> int | None:
        """How many domains the store holds; None when it can't be read."""
        try:
            return await self._store.count()
        except StoreUnavailable:
            return None


def domain_row(row: KnownDomain, now: float) -> Row:
    """One line of `policy list`."""
    return {"domain": row.domain, "used_at": row.used_at, **sts_row(row.sts, now)}


def sts_row(branch: StsBranch, now: float) -> Row:
    """An MTA-STS branch as `policy show` prints it. Remote text in it is validated or printable."""
    policy = branch.policy(now)
    return {
        "record": branch.record,
        "id": branch.record_id,
        "mode": policy.mode if policy else None,
        "max_age": policy.max_age if policy else None,
        "mx": list(policy.mx) if policy else [],
        "lines": list(policy.lines) if policy else [],
        "fetched_at": branch.fetched_at or None,
        "expires_at": branch.expires_at or None,
        "checked_at": branch.checked_at,
        "recheck_at": branch.recheck_at,
        "failure": str(branch.failure) if branch.failure else None,
        "retry_at": branch.retry_at or None,
    }


def dane_row(branch: DaneBranch) -> Row:
    """A DANE branch as `policy show` prints it."""
    return {
        "finding": branch.finding.value,
        "read_at": branch.read_at,
        "expires_at": branch.expires_at,
        "recheck_at": branch.recheck_at,
        "failing": branch.failing,
    }
