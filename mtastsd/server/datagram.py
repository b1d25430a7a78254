"""Datagrams of libtlsrpt, from the receiving process to the collector.

The socket is ours and outlives the process, so that datagrams queue while it is started anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Iterator

from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.ports import Clock
from mtastsd.postfix import datagram
from mtastsd.postfix.datagram import BadDatagram
from mtastsd.server.receiver import ENTRY, HEADER, MAX_DATAGRAM
from mtastsd.tlsrpt.session import Session

RESTART_AFTER = 1.0
"""Seconds before a receiver that ended is started anew."""

STOP_WITHIN = 0.3
"""Seconds that the receiver has at a stop for handing over what it holds."""

WARN_EVERY = 600.0
"""Seconds between warnings of one kind: whoever writes garbage must not fill the log too."""

MAX_ENTRIES = 1 << 20
"""Entries of a batch that are believed; the receiver's own limit on octets gives far fewer."""

Take = Callable[[Session, int], None]


class DatagramSource:
    """Starts the receiver, decodes its batches, hands sessions to `take` with their count."""

    def __init__(
        self,
        datagrams: socket.socket,
        take: Take,
        *,
        clock: Clock,
        log: Log,
        metrics: Metrics,
    ) -> None:
        self._datagrams = datagrams
        self._take = take
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._warned: dict[str, float] = {}

    async def run(self) -> None:
        """Receive for ever; when cancelled, what was received until then is still taken."""
        while True:
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    process = await self._start(theirs)
                await self._read(ours, process)
            self._log.error("receiver-ended", status=process.returncode)
            await self._clock.sleep(RESTART_AFTER)

    async def _start(self, theirs: socket.socket) -> asyncio.subprocess.Process:
        fds = self._datagrams.fileno(), theirs.fileno()
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "mtastsd.server.receiver",
            *map(str, fds),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=fds,
        )

    async def _read(self, ours: socket.socket, process: asyncio.subprocess.Process) -> None:
        reader, writer = await asyncio.open_connection(sock=ours.dup())
        try:
            await self._batches(reader)
        except asyncio.CancelledError:
            with contextlib.suppress(OSError):
                ours.shutdown(socket.SHUT_WR)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_WITHIN):
                    await self._batches(reader)
            raise
        finally:
            writer.transport.abort()
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            with contextlib.suppress(asyncio.CancelledError):
                await process.wait()

    async def _batches(self, reader: asyncio.StreamReader) -> None:
        """Take batches until the stream ends."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                at, entries, truncated, dropped = HEADER.unpack(
                    await reader.readexactly(HEADER.size)
                )
                self._lost("truncated", truncated)
                self._lost("flood", dropped)
                for _ in range(min(entries, MAX_ENTRIES)):
                    count, size = ENTRY.unpack(await reader.readexactly(ENTRY.size))
                    octets = await reader.readexactly(min(size, MAX_DATAGRAM))
                    self._decode(octets, at, count)

    def _decode(self, octets: bytes, at: float, count: int) -> None:
        self._metrics.datagrams.inc(count)
        for session in self._sessions(octets, at, count):
            self._take(session, count)

    def _sessions(self, octets: bytes, at: float, count: int) -> Iterator[Session]:
        try:
            decoded = datagram.decode(octets, at)
        except Exception as bug:
            # One datagram's bug must not end the collecting of all others.
            self._log.error("bug", exc=bug, octets=octets[:100])
            self._lost("bug", count)
            return
        if isinstance(decoded, BadDatagram):
            self._lost(decoded.why, count)
        else:
            yield from decoded

    def _lost(self, why: str, count: int) -> None:
        """Count datagrams that tell nothing, and warn, but not of each."""
        if not count:
            return
        self._metrics.datagrams_lost.labels(why).inc(count)
        now = self._clock.monotonic()
        if now >= self._warned.get(why, 0.0):
            self._warned[why] = now + WARN_EVERY
            self._log.warning("datagrams-lost", why=why, count=count)
