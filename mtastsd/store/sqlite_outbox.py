"""Reports and their deliveries in the SQLite file."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from mtastsd.names import Domain
from mtastsd.ports import Delivery, Report
from mtastsd.store import tlsrptrows as rows
from mtastsd.store.database import Database, add_up, every, insert, one
from mtastsd.tlsrpt.tally import Day, day_of

FORGET_AT_ONCE: Final = 1000
"""Reports dropped in one transaction, so that others need not wait for months of them."""

_REPORT = ", ".join(rows.REPORT_COLUMNS)
_DELIVERY = ", ".join(rows.DELIVERY_COLUMNS)

_SETTLE = """
    INSERT INTO domain_day (day, domain, why, policies) VALUES (?, ?, ?, 0)
        ON CONFLICT (day, domain) DO UPDATE SET why = excluded.why WHERE why IS NULL"""
_SETTLED = """
    SELECT domain, why FROM domain_day WHERE day = ? AND domain > ? AND why IS NOT NULL
     ORDER BY domain LIMIT ?"""
_SAVE_REPORT = f"{insert('report', rows.REPORT_COLUMNS)} ON CONFLICT (report_id) DO NOTHING"
_SAVE_DELIVERY = insert("delivery", (*rows.DELIVERY_COLUMNS, "reason", "created_at"))
_LOAD_MORE = add_up(
    "destination_load", ("day", "destination", "reports", "octets"), ("day", "destination")
)
_LOAD = """
    SELECT coalesce(sum(reports), 0), coalesce(sum(octets), 0)
      FROM destination_load WHERE day = ? AND destination = ?"""
_CHANGED = tuple(c for c in rows.DELIVERY_COLUMNS if c not in ("report_id", "destination"))
_UPDATE = f"""
    UPDATE delivery SET {", ".join(f"{c} = :{c}" for c in (*_CHANGED, "reason"))}
     WHERE report_id = :report_id AND destination = :destination"""  # noqa: S608 our own names
_DUE = f"""
    SELECT {_DELIVERY} FROM delivery WHERE state = 'waiting' AND next_at <= ?
     ORDER BY next_at, created_at, id LIMIT ?"""  # noqa: S608 our own names
_DELIVERIES = f"SELECT {_DELIVERY} FROM delivery WHERE report_id = ? ORDER BY id"  # noqa: S608
_MAILED = add_up("report_mail", ("day", "domain", "mails"), ("day", "domain"))
_MAILED_TO = "SELECT coalesce(sum(mails), 0) FROM report_mail WHERE day = ? AND domain = ?"
_WAITING = """
    SELECT count(*), coalesce(min(created_at), 0.0) FROM delivery WHERE state = 'waiting'"""
_COUNTS = "SELECT what, reason, number FROM outcome WHERE number > 0"
_FORGET = f"""
    DELETE FROM report WHERE id IN (
        SELECT id FROM report WHERE created_at < ? ORDER BY created_at LIMIT {FORGET_AT_ONCE})"""  # noqa: S608


class SqliteOutbox:
    """`ports.Outbox`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def settle(
        self, day: Day, domain: Domain, why: str, report: Report | None, to: Sequence[Delivery]
    ) -> bool:
        once = {delivery.destination: delivery for delivery in reversed(to)}
        deliveries = [delivery for delivery in to if once[delivery.destination] is delivery]

        def job(connection: sqlite3.Connection) -> bool:
            if not connection.execute(_SETTLE, (day, domain, why)).rowcount:
                return False
            return report is None or _save(connection, report, deliveries)

        return await self._database.write(job)

    async def settled(self, day: Day, *, after: str, limit: int) -> Sequence[tuple[Domain, str]]:
        found = await self._database.read(partial(every, _SETTLED, (day, after, limit)))
        return [(Domain(domain), why) for domain, why in found]

    async def due(self, now: float, *, limit: int) -> Sequence[Delivery]:
        return await self._deliveries(_DUE, (now, limit))

    async def update(self, delivery: Delivery) -> None:
        columns = zip(rows.DELIVERY_COLUMNS, rows.delivery_values(delivery), strict=True)
        values = {**dict(columns), "reason": delivery.reason}
        await self._database.write(lambda connection: connection.execute(_UPDATE, values))

    async def report(self, report_id: str) -> Report | None:
        sql = f"SELECT {_REPORT} FROM report WHERE report_id = ?"  # noqa: S608 our own names
        found = await self._database.read(partial(every, sql, (report_id,)))
        return rows.report_of(found[0]) if found else None

    async def deliveries(self, report_id: str) -> Sequence[Delivery]:
        return await self._deliveries(_DELIVERIES, (report_id,))

    async def reports(
        self, *, day: Day | None, domain: Domain | None, after: str, limit: int
    ) -> Sequence[Report]:
        sql, values = reports_query(day, domain, after, limit)
        return [
            rows.report_of(row) for row in await self._database.read(partial(every, sql, values))
        ]

    async def mailed(self, day: Day, domain: Domain, count: int) -> None:
        values = (day, domain, count)
        await self._database.write(lambda connection: connection.execute(_MAILED, values))

    async def mailed_to(self, day: Day, domain: Domain) -> int:
        row = await self._database.read(partial(one, _MAILED_TO, (day, domain)))
        return int(row[0])

    async def destination_load(self, day: Day, destination: str) -> tuple[int, int]:
        row = await self._database.read(partial(one, _LOAD, (day, destination)))
        return int(row[0]), int(row[1])

    async def counts(self) -> Mapping[str, int]:
        counts: Counter[str] = Counter()
        for what, reason, number in await self._database.read(partial(every, _COUNTS, ())):
            counts[what] += number
            if reason:
                counts[f"{what}-{reason}"] += number
        return dict(counts)

    async def waiting_since(self) -> tuple[int, float]:
        row = await self._database.read(partial(one, _WAITING, ()))
        return int(row[0]), float(row[1])

    async def forget_reports(self, *, before: float) -> int:
        day, gone = day_of(before), 0

        def job(connection: sqlite3.Connection) -> int:
            connection.execute("DELETE FROM destination_load WHERE day < ?", (day,))
            connection.execute("DELETE FROM report_mail WHERE day < ?", (day,))
            return connection.execute(_FORGET, (before,)).rowcount

        while (some := await self._database.write(job)) > 0:
            gone += some
        return gone

    async def _deliveries(self, sql: str, values: Sequence[object]) -> Sequence[Delivery]:
        found = await self._database.read(partial(every, sql, values))
        return [delivery for row in found if (delivery := rows.delivery_of(row)) is not None]


