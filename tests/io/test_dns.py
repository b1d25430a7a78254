"""The resolver against fake servers: values, faults, forgers, fail-over."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import dns.message
import pytest
import uvloop

from mtastsd.addresses import InetAddress
from mtastsd.answers import Answer, DnsError, DnsWhy, Mx, NoData, Tlsa
from mtastsd.log import Log
from mtastsd.names import Domain
from mtastsd.net import dns as adapter
from mtastsd.net.dns import DnsResolver, DnsSettings
from mtastsd.net.dnsservers import (
    MAX_SERVERS,
    ServerStatus,
)
from mtastsd.ports import Resolver
from tests.fakes import FakeClock
from tests.io.dnsworld import (
    DOMAIN,
    LONG,
    SHORT,
    SIGNED,
    TXT,
    Silence,
    resolver,
    rounds,
    running,
    silence,
)
from tests.io.fakedns import FakeDns, Fault, Says, TcpFault

__all__ = ["silence"]

# -- values


async def test_every_question() -> None:
    async with FakeDns(SIGNED, validates=True) as server:
        found = resolver(server)
        port: Resolver = found
        assert await port.txt("_mta-sts.example.com") == Answer(
            (b"v=STSv1; id=1;",), 300, True, "_mta-sts.example.com"
        )
        assert await port.mx(DOMAIN) == Answer(
            (Mx(10, Domain("mx.example.com")),), 300, True, "example.com"
        )
        both = ("192.0.2.1", "2001:db8::1")
        for validated in (True, False):
            assert await port.addresses("alias.example.com", validated=validated) == Answer(
                both, 300, True, "mx.example.com", aliased=True
            )
        assert await port.tlsa("_25._tcp.mx.example.com") == Answer(
            (Tlsa(3, 1, 1, b"\xab" * 32),), 300, True, "_25._tcp.mx.example.com"
        )
        assert await port.secure_alias("alias.example.com")
        assert not await port.secure_alias("mx.example.com")
        assert port.validates()
        await found.close()


async def test_what_a_query_is() -> None:
    async with FakeDns(SIGNED) as server:
        await resolver(server).txt("_mta-sts.example.com")
    query = dns.message.from_wire(server.wire[0])
    assert query.to_text().splitlines()[1:] == [
        "opcode QUERY",
        "rcode NOERROR",
        "flags RD AD",
        "edns 0",
        "payload 1232",
        ";QUESTION",
        "_mta-sts.example.com. IN TXT",
        ";ANSWER",
        ";AUTHORITY",
        ";ADDITIONAL",
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_both_families(host: str) -> None:
    async with FakeDns(SIGNED, host=host, once=[Says(fault="truncate")]) as server:
        assert isinstance(await resolver(server).txt(TXT[0]), Answer)
        assert [transport for *_, transport in server.asked] == ["udp", "tcp"]


NO_ANSWERS: list[tuple[Says | None, NoData | DnsError]] = [
    (None, NoData(exists=False, ttl=900, secure=False)),
    (Says(), NoData(exists=True, ttl=900, secure=False)),
    (Says(ad=True), NoData(exists=True, ttl=900, secure=True)),
    (Says(soa=(5, 900)), NoData(exists=True, ttl=5, secure=False)),
    (Says(soa=None), NoData(exists=True, ttl=0, secure=False)),
    (Says(rcode="NXDOMAIN", ad=True), NoData(exists=False, ttl=900, secure=True)),
    (Says(rcode="SERVFAIL"), DnsError("servfail")),
    (Says(rcode="REFUSED"), DnsError("refused")),
    (Says(rcode="NOTIMP"), DnsError("servfail")),
    (Says(fault="referral"), DnsError("refused")),
]


@pytest.mark.parametrize(("said", "found"), NO_ANSWERS)
async def test_no_answers(said: Says | None, found: NoData | DnsError) -> None:
    table = {} if said is None else {TXT: said}
    async with FakeDns(table, validates=True) as server:
        assert await resolver(server).txt(TXT[0]) == found


ADDRESSES: list[tuple[Says, Says, object]] = [
    (Says("192.0.2.1", ad=True), Says(), (("192.0.2.1",), True)),
    (Says(), Says("2001:db8::1"), (("2001:db8::1",), False)),
    (Says("192.0.2.1", ad=True), Says(rcode="SERVFAIL"), (("192.0.2.1",), True)),
    (Says(rcode="REFUSED"), Says("2001:db8::1", ad=True), (("2001:db8::1",), True)),
    (Says(), Says(rcode="SERVFAIL"), DnsError("servfail")),
    (Says(rcode="SERVFAIL"), Says(rcode="REFUSED"), DnsError("servfail")),
    (Says(), Says(), NoData(exists=True, ttl=900, secure=False)),
]


@pytest.mark.parametrize(("four", "six", "says"), ADDRESSES)
async def test_addresses(four: Says, six: Says, says: object) -> None:
    table = {("mx.example.com", "A"): four, ("mx.example.com", "AAAA"): six}
    async with FakeDns(table, validates=True) as server:
        found = await resolver(server).addresses("mx.example.com", validated=True)
        if isinstance(found, Answer):
            assert (found.records, found.secure) == says
        else:
            assert found == says


@pytest.mark.parametrize(("four", "six", "says"), ADDRESSES)
async def test_some_addresses(four: Says, six: Says, says: object) -> None:
    """The same, with half of the questions where the first is answered."""
    table = {("mx.example.com", "A"): four, ("mx.example.com", "AAAA"): six}
    async with FakeDns(table, validates=True) as server:
        found = await resolver(server).some_addresses("mx.example.com", validated=True)
        if isinstance(found, Answer):
            assert (found.records, found.secure) == says
        else:
            assert found == says
        enough = isinstance(found, Answer) and found.records == ("192.0.2.1",)
        assert (len(server.questions()) == 1) is enough


async def test_one_kind_of_address_will_do() -> None:
    async with FakeDns(SIGNED, validates=True) as server:
        found = resolver(server)
        for validated in (True, False):
            four = Answer(("192.0.2.1",), 300, True, "mx.example.com", aliased=True)
            assert await found.some_addresses("alias.example.com", validated=validated) == four


@pytest.mark.parametrize("name", ["", "a..example", "x" * 64 + ".example", "a\\.b.example"])
async def test_names_that_cannot_be_asked_for_are_not(name: str) -> None:
    async with FakeDns(validates=True) as server:
        found = resolver(server)
        assert await found.txt(name) == DnsError("name")
        assert await found.tlsa(name) == DnsError("name")
        assert await found.addresses(name, validated=False) == DnsError("name")
        assert await found.some_addresses(name, validated=False) == DnsError("name")
        assert not await found.secure_alias(name)
        assert server.questions() == []


# -- faults and forgers

FAULTS: list[tuple[Fault, DnsWhy]] = [
    ("drop", "timeout"),
    ("wrong-id", "timeout"),
    ("wrong-question", "timeout"),
    ("wrong-source", "timeout"),
    ("no-response", "timeout"),
    ("short", "timeout"),
    ("garbage", "malformed"),
]


@pytest.mark.parametrize(("fault", "why"), FAULTS)
async def test_faults(fault: Fault, why: DnsWhy) -> None:
    async with FakeDns(SIGNED, always=Says('"x"', fault=fault)) as server:
        found = resolver(server, timeout=SHORT if why == "timeout" else LONG)
        assert await found.txt(TXT[0]) == DnsError(why)
        assert found.servers() == (ServerStatus(server.address, False, why != "timeout", why),)


TCP_FAULTS: list[tuple[TcpFault, DnsWhy]] = [
    ("drop", "timeout"),
    ("close", "network"),
    ("short", "network"),
    ("wrong-id", "malformed"),
    ("truncate", "malformed"),
]


@pytest.mark.parametrize(("fault", "why"), TCP_FAULTS)
async def test_faults_of_tcp(fault: TcpFault, why: DnsWhy) -> None:
    says = Says('"x"', fault="truncate", tcp_fault=fault)
    async with FakeDns(always=says) as server:
        found = resolver(server, timeout=SHORT if fault == "drop" else LONG)
        assert await found.txt(TXT[0]) == DnsError(why)


async def test_a_cut_answer_comes_whole_over_tcp() -> None:
    records = tuple(f'"{n} {"x" * 200}"' for n in range(100))
    async with FakeDns({TXT: Says(records, fault="truncate")}) as server:
        found = await resolver(server).txt(TXT[0])
        assert isinstance(found, Answer)
        assert len(found.records) == 100
        assert [transport for *_, transport in server.asked] == ["udp", "tcp"]


@pytest.mark.parametrize(
    ("strays", "transports"),
    [(adapter.MAX_STRAYS - 1, ["udp"]), (adapter.MAX_STRAYS, ["udp", "tcp"])],
)
async def test_forged_ids_are_passed_over_and_many_lead_to_tcp(
    strays: int, transports: list[str]
) -> None:
    async with FakeDns({TXT: Says('"true"', strays=strays)}) as server:
        found = await resolver(server).txt(TXT[0])
        assert isinstance(found, Answer)
        assert found.records == (b"true",)
        assert [transport for *_, transport in server.asked] == transports


async def test_port_and_id_are_new_for_each_query() -> None:
    async with FakeDns(SIGNED) as server:
        found = resolver(server)
        for _ in range(64):
            await found.txt(TXT[0])
        assert len(set(server.ports)) > 48
        assert len({query[:2] for query in server.wire}) > 48


async def test_a_refusing_port_is_no_time_out() -> None:
    async with FakeDns() as server:
        pass
    assert await resolver(server).txt(TXT[0]) == DnsError("network")


async def test_no_server() -> None:
    async with FakeDns(SIGNED) as server:
        found = resolver(server)
        await found.close()
        assert await found.txt(TXT[0]) == DnsError("no-server")
        assert await found.addresses("mx.example.com", validated=False) == DnsError("no-server")
        await found.run()  # ends
        assert server.asked == []


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("fault", ["drop", "truncate"])
def test_nothing_is_left_behind(
    loop: Callable[[], asyncio.AbstractEventLoop], fault: Fault
) -> None:
    """Cancelled over UDP and over TCP; an open socket would be a warning, and so an error."""

    async def cancelled() -> None:
        says = Says(fault=fault, tcp_fault="drop")
        async with FakeDns(always=says) as server, asyncio.TaskGroup() as group:
            found = resolver(server)
            before = files()
            task = group.create_task(found.addresses("mx.example.com", validated=False))
            await server.heard(2 if fault == "drop" else 4)
            assert files() > before
            task.cancel()
            await asyncio.wait([task])
            await server.idle()
            await asyncio.sleep(0)  # its end of TCP is closed by the loop's next turn
            assert files() == before
            server.always = Says('"x"')
            assert isinstance(await found.txt(TXT[0]), Answer)

    with asyncio.Runner(loop_factory=loop, debug=True) as runner:
        runner.run(cancelled())


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_sockets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "MAX_SOCKETS", 2)
    async with FakeDns({("held.example", "TXT"): Says(fault="drop"), **SIGNED}) as server:
        found = resolver(server)
        async with asyncio.TaskGroup() as group:
            held = [group.create_task(found.txt("held.example")) for _ in range(2)]
            await server.heard(2)
            waits = group.create_task(found.txt(TXT[0]))
            before = files()
            for _ in range(10):
                await asyncio.sleep(0)
            assert files() == before
            held[0].cancel()
            assert isinstance(await waits, Answer)
            held[1].cancel()


# -- fail-over

GOOD = Says('"good"')
SPOILT: list[tuple[Says, bool]] = [
    # what the first server says, and whether it is asked first again
    (Says(rcode="SERVFAIL"), True),
    (Says(rcode="REFUSED"), True),
    (Says(fault="garbage"), True),
    (Says(fault="referral"), True),
    (Says(fault="truncate", tcp_fault="close"), False),
]


@pytest.mark.parametrize(("spoilt", "first_again"), SPOILT)
async def test_the_next_server_is_asked(spoilt: Says, first_again: bool) -> None:
    async with FakeDns(always=spoilt) as one, FakeDns(always=GOOD) as two:
        found = resolver(one, two)
        assert isinstance(await found.txt(TXT[0]), Answer)
        assert len(two.asked) == 1
        one.asked.clear()
        assert isinstance(await found.txt(TXT[0]), Answer)
        assert bool(one.asked) is first_again
        assert [s.answers for s in found.servers()] == [first_again, True]


async def test_a_dead_server_is_first_again_when_a_probe_is_answered() -> None:
    clock = FakeClock()
    async with FakeDns(always=GOOD) as one, FakeDns(always=GOOD) as two:
        await one.stop()
        found = resolver(one, two, clock=clock)
        async with running(found, clock):
            await one.start()
            await found.txt(TXT[0])
            assert (len(one.questions()), len(two.questions())) == (0, 1)
            await rounds(clock, adapter.PROBE_AGAIN)
            await found.txt(TXT[0])
            assert (len(one.questions()), len(two.questions())) == (1, 1)


async def test_a_silent_server_costs_its_time_out_once(silence: Silence) -> None:
    async with FakeDns(always=GOOD) as one, FakeDns(always=GOOD) as two:
        silence.of(one)
        found = resolver(one, two)
        for _ in range(3):
            assert isinstance(await found.txt(TXT[0]), Answer)
        assert silence.tries == [one.address, two.address, two.address, two.address]
        assert [s.answers for s in found.servers()] == [False, True]


async def test_a_silent_server_is_asked_when_the_others_fail(silence: Silence) -> None:
    async with FakeDns(always=GOOD) as one, FakeDns(always=Says(rcode="SERVFAIL")) as two:
        silence.of(one)
        found = resolver(one, two)
        assert await found.txt(TXT[0]) == DnsError("servfail")
        assert silence.tries == [one.address, two.address, one.address]
        silence.of()
        silence.tries.clear()
        assert isinstance(await found.txt(TXT[0]), Answer)
        assert silence.tries == [two.address, one.address]
        assert [s.answers for s in found.servers()] == [True, True]


async def test_a_lost_datagram_is_sent_again(silence: Silence) -> None:
    async with FakeDns(always=GOOD) as server:
        found = resolver(server)
        silence.lose(1)
        assert isinstance(await found.txt(TXT[0]), Answer)
        silence.lose(2)
        assert await found.txt(TXT[0]) == DnsError("timeout")
        assert silence.tries == [server.address] * 4


async def test_a_silent_server_is_tried_once() -> None:
    async with FakeDns(always=Says(fault="drop")) as server:
        found = resolver(server, timeout=SHORT)
        assert await found.txt(TXT[0]) == DnsError("timeout")
        assert len(server.asked) == 2
        assert await found.txt(TXT[0]) == DnsError("timeout")
        assert len(server.asked) == 3


async def test_a_question_ends_however_many_servers_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, tried = FakeClock(), []

    async def exchange(address: InetAddress, asked: object) -> bytes:
        tried.append(address.host)
        clock.advance(LONG)
        raise TimeoutError

    monkeypatch.setattr(adapter, "exchange", exchange)
    settings = DnsSettings(tuple(f"127.0.0.{n}" for n in range(1, 20)), LONG)
    found = DnsResolver(settings, clock, Log())
    assert len(found.servers()) == MAX_SERVERS
    assert await found.txt(TXT[0]) == DnsError("timeout")
    assert tried == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]


@pytest.mark.parametrize(
    ("errors", "why"),
    [
        (("SERVFAIL", "REFUSED"), "servfail"),
        (("REFUSED", "SERVFAIL"), "servfail"),
        (("REFUSED", "REFUSED"), "refused"),
    ],
)
async def test_the_error_that_says_most(errors: tuple[str, str], why: DnsWhy) -> None:
    one, two = (FakeDns(always=Says(rcode=rcode)) for rcode in errors)
    async with one, two:
        assert await resolver(one, two).txt(TXT[0]) == DnsError(why)
        assert (len(one.asked), len(two.asked)) == (1, 1)
