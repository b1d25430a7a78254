"""Single flight: one task does the work for a key, whoever asks; all wait for its one result.

A flight outlives those who wait: a look-up that is answered at its deadline does not end the fetch
that will answer the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from mtastsd.log import Log

K = TypeVar("K")
V = TypeVar("V")

Spawn = Callable[[Coroutine[Any, Any, None]], object]
"""Starts a task that somebody owns: `TaskGroup.create_task`."""


class Flights(Generic[K, V]):
    """The flights of one kind. A flight that raises lands with None; the bug is logged."""

    def __init__(self, kind: str, spawn: Spawn, log: Log, limit: int) -> None:
        """`limit`: how many may be in the air at once; one more is refused."""
        self._kind = kind
        self._spawn = spawn
        self._log = log
        self._limit = limit
        self._under_way: dict[K, asyncio.Future[V | None]] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def get(self, key: K) -> asyncio.Future[V | None] | None:
        return self._under_way.get(key)

    def start(
        self, key: K, work: Callable[[], Coroutine[Any, Any, V]]
    ) -> asyncio.Future[V | None] | None:
        """The flight for a key, begun now if there is none; None when too many are in the air."""
        flight = self._under_way.get(key)
        if flight is not None:
            return flight
        if len(self._under_way) >= self._limit:
            return None
        flight = asyncio.get_running_loop().create_future()
        self._under_way[key] = flight
        self._spawn(self._fly(key, work, flight))
        return flight

    async def _fly(
        self,
        key: K,
        work: Callable[[], Coroutine[Any, Any, V]],
        flight: asyncio.Future[V | None],
    ) -> None:
        result: V | None = None
        try:
            result = await work()
        except Exception as bug:
            # One domain's bug must not take the other flights down with the task group.
            self._log.error("bug", exc=bug, flight=self._kind, key=str(key))
        finally:
            self._under_way.pop(key, None)
            if not flight.done():
                flight.set_result(result)
