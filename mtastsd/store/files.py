"""The SQLite file: how it is made, opened, brought to the current schema, and set aside.

All functions block; they run in a lane's thread.

Durability: WAL with `synchronous = NORMAL`. What was committed survives the end of the process, by
SIGKILL too. When the machine loses power, the database stays sound but the transactions of the
last moments may be gone, as the kernel had not written them yet; those policies are fetched
again. An fsync for each fetched policy would buy little for that.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from mtastsd.store import errors
from mtastsd.store.lane import code_of, is_corrupt
from mtastsd.store.migrations import Migration

APPLICATION_ID: Final = 0x6D747374
"""`mtst`: tells `file` and us whose database it is."""

CACHE_KIB: Final = 1024
"""Page cache of a connection. The kernel caches the file; ours need not grow with it."""

WAL_KEEP: Final = 8 * 1024 * 1024
"""Octets to which the log is cut back after a big transaction has made it grow."""


def open_writer(
    path: Path, wait: float, migrations: Sequence[Migration], now: float
) -> sqlite3.Connection:
    """The writing connection, with the file created and its schema brought up to date.

    `wait` is how long another process may hold the lock, in seconds. Raises `StoreError`.
    """
    with _explained(path):
        _create(path)
    with _connection(path, wait) as connection:
        connection.execute("BEGIN")  # one moment's view: another process may be making the file
        _judge(connection, path, len(migrations))
        connection.execute("ROLLBACK")
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise errors.StoreError(f"{path}: the file system can't do write-ahead logging")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_KEEP}")
        _migrate(connection, path, migrations, now)
        return connection


def open_reader(path: Path, wait: float) -> sqlite3.Connection:
    """A reading connection to a file that the writer has made. Raises `StoreError`."""
    with _connection(path, wait) as connection:
        connection.execute("PRAGMA query_only = ON")
        return connection


def set_aside(path: Path, now: float) -> Path:
    """Rename the database and its log to `.corrupt-YYYYmmddTHHMMSS`; the new name. Raises OSError.

    Nobody in this process may have it open: SQLite removes the log by name when the last
    connection closes, and that name is the new database's by then.
    """
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%S")
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    again = 1
    while os.path.lexists(aside):
        again += 1
        aside = path.with_name(f"{path.name}.corrupt-{stamp}-{again}")
    # The log first: if we were killed with the file gone alone, its log would be the new one's.
    for suffix in ("-wal", "-shm", ""):
        try:
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")
        except FileNotFoundError:
            continue
    return aside


def _create(path: Path) -> None:
    """Make the file if there is none; raise where it is not ours to read and write."""
    with suppress(FileExistsError):
        path.parent.mkdir(mode=0o700)
    with suppress(FileExistsError):
        # SQLite gives its log and index the mode of the database.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    # SQLite opens what it can't write to without a word, and leaves files of that mode behind.
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        raise _forbidden(path, "Permission denied")


@contextmanager
def _connection(path: Path, wait: float) -> Iterator[sqlite3.Connection]:
    """A connection that is closed again where the block raises, SQLite's errors explained."""
    # mode=rw: only `_create` makes a file, with its mode. No implicit transactions.
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with _explained(path):
        connection = sqlite3.connect(uri, uri=True, timeout=wait, isolation_level=None)
        try:
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            yield connection
        except BaseException:
            connection.close()
            raise


def _judge(connection: sqlite3.Connection, path: Path, known: int) -> int:
    """The schema's version, 0 for an empty file; raises where it is not for us to touch."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    objects = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application != APPLICATION_ID and (application or version or objects):
        raise errors.StoreForeign(f"{path}: a database of another program")
    if version > known:
        raise errors.StoreTooNew(
            f"{path}: has schema version {version}, this program knows {known} and older;"
            " use the newer program, or another file"
        )
    return version


def _migrate(
    connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration], now: float
) -> None:
    # Begun in any case: that is how we learn of a lock now and not later.
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _judge(connection, path, len(migrations))
        for step in migrations[version:]:
            for statement in _statements(step.sql):
                connection.execute(statement)
            connection.execute(
                "INSERT INTO schema_step VALUES (?, ?, ?)", (step.version, step.name, now)
            )
            connection.execute(f"PRAGMA user_version = {step.version}")
        if version < len(migrations):
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    finally:
        rollback(connection)


def rollback(connection: sqlite3.Connection) -> None:
    """End a transaction that was not committed, if one is open."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _statements(script: str) -> Iterator[str]:
    # executescript() commits first, and a step must be in one transaction with its version.
    statement = ""
    for line in script.split("\n"):
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    yield statement  # comments; or a statement without its end, on which SQLite chokes


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if (explained := _explain(path, error)) is None:
            raise
        raise explained from error
    except PermissionError as error:
        raise _forbidden(path, error.strerror) from error
    except OSError as error:
        raise errors.StoreError(f"{path}: {error.strerror}") from error


def _explain(path: Path, error: sqlite3.Error) -> errors.StoreError | None:
    if is_corrupt(error):
        return errors.StoreCorrupt(f"{path}: {error}")
    match code_of(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            return errors.StoreLocked(f"{path}: another process holds it: {error}")
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return _forbidden(path, str(error))
        case sqlite3.SQLITE_FULL:
            return errors.StoreFull(f"{path}: {error}")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_NOMEM | sqlite3.SQLITE_AUTH:
            return errors.StoreError(f"{path}: {error}")
        case _:
            return None


def _forbidden(path: Path, why: object) -> errors.StoreForbidden:
    return errors.StoreForbidden(
        f"{path}: can't be opened by user id {os.geteuid()}, to whom the file and its directory"
        f" must be writable: {why}"
    )
