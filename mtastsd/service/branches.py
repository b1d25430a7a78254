"""The two branches in flight: who asks for them, what is kept, what is said of it.

One flight for each policy domain (MTA-STS) and for each next hop (DANE), whoever asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from mtastsd import dane as rules
from mtastsd.dane import WEAK, DaneBranch, Finding, Hosts, HostState, NoHosts
from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.names import Domain
from mtastsd.ports import Clock, PolicyFetcher, Resolver
from mtastsd.postfix.nexthop import NextHop
from mtastsd.service import reading
from mtastsd.service.current import Current
from mtastsd.service.flights import Flights, Spawn
from mtastsd.service.known import Known
from mtastsd.sts.flow import StsBranch

MAX_FLIGHTS = 1000
"""Discoveries of one kind at once. A flood of unknown names ends here: each flight holds a socket
or two, and a look-up beyond this is answered with what is known."""


async def _logged(work: Coroutine[Any, Any, None], log: Log) -> None:
    """A bug in what nobody waits for must not end the daemon's TaskGroup."""
    try:
        await work
    except Exception as bug:
        log.error("bug", exc=bug, doing="store")


class StsBranches:
    """MTA-STS branches, read and kept. `on_change`: an answer given before may no longer hold."""

    def __init__(
        self,
        current: Current,
        known: Known,
        *,
        resolver: Resolver,
        fetcher: PolicyFetcher,
        clock: Clock,
        log: Log,
        metrics: Metrics,
        spawn: Spawn,
    ) -> None:
        self._current = current
        self._known = known
        self._resolver = resolver
        self._fetcher = fetcher
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._spawn = spawn
        self._flights: Flights[Domain, StsBranch] = Flights("sts", spawn, log, MAX_FLIGHTS)
        self.on_change: Callable[[], None] = lambda: None
        metrics.flights.labels("sts").set_function(lambda: len(self._flights))

    def under_way(self, domain: Domain) -> asyncio.Future[StsBranch | None] | None:
        return self._flights.get(domain)

    def ask(
        self, domain: Domain, *, stored: StsBranch | None = None, force: bool = False
    ) -> asyncio.Future[StsBranch | None] | None:
        """Ask for the TXT record, and fetch as RFC 8461 §5.1 says; `force`: fetch in any case.

        `stored` is what is known of a domain that memory does not hold, and that it need not hold
        afterwards. None when too many are under way.
        """
        return self._flights.start(domain, lambda: self._fly(domain, stored, force))

    async def _fly(self, domain: Domain, stored: StsBranch | None, force: bool) -> StsBranch:
        before = self._known.sts(domain) or stored
        started = self._clock.monotonic()
        walk = await reading.read_sts(
            domain,
            before,
            resolver=self._resolver,
            fetcher=self._fetcher,
            clock=self._clock,
            timing=self._current.settings.timing,
            force=force,
        )
        branch = walk.settled.branch
        self._tell(domain, before, walk, self._clock.monotonic() - started)
        # What must not answer again still replaces the policy that was there before it.
        kept = branch if walk.settled.keep else replace(branch, body=None, recheck_at=0.0)
        self._known.remember_sts(domain, kept, anew=stored is None)
        # Behind the answer: a look-up waits for no store, however slow or locked it is.
        row = self._known.note_sts(domain, before, kept)
        if row is not None:
            self._spawn(_logged(self._known.store([row], []), self._log))
        if before is not None and before.body != branch.body:
            self.on_change()
        return branch

    def _tell(
        self, domain: Domain, before: StsBranch | None, walk: reading.StsReading, took: float
    ) -> None:
        branch, failure = walk.settled.branch, walk.settled.branch.failure
        self._metrics.records.labels(branch.record).inc()
        now = self._clock.now()
        policy = branch.policy(now)
        if walk.fetch is not None:
            outcome = "ok" if failure is None else failure.kind
            self._metrics.fetches.labels(outcome).inc()
            self._metrics.fetch_seconds.observe(took)
        if walk.fetch is not None and failure is None and policy is not None:
            self._log.info(
                "policy-fetched",
                domain=domain,
                mode=policy.mode,
                max_age=policy.max_age,
                mx=",".join(policy.mx),
                id=branch.record_id,
                seconds=took,
                changed=before is not None and before.body != branch.body,
            )
        elif failure is not None and (before is None or before.failure != failure):
            # With an unexpired policy this is the warning that RFC 8461 §3.3 asks for.
            tell = self._log.warning if policy is not None else self._log.info
            tell(
                "policy-failed",
                domain=domain,
                kind=failure.kind,
                detail=failure.detail,
                line=failure.line,
                result_type=failure.result_type,
                id=branch.record_id,
                kept=policy is not None,
                expires_in=branch.expires_at - now if policy is not None else None,
                seconds=took,
            )
        self._tell_weakened(domain, before, branch, now)

    def _tell_weakened(
        self, domain: Domain, before: StsBranch | None, branch: StsBranch, now: float
    ) -> None:
        if before is None or before.body is None:
            return
        settings = self._current.settings
        was = before.policy(min(now, before.expires_at - 1))
        if was is None or not settings.rules.enforces(was) or settings.enforces(branch, now):
            return
        how = "policy-expired" if branch.body is None else "policy-none"
        self._metrics.weakened.labels(how).inc()
        self._log.warning("weakened", domain=domain, how=how, failure=branch.failure)


