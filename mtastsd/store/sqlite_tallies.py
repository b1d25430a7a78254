"""Day totals in the SQLite file.

A batch is added row by row, whatever is there: that is merging, but for the bounds on variety.
Those hold when a tally is read, and in the file roughly: what has come to hold about twice as much
as they allow is cut to them (see `mtastsd.tlsrpt.tally` for why that changes nothing).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Final

from mtastsd.names import Domain
from mtastsd.ports import Finding, TallyBatch
from mtastsd.store import tlsrptrows as rows
from mtastsd.store.database import Database, Row, add_up, every, insert, one, upsert
from mtastsd.store.files import rollback
from mtastsd.tlsrpt.session import Detail, PolicyKey
from mtastsd.tlsrpt.tally import Day, DomainTally, Totals, capped

MOST_POLICIES: Final = 120
"""Policies of a domain's day that the file holds before they are cut: twice `tally.MAX_POLICIES`.
The schema has it too."""

MOST_VARIETY: Final = 1400
"""Details and MX hosts of a policy that the file holds before they are cut: twice
`tally.MAX_DETAILS` and `tally.MAX_UNJUDGED`. The schema has it too."""

FORGET_AT_ONCE: Final = 2000
"""Domains dropped in one transaction, so that others need not wait for a whole day of them."""

LOOK_UP: Final = 500
"""Policies found by one statement; SQLite before 3.32 takes no more than 999 values."""

_AT = "t.day = ? AND t.domain = ?"
_KEY = ("day", "domain", "policy")
_COUNTED_TABLES = ("tally", "tally_detail", "tally_unjudged")

_TAKE = """
    INSERT INTO tally_source (source, sequence) VALUES (?, ?)
        ON CONFLICT (source) DO UPDATE SET sequence = excluded.sequence
            WHERE excluded.sequence > sequence"""
_CURSOR = upsert("log_cursor", ("name", "position"), ("name",))
_POLICY = insert("tls_policy", ("digest", "uses", *rows.POLICY_COLUMNS))
_TOTALS = add_up("tally", (*_KEY, "successes", "failures", "variety"), _KEY)
_DETAIL = add_up(
    "tally_detail", (*_KEY, *rows.DETAIL_COLUMNS, "sessions"), (*_KEY, *rows.DETAIL_COLUMNS)
)
_HOST = ("mx_host", "mx_ip")
_UNJUDGED = add_up("tally_unjudged", (*_KEY, *_HOST, "sessions"), (*_KEY, *_HOST))
_CROWDED_TALLIES = f"SELECT day, domain, policy FROM tally WHERE variety > {MOST_VARIETY}"  # noqa: S608
_CROWDED_DAYS = f"SELECT day, domain FROM domain_day WHERE policies > {MOST_POLICIES}"  # noqa: S608

_READ_TOTALS = f"""
    SELECT p.id, {", ".join("p." + c for c in rows.POLICY_COLUMNS)}, t.successes, t.failures
      FROM tally AS t JOIN tls_policy AS p ON p.id = t.policy WHERE {_AT}"""  # noqa: S608 our own
_READ_DETAILS = f"""
    SELECT policy, {", ".join(rows.DETAIL_COLUMNS)}, sessions FROM tally_detail AS t WHERE {_AT}"""  # noqa: S608
_READ_UNJUDGED = f"SELECT policy, mx_host, mx_ip, sessions FROM tally_unjudged AS t WHERE {_AT}"  # noqa: S608

# SQLite doesn't know how few are not settled; it would read the whole day.
_OPEN = "domain_day AS d INDEXED BY domain_day_waiting WHERE d.why IS NULL AND d.day"
# From one day to the next: a day has as many rows as domains.
_DAYS = f"""
    WITH RECURSIVE
        found(day) AS (
            SELECT min(d.day) FROM {_OPEN} >= 0
            UNION ALL
            SELECT (SELECT min(d.day) FROM {_OPEN} > f.day) FROM found AS f WHERE f.day < :before)
    SELECT day FROM found WHERE day < :before"""  # noqa: S608 our own names
_OVER = f"""
    WITH RECURSIVE
        found(day) AS (
            SELECT min(day) FROM domain_day
            UNION ALL
            SELECT (SELECT min(d.day) FROM domain_day AS d WHERE d.day > f.day)
              FROM found AS f WHERE f.day < :before)
    SELECT day FROM found
     WHERE day < :before AND NOT EXISTS (SELECT 1 FROM {_OPEN} = found.day)
     LIMIT 1"""  # noqa: S608 our own names
_WAITING = f"SELECT domain FROM {_OPEN} = ? AND domain > ? ORDER BY domain LIMIT ?"  # noqa: S608
_NOTE = f"{insert('finding', rows.FINDING_COLUMNS)} ON CONFLICT DO NOTHING"
_FINDINGS = f"""
    SELECT {", ".join(rows.FINDING_COLUMNS)} FROM finding AS t WHERE {_AT}
     ORDER BY mx_host, mx_ip"""  # noqa: S608 our own names
_NEXT_PAGE = f"""
    SELECT domain FROM domain_day WHERE day = ? ORDER BY domain LIMIT 1 OFFSET {FORGET_AT_ONCE}"""  # noqa: S608
# The days first: what stands under a day that is gone has nothing left to count.
_DATED_TABLES = ("domain_day", *_COUNTED_TABLES)
_LONE_FINDINGS = f"""
    DELETE FROM finding
     WHERE day < ? AND NOT EXISTS (SELECT 1 FROM {_OPEN} = finding.day)"""  # noqa: S608 our own


class SqliteTallies:
    """`ports.TallyStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, batch: TallyBatch) -> bool:
        return await self._database.write(partial(_add, batch))

    async def sequence(self, source: str) -> int:
        sql = "SELECT coalesce(max(sequence), 0) FROM tally_source WHERE source = ?"
        row = await self._database.read(partial(one, sql, (source,)))
        return int(row[0])

    async def cursor(self, name: str) -> str:
        sql = "SELECT coalesce(max(position), '') FROM log_cursor WHERE name = ?"
        row = await self._database.read(partial(one, sql, (name,)))
        return str(row[0])

    async def days(self, *, before: Day) -> Sequence[Day]:
        return [
            Day(row[0])
            for row in await self._database.read(partial(every, _DAYS, {"before": before}))
        ]

    async def waiting(self, day: Day, *, after: str, limit: int) -> Sequence[Domain]:
        found = await self._database.read(partial(every, _WAITING, (day, after, limit)))
        return [Domain(row[0]) for row in found]

    async def tally(self, day: Day, domain: Domain) -> DomainTally:
        return await self._database.read(partial(_tally, day, domain))

    async def note(self, day: Day, findings: Sequence[Finding]) -> None:
        values = [rows.finding_values(day, finding) for finding in findings]
        await self._database.write(lambda connection: connection.executemany(_NOTE, values))

    async def findings(self, day: Day, domain: Domain) -> Sequence[Finding]:
        found = await self._database.read(partial(every, _FINDINGS, (day, domain)))
        return [finding for row in found if (finding := rows.finding_of(row)) is not None]

    async def forget_days(self, *, before: Day) -> int:
        gone = 0
        while (ended := await self._database.write(partial(_forget_some, before))) is not None:
            gone += ended
        return gone


# What follows runs in the threads of the database.


def _add(batch: TallyBatch, connection: sqlite3.Connection) -> bool:
    if not connection.execute(_TAKE, (batch.source, batch.sequence)).rowcount:
        return False
    connection.executemany(_CURSOR, batch.cursors.items())
    _put(connection, batch.tallies)
    for day, domain, policy in every(_CROWDED_TALLIES, (), connection):
        _cut(connection, day, domain, policy)
    for day, domain in every(_CROWDED_DAYS, (), connection):
        _cut(connection, day, domain)
    return True


Tallies = Mapping[tuple[Day, Domain], DomainTally]


def _put(connection: sqlite3.Connection, tallies: Tallies) -> None:
    """Add tallies to what is there."""
    policies: dict[bytes, rows.PolicyValues] = {}
    entries: list[tuple[Day, Domain, bytes, Totals]] = []
    # In the order of the tables: twice as fast, as each page is read and written once.
    for day, domain in sorted(tallies):
        for key, totals in tallies[day, domain].items():
            values = rows.policy_values(key)
            digest = rows.digest(values)
            policies[digest] = values
            entries.append((day, domain, digest, totals))
    ids = _policy_ids(connection, policies)
    # Generators: the interpreter is given up at each row, and look-ups go on meanwhile.
    connection.executemany(
        _TOTALS,
        (
            (day, domain, ids[digest], totals.successes, totals.failures, 0)
            for day, domain, digest, totals in entries
        ),
    )
    connection.executemany(
        _DETAIL,
        (
            (day, domain, ids[digest], *rows.detail_values(detail), sessions)
            for day, domain, digest, totals in entries
            for detail, sessions in totals.details.items()
        ),
    )
    connection.executemany(
        _UNJUDGED,
        (
            (day, domain, ids[digest], *host, sessions)
            for day, domain, digest, totals in entries
            for host, sessions in totals.unjudged.items()
        ),
    )


def _policy_ids(
    connection: sqlite3.Connection, policies: Mapping[bytes, rows.PolicyValues]
) -> dict[bytes, int]:
    """The ids of policies by digest, those that are new among them. Good in this transaction."""
    ids: dict[bytes, int] = {}
    wanted = iter(policies)
    while some := list(islice(wanted, LOOK_UP)):
        places = ", ".join("?" * len(some))
        sql = f"SELECT digest, id FROM tls_policy WHERE digest IN ({places})"  # noqa: S608
        ids.update(connection.execute(sql, some))
    for digest in sorted(policies.keys() - ids.keys()):
        number = connection.execute(_POLICY, (digest, 0, *policies[digest])).lastrowid
        assert number is not None
        ids[digest] = number
    return ids


def _cut(
    connection: sqlite3.Connection, day: Day, domain: Domain, policy: int | None = None
) -> None:
    """Bound the variety of a domain's day, or of one policy of it."""
    small = capped(_read(connection, day, domain, policy))
    for table in _COUNTED_TABLES:
        sql, values = _of_policy(f"DELETE FROM {table} AS t WHERE {_AT}", day, domain, policy)  # noqa: S608
        connection.execute(sql, values)
    _put(connection, {(day, domain): small})


def _of_policy(
    sql: str, day: Day, domain: Domain, policy: int | None
) -> tuple[str, tuple[object, ...]]:
    """A statement that ends in `_AT`, for one policy or for all."""
    if policy is None:
        return sql, (day, domain)
    return f"{sql} AND policy = ?", (day, domain, policy)


def _tally(day: Day, domain: Domain, connection: sqlite3.Connection) -> DomainTally:
    connection.execute("BEGIN")  # one moment's view of all tables
    try:
        found = _read(connection, day, domain)
    finally:
        rollback(connection)
    return capped(found)


def _read(
    connection: sqlite3.Connection, day: Day, domain: Domain, policy: int | None = None
) -> DomainTally:
    """What the file holds, in any variety."""

    def found(sql: str) -> Iterator[Row]:
        return connection.execute(*_of_policy(sql, day, domain, policy))

    details: dict[int, dict[Detail, int]] = {}
    for row in found(_READ_DETAILS):
        if (detail := rows.detail_of(row[1:-1])) is not None:
            details.setdefault(row[0], {})[detail] = row[-1]
    unjudged: dict[int, dict[tuple[str, str], int]] = {}
    for number, mx_host, mx_ip, sessions in found(_READ_UNJUDGED):
        unjudged.setdefault(number, {})[mx_host, mx_ip] = sessions
    tally: dict[PolicyKey, Totals] = {}
    for number, *columns, successes, failures in found(_READ_TOTALS):
        if (key := rows.policy_of(columns)) is not None:
            variety = details.get(number, {}), unjudged.get(number, {})
            tally[key] = Totals(successes, failures, *variety)
    return tally


def _forget_some(before: Day, connection: sqlite3.Connection) -> int | None:
    """Drop some domains of a settled day; how many days ended with that, None if there is none."""
    day = connection.execute(_OVER, {"before": before}).fetchone()
    if day is None:
        connection.execute(_LONE_FINDINGS, (before,))
        return None
    rest = connection.execute(_NEXT_PAGE, day).fetchone()
    for table in (*_DATED_TABLES, "finding"):
        sql = f"DELETE FROM {table} WHERE day = ?"  # noqa: S608 our own names
        if rest is None:
            connection.execute(sql, day)
        else:
            connection.execute(f"{sql} AND domain < ?", (*day, *rest))
    return int(rest is None)
