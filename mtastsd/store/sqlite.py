"""The store in one SQLite file.

Three lanes, each a thread with its own connection: look-ups, everything else that reads, and the
one writer. WAL lets them go on side by side, so neither a big write nor a scan delays a look-up.

A file that turns out corrupt while it is used is set aside by the writer, and a new one is begun;
whoever noticed gets `StoreUnavailable` like everybody who asks meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from mtastsd.dane import KEEP_UNDER_ERRORS, Finding
from mtastsd.log import Log
from mtastsd.names import Domain
from mtastsd.ports import KnownDomain, KnownHop, StoreUnavailable
from mtastsd.store import files, migrations, rows
from mtastsd.store.database import Row, every, one, upsert
from mtastsd.store.errors import StoreCorrupt, StoreError
from mtastsd.store.lane import Lane, code_of
from mtastsd.store.rounds import Rounds
from mtastsd.store.sqlite_outbox import SqliteOutbox
from mtastsd.store.sqlite_tallies import SqliteTallies
from mtastsd.sts.flow import FETCH_RETRY
from mtastsd.timing import SPREAD

WRITE_WAIT: Final = 5.0
"""Seconds that a write waits for another process's lock: backups and VACUUM take less."""

READ_WAIT: Final = 0.25
"""Seconds for a read: in WAL nothing but exclusive access bars it, and a look-up has a deadline."""

SAVE_GATHER: Final = 0.01
"""Seconds for which saves are gathered into one transaction. A discovery takes longer by far, and
each transaction costs some seven writes and the interpreter lock a dozen times."""

PAGE: Final = 200
"""Rows of a scan read at a time; with the largest policies some 13 MB."""

_DOMAIN = ", ".join(rows.DOMAIN_COLUMNS)
_LOAD = f"""
    SELECT {", ".join("d." + c for c in rows.DOMAIN_COLUMNS)},
           {", ".join("h." + c for c in rows.HOP_COLUMNS)}
      FROM (SELECT 1)
      LEFT JOIN policy_domain AS d ON d.domain = ?
      LEFT JOIN next_hop AS h ON h.domain = ? AND h.hop = ?"""  # noqa: S608 our own names
# One statement, not two: each step gives up the interpreter lock and must win it back.
_SAVE_DOMAIN = upsert("policy_domain", rows.DOMAIN_COLUMNS, ("domain",))
_SAVE_HOP = upsert("next_hop", rows.HOP_COLUMNS, ("domain", "hop"))
_TOUCH = "UPDATE policy_domain SET used_at = ? WHERE domain = ? AND used_at < ?"
_WANTED = """
    body IS NOT NULL AND used_at >= :used_since AND (failure_kind IS NULL OR recheck_at <= :now)"""
_DUE = f"""
    SELECT {_DOMAIN} FROM policy_domain
     WHERE {_WANTED} AND fetched_at <= :now - :share * :refresh
     ORDER BY fetched_at LIMIT :limit"""  # noqa: S608 our own names
# StsBranch.refresh_after of a short life: due before `refresh` says so, and found by its end.
_DUE_SHORT = f"""
    SELECT {_DOMAIN} FROM policy_domain
     WHERE {_WANTED} AND expires_at < :now + 2 * :refresh
       AND fetched_at > :now - :share * :refresh
       AND fetched_at + :share * max((expires_at - fetched_at) / 2, :retry) <= :now
     ORDER BY expires_at LIMIT :limit"""  # noqa: S608 our own names
_SCAN = f"SELECT {_DOMAIN} FROM policy_domain WHERE domain > ? ORDER BY domain LIMIT {PAGE}"  # noqa: S608
_FORGET_DOMAINS = """
    DELETE FROM policy_domain
     WHERE used_at < :unused_since
        OR (recheck_at <= :over AND (body IS NULL OR expires_at <= :now))"""
_FORGET_HOPS = """
    DELETE FROM next_hop
     WHERE used_at < :unused_since
        OR (recheck_at <= :over AND (finding = :error OR expires_at <= :stale))"""

T = TypeVar("T")
Save = tuple[Sequence[Row], Sequence[Row]]
"""Rows of domains and of next hops."""


