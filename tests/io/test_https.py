"""The HTTPS adapter against hosts on loopback that do all that hosts do wrong."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path

import pytest

from mtastsd import __version__
from mtastsd.answers import AddressAnswer, Answer, DnsError, NoData
from mtastsd.names import Domain
from mtastsd.net.https import FetchSettings, HttpsPolicyFetcher
from mtastsd.ports import FetchOutcome
from mtastsd.sts.failure import MAX_DETAIL, Failure
from tests.io.fakehttps import FakeHttps, policy, response
from tests.io.fetching import DOMAIN, Loop, Names, Patient, fetcher, loop, run
from tests.io.https_cases import ANSWERS, GZIP, HOST, MORE_ZEROS, OK, PEERS, POLICY, SLOW

__all__ = ["loop"]


def check(name: str, got: FetchOutcome, want: FetchOutcome) -> None:
    if isinstance(got, Failure) and isinstance(want, Failure):
        assert got.detail.isascii(), name
        assert got.detail.isprintable(), name
        assert len(got.detail) <= MAX_DETAIL, name
        if want.detail.startswith("~"):
            assert got.detail.endswith(want.detail[1:]), name
            want = Failure(want.kind, got.detail)
    assert got == want, name


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(loop: Loop, name: str) -> None:
    async def main() -> None:
        async with FakeHttps() as world:
            await world.serve(HOST, ANSWERS[name][0])
            check(name, await fetcher(world).fetch(DOMAIN), ANSWERS[name][1])
            assert await world.dropped.get() == world.addresses[HOST][0]

    run(loop, main())


def test_bomb_is_never_in_memory(loop: Loop) -> None:
    """20 MB of zeros in 20 kB, within the limit as sent."""

    async def main() -> None:
        async with FakeHttps() as world:
            await world.serve(HOST, response(MORE_ZEROS, GZIP))
            bounded = fetcher(world, max_bytes=65536)
            tracemalloc.start()
            try:
                got = await bounded.fetch(DOMAIN)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert got == Failure("size", "more than 65536 octets decoded")
            assert peak < 5_000_000

    run(loop, main())


@pytest.mark.parametrize("name", PEERS)
def test_peers(loop: Loop, name: str) -> None:
    async def main() -> None:
        async with FakeHttps() as world:
            build, want = PEERS[name]
            await build(world)
            got = await fetcher(world).fetch(DOMAIN)
            if isinstance(want, Failure):
                address = world.addresses[HOST][0]
                want = Failure(want.kind, want.detail.replace("ADDRESS", address))
                assert not world.hits
            check(name, got, want)

    run(loop, main())


def test_request(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def main() -> None:
        async with FakeHttps() as world:
            address = await world.serve(HOST, policy(POLICY))
            names = Names(Answer((address,), 60, False, "host.cdn.example", aliased=True))
            assert await fetcher(world, names=names).fetch(DOMAIN) == OK
            assert names.asked == [f"A {HOST}"]
            (hit,) = world.hits
            assert hit.sni == HOST
            assert hit.address == address
            first, *fields = hit.request.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
            assert first == "GET /.well-known/mta-sts.txt HTTP/1.1"
            assert dict(f.split(": ", 1) for f in fields) == {
                "Host": f"{HOST}:{world.port}",
                "User-Agent": f"mtastsd/{__version__}",
                "Accept": "text/plain",
                "Accept-Encoding": "identity",
                "Connection": "close",
            }

    run(loop, main())


def test_system_trust(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """SSL_CERT_FILE is the system's store; `ca_file` adds to it."""

    async def main() -> None:
        async with FakeHttps() as world, FakeHttps() as other:
            await world.serve(HOST, policy(POLICY))
            await other.serve(HOST, policy(POLICY))
            monkeypatch.setenv("SSL_CERT_FILE", world.ca_file)
            assert await fetcher(world, ca_file="").fetch(DOMAIN) == OK
            assert await fetcher(world, ca_file=other.ca_file).fetch(DOMAIN) == OK
            assert await fetcher(other, ca_file=other.ca_file).fetch(DOMAIN) == OK
            untrusted = await fetcher(other, ca_file="").fetch(DOMAIN)
            assert isinstance(untrusted, Failure)
            assert untrusted.kind == "tls"

    run(loop, main())


def test_bad_ca_file(tmp_path: Path) -> None:
    names = Names(NoData(False, 0, False))
    empty = tmp_path / "empty.pem"
    empty.touch()
    for path in (tmp_path / "missing.pem", empty):
        with pytest.raises(OSError, match=r"No such file|NO_CERTIFICATE|no certificate"):
            HttpsPolicyFetcher(FetchSettings(ca_file=str(path)), names, Patient())


def test_slow(loop: Loop) -> None:
    """All that is too slow, side by side, so that the time-out is waited for once."""

    async def one(name: str) -> None:
        script, tls, stage = SLOW[name]
        async with FakeHttps() as world:
            await (world.serve if tls else world.serve_raw)(HOST, script)
            got = await fetcher(world, timeout=1.0).fetch(DOMAIN)
            assert got == Failure("timeout", stage), name
            await world.dropped.get()

    async def mute() -> None:
        class Mute(Names):
            async def some_addresses(self, host: str, *, validated: bool) -> AddressAnswer:
                await asyncio.Event().wait()
                raise AssertionError

        async with FakeHttps() as world:
            names = Mute(DnsError("timeout"))
            got = await fetcher(world, timeout=1.0, names=names).fetch(DOMAIN)
            assert got == Failure("timeout", "dns")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(mute())
            for name in SLOW:
                group.create_task(one(name))

    run(loop, main())


DNS: list[tuple[AddressAnswer, Failure]] = [
    (NoData(False, 60, False), Failure("dns", "nxdomain")),
    (NoData(True, 60, False), Failure("dns", "no-address")),
    (Answer((), 60, False, HOST), Failure("dns", "no-address")),
    (DnsError("servfail"), Failure("dns", "servfail")),
    (DnsError("timeout"), Failure("dns", "timeout")),
    (
        Answer(("224.0.0.1", "::"), 60, False, HOST),
        Failure("address", "224.0.0.1 multicast, :: unspecified"),
    ),
    (Answer(("\x1b[m" * 99,), 60, False, HOST), Failure("address", "?[m" * 53 + "?")),
]


@pytest.mark.parametrize(("answer", "want"), DNS)
def test_dns(loop: Loop, answer: AddressAnswer, want: Failure) -> None:
    async def main() -> None:
        async with FakeHttps() as world:
            assert await fetcher(world, names=Names(answer)).fetch(DOMAIN) == want

    run(loop, main())


def test_overlong_name(loop: Loop) -> None:
    """`mta-sts.` makes a name too long that was none: no question, no connection."""

    async def main() -> None:
        async with FakeHttps() as world:
            names = Names(NoData(False, 60, False))
            domain = Domain(".".join(["a" * 49] * 5))
            assert len(domain) == 249
            assert await fetcher(world, names=names).fetch(domain) == Failure("dns", "name")
            assert not names.asked

    run(loop, main())
