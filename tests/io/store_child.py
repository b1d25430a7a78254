"""What the tests of the SQLite store need a process of its own for, run with `python -m`."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from mtastsd.log import Log
from mtastsd.names import Domain
from mtastsd.ports import Report, StoreUnavailable, TallyBatch
from mtastsd.store.errors import StoreError
from mtastsd.store.sqlite import SqliteStore
from mtastsd.tlsrpt.tally import Totals
from tests import outbox_contract, tally_contract
from tests.store_contract import hop, known

BATCH = 20

TALLIED = [Domain(f"t{number:02}.example") for number in range(BATCH)]
POLICY = tally_contract.TLSA


def batch(number: int) -> list[str]:
    """The names that `fill` saves together."""
    return [f"d{number}-{i}.example" for i in range(BATCH)]


async def fill(path: Path) -> None:
    """Save batch after batch, and tell of each that was saved, until killed."""
    store = await SqliteStore.open(path, time.time, Log())
    for number in range(1_000_000):
        names = batch(number)
        await store.save([known(name) for name in names], [hop(name) for name in names])
        print(number, flush=True)


def tally_batch(number: int) -> TallyBatch:
    """What `tally` adds with this number."""
    one = {POLICY: Totals(1, 1, {tally_contract.EXPIRED: 1})}
    tallies = {(tally_contract.DAY, domain): one for domain in TALLIED}
    return tally_contract.batch(number, tallies, log=str(number))


async def tally(path: Path) -> None:
    """Add batch after batch, and tell of each that was added, until killed."""
    store = await SqliteStore.open(path, time.time, Log())
    for number in range(1, 1_000_000):
        assert await store.tallies.add(tally_batch(number))
        print(number, flush=True)


def report_of(number: int) -> Report:
    """What `settle` makes with this number."""
    return outbox_contract.report(Domain(f"d{number:06}.example"))


async def settle(path: Path) -> None:
    """Settle domain after domain with a report that is then delivered, and tell of each."""
    store = await SqliteStore.open(path, time.time, Log())
    for number in range(1_000_000):
        [row] = await outbox_contract.send(store.outbox, report_of(number))
        assert await store.outbox.due(row.next_at, limit=9) == [row]
        await store.outbox.update(replace(row, state="delivered", tries=1))
        print(number, flush=True)


def hold(path: Path, mode: str) -> None:
    """Hold a lock until stdin ends: `write`, or `exclusive`, which bars readers too."""
    connection = sqlite3.connect(path, isolation_level=None)
    if mode == "exclusive":
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE scratch (x)")
    print("held", flush=True)
    sys.stdin.read()
    connection.close()


def damage(path: Path) -> None:
    """Overwrite all but the first page. From outside: closing a file ends SQLite's locks on it."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


async def limit(path: Path) -> None:
    """Write until no file may grow any more, then read, then write again when it may."""
    store = await SqliteStore.open(path, time.time, Log())
    await store.save([known("first.example")], [])
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, resource.RLIM_INFINITY))
    failed = 0
    for number in range(50):
        try:
            await store.save([known(f"d{number}.example", body=b"x" * 20_000)], [])
        except StoreUnavailable:
            failed += 1
    print("failed" if failed > 10 else f"only {failed} failed")
    found, _ = await store.load(known("first.example").domain, "first.example")
    print("read" if found == known("first.example") else f"read {found}")
    saved = await store.count()
    print("whole" if saved == 51 - failed else f"{saved} rows, {failed} failed")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.save([known("last.example")], [])
    found, _ = await store.load(known("last.example").domain, "last.example")
    print("back" if found else "lost")
    await store.close()


async def forbidden(path: Path) -> None:
    """Open as a user who may not, and tell how that went."""
    # What is imported or read late must be read while we still may.
    with tempfile.TemporaryDirectory() as folder:
        await (await SqliteStore.open(Path(folder) / "x.db", time.time, Log())).close()
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        await SqliteStore.open(path, time.time, Log())
    except StoreError as error:
        print(type(error).__name__, error)
    else:
        print("opened")


def main() -> None:
    what, path, *rest = sys.argv[1:]
    match what:
        case "fill":
            asyncio.run(fill(Path(path)))
        case "tally":
            asyncio.run(tally(Path(path)))
        case "settle":
            asyncio.run(settle(Path(path)))
        case "hold":
            hold(Path(path), *rest)
        case "damage":
            damage(Path(path))
        case "limit":
            asyncio.run(limit(Path(path)))
        case "forbidden":
            asyncio.run(forbidden(Path(path)))
        case _:
            sys.exit(f"what is {what}?")


if __name__ == "__main__":
    main()