class SqliteStore:
    """`PolicyStore` in a SQLite file, whose `TallyStore` and `Outbox` are `tallies` and `outbox`.

    Made by `open`; any task of any loop may call it. Other processes may have the file open too.
    """

    def __init__(
        self,
        path: Path,
        now: Callable[[], float],
        log: Log,
        write_wait: float,
        read_wait: float,
        save_gather: float,
    ) -> None:
        self._path = path.resolve()  # SQLite names the log after what a link points to
        self._now = now
        self._log = log
        self._write_wait = write_wait
        self._read_wait = read_wait
        self._patient = True
        self._generation = 0
        self._barred = False
        self._migrations = migrations.load("sqlite")
        self._loads = Lane("store-load", self._open_reader, self._repair_later)
        self._scans = Lane("store-scan", self._open_reader, self._repair_later)
        self._writer = Lane("store-write", self._open_writer, self._repair_later)
        self._loading = Rounds(self._loads, _load)
        self._saving = Rounds(self._writer, self._save, save_gather)
        self.tallies = SqliteTallies(self)
        self.outbox = SqliteOutbox(self)

    @classmethod
    async def open(
        cls,
        path: Path,
        now: Callable[[], float],
        log: Log,
        *,
        write_wait: float = WRITE_WAIT,
        read_wait: float = READ_WAIT,
        save_gather: float = SAVE_GATHER,
    ) -> SqliteStore:
        """Open the file, create it (mode 0600, with its directory) or bring its schema up to date.

        `now` is wall time. A corrupt file is set aside; for all else that stands in the way
        `StoreError` is raised and nothing is touched.
        """
        store = cls(path, now, log, write_wait, read_wait, save_gather)
        try:
            await store._writer.call(store._begin)
        except BaseException:
            await store.close()
            raise
        return store

    async def load(self, domain: Domain, hop: str) -> tuple[KnownDomain | None, KnownHop | None]:
        row = await self._loading.call((domain, rows.policy_domain(hop), hop))
        split = len(rows.DOMAIN_COLUMNS)
        return rows.domain_of(row[:split]), rows.hop_of(row[split:])

    async def save(self, domains: Sequence[KnownDomain], hops: Sequence[KnownHop]) -> None:
        domain_rows = [rows.domain_values(known) for known in domains]
        hop_rows = [rows.hop_values(known) for known in hops]
        await self._saving.call((domain_rows, hop_rows))

    async def touch(self, domains: Sequence[tuple[Domain, float]]) -> None:
        values = [(used_at, domain, used_at) for domain, used_at in domains]
        await self.write(lambda connection: connection.executemany(_TOUCH, values))

    async def due(
        self, *, now: float, refresh: float, used_since: float, limit: int
    ) -> Sequence[KnownDomain]:
        values = {
            "now": now,
            "refresh": refresh,
            "used_since": used_since,
            "limit": limit,
            "share": 1 - SPREAD,
            "retry": FETCH_RETRY,
        }
        found = await self.read(partial(every, _DUE, values))
        if len(found) < limit:
            short = await self.read(partial(every, _DUE_SHORT, values))
            found = [*found, *short][:limit]
        due = [known for row in found if (known := rows.domain_of(row)) is not None]
        return sorted(due, key=lambda known: known.sts.fetched_at)

    async def scan(self, *, after: str = "") -> AsyncIterator[KnownDomain]:
        while True:
            page = await self.read(partial(every, _SCAN, (after,)))
            for row in page:
                if (known := rows.domain_of(row)) is not None:
                    yield known
            if len(page) < PAGE:
                return
            after = page[-1][0]

    async def forget(self, *, unused_since: float, now: float) -> int:
        """As the port says. A finding but an error stays as long as it may answer under errors."""
        values = {
            "unused_since": unused_since,
            "now": now,
            "over": now - rows.NEGATIVE_KEEP,
            "stale": now - KEEP_UNDER_ERRORS,
            "error": Finding.ERROR.value,
        }

        def job(connection: sqlite3.Connection) -> int:
            return sum(
                connection.execute(sql, values).rowcount for sql in (_FORGET_DOMAINS, _FORGET_HOPS)
            )

        return await self.write(job)

    async def delete(self, domain: Domain) -> bool:
        def job(connection: sqlite3.Connection) -> bool:
            known = connection.execute("DELETE FROM policy_domain WHERE domain = ?", (domain,))
            hops = connection.execute("DELETE FROM next_hop WHERE domain = ?", (domain,))
            return known.rowcount + hops.rowcount > 0

        return await self.write(job)

    async def count(self) -> int:
        row = await self.read(partial(one, "SELECT count(*) FROM policy_domain", ()))
        return int(row[0])

    async def close(self) -> None:
        """Wait for the writes that were asked for, then close the file. Twice is fine."""
        self._loading.begin()
        self._saving.begin()
        ends = [self._loads.close(), self._scans.close()]
        # The last connection works the log in; of two that close together neither may.
        self._writer.post(self._close_readers)
        ends.append(self._writer.close())
        for end in ends:
            await end

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """As `Database` says. Never waits for a write, nor do look-ups wait for it."""
        return await self._scans.run(job)

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """As `Database` says."""
        return await self._writer.run(partial(self._transact, job))

    # What follows runs in the lanes' threads.

    def _save(self, saves: Sequence[Save], connection: sqlite3.Connection) -> Sequence[None]:
        def job(connection: sqlite3.Connection) -> None:
            for sql, kind in ((_SAVE_DOMAIN, 0), (_SAVE_HOP, 1)):
                connection.executemany(sql, [row for save in saves for row in save[kind]])

        self._transact(job, connection)
        return [None] * len(saves)

    def _transact(
        self, job: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection
    ) -> T:
        try:
            connection.execute("BEGIN IMMEDIATE")
            result = job(connection)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            # Not again for each write that waits behind this one: they would fail late and stop
            # would take minutes.
            if code_of(error) == sqlite3.SQLITE_BUSY:
                self._set_patience(connection, False)
            raise
        finally:
            files.rollback(connection)
        self._set_patience(connection, True)
        return result

    def _set_patience(self, connection: sqlite3.Connection, patient: bool) -> None:
        if patient != self._patient:
            wait = int(self._write_wait * 1000) if patient else 0
            connection.execute(f"PRAGMA busy_timeout = {wait}")
            self._patient = patient

    def _open_writer(self) -> sqlite3.Connection:
        self._close_readers()  # should the file be gone, it is made anew
        wait = self._write_wait if self._patient else 0.0
        return files.open_writer(self._path, wait, self._migrations, self._now())

    def _open_reader(self) -> sqlite3.Connection:
        if self._barred:
            raise StoreUnavailable(f"{self._path}: is being set aside")
        return files.open_reader(self._path, self._read_wait)

    def _close_readers(self) -> None:
        """Before another file takes this one's place: see `files.set_aside`."""
        for lane in (self._loads, self._scans):
            lane.disconnect_from_outside()

    def _begin(self) -> None:
        try:
            self._writer.connect()
        except StoreCorrupt as error:
            self._begin_anew(str(error))
            self._writer.connect()

    def _repair_later(self) -> None:
        self._writer.post(partial(self._repair, self._generation))

    def _repair(self, generation: int) -> None:
        """Set the file aside and begin anew, unless that was done since `generation`."""
        if generation != self._generation:
            return
        self._barred = True
        try:
            self._close_readers()
            self._writer.disconnect()
            self._begin_anew("found while it was used")
            self._writer.connect()
        except (OSError, sqlite3.Error, StoreError) as error:
            # The next write tries to open it, the next read that finds it corrupt to set it aside.
            self._log.error("store-failed", path=self._path, reason=error)
        finally:
            self._barred = False

    def _begin_anew(self, why: str) -> None:
        try:
            aside = files.set_aside(self._path, self._now())
        except OSError as error:
            raise StoreError(
                f"{self._path}: corrupt, can't be renamed: {error.strerror}"
            ) from error
        self._generation += 1
        self._log.error("store-set-aside", path=self._path, aside=aside, reason=why)


def _load(keys: Sequence[Row], connection: sqlite3.Connection) -> Sequence[Row]:
    return [one(_LOAD, key, connection) for key in keys]
