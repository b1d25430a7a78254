"""Cold: domains nobody asked for before, beside the least that a discovery can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import table
from tests.bench.processes import BenchError, Client, Load, World, cold_floor, daemon
from tests.bench.table import Row
from tests.bench.world import with_policy, without_policy

CONNECTIONS = 64
DOMAINS = 2000
ROUNDS = 3
HERD = 200


def measure(directory: Path, client: Client, world: World) -> Iterator[Row]:
    """Rates with policies, without, and how many fetches a herd makes."""
    ca = world.directory / "ca.pem"
    with_keys, without_keys = directory / "with.keys", directory / "without.keys"
    with_keys.write_text("\n".join(with_policy(0, DOMAINS)), "ascii")
    without_keys.write_text("\n".join(without_policy(0, DOMAINS)), "ascii")

    def ours(keys: Path) -> Load:
        """By a daemon that knows nothing yet."""
        store = directory / "store.db"
        for file in directory.glob("store.db*"):
            file.unlink()
        with daemon(directory, store, ca) as server:
            return client.ask(server, keys, CONNECTIONS, times=DOMAINS)

    world.counts()
    mine, base = _in_turn(lambda: ours(with_keys), lambda: cold_floor(with_keys, ca))
    counts = world.counts()
    wanted = 2 * ROUNDS * DOMAINS
    if counts["GET"] != wanted or any(load.ok != DOMAINS for load in mine):
        raise BenchError(f"{counts['GET']} GETs of {wanted}, OK: {[load.ok for load in mine]}")
    yield table.at_least("cold: domains in a second / floor's", 0.5, _ratios(mine, base))
    yield table.untold("cold: domains in a second", [load.rate for load in mine], "", 0)
    yield table.untold("cold: CPU of a domain", [load.cpu_each * 1e3 for load in mine], " ms")
    yield table.untold(
        "cold: the same / floor's",
        [a.cpu_each / b.cpu_each for a, b in zip(mine, base, strict=True)],
    )
    yield table.untold("cold: half of the answers within", [m.p50 * 1e3 for m in mine], " ms", 0)
    questions = sum(n for kind, n in counts.items() if kind != "GET")
    each = (questions - ROUNDS * DOMAINS) / ROUNDS / DOMAINS  # the floor asks one
    yield table.untold("cold: DNS questions for a domain", [each], "", 2)

    mine, base = _in_turn(
        lambda: ours(without_keys), lambda: cold_floor(without_keys, ca, "--dns-only")
    )
    yield table.untold("no policy: domains in a second", [load.rate for load in mine], "", 0)
    yield table.untold("no policy: the same / floor's", _ratios(mine, base))
    yield _herd(directory, client, world)


def _in_turn(ours: Callable[[], Load], floor: Callable[[], Load]) -> tuple[list[Load], list[Load]]:
    pairs = [(ours(), floor()) for _ in range(ROUNDS)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _ratios(ours: list[Load], floor: list[Load]) -> list[float]:
    return [a.rate / b.rate for a, b in zip(ours, floor, strict=True)]


def _herd(directory: Path, client: Client, world: World) -> Row:
    keys = directory / "one.key"
    keys.write_text(with_policy(DOMAINS, 1)[0], "ascii")
    world.counts()
    with daemon(directory, directory / "store.db", world.directory / "ca.pem") as server:
        load = client.ask(server, keys, HERD, times=HERD)
    gets = world.counts()["GET"]
    measured = f"{gets} GET, {load.ok} OK"
    return Row(
        f"herd: {HERD} askers of one unknown domain",
        "1 GET",
        measured,
        gets == 1 and load.ok == HERD,
    )
