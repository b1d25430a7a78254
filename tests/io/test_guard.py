"""Which addresses may be connected to: a table, and the forms that carry another address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd.net import guard

SCOPES = {
    "global": "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 "
    "128.0.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255 "
    "198.20.0.0 223.255.255.255 2600::1 2a00:1450::1 2001:200::1 2620:fe::fe "
    "::ffff:8.8.8.8 ::ffff:0:8.8.8.8 64:ff9b::808:808 2002:808:808::1",
    "unspecified": "0.0.0.0 0.1.2.3 :: ::ffff:0.0.0.0 64:ff9b:: 2002::1",
    "loopback": "127.0.0.1 127.255.255.255 ::1 ::ffff:127.0.0.1 ::ffff:7f00:1 64:ff9b::7f00:1 "
    "2002:7f00:1::1 ::ffff:0:127.0.0.1 0:0:0:0:0:0:0:1",
    "private": "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255 "
    "fc00:: fd00::1 fec0::1 64:ff9b:1::808:808 ::ffff:10.0.0.1 64:ff9b::10.0.0.1 2002:a00:1::",
    "link-local": "169.254.0.0 169.254.169.254 fe80::1 febf::1 ::ffff:169.254.169.254",
    "shared": "100.64.0.0 100.127.255.255 ::ffff:100.64.0.1",
    "documentation": "192.0.2.1 198.51.100.255 203.0.113.7 2001:db8::1 3fff::1 3fff:fff::1",
    "benchmarking": "198.18.0.0 198.19.255.255 2001:2::1",
    "reserved": "192.0.0.8 192.88.99.1 240.0.0.0 255.255.255.254 ::2 ::127.0.0.1 100::1 2001:1::1 "
    "2001:20::1 4000::1 5f00::1 64:ff9b:0:1::1 ff:: 1fff::1",
    "multicast": "224.0.0.1 239.255.255.255 ff02::1 ::ffff:224.0.0.1 2002:e000:1::",
    "broadcast": "255.255.255.255 ::ffff:255.255.255.255",
    "malformed": "x 1.2.3 1.2.3.4.5 01.2.3.4 1.2.3.4/32 0x7f.1 2130706433 fe80::1%lo ::1%0 [::1] "
    "1.2.3.٤ ::1/128 12345:: 127.1 localhost",
}
ROWS = [(address, scope) for scope, text in SCOPES.items() for address in text.split(" ")]
ROWS += [(text, "malformed") for text in ("", " 1.2.3.4", "1.2.3.4\n", "::1\0", "8.8.8.8 ")]


@pytest.mark.parametrize(("address", "scope"), ROWS)
def test_scope(address: str, scope: guard.Scope) -> None:
    assert guard.scope(address) == scope
    assert guard.allowed(address) == (scope == "global")
    never = scope in ("malformed", "unspecified", "multicast", "broadcast")
    assert guard.allowed(address, allow_private=True) != never


def teredo(server: str, client: str) -> str:
    inverted = int(IPv4Address(client)) ^ 0xFFFFFFFF
    return str(IPv6Address(0x20010000 << 96 | int(IPv4Address(server)) << 64 | inverted))


@pytest.mark.parametrize(
    ("server", "client", "scope"),
    [
        ("8.8.8.8", "8.8.4.4", "global"),
        ("8.8.8.8", "10.0.0.1", "private"),
        ("127.0.0.1", "8.8.8.8", "loopback"),
        ("10.0.0.1", "224.0.0.1", "multicast"),  # the one that is never allowed decides
    ],
)
def test_teredo(server: str, client: str, scope: guard.Scope) -> None:
    assert guard.scope(teredo(server, client)) == scope


@given(st.integers(0, 2**32 - 1))
def test_what_is_inside_decides(number: int) -> None:
    inside = guard.scope(str(IPv4Address(number)))
    for high in (0xFFFF << 32, 0xFFFF << 48, 0x64FF9B << 96, 0x2002 << 112):
        low = number << 80 if high >> 112 == 0x2002 else number
        assert guard.scope(str(IPv6Address(high | low))) == inside


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str))
def test_never_wider_than_the_standard_library(address: str) -> None:
    parsed = ip_address(address)
    if guard.scope(address) == "global":
        assert parsed.is_global
        assert not parsed.is_multicast


@given(st.text(max_size=60))
def test_any_text_has_a_scope(text: str) -> None:
    guard.scope(text)
