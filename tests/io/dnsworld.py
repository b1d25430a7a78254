"""What tests of the resolver share: a signed zone, a resolver over fake servers, its rounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mtastsd.addresses import InetAddress
from mtastsd.log import Log
from mtastsd.names import Domain
from mtastsd.net import dns as adapter
from mtastsd.net.dns import DnsResolver, DnsSettings
from mtastsd.net.dnsservers import Dnssec
from mtastsd.net.dnswire import Question
from mtastsd.ports import Clock
from tests.fakes import FakeClock
from tests.io.fakedns import FakeDns, Says, Table

LONG = 10.0
"""A time-out, in seconds, that no test waits for."""
SHORT = 0.05
"""One that a test does wait for."""

DOMAIN = Domain("example.com")
TXT = ("_mta-sts.example.com", "TXT")
MX = ("example.com", "MX")

SIGNED: Table = {
    TXT: Says('"v=STSv1; id=1;"', ad=True),
    MX: Says("10 mx.example.com.", ad=True),
    ("mx.example.com", "A"): Says("192.0.2.1", ad=True),
    ("mx.example.com", "AAAA"): Says("2001:db8::1", ad=True),
    ("_25._tcp.mx.example.com", "TLSA"): Says("3 1 1 " + "ab" * 32, ad=True),
    ("alias.example.com", "CNAME"): Says("mx.example.com.", ad=True),
}


def resolver(
    *servers: FakeDns,
    dnssec: Dnssec = "auto",
    timeout: float = LONG,
    clock: Clock | None = None,
) -> DnsResolver:
    settings = DnsSettings(tuple(s.address for s in servers), timeout, dnssec)
    return DnsResolver(settings, clock or FakeClock(), Log())


class Silence:
    """Servers that swallow what they are sent, without the wait: the time-out comes at once.

    `tries` has the address of each try. So no test that needs a live server beside a dead one
    depends on how fast the machine is.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tries: list[str] = []
        self._silent: list[str] = []
        self._lost = 0
        self._real = adapter.exchange
        monkeypatch.setattr(adapter, "exchange", self._exchange)

    def of(self, *servers: FakeDns) -> None:
        """From now on these servers are silent, and no others."""
        self._silent = [server.address for server in servers]

    def lose(self, count: int) -> None:
        """The next queries are lost."""
        self._lost = count

    async def _exchange(self, address: InetAddress, asked: Question) -> bytes:
        self.tries.append(address.host_port)
        self._lost -= 1
        if address.host_port in self._silent or self._lost >= 0:
            raise TimeoutError
        return await self._real(address, asked)


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Silence:
    return Silence(monkeypatch)


@asynccontextmanager
async def running(found: DnsResolver, clock: FakeClock) -> AsyncIterator[None]:
    """The resolver's `run`, past its first round."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(found.run())
        await clock.asleep()
        yield
        task.cancel()


async def rounds(clock: FakeClock, seconds: float) -> None:
    """Let `run` go on for so long."""
    for _ in range(int(seconds / adapter.WATCH)):
        clock.advance(adapter.WATCH)
        await clock.asleep()
