"""Datagrams of libtlsrpt, from the receiving process to the collector.

The socket is ours and outlives the process, so that datagrams queue while it is started anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence

from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.ports import Clock
from mtastsd.postfix import datagram
from mtastsd.postfix.datagram import BadDatagram
from mtastsd.server.receiver import DRAIN, HEADER, MAX_DATAGRAM, MAX_ENTRIES, MAX_PENDING
from mtastsd.tlsrpt.session import Session

RESTART_AFTER = 1.0
"""Seconds before a receiver that ended is started anew."""

STOP_WITHIN = 0.3
"""Seconds that the receiver has at a stop for handing over what it holds."""

WARN_EVERY = 600.0
"""Seconds between warnings of one kind: whoever writes garbage must not fill the log too."""

DECODE = 20
"""Datagrams decoded and counted before look-ups have their turn: half a millisecond."""

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
        # Apart, so that a stop does not tear a batch.
        taking = asyncio.ensure_future(self._batches(reader))
        try:
            await asyncio.shield(taking)
        except asyncio.CancelledError:
            with contextlib.suppress(OSError):
                ours.shutdown(socket.SHUT_WR)
            await asyncio.wait([taking], timeout=STOP_WITHIN)
            raise
        finally:
            taking.cancel()
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
                at, entries, size, truncated, dropped = HEADER.unpack(
                    await reader.readexactly(HEADER.size)
                )
                if entries > MAX_ENTRIES + DRAIN or size > MAX_PENDING + MAX_DATAGRAM:
                    raise RuntimeError(f"a batch of {entries} entries, {size} octets")
                self._lost("truncated", truncated)
                self._lost("flood", dropped)
                numbers = struct.unpack(f"!{2 * entries}I", await reader.readexactly(8 * entries))
                octets = await reader.readexactly(size)
                await self._entries(octets, at, numbers[:entries], numbers[entries:])

    async def _entries(
        self, octets: bytes, at: float, counts: Sequence[int], sizes: Sequence[int]
    ) -> None:
        start = 0
        for number, (count, size) in enumerate(zip(counts, sizes, strict=True), 1):
            self._decode(octets[start : start + size], at, count)
            start += size
            if number % DECODE == 0:
                await asyncio.sleep(0)

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