def reports_query(
    day: Day | None, domain: Domain | None, after: str, limit: int
) -> tuple[str, dict[str, object]]:
    """The statement for `Outbox.reports`, and its values."""
    asked = {"day": day, "domain": domain}
    given = {name: value for name, value in asked.items() if value is not None}
    where = " AND ".join([*(f"{name} = :{name}" for name in given), "report_id > :after"])
    # SQLite would rather read a whole day for one domain of it, for the sake of the order.
    table = "report" if domain is None else "report INDEXED BY report_domain"
    sql = f"SELECT {_REPORT} FROM {table} WHERE {where} ORDER BY report_id LIMIT :limit"  # noqa: S608
    return sql, {**given, "after": after, "limit": limit}


def _save(connection: sqlite3.Connection, report: Report, to: Sequence[Delivery]) -> bool:
    """Write a report and its deliveries, unless a report of that id is there."""
    if not connection.execute(_SAVE_REPORT, rows.report_values(report)).rowcount:
        return False
    connection.executemany(
        _SAVE_DELIVERY,
        [(*rows.delivery_values(d), d.reason, report.created_at) for d in to],
    )
    connection.executemany(
        _LOAD_MORE,
        [(report.day, d.destination, 1, len(report.body)) for d in to if d.state != "suppressed"],
    )
    return True
