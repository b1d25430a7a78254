"""How name servers are written, in the configuration and in resolv.conf."""

from __future__ import annotations

import socket

import pytest

from mtastsd.addresses import InetAddress
from mtastsd.answers import DnsError
from mtastsd.log import Log
from mtastsd.net.dns import DnsResolver, DnsSettings
from mtastsd.net.dnsservers import MAX_SERVERS, parse_nameserver, parse_resolv_conf, sockaddr
from tests.fakes import FakeClock
from tests.io.dnsworld import LONG, TXT

SERVERS: list[tuple[str, str | None]] = [
    ("192.0.2.1", "192.0.2.1:53"),
    ("192.0.2.1:5353", "192.0.2.1:5353"),
    ("2001:DB8::1", "[2001:db8::1]:53"),
    ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
    ("[2001:db8::1]", "[2001:db8::1]:53"),
    ("fe80::1%lo", "[fe80::1%lo]:53"),
    ("[fe80::1%1]:54", "[fe80::1%1]:54"),
    ("", None),
    ("ns.example.com", None),
    ("localhost:53", None),
    ("192.0.2.1:", None),
    ("192.0.2.1:0", None),
    ("192.0.2.1:65536", None),
    ("192.0.2.1:٥٣", None),
    ("192.0.2.1:+53", None),
    ("192.0.2.256", None),
    ("[192.0.2.1]:53", None),
    ("[2001:db8::1", None),
    ("2001:db8::1]:53", None),
    (" 192.0.2.1", None),
]


@pytest.mark.parametrize(("text", "canonical"), SERVERS)
def test_name_servers(text: str, canonical: str | None) -> None:
    found = parse_nameserver(text)
    assert (found and found.host_port) == canonical
    settings = DnsSettings((text,))
    if canonical is None:
        with pytest.raises(ValueError, match="not a name server"):
            DnsResolver(settings, FakeClock(), Log())
    else:
        assert DnsResolver(settings, FakeClock(), Log()).servers()[0].address == canonical


def test_scopes() -> None:
    loopback = socket.if_nametoindex("lo")
    assert sockaddr(InetAddress("fe80::1%lo", 53)) == ("fe80::1", 53, 0, loopback)
    assert sockaddr(InetAddress("fe80::1%7", 53)) == ("fe80::1", 53, 0, 7)
    assert sockaddr(InetAddress("::1", 53)) == ("::1", 53, 0, 0)
    assert sockaddr(InetAddress("127.0.0.1", 53)) == ("127.0.0.1", 53)


@pytest.mark.parametrize("scope", ["nosuchif0", "9" * 30, "4294967295", "é", "٣"])
async def test_a_scope_that_is_not_there_is_no_network(scope: str) -> None:
    settings = DnsSettings((f"fe80::1%{scope}",), LONG)
    assert await DnsResolver(settings, FakeClock(), Log()).txt(TXT[0]) == DnsError("network")


RESOLV_CONF: list[tuple[str, list[str]]] = [
    ("", []),
    ("nameserver 192.0.2.1\n", ["192.0.2.1:53"]),
    ("nameserver 192.0.2.1", ["192.0.2.1:53"]),
    (
        "nameserver\t192.0.2.1 # the first\r\nnameserver 192.0.2.2;x\n",
        ["192.0.2.1:53", "192.0.2.2:53"],
    ),
    ("nameserver ::1\nnameserver fe80::1%eth0\n", ["[::1]:53", "[fe80::1%eth0]:53"]),
    ("#nameserver 192.0.2.1\n; nameserver 192.0.2.1\n nameserver 192.0.2.1\n", []),
    ("nameservers 192.0.2.1\nnameserver\nnameserver ns.example.com\n", []),
    ("nameserver \n192.0.2.1\n", []),
    ("nameserver 192.0.2.1\nnameserver 192.0.2.1\n", ["192.0.2.1:53"]),
    ("search example.com\noptions edns0\nnameserver 127.0.0.53\n", ["127.0.0.53:53"]),
    (
        "".join(f"nameserver 192.0.2.{n}\n" for n in range(99)),
        [f"192.0.2.{n}:53" for n in range(MAX_SERVERS)],
    ),
]


@pytest.mark.parametrize(("text", "servers"), RESOLV_CONF)
def test_resolv_conf(text: str, servers: list[str]) -> None:
    assert [address.host_port for address in parse_resolv_conf(text)] == servers
