"""A fetcher in a fake world: names that are known, clocks that do as told, both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from mtastsd.answers import AddressAnswer, Answer, MxAnswer, TlsaAnswer, TxtAnswer
from mtastsd.names import Domain
from mtastsd.net import connect
from mtastsd.net.https import FetchSettings, HttpsPolicyFetcher
from tests.io.fakehttps import FakeHttps
from tests.io.https_cases import HOST, LIMIT

DOMAIN = Domain("example.com")

Loop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Loop:
    """Both loops: their TLS is not the same code, and neither are its errors."""
    factory: Loop = request.param
    return factory


def run(loop: Loop, main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await main

    with asyncio.Runner(debug=True, loop_factory=loop) as runner:
        runner.run(bounded())


class Names:
    """A resolver that knows addresses only."""

    def __init__(self, answer: AddressAnswer) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def addresses(self, host: str, *, validated: bool) -> AddressAnswer:
        assert not validated
        self.asked.append(host)
        return self.answer

    async def some_addresses(self, host: str, *, validated: bool) -> AddressAnswer:
        assert not validated
        self.asked.append(f"A {host}")
        if not isinstance(self.answer, Answer):
            return self.answer
        four = tuple(a for a in self.answer.records if ":" not in a)
        return replace(self.answer, records=four or self.answer.records)

    async def txt(self, name: str) -> TxtAnswer:
        raise NotImplementedError

    async def mx(self, domain: Domain) -> MxAnswer:
        raise NotImplementedError

    async def secure_alias(self, host: str) -> bool:
        raise NotImplementedError

    async def tlsa(self, name: str) -> TlsaAnswer:
        raise NotImplementedError

    def validates(self) -> bool:
        raise NotImplementedError


class Hasty:
    """A clock whose sleeps are over at once, so that the next address is tried at once."""

    def now(self) -> float:
        raise NotImplementedError

    def monotonic(self) -> float:
        raise NotImplementedError

    def random(self) -> float:
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        assert seconds == connect.STAGGER


class Patient(Hasty):
    """A clock whose sleeps never end."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()


def fetcher(
    world: FakeHttps,
    *,
    clock: Hasty | None = None,
    timeout: float = 20.0,
    max_bytes: int = LIMIT,
    private: bool = True,
    names: Names | None = None,
    ca_file: str | None = None,
) -> HttpsPolicyFetcher:
    found = Answer(tuple(world.addresses.get(HOST, ())), 60, False, HOST)
    settings = FetchSettings(
        timeout, max_bytes, private, world.ca_file if ca_file is None else ca_file
    )
    return HttpsPolicyFetcher(
        settings, names or Names(found), clock or Patient(), port=world.port or 1
    )
