"""Hot: look-ups of known domains, beside a server that only has canned replies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.bench import table
from tests.bench.processes import Client, daemon, hot_floor, scrape
from tests.bench.stored import fill
from tests.bench.table import Row
from tests.bench.world import with_policy

CONNECTIONS = 64
DOMAINS = 1000
ROUNDS = 5
SECONDS = 2.0


def measure(directory: Path, client: Client, ca: Path) -> Iterator[Row]:
    """CPU of a request and its 99th percentile, ours and the floor's in turn."""
    keys, store = directory / "keys", directory / "store.db"
    keys.write_text("\n".join(with_policy(0, DOMAINS)), "ascii")
    fill(store, DOMAINS)
    cpu, ratios, slow, slow_ratios, rates = [], [], [], [], []
    with daemon(directory, store, ca) as ours, hot_floor(directory, keys) as floor:
        for server in (ours, floor):
            client.ask(server, keys, CONNECTIONS, times=DOMAINS)
        for _ in range(ROUNDS):
            scrape()
            mine = client.press(ours, keys, CONNECTIONS, seconds=SECONDS)
            base = client.press(floor, keys, CONNECTIONS, seconds=SECONDS)
            ratios.append(mine.cpu_each / base.cpu_each)
            cpu.append(mine.cpu_each * 1e6)
            slow.append(mine.p99 * 1e3)
            slow_ratios.append(mine.p99 / base.p99)
            rates.append(mine.rate / 1000)
    yield table.at_most("hot: CPU of a request / floor's", 1.4, ratios)
    yield table.untold("hot: CPU of a request", cpu, " us", 1)
    yield table.at_most("hot: 99 % of replies within", 1.0, slow, " ms")
    yield table.untold("hot: the same / floor's", slow_ratios)
    yield table.untold("hot: requests in a second", rates, " k", 0)
