"""What the parts of a store share: how jobs get to a connection, and short forms of SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Row = Sequence[Any]
Values = Sequence[object] | Mapping[str, object]


class Database(Protocol):
    """Runs jobs in a thread that may block. Raises StoreUnavailable."""

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a job that only reads."""
        ...

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a job in a transaction of its own, committed when it returns."""
        ...


def upsert(table: str, columns: Sequence[str], key: Sequence[str]) -> str:
    """The statement that inserts a row, or replaces all but the key of the one that is there."""
    update = ", ".join(f"{c} = excluded.{c}" for c in columns if c not in key)
    return f"{insert(table, columns)} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {update}"


def add_up(table: str, columns: Sequence[str], key: Sequence[str]) -> str:
    """The statement that inserts a row, or adds all but the key to the one that is there."""
    update = ", ".join(f"{c} = {c} + excluded.{c}" for c in columns if c not in key)
    return f"{insert(table, columns)} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {update}"


def insert(table: str, columns: Sequence[str]) -> str:
    """The statement that inserts a row."""
    places = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608 our names


def one(sql: str, values: Values, connection: sqlite3.Connection) -> Row:
    """The first row; for statements that always give one."""
    row: Row = connection.execute(sql, values).fetchone()
    return row


def every(sql: str, values: Values, connection: sqlite3.Connection) -> list[Row]:
    """All rows."""
    return connection.execute(sql, values).fetchall()
