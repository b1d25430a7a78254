"""The process that receives datagrams, and nothing else: `python -m mtastsd.server.receiver FD FD`.

The kernel queues no more than `net.unix.max_dgram_qlen` datagrams (10 by default), Postfix sends
without waiting, and threads of one Python share a lock: a daemon that decodes, counts and writes
beside it would lose bursts. So this process drains the socket in a tight loop, counts equal
datagrams (libtlsrpt puts no time in them) and hands batches on through a stream.

A batch: header (wall time of its end, entries, octets of all entries, datagrams too long to be read
whole, datagrams dropped because nobody took the batches), then the counts of all entries, their
lengths, and their octets.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import struct
import sys
import time

HEADER = struct.Struct("!dIIII")

MAX_DATAGRAM = 1 << 20
"""Octets: four times what a sender's default buffer lets through (212,992)."""

FLUSH_EVERY = 0.2
"""Seconds that a datagram waits here at most."""

MAX_BATCH = 4 << 20
"""Octets of different datagrams that make a batch full before its time."""

MAX_ENTRIES = 1000
"""Different datagrams that make a batch full before its time: packing them takes 0.2 ms, in which a
burst of 15,000/s brings three, and the kernel queues ten."""

MAX_PENDING = 32 << 20
"""Octets of batches that wait for a daemon that takes none; beyond, datagrams are dropped and
counted."""

DRAIN = 1000
"""Datagrams taken in one go before the stream is looked at again."""

GIVE_WAY = 0.0005
"""Seconds of rest after `DRAIN` datagrams that never left the queue empty: that is a flood, not
mail, and a process that goes before all others must not take a core for it."""

PRIORITY = 1
"""Real-time priority, where we may have one. The least: it goes before whatever has none."""


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
        datagrams, stream = self._datagrams.fileno(), self._stream.fileno()
        while True:
            events = dict(poll.poll(self._wait()))
            if datagrams in events and not self._drain():
                time.sleep(GIVE_WAY)
            if events.get(stream, 0) & (select.POLLHUP | select.POLLERR):
                return
            if events.get(stream, 0) & select.POLLIN:
                break
            if self._full() or self._due():
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

    def _full(self) -> bool:
        return self._octets >= MAX_BATCH or len(self._counts) >= MAX_ENTRIES

    def _drain(self) -> bool:
        """Take what is queued; whether that was all."""
        receive, buffer, counts = self._datagrams.recv_into, self._buffer, self._counts
        view = memoryview(buffer)
        emptied = False
        for _ in range(DRAIN):
            try:
                # With MSG_TRUNC the length is the datagram's own, even where it did not fit.
                size = receive(buffer, 0, socket.MSG_TRUNC)
            except BlockingIOError:
                emptied = True
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
        return emptied

    def _seal(self) -> None:
        """Turn what was counted into a batch that waits to be written."""
        if not self._began:
            return
        out, counts = self._pending, self._counts
        size = len(counts)
        out += HEADER.pack(time.time(), size, self._octets, self._truncated, self._dropped)
        # All at once: entry by entry it takes four times as long, and meanwhile the queue fills.
        out += struct.pack(f"!{2 * size}I", *counts.values(), *map(len, counts))
        out += b"".join(counts)
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
    gc.disable()  # nothing here makes cycles
    # The kernel's queue holds 0.7 ms of a burst of 15,000/s. On a busy machine a process that waits
    # for its turn loses a sixth to a third of that, one that goes first nothing.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    datagrams, stream = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:3])
    Receiver(datagrams, stream).run()


if __name__ == "__main__":
    main()
