"""A thread with a SQLite connection of its own, and a queue of jobs in front of it.

The event loop never waits for a database, and jobs of one lane never wait for those of another. A
thread and queue of our own, because a hand-over costs two thirds of what an executor's does.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Final, TypeVar

from mtastsd.ports import StoreUnavailable
from mtastsd.store.errors import StoreCorrupt, StoreError

MAX_PENDING: Final = 10_000
"""Jobs that wait in one lane. Callers are bounded too; this holds when a disk hangs for hours."""

_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PASSING = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})
_BROKEN = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
    }
)

T = TypeVar("T")
Connect = Callable[[], sqlite3.Connection]


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code, `SQLITE_ERROR` where the Python module itself complained."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF


def is_corrupt(error: sqlite3.Error) -> bool:
    """Whether SQLite calls the file corrupt or no database: nothing else sets a file aside."""
    return code_of(error) in _CORRUPT


class Lane:
    """Runs jobs one after the other in a thread, each with the lane's connection.

    The connection is made by `connect`, in the thread, when a job first needs it, and anew after
    an error that may have spoilt it; so whatever passes, passes by itself. `on_corrupt` is called
    in the thread when the file turns out to be corrupt.
    """

    def __init__(self, name: str, connect: Connect, on_corrupt: Callable[[], None]) -> None:
        self._make = connect
        self._on_corrupt = on_corrupt
        self._connection: sqlite3.Connection | None = None
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._shut = False
        self._closed: asyncio.Future[None] | None = None
        # A daemon, so that a start that failed half way does not keep the process from ending.
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """What `job` returns or raises; `StoreUnavailable` where SQLite can't just now.

        A caller that is cancelled does not stop the job: what was to be written is written.
        """
        return await self.call(partial(self.use, job))

    def call(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run `work` in the thread, without a connection."""
        if self._queue.qsize() >= MAX_PENDING:
            raise StoreUnavailable("too many wait for the database")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if not self.post(partial(deliver, loop, future, work)):
            raise StoreUnavailable("the store is closed")
        return future

    def post(self, work: Callable[[], None]) -> bool:
        """Queue `work`, which must not raise, from any thread; false once the lane is closed."""
        with self._gate:  # nothing may stand behind the end mark: it would never run
            if not self._shut:
                self._queue.put(work)
            return not self._shut

    def connect(self) -> sqlite3.Connection:
        """The lane's connection, made if there is none. In the lane's thread only."""
        if self._connection is None:
            self._connection = self._make()
        return self._connection

    def disconnect(self) -> None:
        """Close the connection. In the lane's thread only."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def disconnect_from_outside(self) -> None:
        """Close the connection and wait until that is done. In another lane's thread only."""
        done = threading.Event()

        def work() -> None:
            self.disconnect()
            done.set()

        if self.post(work):
            done.wait()
        else:
            self._thread.join()

    def close(self) -> asyncio.Future[None]:
        """Take no more jobs. The future is done when those that wait have run and the connection
        is closed; again and again the same one."""
        if self._closed is None:
            loop = asyncio.get_running_loop()
            self._closed = loop.create_future()
            with self._gate:
                self._shut = True
                self._queue.put(partial(deliver, loop, self._closed, self.disconnect))
                self._queue.put(None)
        return asyncio.shield(self._closed)

    def _main(self) -> None:
        while (work := self._queue.get()) is not None:
            work()

    def use(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """What `job` returns, SQLite's errors judged. In the lane's thread only."""
        try:
            return job(self.connect())
        except StoreCorrupt as error:
            self._on_corrupt()
            raise StoreUnavailable(str(error)) from error
        except StoreError as error:
            raise StoreUnavailable(str(error)) from error
        except sqlite3.Error as error:
            code = code_of(error)
            if code in _CORRUPT:
                self._on_corrupt()
            elif code in _BROKEN:
                self.disconnect()
            elif code not in _PASSING:
                raise  # a bug of ours
            raise StoreUnavailable(str(error)) from error


def deliver(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], work: Callable[[], T]
) -> None:
    """Do the work here, and settle the future in its loop."""
    settle: Callable[[], None]
    try:
        settle = partial(_settle, future, work())
    except Exception as error:
        settle = partial(_fail, future, error)
    with suppress(RuntimeError):  # the loop is closed: nobody waits
        loop.call_soon_threadsafe(settle)


def _settle(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
