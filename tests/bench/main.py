"""Runs the benchmarks and prints what was measured beside what is wanted.

    python -m tests.bench.main [hot] [cold] [size] [intake] [day] [day-full]

Run it by tests/bench/run, which gives it a network of its own. Exit 1 only where something broke.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.bench import cold, day, hot, intake, size, table, world
from tests.bench.processes import BenchError, Client, started_world
from tests.bench.table import Row

NAMES = ["hot", "cold", "size", "intake", "day"]
"""What runs when none is named; `day-full` is `day` at ten times the size."""


def measure(names: list[str], directory: Path) -> Iterator[Row]:
    """The rows of the benchmarks named, as they come."""
    client = Client(directory)
    domains = world.with_policy(0, cold.DOMAINS + 1) if "cold" in names else []
    with ExitStack() as stack:
        here = stack.enter_context(started_world(directory / "world", domains))
        ca = here.directory / "ca.pem"
        benchmarks: dict[str, Callable[[Path], Iterator[Row]]] = {
            "hot": lambda place: hot.measure(place, client, ca),
            "cold": lambda place: cold.measure(place, client, here),
            "size": lambda place: size.measure(place, client, ca),
            "intake": intake.measure,
            "day": lambda place: day.measure(place, client, day.DOMAINS // 10),
            "day-full": lambda place: day.measure(place, client),
        }
        for name in names:
            print(f"{name} ...", file=sys.stderr, flush=True)
            place = directory / name
            place.mkdir()
            yield from benchmarks[name](place)


def main() -> int:
    names = sys.argv[1:] or NAMES
    if not set(names) <= {*NAMES, "day-full"}:
        print(__doc__, file=sys.stderr)
        return 2
    started = time.monotonic()
    rows: list[Row] = []
    broken: BenchError | OSError | None = None
    with tempfile.TemporaryDirectory(prefix="mtastsd-bench-") as directory:
        try:
            for row in measure(names, Path(directory)):
                rows.append(row)
        except (BenchError, OSError) as error:
            broken = error
    print(table.render(rows))
    print(f"\n{time.monotonic() - started:.0f} s; tests/bench/README.md says how to read it.")
    if broken is not None:
        print(f"bench: {broken}", file=sys.stderr)
    return 0 if broken is None else 1


if __name__ == "__main__":
    sys.exit(main())
