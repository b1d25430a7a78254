"""The receiving process, and what the daemon makes of its batches."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mtastsd.clock import SystemClock
from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.server import datagram, receiver
from mtastsd.server.datagram import DatagramSource
from mtastsd.server.listen import Bound, bind_unix
from mtastsd.tlsrpt.session import Session

LIMIT = 20.0
GOOD = (
    b'{"dpv": "1","d": "%s","pr": "v=TLSRPTv1; rua=mailto:r@example.com",'
    b'"policies":[{"policy-type":9,"policy-domain": "%s","t":0,"f":0}]}'
)


def told(domain: str = "example.com") -> bytes:
    return GOOD % (domain.encode(), domain.encode())


class Collecting:
    """A source with its socket, and what it handed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bound = Bound(bind_unix(path, 0o660, kind=socket.SOCK_DGRAM), path)
        self.metrics = Metrics()
        self.taken: Counter[str] = Counter()
        self.more = asyncio.Event()
        self.source = DatagramSource(
            self.bound.sock,
            self._take,
            clock=SystemClock(),
            log=Log(logging.getLogger("mtastsd")),
            metrics=self.metrics,
        )

    def _take(self, session: Session, count: int) -> None:
        self.taken[session.domain] += count
        self.more.set()

    async def send(self, *datagrams: bytes) -> None:
        """As libtlsrpt does, but waiting where it would not: the queue may be ten long."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
            for octets in datagrams:
                await asyncio.to_thread(sock.sendto, octets, str(self.path))

    async def until(self, **counts: int) -> None:
        """Wait until that many sessions of each domain were taken."""
        wanted = {name.replace("_", "."): n for name, n in counts.items()}
        async with asyncio.timeout(LIMIT):
            while not all(self.taken[name] >= n for name, n in wanted.items()):
                self.more.clear()
                await self.more.wait()
        assert self.taken == wanted

    def lost(self, why: str) -> float:
        labels = {"why": why}
        name = "mtastsd_datagrams_lost_total"
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def collecting(tmp_path: Path) -> AsyncIterator[Collecting]:
    collecting = Collecting(tmp_path / "tlsrpt.sock")
    running = asyncio.create_task(collecting.source.run())
    yield collecting
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    collecting.bound.close()


async def test_equal_datagrams_are_counted_once_each(collecting: Collecting) -> None:
    await collecting.send(*[told()] * 500, *[told("example.net")] * 3)
    await collecting.until(example_com=500, example_net=3)


GARBAGE = [b"", b"7", b"hello", b"{}", b"\xff\xfe", b'{"d": 7}', b"[" * 5000, told()[:50]]


async def test_garbage_is_counted_and_ends_nothing(
    collecting: Collecting, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "mtastsd"):
        for _ in range(3):
            await collecting.send(*GARBAGE)
        await collecting.send(told())
        await collecting.until(example_com=1)
    total = sum(
        sample.value
        for metric in collecting.metrics.datagrams_lost.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    )
    assert total == 3 * len(GARBAGE)
    kinds = [getattr(r, "fields", {}).get("why") for r in caplog.records]
    assert len(kinds) == len(set(kinds))  # a warning a kind, not one a datagram


async def test_200_kb_pass(collecting: Collecting) -> None:
    reason = "x" * 200_000
    long = told().replace(b'"t":0', b'"x":"%s","t":0' % reason.encode())
    await collecting.send(long)
    await collecting.until(example_com=1)


async def test_a_receiver_that_dies_is_started_anew_and_the_socket_stays(
    collecting: Collecting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagram, "RESTART_AFTER", 0.0)
    await collecting.send(told())
    await collecting.until(example_com=1)
    [child] = _children()
    os.kill(child, signal.SIGKILL)
    await collecting.send(told("example.net"))
    await collecting.until(example_com=1, example_net=1)


async def test_a_stop_loses_nothing_that_was_received(tmp_path: Path) -> None:
    collecting = Collecting(tmp_path / "tlsrpt.sock")
    running = asyncio.create_task(collecting.source.run())
    await collecting.send(told())
    await collecting.until(example_com=1)
    await collecting.send(*[told("example.net")] * 50)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert collecting.taken == {"example.com": 1, "example.net": 50}
    collecting.bound.close()


async def test_a_stop_does_not_tear_a_batch(tmp_path: Path) -> None:
    collecting = Collecting(tmp_path / "tlsrpt.sock")
    running = asyncio.create_task(collecting.source.run())
    await collecting.send(told())
    await collecting.until(example_com=1)
    names = [f"d{n}.example.net" for n in range(5 * datagram.DECODE)]
    await collecting.send(*map(told, names))
    async with asyncio.timeout(LIMIT):
        while collecting.taken[names[0]] == 0:  # then it is in the middle of that batch
            collecting.more.clear()
            await collecting.more.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert collecting.taken == Counter(["example.com", *names])
    collecting.bound.close()


async def test_signals_to_the_group_don_t_end_it(collecting: Collecting) -> None:
    await collecting.send(told())
    await collecting.until(example_com=1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(_children()[0], number)
    await collecting.send(told())
    await collecting.until(example_com=2)


def _children() -> list[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii")
    return [int(pid) for pid in text.split()]


class Loop:
    """The receiver's parts without a process: sockets whose other ends are held here."""

    def __init__(self) -> None:
        self.sender, self.datagrams = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.daemon, stream = socket.socketpair()
        self.stream = stream
        self.receiver = receiver.Receiver(self.datagrams, stream)

    def close(self) -> None:
        for sock in (self.sender, self.datagrams, self.daemon, self.stream):
            sock.close()

    def batch(self) -> tuple[int, int, int]:
        """Entries, truncated and dropped of the next batch."""
        header = self.daemon.recv(receiver.HEADER.size)
        _, entries, _, truncated, dropped = receiver.HEADER.unpack(header)
        return entries, truncated, dropped


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def test_what_does_not_fit_is_noticed(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "MAX_DATAGRAM", 10)
    loop.receiver = receiver.Receiver(loop.datagrams, loop.stream)
    loop.sender.send(b"x" * 11)
    loop.sender.send(b"x" * 10)
    loop.receiver._drain()
    loop.receiver._seal()
    loop.receiver._write()
    assert loop.batch() == (1, 1, 0)


@pytest.mark.parametrize(("queued", "emptied"), [(2, True), (3, False), (4, False)])
def test_a_flood_is_told_from_mail(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, queued: int, emptied: bool
) -> None:
    monkeypatch.setattr(receiver, "DRAIN", 3)
    for _ in range(queued):
        loop.sender.send(b"x")
    assert loop.receiver._drain() is emptied


def test_a_daemon_that_takes_nothing_costs_bounded_memory(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "MAX_PENDING", 100)
    for n in range(8):
        loop.sender.send(b"%d" % n * 50)
    loop.receiver._drain()
    loop.receiver._seal()
    loop.receiver._write()
    entries, _, dropped = loop.batch()
    assert (entries, dropped) == (3, 5)
