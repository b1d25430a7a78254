"""Calls of one kind that come while another runs are made together in the lane's next job.

For writes that is group commit: one transaction for all that waited while the last one was
written. For reads it is one hand-over to the thread and back instead of many.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, NoReturn, TypeVar

from mtastsd.ports import StoreUnavailable
from mtastsd.store import lane as lanes
from mtastsd.store.lane import Lane, deliver

A = TypeVar("A")
R = TypeVar("R")
Call = tuple[A, asyncio.AbstractEventLoop, asyncio.Future[R]]


class Rounds(Generic[A, R]):
    """Runs `work` in the lane for the arguments of one call or of several, one result for each.

    A round begins `gather` seconds after its first call; with 0 at the end of that turn of the
    event loop. Where it fails for several, it is tried for each by itself: a row that can't be
    written must not take those of others with it.
    """

    def __init__(
        self,
        lane: Lane,
        work: Callable[[Sequence[A], sqlite3.Connection], Sequence[R]],
        gather: float = 0.0,
    ) -> None:
        self._lane = lane
        self._work = work
        self._gather = gather
        self._waiting: deque[Call[A, R]] = deque()
        self._posted = False
        """A round is in the lane's queue and will take all that waits, also where the lane has been
        closed behind it: what waits for that one must not be told that it came too late."""
        self._gathering: asyncio.AbstractEventLoop | None = None
        """The loop that will begin the next round. One that was closed never does."""

    def call(self, argument: A) -> asyncio.Future[R]:
        """The result, when its round is over; a caller that goes away does not stop it.

        Raises StoreUnavailable, the future too.
        """
        if len(self._waiting) >= lanes.MAX_PENDING:
            raise StoreUnavailable("too many wait for the database")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((argument, loop, future))
        if self._gathering is not loop:
            self._gathering = loop
            if self._gather:
                loop.call_later(self._gather, self.begin)
            else:
                loop.call_soon(self.begin)
        return future

    def begin(self) -> None:
        """Begin the round of what waits now."""
        self._gathering = None
        if not self._waiting or self._posted:
            return
        self._posted = True
        if not self._lane.post(self._run):
            self._posted = False
            for _, loop, future in self._taken():
                deliver(loop, future, _closed)

    def _taken(self) -> list[Call[A, R]]:
        # The loop adds meanwhile, at the end: what is there now is all that is taken, for what
        # comes later has its turn behind what the lane was given in between.
        return [self._waiting.popleft() for _ in range(len(self._waiting))]

    def _run(self) -> None:
        self._posted = False  # before they are taken: who comes now may ask for one round more
        calls = self._taken()
        if len(calls) < 2 or not self._together(calls):
            for argument, loop, future in calls:
                deliver(loop, future, partial(self._one, argument))

    def _together(self, calls: Sequence[Call[A, R]]) -> bool:
        """Whether all could be made at once; then all have their results."""
        try:
            results = self._try([argument for argument, _, _ in calls])
        except Exception:
            return False
        for (_, loop, future), result in zip(calls, results, strict=True):
            deliver(loop, future, partial(_same, result))
        return True

    def _try(self, arguments: Sequence[A]) -> Sequence[R]:
        return self._lane.use(partial(self._work, arguments))

    def _one(self, argument: A) -> R:
        return self._try([argument])[0]


def _same(result: R) -> R:
    return result


def _closed() -> NoReturn:
    raise StoreUnavailable("the store is closed")
