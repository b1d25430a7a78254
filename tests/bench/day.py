"""Day: one of 10 million sessions over 100,000 domains is built into reports while mail goes on."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from mtastsd.log import Log
from mtastsd.names import Domain
from mtastsd.ports import TallyBatch
from mtastsd.store.sqlite import SqliteStore
from mtastsd.tlsrpt.session import Detail, PolicyKey, ResultType
from mtastsd.tlsrpt.tally import Day, DomainTally, Totals, day_of
from tests.bench import table
from tests.bench.processes import (
    HERE,
    BenchError,
    Client,
    Load,
    Server,
    answers,
    peak,
    running,
    tail,
    wait_for,
)
from tests.bench.stored import fill
from tests.bench.table import MIB, Row
from tests.bench.world import with_policy

DOMAINS = 100_000
SESSIONS = 100
MINUTES = 5.0
RECEIVERS = "127.0.0.3"
BATCH = 2000
KNOWN = 1000
CONNECTIONS = 16
PRESS, PAUSE = 1.0, 2.0
"""Seconds: look-ups without a pause would be a load that no Postfix makes, and leave nothing of two
cores to a process that gives way."""

PATIENCE = 900.0
"""Seconds until the benchmark gives up."""

CONFIG = """\
[listen]
socketmap = ["unix:{dir}/policy.sock"]
http = ""
admin = "unix:{dir}/admin.sock"
tlsrpt = "unix:{dir}/tlsrpt.sock"
tlsrpt_group = ""
[dns]
nameservers = ["{receivers}:53"]
[store]
url = "sqlite:///{store}"
[log]
format = "text"
[collect]
probe = false
[report]
enabled = true
organization = "Benchmark"
contact = "postmaster@sender.test"
from = "reports@sender.test"
submit = "smtp://{receivers}:25"
delay = "0s"
"""


def measure(directory: Path, client: Client, domains: int = DOMAINS) -> Iterator[Row]:
    """Time and memory of the child from its start until every domain is settled, and look-ups."""
    store, keys = directory / "store.db", directory / "keys"
    keys.write_text("\n".join(with_policy(0, KNOWN)), "ascii")
    fill(store, KNOWN)
    began = time.monotonic()
    asyncio.run(_prefill(store, domains))
    print(f"day: prefilled in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    with _receivers(directory), _daemon(directory, store) as server:
        client.ask(server, keys, CONNECTIONS, times=KNOWN)
        loads: list[Load] = []
        ended = threading.Event()
        thread = threading.Thread(
            target=_press, args=(client, server, keys, ended, loads), daemon=True
        )
        thread.start()
        try:
            took, memory, cpu = _reported(store, server.pid, domains)
        finally:
            ended.set()
            thread.join()
    what = f"day: {domains * SESSIONS / 1e6:g} M sessions, {domains:,} domains, built"
    yield table.at_most(what, MINUTES * 60 * domains / DOMAINS, [took], " s", 0)
    yield table.untold("day: CPU of the child meanwhile", [cpu], " s", 0)
    yield table.at_most("day: memory of the child", 300.0, [memory / MIB], " MB", 0)
    slow = [load.p999 * 1e3 for load in loads]
    yield table.at_most(
        f"day: 99.9 % of look-ups within, median of {len(slow)} s", 20.0, [median(slow)], " ms"
    )
    yield table.untold("day: the same, the worst second", [max(slow)], " ms")


def _press(
    client: Client, server: Server, keys: Path, ended: threading.Event, loads: list[Load]
) -> None:
    while not ended.wait(PAUSE):
        loads.append(client.press(server, keys, CONNECTIONS, seconds=PRESS))


def _reported(store: Path, daemon: int, domains: int) -> tuple[float, int, float]:
    """Seconds until all are settled, then the child's peak memory and CPU."""
    began, child = time.monotonic(), _child(daemon)
    connection = sqlite3.connect(store)
    told = began
    while (settled := _settled(connection)) < domains:
        now = time.monotonic()
        if now > began + PATIENCE:
            raise BenchError(f"{settled} of {domains} domains settled within {PATIENCE:.0f} s")
        if now > told + 10:
            told = now
            print(f"day: {settled:,} settled in {now - began:.0f} s", file=sys.stderr, flush=True)
        time.sleep(0.2)
    took = time.monotonic() - began
    odd = connection.execute("SELECT count(*) FROM domain_day WHERE why <> 'reported'").fetchone()
    connection.close()
    if odd[0]:
        raise BenchError(f"{odd[0]} domains got no report")
    return took, peak(child), _cpu(child)


