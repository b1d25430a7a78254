"""What the tests of the SQLite store share: processes beside us, and looks at its files."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mtastsd.log import Log, fields_of
from mtastsd.store.sqlite import SqliteStore
from tests.store_contract import NOW

ROOT = Path(__file__).parents[2]


async def open_at(path: Path, *, write_wait: float = 5.0) -> SqliteStore:
    return await SqliteStore.open(
        path, lambda: NOW, Log(), write_wait=write_wait, read_wait=0.05, save_gather=0.0
    )


@asynccontextmanager
async def opened(path: Path, *, write_wait: float = 5.0) -> AsyncIterator[SqliteStore]:
    store = await open_at(path, write_wait=write_wait)
    try:
        yield store
    finally:
        await store.close()


@contextmanager
def child(*args: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.io.store_child", *map(str, args)]
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def held(path: Path, mode: str) -> Iterator[None]:
    """Another process holds a lock."""
    with child("hold", path, mode) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield


def said_by_child(*args: object) -> list[str]:
    with child(*args) as process:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        return out.splitlines()


def sql(path: Path, *statements: str) -> list[Any]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return [connection.execute(statement).fetchall() for statement in statements][-1]
    finally:
        connection.close()


def files_beside(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def content(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, octets: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(octets)


def events(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [fields_of(record) for record in caplog.records if record.getMessage() == event]


def failing(code: int) -> Callable[[sqlite3.Connection], bool]:
    """A job in which SQLite fails with a result code."""

    def job(_connection: sqlite3.Connection) -> bool:
        error = sqlite3.OperationalError(f"code {code}")
        error.sqlite_errorcode = code
        raise error

    return job


_WRONG = """
    SELECT 'uses', id FROM tls_policy AS p
     WHERE uses = 0 OR uses <> (SELECT count(*) FROM tally WHERE policy = p.id)
    UNION ALL SELECT 'lost', domain FROM tally WHERE policy NOT IN (SELECT id FROM tls_policy)
    UNION ALL SELECT 'policies', domain FROM domain_day AS d
     WHERE policies <> (SELECT count(*) FROM tally AS t WHERE t.day = d.day AND t.domain = d.domain)
    UNION ALL SELECT 'variety', domain FROM tally AS t
     WHERE variety <> (SELECT count(*) FROM tally_detail AS d
                        WHERE (d.day, d.domain, d.policy) = (t.day, t.domain, t.policy))
                    + (SELECT count(*) FROM tally_unjudged AS u
                        WHERE (u.day, u.domain, u.policy) = (t.day, t.domain, t.policy))
    UNION ALL SELECT 'orphan', domain FROM (
            SELECT day, domain, policy FROM tally_detail
            UNION SELECT day, domain, policy FROM tally_unjudged
            EXCEPT SELECT day, domain, policy FROM tally)
    UNION ALL SELECT 'day', domain FROM (
            SELECT day, domain FROM tally EXCEPT SELECT day, domain FROM domain_day)"""


def wrong(path: Path) -> list[Any]:
    """Where what triggers count is not what is there."""
    return sql(path, _WRONG)
