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
    return await SqliteStore.open(path, lambda: NOW, Log(), write_wait=write_wait, read_wait=0.05)


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