def _settled(connection: sqlite3.Connection) -> int:
    sql = "SELECT coalesce(sum(number), 0) FROM outcome WHERE what LIKE 'settled-%'"
    return int(connection.execute(sql).fetchone()[0])


def _child(daemon: int) -> int:
    found: list[int] = []

    def there() -> bool:
        text = Path(f"/proc/{daemon}/task/{daemon}/children").read_text("ascii")
        for pid in map(int, text.split()):
            if b"report" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
        return bool(found)

    wait_for(there, "the reporting process")
    return found[0]


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@contextmanager
def _receivers(directory: Path) -> Iterator[None]:
    log = directory / "receivers.log"
    with running([sys.executable, str(HERE / "receivers.py"), RECEIVERS], log):
        wait_for(lambda: "up" in tail(log), "the receivers of reports")
        yield


@contextmanager
def _daemon(directory: Path, store: Path) -> Iterator[Server]:
    config, path = directory / "mtastsd.toml", directory / "policy.sock"
    text = CONFIG.format(dir=directory, store=store, receivers=RECEIVERS)
    config.write_text(text, "utf-8")
    argv = [sys.executable, "-m", "mtastsd", "serve", "--config", str(config)]
    log = directory / "log"
    with running(argv, log) as process:
        wait_for(lambda: answers(path), f"mtastsd, see {log}")
        yield Server(path, process.pid)


# -- the day


async def _prefill(path: Path, domains: int) -> None:
    store = await SqliteStore.open(path, time.time, Log())
    day = Day(day_of(time.time()) - 1)
    for sequence, first in enumerate(range(0, domains, BATCH), 1):
        numbers = range(first, min(first + BATCH, domains))
        tallies = {(day, Domain(f"d{n}.day.test")): tally_of(n) for n in numbers}
        await store.tallies.add(TallyBatch("bench", sequence, tallies, {}))
    await store.close()


def tally_of(n: int) -> DomainTally:
    """A domain's day of `SESSIONS`: six of ten have no policy, three MTA-STS, one DANE with two
    hosts; one of ten has failures, one of a hundred those of many hosts."""
    domain = Domain(f"d{n}.day.test")
    many = 300 if n % 100 == 7 else 3 if n % 10 == 3 else 0
    details = {
        Detail(
            ResultType.CERTIFICATE_NOT_TRUSTED,
            "192.0.2.1",
            f"mx{i % 20}.{domain}",
            f"198.51.100.{i % 250}",
            f"mx{i % 20}.{domain}",
            f"X509_V_ERR_{i}",
        ): 1
        for i in range(many)
    }
    failures = min(many, SESSIONS)
    if n % 10 < 6:
        return {
            PolicyKey("no-policy-found", domain): Totals(SESSIONS - failures, failures, details)
        }
    if n % 10 < 9:
        mx = (f"mx1.{domain}", f"*.{domain}")
        lines = ("version: STSv1", "mode: enforce", *(f"mx: {m}" for m in mx), "max_age: 604800")
        return {PolicyKey("sts", domain, lines, mx): Totals(SESSIONS - failures, failures, details)}
    half = SESSIONS // 2
    return {
        PolicyKey("tlsa", Domain(f"mx{i}.{domain}"), (f"3 1 1 {n:064X}",)): Totals(half)
        for i in (1, 2)
    }
