"""Closes days: for each domain that was mailed, a report and where it goes, or why there is none.

The store is the state. A day is closed domain by domain, each in one transaction, so that an
outage in the middle, or one that lasts for days, loses nothing and reports nothing twice.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import date
from typing import Literal

from mtastsd.answers import Answer, DnsError
from mtastsd.log import Log
from mtastsd.names import Domain
from mtastsd.ports import Clock, Delivery, Outbox, Report, Resolver, StoreUnavailable, TallyStore
from mtastsd.service.known import JumpGuard
from mtastsd.service.reading import read_txt
from mtastsd.tlsrpt import record as records
from mtastsd.tlsrpt.judge import judge_all
from mtastsd.tlsrpt.record import Https, Mailto, Record
from mtastsd.tlsrpt.tally import SECONDS, Day, DomainTally, day_of

EVERY = 30.0
"""Seconds between two looks at what is due."""

PAGE = 500
"""Domains of a day that are looked at together."""

AT_ONCE = 64
"""Domains settled at once: each asks one DNS question, and 100,000 that take a tenth of a second
each must not take hours."""

LOCKS = 256
"""Destinations whose counts are looked at apart from each other, by hash."""

LARGE = 2000
"""Failure details from which on a report is built in a thread: building takes some 10 us each. A
hand-over to a thread costs as much as a small report."""

ASK_AGAIN = 900.0
"""Seconds before `_smtp._tls` is asked for again after a DNS error."""

MAX_PUT_OFF = 100_000
"""Domains remembered as put off by a DNS error; one that is forgotten is asked for earlier."""

Settled = Literal[
    "reported",
    "no-record",  # nobody there wants reports
    "bad-record",
    "no-destination",  # no URI of the record can be used
    "suppressed",
    "looped",  # no more sessions than report mails of our own
    "nothing",  # no session
    "dns-error",  # for as long as a report would have been tried
]

Build = Callable[[Day, Domain, DomainTally, float], Report]
"""Day, domain, judged tally and the time now to the report."""


@dataclass(frozen=True, slots=True)
class Suppression:
    """A policy domain, or a rua (address or URL), that gets nothing until that wall time."""

    to: str
    until: float


@dataclass(frozen=True, slots=True)
class ReportRules:
    """`[report]` as the services obey it. Spans are seconds, `max_bytes` octets a destination
    and day, as is `max_per_destination`."""

    delay: float
    retry: float
    keep: float
    max_per_destination: int
    max_bytes: int
    suppress: tuple[Suppression, ...] = ()

    def suppressed(self, now: float, *names: str) -> bool:
        """Whether one of the names is on the list now."""
        wanted = {name.lower() for name in names}
        return any(s.to.lower() in wanted and now < s.until for s in self.suppress)


def due_at(day: Day, domain: Domain, delay: float) -> float:
    """When a domain's day is reported: spread over `delay` after the day's end, by its name, so
    that it comes at the same hour each day and no two relays need agree (RFC 8460 §4.1)."""
    digest = hashlib.blake2b(domain.encode("ascii"), digest_size=8).digest()
    return (day + 1) * SECONDS + delay * int.from_bytes(digest, "big") / 2**64


class Reporter:
    """Settles what is due."""

    def __init__(
        self,
        tallies: TallyStore,
        outbox: Outbox,
        rules: ReportRules,
        build: Build,
        *,
        resolver: Resolver,
        clock: Clock,
        log: Log,
    ) -> None:
        self._tallies = tallies
        self._outbox = outbox
        self._rules = rules
        self._build = build
        self._resolver = resolver
        self._clock = clock
        self._log = log
        self._again: dict[tuple[Day, Domain], float] = {}
        self._counting = [asyncio.Lock() for _ in range(LOCKS)]

    async def run(self) -> None:
        """A round every `EVERY`, for ever."""
        guard = JumpGuard(self._clock)
        while True:
            if guard.steady():
                try:
                    await self.round()
                except StoreUnavailable as error:
                    self._log.error("store-unavailable", doing="report", reason=str(error))
            else:
                # A clock that jumped would close a day that isn't over.
                self._log.warning("clock-jump", skipped="reports")
            await self._clock.sleep(EVERY)

    async def round(self) -> None:
        """Settle every domain of every past day that is due. Raises StoreUnavailable."""
        now = self._clock.now()
        for day in await self._tallies.days(before=day_of(now)):
            await self._close(day, now)
        await self._tallies.forget_days(before=Day(day_of(now - self._rules.keep)))
        await self._outbox.forget_reports(before=now - self._rules.keep)

    async def _close(self, day: Day, now: float) -> None:
        after = ""
        places = asyncio.Semaphore(AT_ONCE)
        failed: StoreUnavailable | None = None
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    page = await self._tallies.waiting(day, after=after, limit=PAGE)
                except StoreUnavailable as error:
                    failed = error  # from in here it would come out as a group
                    break
                for domain in page:
                    if self._due(day, domain, now):
                        # One that waits for a dead name server holds up none but itself.
                        await places.acquire()
                        group.create_task(self._one(day, domain, places))
                if len(page) < PAGE:
                    break
                after = page[-1]
        if failed is not None:
            raise failed

    def _due(self, day: Day, domain: Domain, now: float) -> bool:
        at = due_at(day, domain, self._rules.delay)
        return now >= max(at, self._again.get((day, domain), 0.0))

    async def _one(self, day: Day, domain: Domain, places: asyncio.Semaphore) -> None:
        try:
            await self.settle(day, domain)
        except StoreUnavailable as error:
            self._log.error("store-unavailable", doing="report", reason=str(error))
        except Exception as bug:
            # One domain must not hold up the day of all others.
            self._put_off(day, domain)
            self._log.error("bug", exc=bug, day=date_of(day), domain=domain)
        finally:
            places.release()

    async def settle(self, day: Day, domain: Domain) -> Settled | None:
        """Close a domain's day; why it ended as it did, None where it is tried again later."""
        now = self._clock.now()
        tally = await self._tallies.tally(day, domain)
        if any(totals.unjudged for totals in tally.values()):
            tally = judge_all(tally, await self._tallies.findings(day, domain))
        sessions = sum(totals.sessions for totals in tally.values())
        if not sessions and not any(totals.details for totals in tally.values()):
            return await self._end(day, domain, "nothing")
        if sessions <= await self._outbox.mailed_to(day, domain):
            return await self._end(day, domain, "looped")
        if self._rules.suppressed(now, domain):
            return await self._end(day, domain, "suppressed")
        found = await self._record(day, domain, now)
        if not isinstance(found, Record):
            return await self._end(day, domain, found) if found is not None else None
        if not found.destinations:
            return await self._end(day, domain, "no-destination")
        report = await self._built(day, domain, tally, now)
        async with AsyncExitStack() as held:
            # Or domains settled at once would not see each other's reports. Locks in order, or
            # two that name the same destinations the other way round would wait for ever.
            for number in sorted({hash(to.uri) % LOCKS for to in found.destinations}):
                await held.enter_async_context(self._counting[number])
            rows = await self._deliveries(report, found, now)
            return await self._end(day, domain, "reported", report, rows)

    async def _built(self, day: Day, domain: Domain, tally: DomainTally, now: float) -> Report:
        if sum(len(totals.details) for totals in tally.values()) < LARGE:
            return self._build(day, domain, tally, now)
        return await asyncio.to_thread(self._build, day, domain, tally, now)

    async def _record(self, day: Day, domain: Domain, now: float) -> Record | Settled | None:
        answer = await read_txt(self._resolver, "_smtp._tls", domain)
        if isinstance(answer, DnsError):
            if now >= due_at(day, domain, self._rules.delay) + self._rules.retry:
                return "dns-error"
            self._put_off(day, domain)
            return None
        selected = records.select(answer.records if isinstance(answer, Answer) else ())
        match selected:
            case records.NoRecord():
                return "no-record"
            case records.BadRecord(why=why):
                self._log.info("rua-record-bad", domain=domain, why=why)
                return "bad-record"
            case Record(rejected=rejected):
                for uri in rejected:
                    self._log.info("rua-unusable", domain=domain, uri=uri.uri, why=uri.why)
                return selected

    def _put_off(self, day: Day, domain: Domain) -> None:
        self._again[day, domain] = self._clock.now() + ASK_AGAIN
        while len(self._again) > MAX_PUT_OFF:
            self._again.pop(next(iter(self._again)))

    async def _deliveries(self, report: Report, record: Record, now: float) -> Sequence[Delivery]:
        """A row for each destination."""
        rows: list[Delivery] = []
        give_up = now + self._rules.retry
        for destination in record.destinations:
            uri = destination.uri
            why = await self._why_not(report, destination, now)
            state: Literal["suppressed", "waiting"] = "suppressed" if why else "waiting"
            done = now if why else 0.0
            rows.append(Delivery(report.report_id, uri, state, 0, now, give_up, why, done))
        return rows

    async def _why_not(self, report: Report, to: Mailto | Https, now: float) -> str:
        """Why a destination gets no report now; "" where it gets one."""
        if self._rules.suppressed(now, to.uri, _short(to)):
            return "on the suppress list"
        reports, octets = await self._outbox.destination_load(report.day, to.uri)
        many = reports >= self._rules.max_per_destination
        if not many and octets + len(report.body) <= self._rules.max_bytes:
            return ""
        # RFC 8460 §7: whoever points many domains at one mailbox makes a flood.
        self._log.warning(
            "rua-limit", domain=report.domain, destination=to.uri, reports=reports, octets=octets
        )
        return "over the limit of a day for one destination"

    async def _end(
        self,
        day: Day,
        domain: Domain,
        why: Settled,
        report: Report | None = None,
        to: Sequence[Delivery] = (),
    ) -> Settled:
        if await self._outbox.settle(day, domain, why, report, to):
            level = self._log.info if report is not None else self._log.debug
            level(
                "day-closed",
                day=date_of(day),
                domain=domain,
                why=why,
                report=report.report_id if report else None,
                destinations=len(to) or None,
            )
        return why


def _short(destination: Mailto | Https) -> str:
    return destination.address if isinstance(destination, Mailto) else destination.host


def date_of(day: Day) -> str:
    """`2026-11-24`."""
    return date.fromordinal(day + date(1970, 1, 1).toordinal()).isoformat()
