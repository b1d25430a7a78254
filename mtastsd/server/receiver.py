"""The process that receives datagrams, and nothing else: `python -m mtastsd.server.receiver FD FD`.

The kernel queues no more than `net.unix.max_dgram_qlen` datagrams (10 by default), Postfix sends
without waiting, and threads of one Python share a lock: a daemon that decodes, counts and writes
beside it would lose bursts. So this process drains the socket in a tight loop, counts equal
datagrams (libtlsrpt puts no time in them) and hands batches on through a stream.

A batch: header (wall time of its end, entries, datagrams too long to be read whole, datagrams
dropped because nobody took the batches), then for each entry a count, a length and the octets.
"""

from __future__ import annotations

import select
import signal
import socket
import struct
import sys
import time

HEADER = struct.Struct("!dIII")
ENTRY = struct.Struct("!II")

MAX_DATAGRAM = 1 << 20
"""Octets: four times what a sender's default buffer lets through (212,992)."""

FLUSH_EVERY = 0.2
"""Seconds that a datagram waits here at most."""

MAX_BATCH = 4 << 20
"""Octets of different datagrams that make a batch full before its time."""

MAX_PENDING = 32 << 20
"""Octets of batches that wait for a daemon that takes none; beyond, datagrams are dropped and
counted."""

DRAIN = 4096
"""Datagrams taken in one go before the stream is looked at again."""


class Receiver:
    """The loop. `stream` is a stream socket to the daemon; its end of file is the order to stop."""

    def __init__(self, datagrams: socket.socket, stream: socket.socket) -> None:
        datagrams.setblocking(False)
        stream.setblocking(False)
        self._datagrams = datagrams
        self._stream = stream
        self._buffer = bytearray(MAX_DATAGRAM)
        self._counts: dict[bytes, int] = {}
        self._octets = 0
        self._began = 0.0
        self._truncated = 0
        self._dropped = 0
        self._pending = bytearray()

    def run(self) -> None:
        """Until the daemon closes its end; what came until then is handed over first."""
        poll = select.poll()
        poll.register(self._datagrams, select.POLLIN)
        poll.register(self._stream, select.POLLIN)
        stream = self._stream.fileno()
        while True:
            events = dict(poll.poll(self._wait()))
            if self._datagrams.fileno() in events:
                self._drain()
            if events.get(stream, 0) & (select.POLLHUP | select.POLLERR):
                return
            if events.get(stream, 0) & select.POLLIN:
                break
            if self._octets >= MAX_BATCH or self._due():
                self._seal()
            self._write()
            wanted = select.POLLIN | (select.POLLOUT if self._pending else 0)
            poll.modify(self._stream, wanted)
        self._finish()

    def _wait(self) -> int | None:
        """Milliseconds until the batch is due, None for an empty one."""
        if not self._began:
            return None
        return max(0, int((self._began + FLUSH_EVERY - time.monotonic()) * 1000) + 1)

    def _due(self) -> bool:
        return bool(self._began) and time.monotonic() >= self._began + FLUSH_EVERY

    def _drain(self) -> None:
        receive, buffer, counts = self._datagrams.recv_into, self._buffer, self._counts
        view = memoryview(buffer)
        for _ in range(DRAIN):
            try:
                # With MSG_TRUNC the length is the datagram's own, even where it did not fit.
                size = receive(buffer, 0, socket.MSG_TRUNC)
            except BlockingIOError:
                break
            if size > MAX_DATAGRAM:
                self._truncated += 1
                continue
            octets = bytes(view[:size])
            seen = counts.get(octets)
            if seen is not None:
                counts[octets] = seen + 1
                continue
            if self._octets + len(self._pending) > MAX_PENDING:
                self._dropped += 1
                continue
            counts[octets] = 1
            self._octets += size
        if not self._began and (counts or self._truncated or self._dropped):
            self._began = time.monotonic()

    def _seal(self) -> None:
        """Turn what was counted into a batch that waits to be written."""
        if not self._began:
            return
        out = self._pending
        out += HEADER.pack(time.time(), len(self._counts), self._truncated, self._dropped)
        for octets, count in self._counts.items():
            out += ENTRY.pack(count, len(octets)) + octets
        self._counts.clear()
        self._octets = self._truncated = self._dropped = 0
        self._began = 0.0

    def _write(self) -> None:
        if not self._pending:
            return
        try:
            sent = self._stream.send(self._pending)
        except BlockingIOError:
            return
        del self._pending[:sent]

    def _finish(self) -> None:
        self._drain()
        self._seal()
        self._stream.setblocking(True)
        self._stream.sendall(self._pending)


def main() -> None:
    """File descriptors of the datagram socket and of the stream, by number."""
    # Whoever stops the daemon stops this too, by closing the stream: a signal to the whole group
    # must not lose what was received.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    datagrams, stream = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:3])
    Receiver(datagrams, stream).run()


if __name__ == "__main__":
    main()
