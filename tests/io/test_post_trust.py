"""Posting reports: whom we connect to, and whom we trust."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
import trustme

from mtastsd.answers import Answer, DnsError, NoData
from mtastsd.net.post import PostSettings
from mtastsd.ports import Sent
from tests.io.fakehttps import FakeHttps, Peer, self_signed, server_context
from tests.io.fetching import Loop, Names, loop, run
from tests.io.posting import BODY, HOST, Sink, poster, send, status

__all__ = ["loop"]


# ---- whom we connect to


@pytest.mark.parametrize(
    ("addresses", "detail"),
    [
        (["127.0.0.1"], "address: 127.0.0.1 loopback"),
        (["10.1.2.3", "fd00::1"], "address: 10.1.2.3 private, fd00::1 private"),
        (["169.254.169.254"], "address: 169.254.169.254 link-local"),
        (["::ffff:127.0.0.1"], "address: ::ffff:127.0.0.1 loopback"),
    ],
)
def test_private_addresses_are_refused(loop: Loop, addresses: list[str], detail: str) -> None:
    async def main() -> None:
        async with FakeHttps() as world:
            await world.serve(HOST, Sink(status(b"200 OK")), address="127.0.0.1")
            names = Names(Answer(tuple(addresses), 60, False, HOST))
            for untrusted in (False, True):
                by = poster(world, private=False, untrusted=untrusted, names=names)
                assert await send(world, by) == Sent("never", detail)
            assert not world.connections

    run(loop, main())


@pytest.mark.parametrize(
    ("names", "detail"),
    [
        (Names(NoData(False, 60, False)), "dns: nxdomain"),
        (Names(NoData(True, 60, False)), "dns: no-address"),
        (Names(DnsError("timeout")), "dns: timeout"),
    ],
)
async def test_no_address(names: Names, detail: str) -> None:
    async with FakeHttps() as world:
        assert await send(world, poster(world, names=names)) == Sent("later", detail)


def test_refused(loop: Loop) -> None:
    async def main() -> None:
        async with FakeHttps() as world:
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))
                world.port = taken.getsockname()[1]
                world.addresses[HOST] = ["127.0.0.1"]
                sent = await send(world)
                assert sent == Sent("later", "connect: connection-refused at 127.0.0.1")

    run(loop, main())


def test_the_next_address(loop: Loop) -> None:
    async def main() -> None:
        async with FakeHttps() as world:
            world.dead(HOST)
            good = await world.serve(HOST, Sink(status(b"200 OK")))
            assert await send(world) == Sent("delivered", "200")
            assert [hit.address for hit in world.hits] == [good]

    run(loop, main())


# ---- whom we trust

Certificate = Callable[[FakeHttps], Any]

DISTRUSTED: dict[str, tuple[Certificate, str]] = {
    "self-signed": (lambda _: self_signed(HOST), "self-signed"),
    "name": (lambda world: world.certificate("example.net"), "hostname-mismatch"),
    "expired": (lambda world: world.certificate(HOST, days=-1), "certificate-expired"),
    "issuer": (lambda _: trustme.CA().issue_cert(HOST), "unknown-issuer"),
}


@pytest.mark.parametrize("case", DISTRUSTED)
def test_a_certificate_that_is_not_trusted(loop: Loop, case: str) -> None:
    make, why = DISTRUSTED[case]

    async def main() -> None:
        async with FakeHttps() as world:
            sink = Sink(status(b"200 OK"))
            address = await world.serve(HOST, sink, certificate=make(world))
            sent = await send(world)
            assert sent == Sent("later", f"tls: {why} at {address}")
            assert not sink.bodies
            sent = await send(world, poster(world, untrusted=True))
            detail = f"200 (untrusted certificate: {why} at {address})"
            assert sent == Sent("delivered", detail)
            assert sink.bodies == [BODY]

    run(loop, main())


def test_distrust_is_told_of_failures_too(loop: Loop) -> None:
    async def main() -> None:
        async with FakeHttps() as world:
            address = await world.serve(
                HOST, Sink(status(b"404 No")), certificate=self_signed(HOST)
            )
            sent = await send(world, poster(world, untrusted=True))
            detail = f"404 (untrusted certificate: self-signed at {address})"
            assert sent == Sent("never", detail)

    run(loop, main())


def test_a_good_certificate_is_not_called_bad(loop: Loop) -> None:
    async def main() -> None:
        async with FakeHttps() as world:
            address = await world.serve(HOST, Sink(status(b"200 OK")))
            sent = await send(world, poster(world, untrusted=True))
            assert sent == Sent("delivered", "200")
            assert world.connections == {address: 1}

    run(loop, main())


@pytest.mark.parametrize("untrusted", [False, True])
def test_no_tls_that_we_speak(loop: Loop, untrusted: bool) -> None:
    """Whom we trust is one thing, TLS 1.1 and plain text another."""

    async def plain(peer: Peer) -> None:
        await peer.receive()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def main() -> None:
        async with FakeHttps() as world:
            old = server_context(world.certificate(HOST), tls11=True)
            await world.serve(HOST, Sink(status(b"200 OK")), certificate=old)
            sent = await send(world, poster(world, untrusted=untrusted))
            assert sent.outcome == "later"
            assert not world.hits
        async with FakeHttps() as world:
            await world.serve_raw(HOST, plain)
            sent = await send(world, poster(world, untrusted=untrusted))
            assert sent.outcome == "later"
            assert sent.detail.startswith("tls: not-tls")

    run(loop, main())


def test_settings_can_change(loop: Loop) -> None:
    async def main() -> None:
        async with FakeHttps() as world:
            await world.serve(HOST, Sink(status(b"200 OK")), certificate=self_signed(HOST))
            by = poster(world)
            assert (await send(world, by)).outcome == "later"
            by.configure(PostSettings(True, True, world.ca_file))
            assert (await send(world, by)).outcome == "delivered"
            with pytest.raises(OSError, match="No such file"):
                by.configure(PostSettings(False, True, "/missing.pem"))
            assert (await send(world, by)).outcome == "delivered"

    run(loop, main())
