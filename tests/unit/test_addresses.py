"""Addresses of sockets, as tables."""

from __future__ import annotations

import pytest

from mtastsd.addresses import (
    MAX_PATH,
    Address,
    InetAddress,
    NotAnAddress,
    UnixAddress,
    parse,
    parse_host_port,
)

PATH_OF_THE_LIMIT = "/" + "x" * (MAX_PATH - 1)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/mtastsd/policy.sock", UnixAddress("/run/mtastsd/policy.sock")),
        ("unix:/a b", UnixAddress("/a b")),
        (f"unix:{PATH_OF_THE_LIMIT}", UnixAddress(PATH_OF_THE_LIMIT)),
        ("inet:127.0.0.1:8461", InetAddress("127.0.0.1", 8461)),
        ("inet:0.0.0.0:1", InetAddress("0.0.0.0", 1)),
        ("inet:[::1]:65535", InetAddress("::1", 65535)),
        ("inet:[0:0::0001]:80", InetAddress("::1", 80)),
        ("inet:[fe80::1%eth0]:80", InetAddress("fe80::1%eth0", 80)),
        ("inet:localhost:8461", InetAddress("localhost", 8461)),
        ("inet:Relay.Example.com.:25", InetAddress("relay.example.com", 25)),
        ("inet:mail:25", InetAddress("mail", 25)),
    ],
)
def test_good(text: str, address: Address) -> None:
    assert parse(text) == address
    assert parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", 'must begin with "unix:" or "inet:"'),
        ("/run/x.sock", 'must begin with "unix:" or "inet:"'),
        ("127.0.0.1:8461", 'must begin with "unix:" or "inet:"'),
        ("Unix:/x", 'must begin with "unix:" or "inet:"'),
        ("unix:", "needs the absolute path of the socket"),
        ("unix:run/x", "needs the absolute path of the socket"),
        ("unix:/run/", "needs the absolute path of the socket"),
        ("unix:/", "needs the absolute path of the socket"),
        ("unix:/a\x00b", "has a control character in its path"),
        ("unix:/a\ud800", "has a control character in its path"),
        (f"unix:{PATH_OF_THE_LIMIT}x", "has a path of over 99 octets"),
        ("unix:/" + "\u00e4" * 50, "has a path of over 99 octets"),
        ("inet:8461", "has no host name or IP address"),
        ("inet::8461", "has no host name or IP address"),
        ("inet:*:8461", "has no host name or IP address"),
        ("inet:1.2.3:8461", "has no host name or IP address"),
        ("inet:1.2.3.04:8461", "has no host name or IP address"),
        ("inet:[127.0.0.1]:8461", "has no host name or IP address"),
        ("inet:[x]:8461", "has no host name or IP address"),
        ("inet:a b:8461", "has no host name or IP address"),
        ("inet:::1:8461", "must be host:port, an IPv6 address in brackets"),
        ("inet:[::1:8461", "must be host:port, an IPv6 address in brackets"),
        ("inet:127.0.0.1", "has no port"),
        ("inet:[::1]", "has no port"),
        ("inet:127.0.0.1:", "has a port that is not 1 to 65535"),
        ("inet:127.0.0.1:0", "has a port that is not 1 to 65535"),
        ("inet:127.0.0.1:65536", "has a port that is not 1 to 65535"),
        ("inet:127.0.0.1:+80", "has a port that is not 1 to 65535"),
        ("inet:127.0.0.1:http", "has a port that is not 1 to 65535"),
        ("inet:127.0.0.1:\uff18\uff10", "has a port that is not 1 to 65535"),
    ],
)
def test_bad(text: str, why: str) -> None:
    assert parse(text) == NotAnAddress(why)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1", InetAddress("127.0.0.1", 53)),
        ("127.0.0.1:5353", InetAddress("127.0.0.1", 5353)),
        ("::1", InetAddress("::1", 53)),
        ("[::1]", InetAddress("::1", 53)),
        ("[::1]:5353", InetAddress("::1", 5353)),
        ("resolver.example.com", NotAnAddress("has no IP address")),
        ("localhost:53", NotAnAddress("has no IP address")),
        ("127.0.0.1:x", NotAnAddress("has a port that is not 1 to 65535")),
    ],
)
def test_a_name_server_is_an_address_with_a_port_or_53(
    text: str, expected: InetAddress | NotAnAddress
) -> None:
    assert parse_host_port(text, default_port=53, names_allowed=False) == expected
