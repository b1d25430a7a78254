"""The socketmap server: connections, the order of replies, limits.

Postfix asks one thing at a time on a connection; others may pipeline. Replies keep the order of
requests. A broken netstring ends its own connection and no other.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.ports import Clock
from mtastsd.postfix import netstring
from mtastsd.postfix.socketmap import MAX_REQUEST
from mtastsd.server.lookups import Frames, Lookups
from mtastsd.service.flights import Spawn

MAX_CONNECTIONS = 4096
"""Open connections: a Postfix with its default of 100 smtp(8) processes needs 100."""

IDLE_SWEEP = 600.0
"""Seconds between sweeps: who was silent for a whole one is closed. Postfix itself closes a
connection that is idle for 10 s."""

MAX_PIPELINED = 64
"""Requests of one connection that wait; then nothing more is read from it."""


class SocketmapServer:
    """Listens on sockets that are handed in; serves until cancelled."""

    def __init__(
        self, lookups: Lookups, *, clock: Clock, log: Log, metrics: Metrics, spawn: Spawn
    ) -> None:
        self.lookups = lookups
        self.frames = Frames()
        self.connections: set[Connection] = set()
        self.now = clock.now
        self.spawn = spawn
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._full = False
        metrics.connections.set_function(lambda: len(self.connections))
        metrics.collect_with(self._counts)

    def _counts(self) -> list[tuple[str, str, int]]:
        slow = [(o, s, n) for (o, s), n in self.lookups.counts.items()]
        return slow + list(self.frames.counts())

    async def serve(self, sockets: Sequence[socket.socket], ready: Callable[[], None]) -> None:
        """Serve for ever; `ready` is called once all sockets are accepted on."""
        loop = asyncio.get_running_loop()
        servers: list[asyncio.Server] = []
        try:
            for sock in sockets:
                if sock.family == socket.AF_UNIX:
                    servers.append(
                        await loop.create_unix_server(lambda: Connection(self), sock=sock)
                    )
                else:
                    servers.append(await loop.create_server(lambda: Connection(self), sock=sock))
            ready()
            while True:
                await self._clock.sleep(IDLE_SWEEP)
                self._sweep()
        finally:
            for server in servers:
                server.close()
            for connection in list(self.connections):
                connection.end()

    def admit(self, connection: Connection) -> bool:
        """Take a connection in, unless there are too many."""
        if len(self.connections) >= MAX_CONNECTIONS:
            self._metrics.refused.labels("limit").inc()
            if not self._full:
                self._log.warning("connections-full", limit=MAX_CONNECTIONS)
            self._full = True
            return False
        self._full = False
        self.connections.add(connection)
        return True

    def broken(self, why: str) -> None:
        """Count and tell a request that is no netstring."""
        self._metrics.refused.labels("netstring").inc()
        self._log.info("bad-netstring", why=why)

    def _sweep(self) -> None:
        for connection in list(self.connections):
            if connection.idle and not connection.waiting:
                self._metrics.refused.labels("idle").inc()
                connection.end()
            connection.idle = True


class Connection(asyncio.Protocol):
    """One client."""

    __slots__ = (
        "_decoder",
        "_frames",
        "_now",
        "_paused",
        "_plain",
        "_queue",
        "_server",
        "_transport",
        "_write",
        "idle",
    )

    def __init__(self, server: SocketmapServer) -> None:
        self._server = server
        self._frames = server.frames.entries
        self._now = server.now
        self._decoder = netstring.Decoder(MAX_REQUEST)
        self._queue: deque[bytes] = deque()
        self._plain = True  # nothing half read, nothing waiting
        self._paused = False
        self.idle = False

    @property
    def waiting(self) -> bool:
        """Whether a request waits for its answer."""
        return bool(self._queue)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)
        self._write = self._transport.write
        if not self._server.admit(self):
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._queue.clear()

    def end(self) -> None:
        """Close at once."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self.idle = False
        if self._plain:
            hit = self._frames.get(data)
            if hit is not None and self._now() < hit[1]:
                self._write(hit[0])
                hit[2][0] += 1
                return
        self._read(data)

    def _read(self, data: bytes) -> None:
        broken = ""
        try:
            payloads = self._decoder.feed(data)
        except netstring.NetstringError as error:
            payloads, broken = list(error.frames), error.why
        for payload in payloads:
            answer = None if self._queue else self._server.lookups.at_once(payload)
            if answer is None:
                self._queue.append(payload)
                if len(self._queue) == 1:
                    self._server.spawn(self._work())
                continue
            self._write(answer.frame)
            self._server.frames.keep(netstring.encode(payload), answer)
        self._plain = not self._queue and self._decoder.empty and not broken
        self._flow()
        if broken:
            self._server.broken(broken)
            self._transport.close()

    async def _work(self) -> None:
        """Answer what waits, in order."""
        while self._queue:
            payload = self._queue[0]
            answer = await self._server.lookups.answer(payload)
            if self._transport.is_closing() or not self._queue:
                return
            self._queue.popleft()
            self._write(answer.frame)
            self._server.frames.keep(netstring.encode(payload), answer)
            self._flow()
        self._plain = self._decoder.empty

    def _flow(self) -> None:
        """Read no more while too much waits."""
        full = len(self._queue) >= MAX_PIPELINED
        if full != self._paused and not self._transport.is_closing():
            self._paused = full
            if full:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def pause_writing(self) -> None:
        # A client that asks and does not read would else fill our memory with replies.
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        if not self._paused:
            self._transport.resume_reading()
