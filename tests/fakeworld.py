"""A world of tables: DNS and policy hosts as dictionaries, a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from mtastsd.answers import (
    AddressAnswer,
    Answer,
    DnsError,
    Mx,
    MxAnswer,
    NoData,
    Tlsa,
    TlsaAnswer,
    TxtAnswer,
)
from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.names import Domain
from mtastsd.ports import Fetched, FetchOutcome
from mtastsd.service.branches import DaneBranches, StsBranches
from mtastsd.service.current import Current, Settings
from mtastsd.service.discovery import Discovery
from mtastsd.service.known import Known
from mtastsd.service.refresh import Refresher
from mtastsd.sts.failure import Failure
from tests.fakes import MemoryStore

START = 1_790_000_000.0
GOOD = b"version: STSv1\r\nmode: enforce\r\nmx: mx.example.com\r\nmax_age: 604800\r\n"
TESTING = GOOD.replace(b"enforce", b"testing")
NONE = GOOD.replace(b"enforce", b"none")
USABLE = Tlsa(3, 1, 1, b"\x01" * 32)
UNUSABLE = Tlsa(1, 1, 1, b"\x01" * 32)

NOTHING = NoData(False, 60, False)


class ManualClock:
    """`ports.Clock`: time stands until `advance`; sleepers wake in order."""

    def __init__(self, start: float = START) -> None:
        self.wall = start
        self.ticks = 1000.0
        self.chance = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.ticks

    def random(self) -> float:
        return self.chance

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.ticks + seconds, future))
        await future

    def jump(self, seconds: float) -> None:
        """Move the wall alone, as a wrong clock that is set does."""
        self.wall += seconds

    async def advance(self, seconds: float) -> None:
        """Let time pass; whoever slept until then has run when this returns."""
        self.wall += seconds
        self.ticks += seconds
        for due in sorted(s for s in self._sleepers if s[0] <= self.ticks):
            self._sleepers.remove(due)
            if not due[1].done():
                due[1].set_result(None)
        await settle()


async def settle() -> None:
    """Let everything run that can run without time passing."""
    for _ in range(50):
        await asyncio.sleep(0)


@dataclass
class Zone:
    """`ports.Resolver` from tables. A name that is in none has no records."""

    txts: dict[str, TxtAnswer] = field(default_factory=dict)
    mxs: dict[str, MxAnswer] = field(default_factory=dict)
    hosts: dict[str, AddressAnswer] = field(default_factory=dict)
    tlsas: dict[str, TlsaAnswer] = field(default_factory=dict)
    aliases: set[str] = field(default_factory=set)
    validating: bool = True
    asked: list[str] = field(default_factory=list)
    mute: asyncio.Event | None = None
    """While set to an event that is not set, no question is answered."""

    async def _ask(self, question: str) -> None:
        self.asked.append(question)
        if self.mute is not None:
            await self.mute.wait()

    async def txt(self, name: str) -> TxtAnswer:
        await self._ask(f"TXT {name}")
        return self.txts.get(name, NOTHING)

    async def mx(self, domain: Domain) -> MxAnswer:
        await self._ask(f"MX {domain}")
        return self.mxs.get(domain, NOTHING)

    async def addresses(self, host: str, *, validated: bool) -> AddressAnswer:
        await self._ask(f"A {host}")
        return self.hosts.get(host, NOTHING)

    async def some_addresses(self, host: str, *, validated: bool) -> AddressAnswer:
        return await self.addresses(host, validated=validated)

    async def secure_alias(self, host: str) -> bool:
        await self._ask(f"CNAME {host}")
        return host in self.aliases

    async def tlsa(self, name: str) -> TlsaAnswer:
        await self._ask(f"TLSA {name}")
        return self.tlsas.get(name, NoData(False, 60, True))

    def validates(self) -> bool:
        return self.validating

    # -- what stands in it

    def policy(self, domain: str, record_id: str = "1", ttl: int = 300) -> None:
        record = f"v=STSv1; id={record_id};".encode()
        self.txts[f"_mta-sts.{domain}"] = Answer((record,), ttl, False, f"_mta-sts.{domain}")

    def no_policy(self, domain: str, ttl: int = 60) -> None:
        self.txts[f"_mta-sts.{domain}"] = NoData(False, ttl, False)

    def broken(self, domain: str) -> None:
        self.txts[f"_mta-sts.{domain}"] = DnsError("servfail")

    def mail(self, domain: str, *hosts: str, secure: bool = False, ttl: int = 300) -> None:
        records = tuple(Mx(10 * n, Domain(host)) for n, host in enumerate(hosts, 1))
        self.mxs[domain] = Answer(records, ttl, secure, domain)

    def host(self, host: str, *, secure: bool = False, tlsa: Tlsa | None = None) -> None:
        self.hosts[host] = Answer(("192.0.2.1",), 300, secure, host)
        if tlsa is not None:
            name = f"_25._tcp.{host}"
            self.tlsas[name] = Answer((tlsa,), 300, True, name)


@dataclass
class PolicyHosts:
    """`ports.PolicyFetcher` from a table; what is not in it can't be connected to."""

    bodies: dict[str, bytes | Failure] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    slow: asyncio.Event | None = None
    """While set to an event that is not set, no policy host answers."""
    bug: Exception | None = None

    async def fetch(self, domain: Domain) -> FetchOutcome:
        self.fetched.append(domain)
        if self.slow is not None:
            await self.slow.wait()
        if self.bug is not None:
            raise self.bug
        body = self.bodies.get(domain, Failure("connect", "refused"))
        return Fetched(body) if isinstance(body, bytes) else body


class World:
    """The services of the daemon on tables; use it with `async with`."""

    def __init__(self, settings: Settings | None = None, *, memory: int = 1000) -> None:
        self.clock = ManualClock()
        self.zone = Zone()
        self.hosts = PolicyHosts()
        self.store = MemoryStore()
        self.log = Log(logging.getLogger("mtastsd"))
        self.memory = memory
        self.current = Current(settings or Settings())
        self.changes = 0
        self._group = asyncio.TaskGroup()
        self.start()

    def start(self) -> None:
        """Build the services; once more is a restart on the same store."""
        metrics = self.metrics = Metrics()
        clock, log = self.clock, self.log
        self.known = Known(self.store, clock=clock, log=log, metrics=metrics, memory=self.memory)
        self.sts = StsBranches(
            self.current,
            self.known,
            resolver=self.zone,
            fetcher=self.hosts,
            clock=clock,
            log=log,
            metrics=metrics,
            spawn=self._spawn,
        )
        self.dane = DaneBranches(
            self.current,
            self.known,
            self.sts,
            resolver=self.zone,
            clock=clock,
            log=log,
            metrics=metrics,
            spawn=self._spawn,
        )
        self.sts.on_change = self.dane.on_change = self._changed
        self.discovery = Discovery(
            self.current, self.known, self.sts, self.dane, clock=clock, log=log, metrics=metrics
        )
        self.refresher = Refresher(
            self.current, self.store, self.sts, clock=clock, log=log, metrics=metrics
        )

    def _changed(self) -> None:
        self.changes += 1

    def _spawn(self, work: Coroutine[Any, Any, None]) -> object:
        return self._group.create_task(work)

    async def __aenter__(self) -> World:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for event in (self.zone.mute, self.hosts.slow):
            if event is not None:
                event.set()
        await self._group.__aexit__(None, None, None)

    def value(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0