class DaneBranches:
    """DANE branches, read and kept."""

    def __init__(
        self,
        current: Current,
        known: Known,
        sts: StsBranches,
        *,
        resolver: Resolver,
        clock: Clock,
        log: Log,
        metrics: Metrics,
        spawn: Spawn,
    ) -> None:
        self._current = current
        self._known = known
        self._sts = sts
        self._resolver = resolver
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._spawn = spawn
        self._flights: Flights[str, DaneBranch] = Flights("dane", spawn, log, MAX_FLIGHTS)
        self.on_change: Callable[[], None] = lambda: None
        metrics.flights.labels("dane").set_function(lambda: len(self._flights))

    def ask(self, hop: NextHop) -> asyncio.Future[DaneBranch | None] | None:
        """Read the next hop's DANE side; None when too many are under way."""
        return self._flights.start(hop.key, lambda: self._fly(hop))

    async def _fly(self, hop: NextHop) -> DaneBranch:
        before = self._known.dane(hop)
        hosts, _ = await reading.read_mx(self._resolver, hop)
        finding, ttl = await self._finding(hop, before, hosts)
        branch = rules.settle(before, self._clock.now(), finding, ttl)
        self._metrics.findings.labels(finding.value).inc()
        self._known.remember_dane(hop, branch)
        row = self._known.note_dane(hop, before, branch)
        if row is not None:
            self._spawn(_logged(self._known.store([], [row]), self._log))
        if before is not None and before.finding is not branch.finding:
            self.on_change()
            if Finding.UNSIGNED_UNREAD not in (before.finding, branch.finding):
                self._tell_changed(hop, before.finding, branch.finding)
        return branch

    def _tell_changed(self, hop: NextHop, was: Finding, now: Finding) -> None:
        lost = was not in WEAK and now in WEAK
        if lost:
            self._metrics.weakened.labels("dane-lost").inc()
        tell = self._log.warning if lost else self._log.info
        tell("dane-changed", hop=hop.key, was=was.value, now=now.value)

    async def _finding(
        self, hop: NextHop, before: DaneBranch | None, hosts: Hosts | NoHosts
    ) -> tuple[Finding, float]:
        """The finding and its TTL in seconds."""
        if not self._resolver.validates():
            # What comes now says nothing of DNSSEC. What was found before stands.
            found = before is not None and before.finding not in WEAK
            return (Finding.ERROR if found else Finding.NONE), rules.TTL_MIN
        if isinstance(hosts, NoHosts):
            return hosts.finding, hosts.ttl
        if not hosts.secure and await self._policy_enforces(hop.domain):
            return Finding.UNSIGNED_UNREAD, hosts.ttl
        readings = await reading.read_hosts(self._resolver, hosts.hosts, hop.port)
        heard = [r.ttl for r in readings if r.state is not HostState.ERROR]
        return rules.find(hosts, readings), min([hosts.ttl, *heard])

    async def _policy_enforces(self, domain: Domain) -> bool:
        """Whether a policy enforces, once the flight that is finding out has landed."""
        flight = self._sts.under_way(domain)
        branch = await asyncio.shield(flight) if flight is not None else None
        settings, now = self._current.settings, self._clock.now()
        return settings.enforces(branch or self._known.sts(domain), now)
