"""Size: memory with many known domains, and what a start costs whatever the store holds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.bench import table
from tests.bench.processes import BenchError, Client, daemon, peak, resident
from tests.bench.stored import fill
from tests.bench.table import MIB, Row
from tests.bench.world import with_policy

KNOWN = 100_000
FEW, MANY = 10_000, 1_000_000
CONNECTIONS = 64
ROUNDS = 3


def measure(directory: Path, client: Client, ca: Path) -> Iterator[Row]:
    """Memory, first answers, and both again with a hundred times as many stored policies."""
    few, many, known = (directory / f"{n}.db" for n in (FEW, MANY, KNOWN))
    for path, count in ((few, FEW), (many, MANY), (known, KNOWN)):
        fill(path, count)
    starts: dict[Path, list[tuple[float, int]]] = {few: [], many: []}
    for _ in range(ROUNDS):
        for path, found in starts.items():
            found.append(_start(directory, client, path, ca))
    seconds = {path: [took for took, _ in found] for path, found in starts.items()}
    memory = {path: [octets / MIB for _, octets in found] for path, found in starts.items()}
    yield table.at_most(f"start: first answer of {FEW:,}", 1.0, seconds[few], " s")
    yield table.at_most(f"start: first answer of {MANY:,}", 1.0, seconds[many], " s")
    yield table.untold(f"start: memory, {FEW:,} stored", memory[few], " MB", 1)
    growth = median(memory[many]) - median(memory[few])
    yield table.at_most(f"start: memory more with {MANY:,}", 2.0, [growth], " MB", 1)
    yield from _all_asked(directory, client, known, ca)


def _start(directory: Path, client: Client, store: Path, ca: Path) -> tuple[float, int]:
    """Seconds from exec to the first reply for a known domain, and memory then."""
    keys = directory / "first.key"
    keys.write_text(with_policy(FEW // 2, 1)[0], "ascii")
    started = time.monotonic()
    with daemon(directory, store, ca) as server:
        load = client.ask(server, keys, 1, times=1)
        took = time.monotonic() - started
        if load.ok != 1:
            raise BenchError(f"{store}: no answer for {keys.read_text('ascii')}")
        return took, resident(server.pid)


def _all_asked(directory: Path, client: Client, store: Path, ca: Path) -> Iterator[Row]:
    keys = directory / "all.keys"
    keys.write_text("\n".join(with_policy(0, KNOWN)), "ascii")
    with daemon(directory, store, ca) as server:
        load = client.ask(server, keys, CONNECTIONS, times=KNOWN)
        if load.ok != KNOWN:
            raise BenchError(f"{load.ok} of {KNOWN} known domains answered with OK")
        yield table.at_most(
            f"size: memory, {KNOWN:,} asked", 150.0, [resident(server.pid) / MIB], " MB", 1
        )
        yield table.untold("size: the highest", [peak(server.pid) / MIB], " MB", 1)
        yield table.untold("size: answers from the store in a second", [load.rate], "", 0)
