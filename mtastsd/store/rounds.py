"""Calls of one kind that come while another runs are made together in the lane's next job.

For writes that is group commit: one transaction for all that waited while the last one was
written. For reads it is one hand-over to the thread and back instead of many.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

from mtastsd.ports import StoreUnavailable
from mtastsd.store import lane as lanes
from mtastsd.store.lane import Lane, deliver

A = TypeVar("A")
R = TypeVar("R")
Call = tuple[A, asyncio.AbstractEventLoop, asyncio.Future[R]]


class Rounds(Generic[A, R]):
    """Runs `work` in the lane for the arguments of one call or of several, one result for each.

    Where it fails for several, it is tried for each by itself: a row that can't be written must
    not take those of others with it.
    """

    def __init__(
        self, lane: Lane, work: Callable[[Sequence[A], sqlite3.Connection], Sequence[R]]
    ) -> None:
        self._lane = lane
        self._work = work
        self._waiting: deque[Call[A, R]] = deque()
        self._posted = False

    def call(self, argument: A) -> asyncio.Future[R]:
        """The result, when its round is over; a caller that goes away does not stop it.

        Raises StoreUnavailable, the future too.
        """
        if len(self._waiting) >= lanes.MAX_PENDING:
            raise StoreUnavailable("too many wait for the database")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        call = (argument, loop, future)
        self._waiting.append(call)
        # In this order, and in the reverse in the thread: what that doesn't see is posted here.
        if not self._posted:
            self._posted = True
            if not self._lane.post(self._run):
                self._posted = False
                with suppress(ValueError):
                    self._waiting.remove(call)
                raise StoreUnavailable("the store is closed")
        return future

    def _run(self) -> None:
        self._posted = False
        # Not one that comes meanwhile: its turn is behind what the lane was given in between.
        calls = [self._waiting.popleft() for _ in range(len(self._waiting))]
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
