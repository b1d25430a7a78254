"""Dialling: which address wins, what is told when none does, and that nothing stays open."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest

from mtastsd.answers import AddressAnswer, Answer, DnsError
from mtastsd.net import connect
from mtastsd.sts.failure import Failure
from tests.io.fakehttps import FakeHttps, Peer, policy
from tests.io.fetching import DOMAIN, Hasty, Loop, Names, Patient, fetcher, loop, run
from tests.io.https_cases import HOST, OK, POLICY, expired, stall

__all__ = ["loop"]


@pytest.mark.parametrize("clock", [Hasty, Patient])
@pytest.mark.parametrize("hosts", [1, 3])
def test_cancelled(loop: Loop, hosts: int, clock: type[Hasty]) -> None:
    """Whoever cancels a fetch leaves no connection behind, in whatever state it is."""

    async def main() -> None:
        for tls in (False, True):
            arrived = asyncio.Event()

            async def script(peer: Peer, arrived: asyncio.Event = arrived) -> None:
                arrived.set()
                await peer.gone()

            async with FakeHttps() as world:
                for _ in range(hosts):
                    await (world.serve if tls else world.serve_raw)(HOST, script)
                task = asyncio.ensure_future(fetcher(world, clock=clock()).fetch(DOMAIN))
                await arrived.wait()
                assert not task.done()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                for _ in range(sum(world.connections.values())):
                    await world.dropped.get()

    run(loop, main())


def test_dead_address_first(loop: Loop) -> None:
    async def main() -> None:
        async with FakeHttps() as world:
            world.dead(HOST)
            world.dead(HOST)
            await world.serve(HOST, policy(POLICY))
            assert await fetcher(world).fetch(DOMAIN) == OK

    run(loop, main())


def test_stalling_address_first(loop: Loop) -> None:
    """The next address is tried beside one that stalls, and the loser is closed."""

    async def main() -> None:
        async with FakeHttps() as world:
            stalled = await world.serve_raw(HOST, stall)
            good = await world.serve(HOST, policy(POLICY))
            assert await fetcher(world, clock=Hasty()).fetch(DOMAIN) == OK
            assert world.connections == {stalled: 1, good: 1}
            assert {await world.dropped.get(), await world.dropped.get()} == {stalled, good}

    run(loop, main())


def test_one_address_is_enough(loop: Loop) -> None:
    async def main() -> None:
        async with FakeHttps() as world:
            first = await world.serve(HOST, policy(POLICY))
            await world.serve(HOST, policy(POLICY))
            assert await fetcher(world).fetch(DOMAIN) == OK
            assert world.connections == {first: 1}

    run(loop, main())


def test_one_request_whoever_wins(loop: Loop) -> None:
    """Several addresses connect in the same moment; one is asked and the others are closed."""

    async def main() -> None:
        async with FakeHttps() as world:
            for _ in range(connect.MAX_ADDRESSES):
                await world.serve(HOST, policy(POLICY))
            assert await fetcher(world, clock=Hasty()).fetch(DOMAIN) == OK
            for _ in range(sum(world.connections.values())):
                await world.dropped.get()
            assert len(world.hits) == 1

    run(loop, main())


def test_bad_certificate_at_one_address(loop: Loop) -> None:
    async def main() -> None:
        async with FakeHttps() as world:
            await expired(world)
            await world.serve(HOST, policy(POLICY))
            assert await fetcher(world).fetch(DOMAIN) == OK

    run(loop, main())


def test_all_addresses_fail(loop: Loop) -> None:
    """The certificate is the reason to tell, wherever it stood."""

    async def main() -> None:
        async with FakeHttps() as world:
            world.dead(HOST)
            await expired(world)
            world.dead(HOST)
            got = await fetcher(world).fetch(DOMAIN)
            address = world.addresses[HOST][1]
            assert got == Failure("tls", f"certificate-expired at {address}")

    run(loop, main())


def test_too_many_addresses(loop: Loop) -> None:
    async def main() -> None:
        async with FakeHttps() as world:
            for _ in range(connect.MAX_ADDRESSES):
                world.dead(HOST)
            last = await world.serve(HOST, policy(POLICY))
            got = await fetcher(world).fetch(DOMAIN)
            dead = world.addresses[HOST][0]
            assert got == Failure("connect", f"connection-refused at {dead}")
            assert last not in world.connections

    run(loop, main())


def named(world: FakeHttps) -> Names:
    return Names(Answer(tuple(world.addresses[HOST]), 60, False, HOST))


def test_ipv6_is_not_asked_for_where_ipv4_connects(loop: Loop) -> None:
    async def main() -> None:
        async with FakeHttps() as world:
            await world.serve(HOST, policy(POLICY), address="::1")
            four = await world.serve(HOST, policy(POLICY))
            names = named(world)
            assert await fetcher(world, names=names).fetch(DOMAIN) == OK
            assert [hit.address for hit in world.hits] == [four]
            assert names.asked == [f"A {HOST}"]

    run(loop, main())


def test_ipv6_alone(loop: Loop) -> None:
    async def main() -> None:
        async with FakeHttps() as world:
            await world.serve(HOST, policy(POLICY), address="::1")
            names = named(world)
            assert await fetcher(world, names=names).fetch(DOMAIN) == OK
            assert names.asked == [f"A {HOST}"]

    run(loop, main())


def test_ipv6_where_ipv4_is_dead(loop: Loop) -> None:
    """At once when all IPv4 addresses have failed."""

    async def main() -> None:
        async with FakeHttps() as world:
            world.dead(HOST)
            await expired(world)
            await world.serve(HOST, policy(POLICY), address="::1")
            names = named(world)
            assert await fetcher(world, names=names).fetch(DOMAIN) == OK
            assert names.asked == [f"A {HOST}", HOST]

    run(loop, main())


def test_ipv6_beside_ipv4_that_stalls(loop: Loop) -> None:
    async def main() -> None:
        async with FakeHttps() as world:
            stalled = await world.serve_raw(HOST, stall)
            await world.serve(HOST, policy(POLICY), address="::1")
            assert await fetcher(world, clock=Hasty()).fetch(DOMAIN) == OK
            assert world.connections == {stalled: 1, "::1": 1}
            assert {await world.dropped.get(), await world.dropped.get()} == {stalled, "::1"}

    run(loop, main())


def test_ipv6_where_ipv4_is_refused(loop: Loop) -> None:
    """The guard refuses an address, not a host."""

    async def main() -> None:
        async with FakeHttps() as world:
            await world.serve(HOST, policy(POLICY), address="::1")
            names = Names(Answer(("0.0.0.0", "224.0.0.1", "::1"), 60, False, HOST))
            assert await fetcher(world, names=names).fetch(DOMAIN) == OK
            assert world.connections == {"::1": 1}

    run(loop, main())


@pytest.mark.parametrize("clock", [Hasty, Patient])
def test_no_ipv6_to_be_had(loop: Loop, clock: type[Hasty]) -> None:
    """What is told is what came of the addresses there are."""

    class Lame(Names):
        async def addresses(self, host: str, *, validated: bool) -> AddressAnswer:
            return DnsError("servfail")

    async def main() -> None:
        async with FakeHttps() as world:
            world.dead(HOST)
            dead = world.addresses[HOST][0]
            names = Lame(Answer((dead,), 60, False, HOST))
            got = await fetcher(world, names=names, clock=clock()).fetch(DOMAIN)
            assert got == Failure("connect", f"connection-refused at {dead}")

    run(loop, main())


def test_private_addresses_are_refused(loop: Loop) -> None:
    async def main() -> None:
        async with FakeHttps() as world:
            address = await world.serve(HOST, policy(POLICY))
            mapped = f"::ffff:{address}"
            names = Names(Answer((address, mapped), 60, False, HOST))
            got = await fetcher(world, private=False, names=names).fetch(DOMAIN)
            assert got == Failure("address", f"{address} loopback, {mapped} loopback")
            assert not world.connections

    run(loop, main())


class Gate:
    """In place of the network: all connections are held back, then made in the same turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[Mock] = []
        self._open = asyncio.Event()
        self._waiting = 0
        self._all_wait = asyncio.Event()
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", self._connect)

    async def _connect(self, *_: object, **__: object) -> tuple[Mock, asyncio.Protocol]:
        self._waiting += 1
        if self._waiting == 3:
            self._all_wait.set()
        await self._open.wait()
        transport = Mock(asyncio.Transport)
        self.opened.append(transport)
        return transport, asyncio.Protocol()

    async def dialling(self) -> asyncio.Task[connect.Link[asyncio.Protocol] | Failure]:
        target = connect.Target(HOST, 1, connect.client_context(), 1.0)
        addresses = connect.Addresses(("127.0.0.2", "127.0.0.3", "127.0.0.4"))
        dial = connect.dial(addresses, target, asyncio.Protocol, Hasty())
        task = asyncio.ensure_future(dial)
        await self._all_wait.wait()
        return task

    def open(self) -> None:
        self._open.set()


