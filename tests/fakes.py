"""Stand-ins for the ports."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from mtastsd.dane import KEEP_UNDER_ERRORS, Finding
from mtastsd.names import Domain
from mtastsd.ports import (
    Delivery,
    KnownDomain,
    KnownHop,
    Report,
    StoreUnavailable,
    TallyBatch,
)
from mtastsd.ports import Finding as MxFinding
from mtastsd.timing import SPREAD
from mtastsd.tlsrpt.tally import Day, DomainTally, day_of, merge


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


class MemoryTallyStore:
    """A `TallyStore`, held to `tests/tally_contract.py`.

    `broken` makes every call raise `StoreUnavailable`. `settled` is how domain-days ended, which a
    `MemoryOutbox` writes.
    """

    def __init__(self) -> None:
        self.tallies: dict[tuple[Day, Domain], DomainTally] = {}
        self.settled: dict[tuple[Day, Domain], str] = {}
        self.sources: dict[str, int] = {}
        self.cursors: dict[str, str] = {}
        self.found: dict[tuple[Day, Domain], dict[tuple[str, str], MxFinding]] = {}
        self.broken = False

    async def add(self, batch: TallyBatch) -> bool:
        self._works()
        if batch.sequence <= self.sources.get(batch.source, 0):
            return False
        self.sources[batch.source] = batch.sequence
        self.cursors.update(batch.cursors)
        for at, tally in batch.tallies.items():
            if tally:
                self.tallies[at] = merge(self.tallies.get(at, {}), tally)
        return True

    async def sequence(self, source: str) -> int:
        self._works()
        return self.sources.get(source, 0)

    async def cursor(self, name: str) -> str:
        self._works()
        return self.cursors.get(name, "")

    async def days(self, *, before: Day) -> Sequence[Day]:
        self._works()
        return [day for day in self._open_days() if day < before]

    async def waiting(self, day: Day, *, after: str, limit: int) -> Sequence[Domain]:
        self._works()
        found = [domain for at, domain in self._open() if at == day and domain > after]
        return sorted(found)[:limit]

    async def tally(self, day: Day, domain: Domain) -> DomainTally:
        self._works()
        return self.tallies.get((day, domain), {})

    async def note(self, day: Day, findings: Sequence[MxFinding]) -> None:
        self._works()
        for finding in findings:
            hosts = self.found.setdefault((day, finding.domain), {})
            hosts.setdefault((finding.mx_host, finding.mx_ip), finding)

    async def findings(self, day: Day, domain: Domain) -> Sequence[MxFinding]:
        self._works()
        return [finding for _, finding in sorted(self.found.get((day, domain), {}).items())]

    async def forget_days(self, *, before: Day) -> int:
        self._works()
        days = {day for day, _ in self.tallies.keys() | self.settled.keys()}
        gone = {day for day in days if day < before} - set(self._open_days())
        lone = {day for day, _ in self.found if day < before} - days
        for table in (self.tallies, self.settled, self.found):
            for at in [at for at in table if at[0] in gone | lone]:
                del table[at]
        return len(gone)

    def _open(self) -> list[tuple[Day, Domain]]:
        return [at for at in self.tallies if at not in self.settled]

    def _open_days(self) -> list[Day]:
        return sorted({day for day, _ in self._open()})

    def _works(self) -> None:
        if self.broken:
            raise StoreUnavailable("the disk is full")


class MemoryOutbox:
    """An `Outbox` beside a `MemoryTallyStore`, held to `tests/outbox_contract.py`.

    `broken` makes every call raise `StoreUnavailable`.
    """

    def __init__(self, tallies: MemoryTallyStore) -> None:
        self.tallies = tallies
        self.kept: dict[str, Report] = {}
        self.rows: dict[tuple[str, str], Delivery] = {}
        self.load: dict[tuple[Day, str], tuple[int, int]] = {}
        self.mails: Counter[tuple[Day, Domain]] = Counter()
        self.broken = False

    async def settle(
        self, day: Day, domain: Domain, why: str, report: Report | None, to: Sequence[Delivery]
    ) -> bool:
        self._works()
        if (day, domain) in self.tallies.settled:
            return False
        self.tallies.settled[day, domain] = why
        if report is None:
            return True
        if report.report_id in self.kept:
            return False
        self.kept[report.report_id] = report
        for delivery in to:
            key = report.report_id, delivery.destination
            if key in self.rows:
                continue
            self.rows[key] = delivery
            if delivery.state != "suppressed":
                reports, octets = self.load.get((day, delivery.destination), (0, 0))
                self.load[day, delivery.destination] = reports + 1, octets + len(report.body)
        return True

    async def settled(self, day: Day, *, after: str, limit: int) -> Sequence[tuple[Domain, str]]:
        self._works()
        ended = self.tallies.settled.items()
        return sorted((d, why) for (at, d), why in ended if at == day and d > after)[:limit]

    async def due(self, now: float, *, limit: int) -> Sequence[Delivery]:
        self._works()
        due = [row for row in self._waiting() if row.next_at <= now]
        return sorted(due, key=lambda row: (row.next_at, self._created(row)))[:limit]

    async def update(self, delivery: Delivery) -> None:
        self._works()
        key = delivery.report_id, delivery.destination
        if key in self.rows:
            self.rows[key] = delivery

    async def report(self, report_id: str) -> Report | None:
        self._works()
        return self.kept.get(report_id)

    async def deliveries(self, report_id: str) -> Sequence[Delivery]:
        self._works()
        return [row for row in self.rows.values() if row.report_id == report_id]

    async def reports(
        self, *, day: Day | None, domain: Domain | None, after: str, limit: int
    ) -> Sequence[Report]:
        self._works()
        found = [
            report
            for report in self.kept.values()
            if day in (None, report.day) and domain in (None, report.domain)
        ]
        found.sort(key=lambda report: report.report_id)
        return [report for report in found if report.report_id > after][:limit]

    async def mailed(self, day: Day, domain: Domain, count: int) -> None:
        self._works()
        self.mails[day, domain] += count

    async def mailed_to(self, day: Day, domain: Domain) -> int:
        self._works()
        return self.mails[day, domain]

    async def destination_load(self, day: Day, destination: str) -> tuple[int, int]:
        self._works()
        return self.load.get((day, destination), (0, 0))

    async def counts(self) -> Mapping[str, int]:
        self._works()
        counts = Counter(str(row.state) for row in self.rows.values())
        reasons = Counter(f"{row.state}-{row.reason}" for row in self.rows.values() if row.reason)
        settled = Counter(f"settled-{why}" for why in self.tallies.settled.values())
        return {**counts, **reasons, **settled}

    async def waiting_since(self) -> tuple[int, float]:
        self._works()
        created = [self._created(row) for row in self._waiting()]
        return len(created), min(created, default=0.0)

    async def forget_reports(self, *, before: float) -> int:
        self._works()
        gone = {name for name, report in self.kept.items() if report.created_at < before}
        for name in gone:
            del self.kept[name]
        self.rows = {key: row for key, row in self.rows.items() if key[0] not in gone}
        first = day_of(before)
        self.load = {at: load for at, load in self.load.items() if at[0] >= first}
        self.mails = Counter({at: n for at, n in self.mails.items() if at[0] >= first})
        return len(gone)

    def by_day(self, domain: Domain) -> list[Day]:
        """The days of a domain's reports."""
        return [report.day for report in self.kept.values() if report.domain == domain]

    def _waiting(self) -> list[Delivery]:
        return [row for row in self.rows.values() if row.state == "waiting"]

    def _created(self, delivery: Delivery) -> float:
        return self.kept[delivery.report_id].created_at

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
