"""Which addresses a remote name may lead us to: the guard against being sent into our own network.

Whoever owns a domain chooses the addresses of its policy host, its report receiver and its MX
hosts, and so what this daemon connects to. Only addresses of the public Internet are connected to;
forms that carry an IPv4 address are judged by the address inside, since a translator or relay in
the network delivers there. The tables are IANA's special-purpose registries (RFC 6890), written
out because `ipaddress.is_global` differs between the versions of Python.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

Scope = Literal[
    "global",
    "malformed",
    "unspecified",
    "loopback",
    "private",
    "link-local",
    "shared",  # carrier-grade NAT, RFC 6598
    "documentation",
    "benchmarking",
    "reserved",
    "multicast",
    "broadcast",
]

NEVER: frozenset[Scope] = frozenset({"malformed", "unspecified", "multicast", "broadcast"})
"""What is not connected to even with `fetch.allow_private_addresses`: no host has such an address,
and Linux takes the unspecified one for loopback."""

MAX_TEXT = 45
"""Characters of the longest address text, an IPv4-mapped one written out."""


def allowed(address: str, allow_private: bool = False) -> bool:
    """Whether this address may be connected to; `allow_private` leaves only `NEVER` refused."""
    where = scope(address)
    return where == "global" or (allow_private and where not in NEVER)


def scope(address: str) -> Scope:
    """Where an address in text form leads; with a zone (`fe80::1%eth0`) it is malformed."""
    if len(address) > MAX_TEXT or "%" in address:
        return "malformed"
    try:
        if ":" in address:
            return _scope6(IPv6Address(address))
        return _scope4(IPv4Address(address))
    except AddressValueError:
        return "malformed"


_TABLE4: tuple[tuple[IPv4Network, Scope], ...] = (
    (IPv4Network("0.0.0.0/8"), "unspecified"),
    (IPv4Network("10.0.0.0/8"), "private"),
    (IPv4Network("100.64.0.0/10"), "shared"),
    (IPv4Network("127.0.0.0/8"), "loopback"),
    (IPv4Network("169.254.0.0/16"), "link-local"),  # and the metadata services of clouds
    (IPv4Network("172.16.0.0/12"), "private"),
    (IPv4Network("192.0.0.0/24"), "reserved"),
    (IPv4Network("192.0.2.0/24"), "documentation"),
    (IPv4Network("192.88.99.0/24"), "reserved"),  # 6to4 relays, RFC 7526
    (IPv4Network("192.168.0.0/16"), "private"),
    (IPv4Network("198.18.0.0/15"), "benchmarking"),
    (IPv4Network("198.51.100.0/24"), "documentation"),
    (IPv4Network("203.0.113.0/24"), "documentation"),
    (IPv4Network("224.0.0.0/4"), "multicast"),
    (IPv4Network("255.255.255.255/32"), "broadcast"),
    (IPv4Network("240.0.0.0/4"), "reserved"),
)


def _scope4(address: IPv4Address) -> Scope:
    for network, where in _TABLE4:
        if address in network:
            return where
    return "global"


def _low(address: IPv6Address) -> tuple[int, ...]:
    return (int(address),)


def _six_to_four(address: IPv6Address) -> tuple[int, ...]:
    return (int(address) >> 80,)


def _teredo(address: IPv6Address) -> tuple[int, ...]:
    # RFC 4380 §4: the server, and the client with its bits inverted. Packets may go to both.
    return (int(address) >> 64, ~int(address))


_EMBEDDING: tuple[tuple[IPv6Network, Callable[[IPv6Address], tuple[int, ...]]], ...] = (
    (IPv6Network("::ffff:0:0/96"), _low),  # IPv4-mapped: the kernel itself connects over IPv4
    (IPv6Network("::ffff:0:0:0/96"), _low),  # IPv4-translated, RFC 7915
    (IPv6Network("64:ff9b::/96"), _low),  # NAT64, RFC 6052
    (IPv6Network("2002::/16"), _six_to_four),  # RFC 3056
    (IPv6Network("2001::/32"), _teredo),
)

_TABLE6: tuple[tuple[IPv6Network, Scope], ...] = (
    (IPv6Network("::/128"), "unspecified"),
    (IPv6Network("::1/128"), "loopback"),
    (IPv6Network("64:ff9b:1::/48"), "private"),  # local NAT64, RFC 8215
    (IPv6Network("2001:2::/48"), "benchmarking"),
    (IPv6Network("2001::/23"), "reserved"),  # protocol assignments, RFC 2928
    (IPv6Network("2001:db8::/32"), "documentation"),
    (IPv6Network("3fff::/20"), "documentation"),  # RFC 9637
    (IPv6Network("fc00::/7"), "private"),
    (IPv6Network("fe80::/10"), "link-local"),
    (IPv6Network("fec0::/10"), "private"),  # site-local, RFC 3879
    (IPv6Network("ff00::/8"), "multicast"),
    (IPv6Network("2000::/3"), "global"),  # what IANA has given out; the rest is reserved
)


def _scope6(address: IPv6Address) -> Scope:
    for network, inside in _EMBEDDING:
        if address in network:
            scopes = [_scope4(IPv4Address(bits & 0xFFFFFFFF)) for bits in inside(address)]
            return _worst(scopes)
    for network, where in _TABLE6:
        if address in network:
            return where
    return "reserved"


def _worst(scopes: list[Scope]) -> Scope:
    for where in scopes:
        if where in NEVER:
            return where
    return next((where for where in scopes if where != "global"), "global")
