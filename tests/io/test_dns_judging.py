"""Whose AD bit counts: probes, evidence, loss; which server is asked what; resolv.conf changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mtastsd.answers import Answer, DnsError, NoData
from mtastsd.log import Log
from mtastsd.net import dns as adapter
from mtastsd.net.dns import DnsResolver, DnsSettings
from mtastsd.net.dnsservers import Dnssec
from tests.fakes import FakeClock
from tests.io.dnsworld import (
    DOMAIN,
    MX,
    SIGNED,
    TXT,
    Silence,
    resolver,
    rounds,
    running,
    silence,
)
from tests.io.fakedns import ROOT, FakeDns, Says

__all__ = ["silence"]

NO_ROOT = Says("a.test. b.test. 1 2 3 4 5", ad=False)
ISLAND = {**SIGNED, ROOT: NO_ROOT}
"""A resolver that has a trust anchor for example.com alone."""

LOST = DnsError("no-server")

Told = Callable[[], list[str]]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    """The events since the last call, each as `event server`."""
    caplog.set_level("DEBUG", "mtastsd")

    def read() -> list[str]:
        found = [
            f"{r.getMessage()} {getattr(r, 'fields', {}).get('server', '')}".rstrip()
            for r in caplog.records
            if r.name == "mtastsd"
        ]
        caplog.clear()
        return found

    return read


# mode, whether the server validates, whether the zone is signed: secure, validates()
MODES: list[tuple[Dnssec, bool, bool, bool, bool]] = [
    ("auto", True, True, True, True),
    ("auto", True, False, False, True),
    ("auto", False, True, False, False),
    ("on", True, True, True, True),
    ("on", True, False, False, True),
    ("on", False, True, False, True),
    ("off", True, True, False, False),
    ("off", False, False, False, False),
]


@pytest.mark.parametrize(("dnssec", "validating", "signed", "secure", "validates"), MODES)
async def test_modes(
    dnssec: Dnssec, validating: bool, signed: bool, secure: bool, validates: bool
) -> None:
    table = {MX: Says("10 mx.example.com.", ad=signed), ("nx.example", "TXT"): Says(ad=signed)}
    async with FakeDns(table, validates=validating) as server:
        found = resolver(server, dnssec=dnssec)
        mx = await found.mx(DOMAIN)
        assert isinstance(mx, Answer)
        nothing = await found.txt("nx.example")
        assert isinstance(nothing, NoData)
        assert (mx.secure, nothing.secure) == (secure, secure)
        assert found.validates() is validates
        assert [s.validates for s in found.servers()] == [validates]
        assert server.probes() == (dnssec == "auto")


async def test_dane_questions_go_to_servers_that_validate() -> None:
    async with FakeDns(SIGNED) as plain, FakeDns(SIGNED, validates=True) as good:
        found = resolver(plain, good)
        assert await _secure(found) == [True] * 4
        assert plain.questions() == []
        assert isinstance(await found.txt(TXT[0]), Answer)
        await found.addresses("mx.example.com", validated=False)
        assert len(plain.questions()) == 3
        assert [s.validates for s in found.servers()] == [False, True]


async def _secure(found: DnsResolver) -> list[bool]:
    answers = [
        await found.mx(DOMAIN),
        await found.addresses("mx.example.com", validated=True),
        await found.tlsa("_25._tcp.mx.example.com"),
    ]
    secure = [isinstance(answer, Answer) and answer.secure for answer in answers]
    return [*secure, await found.secure_alias("alias.example.com")]


DANE: list[Callable[[DnsResolver], Awaitable[object]]] = [
    lambda found: found.mx(DOMAIN),
    lambda found: found.addresses("mx.example.com", validated=True),
    lambda found: found.some_addresses("mx.example.com", validated=True),
    lambda found: found.tlsa("_25._tcp.mx.example.com"),
]


@pytest.mark.parametrize("question", DANE)
async def test_a_validating_server_that_fails_is_not_replaced_by_another(
    question: Callable[[DnsResolver], Awaitable[object]], silence: Silence
) -> None:
    """Whoever drops its packets would otherwise have unsigned answers believed."""
    async with FakeDns(SIGNED) as plain, FakeDns(SIGNED, validates=True) as good:
        found = resolver(plain, good)
        assert isinstance(await question(found), Answer)
        silence.of(good)
        assert await question(found) == DnsError("timeout")
        silence.of()
        good.always = Says(rcode="SERVFAIL")
        assert await question(found) == DnsError("servfail")
        assert plain.questions() == []


async def test_without_a_validating_server() -> None:
    async with FakeDns(SIGNED) as server:
        found = resolver(server)
        mx = await found.mx(DOMAIN)
        assert isinstance(mx, Answer)
        assert not mx.secure
        server.asked.clear()
        assert await found.tlsa("_25._tcp.mx.example.com") == LOST
        assert await found.addresses("mx.example.com", validated=True) == LOST
        assert await found.some_addresses("mx.example.com", validated=True) == LOST
        assert not await found.secure_alias("alias.example.com")
        assert server.asked == []
        assert isinstance(await found.addresses("mx.example.com", validated=False), Answer)


# -- probes


async def test_the_first_dane_questions_wait_for_one_probe() -> None:
    async with FakeDns(SIGNED) as plain, FakeDns(SIGNED, validates=True) as good:
        found = resolver(plain, good)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(found.mx(DOMAIN)) for _ in range(5)]
        answers = [task.result() for task in tasks]
        assert all(isinstance(answer, Answer) and answer.secure for answer in answers)
        assert (plain.probes(), good.probes()) == (1, 1)


async def test_a_probe_that_is_cancelled_is_made_anew() -> None:
    async with FakeDns(SIGNED, validates=True, once=[Says(fault="drop")]) as server:
        found = resolver(server)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(found.mx(DOMAIN))
            await server.heard(1)
            task.cancel()
        mx = await found.mx(DOMAIN)
        assert isinstance(mx, Answer)
        assert mx.secure
        assert server.probes() == 2


async def test_a_silent_server_is_probed_once_and_questions_wait_no_more(
    silence: Silence,
) -> None:
    async with FakeDns(SIGNED, validates=True) as good, FakeDns() as dead:
        silence.of(dead)
        found = resolver(dead, good)
        for _ in range(3):
            assert isinstance(await found.mx(DOMAIN), Answer)
        assert silence.tries.count(dead.address) == 1


async def test_probes_come_every_minute_until_good_then_seldom(told: Told) -> None:
    clock = FakeClock()
    async with FakeDns(SIGNED) as server:
        found = resolver(server, clock=clock)
        async with running(found, clock):
            assert (server.probes(), told()) == (1, ["dnssec-missing"])
            await rounds(clock, 3 * adapter.PROBE_AGAIN)
            assert (server.probes(), told()) == (4, [])
            server.validates = True
            await rounds(clock, adapter.PROBE_AGAIN)
            assert (server.probes(), told()) == (5, [f"dnssec-found {server.address}"])
            assert found.validates()
            await rounds(clock, adapter.PROBE_GOOD - adapter.WATCH)
            assert server.probes() == 5
            await rounds(clock, adapter.WATCH)
            assert (server.probes(), told()) == (6, [])


async def test_a_server_that_is_down_is_told_once_and_proves_nothing(told: Told) -> None:
    clock = FakeClock()
    async with FakeDns(SIGNED, validates=True) as server:
        found = resolver(server, clock=clock)
        async with running(found, clock):
            told()
            server.always = Says(rcode="SERVFAIL")
            await rounds(clock, adapter.PROBE_GOOD + 2 * adapter.PROBE_AGAIN)
            assert told() == [f"dns-server-down {server.address}"]
            assert (found.validates(), found.servers()[0].answers) == (True, False)
            server.always = None
            await rounds(clock, adapter.PROBE_AGAIN)
            assert told() == [f"dns-server-up {server.address}"]


# -- loss


async def test_validation_that_is_lost(told: Told) -> None:
    clock = FakeClock()
    async with FakeDns(SIGNED, validates=True) as server:
        found = resolver(server, clock=clock)
        async with running(found, clock):
            assert told() == [f"dnssec-found {server.address}"]
            server.validates = False
            await rounds(clock, adapter.PROBE_GOOD)
            assert told() == [f"dnssec-lost {server.address}"]
            assert not found.validates()
            server.asked.clear()
            assert await found.mx(DOMAIN) == LOST
            assert server.questions() == [MX]
            assert await found.tlsa("_25._tcp.mx.example.com") == LOST
            assert await found.addresses("mx.example.com", validated=True) == LOST
            assert isinstance(await found.txt(TXT[0]), Answer)
            await rounds(clock, 3 * adapter.PROBE_AGAIN)
            assert (told(), server.probes()) == ([], 3)


async def test_an_insecure_no_mx_is_an_error_too_once_validation_is_lost() -> None:
    clock = FakeClock()
    async with FakeDns(validates=True) as server:
        found = resolver(server, clock=clock)
        async with running(found, clock):
            assert isinstance(await found.mx(DOMAIN), NoData)
            server.validates = False
            await rounds(clock, adapter.PROBE_GOOD)
            assert await found.mx(DOMAIN) == LOST


async def test_a_secure_answer_ends_the_loss(told: Told) -> None:
    clock = FakeClock()
    async with FakeDns(SIGNED, validates=True) as server:
        found = resolver(server, clock=clock)
        async with running(found, clock):
            server.validates = False
            await rounds(clock, adapter.PROBE_GOOD)
            told()
            server.validates = True
            assert isinstance(await found.mx(DOMAIN), Answer)
            assert told() == [f"dnssec-found {server.address}"]
            assert isinstance(await found.tlsa("_25._tcp.mx.example.com"), Answer)


async def test_one_of_two_loses_it(told: Told) -> None:
    clock = FakeClock()
    async with FakeDns(SIGNED, validates=True) as one, FakeDns(SIGNED, validates=True) as two:
        found = resolver(one, two, clock=clock)
        async with running(found, clock):
            one.validates = False
            told()
            await rounds(clock, adapter.PROBE_GOOD)
            assert told() == [f"dnssec-lost {one.address}"]
            one.asked.clear()
            assert await _secure(found) == [True] * 4
            assert one.questions() == []


# -- evidence


async def test_an_answer_with_ad_is_evidence(told: Told) -> None:
    async with FakeDns(ISLAND, validates=True) as server:
        found = resolver(server)
        assert await found.tlsa("_25._tcp.mx.example.com") == LOST
        assert told() == ["dnssec-missing"]
        assert await _secure(found) == [True] * 4
        assert told() == [f"dnssec-found {server.address}"]


async def test_evidence_comes_with_any_question() -> None:
    async with FakeDns(ISLAND, validates=True) as server:
        found = resolver(server)
        text = await found.txt(TXT[0])
        assert isinstance(text, Answer)
        assert text.secure
        assert found.validates()


async def test_evidence_is_asked_for_again(told: Told) -> None:
    clock = FakeClock()
    async with FakeDns(ISLAND, validates=True) as server:
        found = resolver(server, clock=clock)
        async with running(found, clock):
            await found.mx(DOMAIN)
            told()
            server.asked.clear()
            await rounds(clock, adapter.PROBE_GOOD)
            assert (server.questions()[0], told()) == (MX, [])
            server.validates = False
            await rounds(clock, adapter.PROBE_GOOD)
            assert told() == [f"dnssec-lost {server.address}"]
            assert await found.mx(DOMAIN) == LOST


# -- resolv.conf


def write(file: Path, *servers: FakeDns) -> None:
    """As `resolvconf` does it: another file moved into place."""
    new = file.with_suffix(".new")
    new.write_text("".join(f"nameserver {server.address}\n" for server in servers))
    os.replace(new, file)


async def test_resolv_conf_that_changes(tmp_path: Path, told: Told) -> None:
    file, clock = tmp_path / "resolv.conf", FakeClock()
    async with FakeDns(SIGNED, validates=True) as one, FakeDns(SIGNED) as two:
        write(file, one)
        found = DnsResolver(DnsSettings(), clock, Log(), resolv_conf=file)
        async with running(found, clock):
            assert [s.address for s in found.servers()] == [one.address]
            assert (one.probes(), told()) == (1, [f"dnssec-found {one.address}"])

            write(file, two, one)
            await rounds(clock, adapter.WATCH)
            assert [s.address for s in found.servers()] == [two.address, one.address]
            assert (one.probes(), two.probes()) == (2, 1)
            assert told() == ["resolv-conf-changed"]
            assert await _secure(found) == [True] * 4

            write(file, two)
            await rounds(clock, adapter.WATCH)
            assert told() == ["resolv-conf-changed", "dnssec-missing"]
            # The server that validated was taken away by whoever may do so: as after a start.
            mx = await found.mx(DOMAIN)
            assert isinstance(mx, Answer)
            assert not mx.secure


async def test_resolv_conf_that_is_written_anew_or_goes(tmp_path: Path, told: Told) -> None:
    file, clock = tmp_path / "resolv.conf", FakeClock()
    async with FakeDns(SIGNED) as server:
        write(file, server)
        found = DnsResolver(DnsSettings(), clock, Log(), resolv_conf=file)
        async with running(found, clock):
            assert (server.probes(), told()) == (1, ["dnssec-missing"])
            write(file, server)
            await rounds(clock, adapter.WATCH)
            assert (server.probes(), told()) == (2, [])
            file.unlink()
            await rounds(clock, 3 * adapter.WATCH)
            assert told() == ["resolv-conf-empty"]
            assert [s.address for s in found.servers()] == [server.address]
            file.write_text("# nothing yet\n")
            await rounds(clock, 2 * adapter.WATCH)
            assert told() == ["resolv-conf-empty"]
            write(file, server)
            await rounds(clock, adapter.WATCH)
            assert (server.probes(), told()) == (3, [])


@pytest.mark.parametrize("text", [None, "", "options edns0\n", "nameserver nonsense\n"])
async def test_without_servers_it_is_this_host(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "resolv.conf"
    if text is not None:
        file.write_text(text)
    found = DnsResolver(DnsSettings(), FakeClock(), Log(), resolv_conf=file)
    assert [s.address for s in found.servers()] == ["127.0.0.1:53"]


async def test_resolv_conf_is_not_watched_where_servers_are_configured(tmp_path: Path) -> None:
    clock = FakeClock()
    async with FakeDns(SIGNED) as one, FakeDns(SIGNED) as two:
        write(tmp_path / "resolv.conf", two)
        settings = DnsSettings((one.address,))
        found = DnsResolver(settings, clock, Log(), resolv_conf=tmp_path / "resolv.conf")
        async with running(found, clock):
            write(tmp_path / "resolv.conf", two, one)
            await rounds(clock, 2 * adapter.WATCH)
            assert [s.address for s in found.servers()] == [one.address]
            assert two.asked == []


# -- settings that change


async def test_other_settings(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    async with FakeDns(SIGNED, validates=True) as one, FakeDns(SIGNED, validates=True) as two:
        write(file, two)
        found = DnsResolver(DnsSettings((one.address,)), FakeClock(), Log(), resolv_conf=file)
        await found.mx(DOMAIN)
        found.configure(DnsSettings((one.address,), timeout=1.0))
        assert found.validates()
        found.configure(DnsSettings((one.address,), dnssec="off"))
        assert not found.validates()
        found.configure(DnsSettings((one.address,)))
        assert await _secure(found) == [True] * 4
        assert two.asked == []
        found.configure(DnsSettings())
        assert [s.address for s in found.servers()] == [two.address]
        with pytest.raises(ValueError, match="not a name server"):
            found.configure(DnsSettings(("nonsense",), dnssec="off"))
        assert await _secure(found) == [True] * 4