async def test_losers_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    task = await gate.dialling()
    gate.open()
    link = await task
    assert isinstance(link, connect.Link)
    assert len(gate.opened) == 3
    for transport in gate.opened:
        assert transport.abort.called == (transport is not link.transport)


async def test_cancelled_when_all_have_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connections are made, but nobody was told of them yet."""
    gate = Gate(monkeypatch)
    task = await gate.dialling()
    gate.open()
    await asyncio.sleep(0)
    assert len(gate.opened) == 3
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(transport.abort.called for transport in gate.opened)


Wanted = tuple[list[str], list[str] | None] | Failure
MANY = [f"8.8.8.{n}" for n in range(9)]
MANY6 = [f"2600::{n}" for n in range(1, 9)]

# what the name has, and which are tried first, which later
REACHABLE: list[tuple[list[str], Wanted]] = [
    (["8.8.8.8"], (["8.8.8.8"], [])),
    (["10.0.0.1", "8.8.8.8", "::1"], (["8.8.8.8"], [])),
    (["8.8.8.8", "8.8.8.8"], (["8.8.8.8"], [])),
    (["2600::1", "8.8.8.8", "2600::2", "8.8.4.4"], (["8.8.8.8", "8.8.4.4"], MANY6[:2])),
    (["2600::1", "2600::2"], (["2600::1", "2600::2"], None)),
    (["10.0.0.1", "::1", "2600::1"], (["2600::1"], None)),
    ([*MANY, *MANY6], (MANY[: connect.MAX_ADDRESSES], MANY6[: connect.MAX_ADDRESSES])),
    (["10.0.0.1", "fe80::1"], Failure("address", "10.0.0.1 private, fe80::1 link-local")),
    (["10.0.0.1"] * connect.MAX_RECORDS + ["8.8.8.8"], Failure("address", "10.0.0.1 private")),
]


@pytest.mark.parametrize(("records", "want"), REACHABLE)
async def test_reachable(records: list[str], want: Wanted) -> None:
    names = Names(Answer(tuple(records), 60, False, HOST))
    found = await connect.reachable(names, HOST, allow_private=False)
    if isinstance(found, Failure):
        assert found == want
    else:
        others = None if found.others is None else list(await found.others())
        assert (list(found.first), others) == want
