"""Keys as Postfix writes them, to next hops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd.names import Domain, NotADomain
from mtastsd.postfix.nexthop import MAX_KEY, SERVICES, NextHop, parse

D = Domain("example.com")
B = Domain("xn--bcher-kva.test")

GOOD = [
    (b"example.com", NextHop(D)),
    (b"EXAMPLE.Com", NextHop(D)),
    (b"example.com.", NextHop(D)),
    (b"example.com:25", NextHop(D)),
    (b"example.com:587", NextHop(D, port=587)),
    (b"example.com.:587", NextHop(D, port=587)),
    (b"example.com:", NextHop(D)),
    (b"example.com:1", NextHop(D, port=1)),
    (b"example.com:65535", NextHop(D, port=65535)),
    (b"example.com:00025", NextHop(D)),
    (b"[example.com]", NextHop(D, bracketed=True)),
    (b"[EXAMPLE.com.]", NextHop(D, bracketed=True)),
    (b"[example.com]:", NextHop(D, bracketed=True)),
    (b"[example.com]:25", NextHop(D, bracketed=True)),
    (b"[example.com]:587", NextHop(D, bracketed=True, port=587)),
    (b"[example.com]:smtp", NextHop(D, bracketed=True)),
    (b"[example.com]:mail", NextHop(D, bracketed=True)),
    (b"[example.com]:submission", NextHop(D, bracketed=True, port=587)),
    (b"[example.com]:SUBMISSION", NextHop(D, bracketed=True, port=587)),
    (b"[example.com]:submissions", NextHop(D, bracketed=True, port=465)),
    (b"[example.com]:smtps", NextHop(D, bracketed=True, port=465)),
    (b"[example.com]:ssmtp", NextHop(D, bracketed=True, port=465)),
    (b"[example.com]:urd", NextHop(D, bracketed=True, port=465)),
    (b"[example.com]:lmtp", NextHop(D, bracketed=True, port=24)),
    (b"example.com:submission", NextHop(D, port=587)),
    ("bücher.test".encode(), NextHop(B)),
    ("BÜCHER.TEST.".encode(), NextHop(B)),
    ("[bücher.test]:587".encode(), NextHop(B, bracketed=True, port=587)),
    ("bücher.test:587".encode(), NextHop(B, port=587)),
]

BAD = [
    (b"", "empty"),
    (b":25", "empty"),
    (b"[]", "empty"),
    (b"[]:25", "empty"),
    (b".example.com", "parent"),
    (b".com", "parent"),
    ("." + "bücher.test", "parent"),
    (b"[.example.com]", "parent"),
    (b"localhost", "single-label"),
    (b"[localhost]:10025", "single-label"),
    (b"localhost:10025", "single-label"),
    (b"1.2.3.4", "address"),
    (b"1.2.3.4:25", "address"),
    (b"[1.2.3.4]", "address"),
    (b"[1.2.3.4]:25", "address"),
    (b"[IPv6:2001:db8::1]", "address"),
    (b"[ipv6:2001:db8::1]:25", "address"),
    (b"[2001:db8::1]:25", "address"),
    (b"[::1]:25", "address"),
    (b"::1", "address"),
    (b"2001:db8::1", "address"),
    (b"[example.com", "syntax"),
    (b"example.com]", "syntax"),
    (b"[example.com]25", "syntax"),
    (b"[example.com]]:25", "syntax"),
    (b"[[example.com]]", "syntax"),
    (b"[example.com]:25:25", "syntax"),
    (b"example.com:25:25", "syntax"),
    (b"example.com:0", "syntax"),
    (b"example.com:65536", "syntax"),
    (b"example.com:000025", "syntax"),
    (b"example.com:-25", "syntax"),
    (b"example.com:+25", "syntax"),
    (b"example.com:2_5", "syntax"),
    (b"example.com: 25", "syntax"),
    (b"example.com:25 ", "syntax"),
    ("example.com:\uff12\uff15", "syntax"),
    (b"example.com:gopher", "syntax"),
    ("example.com:\u017fmtp", "syntax"),  # a long s is no s
    (b"unix:/var/run/lmtp", "single-label"),
    (b"inet:example.com:24", "syntax"),
    (b"user@example.com", "syntax"),
    (b"a..test", "syntax"),
    (b"example.com servername=evil.test", "syntax"),
    (b"example.com\nexample.org", "syntax"),
    (b"\xff\xfe.test", "encoding"),
    (b"b\xfccher.test", "encoding"),  # Latin-1
    (b"\xed\xa0\x80.test", "encoding"),  # a surrogate
    (b"\xc0\xae.test", "encoding"),  # an overlong dot
    (b"a" * 63 + b"." + b"b" * 200 + b".test", "overlong"),
    (b"a" * (MAX_KEY + 1), "overlong"),
]


@pytest.mark.parametrize(("key", "hop"), GOOD)
def test_each_form_of_a_next_hop(key: bytes, hop: NextHop) -> None:
    assert parse(key) == hop


@pytest.mark.parametrize(("key", "why"), BAD)
def test_what_has_no_policy_says_why(key: bytes | str, why: str) -> None:
    octets = key.encode() if isinstance(key, str) else key
    assert parse(octets) == NotADomain(why)  # type: ignore[arg-type]


def test_the_longest_name_of_u_labels_is_within_the_limit() -> None:
    label = "\U00020000" * 18  # four octets each in UTF-8
    found = parse(f"[{label}.{label}.{label}.{label}]:65535".encode())
    assert isinstance(found, NextHop)
    assert found.port == 65535


@pytest.mark.parametrize(
    ("hop", "key"),
    [
        (NextHop(D), "example.com"),
        (NextHop(D, port=587), "example.com:587"),
        (NextHop(D, bracketed=True), "[example.com]"),
        (NextHop(D, bracketed=True, port=587), "[example.com]:587"),
    ],
)
def test_the_canonical_key(hop: NextHop, key: str) -> None:
    assert hop.key == key


PIECES = st.sampled_from(
    [b"[", b"]", b":", b".", b"a", b"Z9", b"-", b"25", b"smtp", b"\xc3\xbc", b"\xff", b" ", b"::1"]
)


@given(st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=16).map(b"".join)))
def test_any_octets_give_a_value_and_its_key_gives_it_again(key: bytes) -> None:
    found = parse(key)
    if isinstance(found, NextHop):
        assert 0 < found.port < 65536
        assert parse(found.key.encode()) == found
        assert parse(found.key.upper().encode()) == found


def test_every_service_is_lower_case_and_a_port() -> None:
    for name, port in SERVICES.items():
        assert parse(f"[example.com]:{name}".encode()) == NextHop(D, bracketed=True, port=port)
