"""Intake: Postfix's datagrams, taken in and written, and what of a burst is lost.

Beside tlsrpt-collectd, on the same captured datagrams.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median

from tests.bench import collectors, table
from tests.bench.collectors import Collector, Sender
from tests.bench.processes import BenchError
from tests.bench.table import Row

ROUNDS = 5
PEER_ROUNDS = 3
OURS, THEIRS = 400_000, 30_000
"""Datagrams of a round: some three seconds of each."""

WRITTEN_WITHIN = 30.0
KERNEL_QUEUE, OUR_QUEUE = 10, 512
"""The kernel's default, and what the package sets."""

BURST = 2
"""Seconds that a burst lasts."""

LIMITS = ((KERNEL_QUEUE, 5000, 1.0), (KERNEL_QUEUE, 15000, 5.0), (OUR_QUEUE, 15000, 0.0))
"""Queue, datagrams a second, percent that may be lost."""

Start = Callable[[Path], AbstractContextManager[Collector]]


def measure(directory: Path) -> Iterator[Row]:
    """Both parts."""
    sender = Sender(directory)
    program = collectors.peer_program()
    peer: Start | None = None
    if program is None:
        yield Row(f"intake: {collectors.PEER}", "", "not to be had; nothing is beside ours")
    else:
        found = program

        def peer(place: Path) -> AbstractContextManager[Collector]:
            return collectors.peer(place, found)

    if not collectors.set_queue(OUR_QUEUE):
        yield Row("intake: queue", "", "needs root; that of the kernel is used throughout")
    yield from _intake(directory, sender, peer)
    for queue, rate, limit in LIMITS:
        if not collectors.set_queue(queue) and queue != KERNEL_QUEUE:
            continue
        yield from _burst(directory, sender, peer, queue, rate, limit)


# -- as fast as they are taken


def _intake(directory: Path, sender: Sender, peer: Start | None) -> Iterator[Row]:
    mine = [
        _taken(directory / f"ours{n}", sender, collectors.ours, OURS) for n in range(PEER_ROUNDS)
    ]
    rates = [rate for rate, _, _ in mine]
    if peer is not None:
        theirs = [_taken(directory / f"peer{n}", sender, peer, THEIRS) for n in range(PEER_ROUNDS)]
        base, base_cpu = median(rate for rate, _, _ in theirs), median(c for _, c, _ in theirs)
        ratios = [rate / base for rate in rates]
        yield table.at_least("intake: datagrams a second / tlsrpt-collectd's", 5.0, ratios)
        yield table.untold("intake: datagrams for its CPU", [base_cpu / c for _, c, _ in mine])
        yield table.untold("intake: tlsrpt-collectd", [r / 1000 for r, _, _ in theirs], " k/s", 1)
        yield table.untold("intake: its CPU of one", [c * 1e6 for _, c, _ in theirs], " us", 1)
    yield table.untold("intake: mtastsd", [rate / 1000 for rate in rates], " k/s", 1)
    yield table.untold("intake: CPU of one", [c * 1e6 for _, c, _ in mine], " us", 1)
    yield table.at_most("intake: the last one written within", 1.0, [w for _, _, w in mine], " s")


def _taken(place: Path, sender: Sender, start: Start, count: int) -> tuple[float, float, float]:
    """Datagrams a second until the last was taken, CPU of one, seconds until it was written."""
    with start(place) as collector:
        cpu = collector.cpu()
        sent = sender.send(collector.path, count)
        began = time.monotonic()
        waited = 0.0
        wanted = (
            count - 1
        )  # a session that fails before its policy was found is listed, not counted
        if start is collectors.ours:
            waited = _written(collector, wanted, began)
        return count / sent.wall, (collector.cpu() - cpu) / count, waited


def _written(collector: Collector, wanted: int, began: float) -> float:
    while (stored := collector.stored()) < wanted:
        if time.monotonic() > began + WRITTEN_WITHIN:
            raise BenchError(f"{stored} of {wanted} sessions written in {WRITTEN_WITHIN:.0f} s")
        time.sleep(0.01)
    return time.monotonic() - began


# -- as libtlsrpt sends


def _burst(
    directory: Path, sender: Sender, peer: Start | None, queue: int, rate: int, limit: float
) -> Iterator[Row]:
    what = f"burst: lost of {rate:,}/s, queue {queue}"
    place = directory / f"burst-{queue}-{rate}"
    place.mkdir()
    lost, paces = [], []
    for n in range(ROUNDS):
        with collectors.ours(place / f"ours{n}") as collector:
            sent = sender.send(collector.path, rate * BURST, rate)
            lost.append(sent.lost_percent)
            paces.append(sent.sent / sent.wall / rate)
    yield table.at_most(what, limit, lost, " %")
    yield table.untold("burst: pace of the sender", paces)
    if peer is None:
        return
    theirs = []
    for n in range(PEER_ROUNDS):
        with peer(place / f"peer{n}") as collector:
            theirs.append(sender.send(collector.path, rate * BURST, rate).lost_percent)
    yield table.untold("burst: tlsrpt-collectd", theirs, " %")
