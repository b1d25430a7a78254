"""Delivers reports: each destination its own row, retried with back-off, the same octets each time.

At least once: a delivery is marked when the receiver has said yes. Only a kill between that yes
and our commit sends it again, and then under the same report-id and Message-ID.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from mtastsd.log import Log
from mtastsd.names import NotADomain, parse
from mtastsd.ports import (
    Clock,
    Delivery,
    DeliveryState,
    Mailer,
    Outbox,
    Poster,
    Report,
    Sent,
    StoreUnavailable,
)
from mtastsd.sts.failure import printable
from mtastsd.timing import next_try
from mtastsd.tlsrpt import record as records
from mtastsd.tlsrpt.record import Https, Mailto
from mtastsd.tlsrpt.tally import day_of

EVERY = 5.0
"""Seconds between two looks at what is due."""

BATCH = 100
"""Deliveries looked at together."""

AT_ONCE = 8
"""Deliveries under way at once: the MTA's queue is no place for a burst."""

MEDIA_TYPE = "application/tlsrpt+gzip"

Compose = Callable[[Report, Mailto], bytes]
"""Report and destination to the signed mail."""


class Deliverer:
    """Runs the outbox."""

    def __init__(
        self,
        outbox: Outbox,
        compose: Compose,
        *,
        sender: str,
        retry: float,
        mailer: Mailer,
        poster: Poster,
        clock: Clock,
        log: Log,
    ) -> None:
        """`sender` is the envelope's; `retry` is `report.retry` in seconds."""
        self._outbox = outbox
        self._compose = compose
        self._sender = sender
        self._retry = retry
        self._mailer = mailer
        self._poster = poster
        self._clock = clock
        self._log = log

    async def run(self) -> None:
        """Deliver what is due, for ever."""
        while True:
            try:
                while await self.round() == BATCH:
                    pass
            except StoreUnavailable as error:
                self._log.error("store-unavailable", doing="deliver", reason=str(error))
            await self._clock.sleep(EVERY)

    async def round(self) -> int:
        """Try a batch of what is due; how many. Raises StoreUnavailable."""
        due = await self._outbox.due(self._clock.now(), limit=BATCH)
        places = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for delivery in due:
                group.create_task(self._one(delivery, places))
        return len(due)

    async def _one(self, delivery: Delivery, places: asyncio.Semaphore) -> None:
        async with places:
            try:
                await self.deliver(delivery)
            except StoreUnavailable as error:
                self._log.error("store-unavailable", doing="deliver", reason=str(error))
            except Exception as bug:
                # One destination must not hold up all others; it is tried again like any.
                self._log.error("bug", exc=bug, report=delivery.report_id)
                await self._settle(delivery, Sent("later", "bug: internal error"))

    async def deliver(self, delivery: Delivery) -> DeliveryState:
        """Try one delivery now, and write what came of it. Raises StoreUnavailable."""
        report = await self._outbox.report(delivery.report_id)
        destination = records.destination(delivery.destination)
        if report is None:
            sent = Sent("never", "lost: the report is not kept any more")
        elif isinstance(destination, Mailto):
            sent = await self._mail(report, destination)
        elif isinstance(destination, Https):
            sent = await self._poster.post(destination.url, report.body, media_type=MEDIA_TYPE)
        else:
            sent = Sent("never", f"destination: {destination.why}")
        return await self._settle(delivery, sent)

    async def _mail(self, report: Report, to: Mailto) -> Sent:
        message = await asyncio.to_thread(self._compose, report, to)
        sent = await self._mailer.send(message, sender=self._sender, recipient=to.address)
        domain = parse(to.domain)
        if sent.outcome == "delivered" and not isinstance(domain, NotADomain):
            # So that reports about report mail don't make reports.
            await self._outbox.mailed(day_of(self._clock.now()), domain, 1)
        return sent

    async def _settle(self, delivery: Delivery, sent: Sent) -> DeliveryState:
        now, tries = self._clock.now(), delivery.tries + 1
        fresh = replace(delivery, tries=tries, last=printable(sent.detail))
        match sent.outcome:
            case "delivered":
                fresh = replace(fresh, state="delivered", done_at=now)
            case "never":
                fresh = replace(fresh, state="failed", done_at=now)
            case "later":
                first_at = delivery.give_up_at - self._retry
                again = next_try(tries, first_at, now, self._clock.random())
                if again > delivery.give_up_at:
                    fresh = replace(fresh, state="failed", done_at=now)
                else:
                    fresh = replace(fresh, next_at=again)
        await self._outbox.update(fresh)
        tell = self._log.warning if fresh.state == "failed" else self._log.info
        tell(
            "report-" + ("put-off" if fresh.state == "waiting" else fresh.state),
            report=fresh.report_id,
            to=fresh.destination,
            tries=tries,
            said=fresh.last,
        )
        return fresh.state
