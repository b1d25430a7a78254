"""RFC 8460 §3 as tables: the record, then the URIs in it."""

from __future__ import annotations

import re
from typing import get_args
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd import abnf, names
from mtastsd.tlsrpt import record
from mtastsd.tlsrpt.record import (
    BadRecord,
    Https,
    Mailto,
    NoRecord,
    Record,
    Rejected,
    destination,
    section,
    select,
)

AB = Mailto("a@b.example")
XY = Mailto("x@y.example")


def https(host: str, target: str = "/", port: int = 443) -> Https:
    domain = names.parse(host)
    assert isinstance(domain, str)
    shown = "" if port == 443 else f":{port}"
    return Https(f"https://{host}{shown}{target}", domain, port)


@pytest.mark.parametrize(
    ("text", "destinations"),
    [
        # the RFC's two
        (
            b"v=TLSRPTv1;rua=mailto:reports@example.com",
            (Mailto("reports@example.com"),),
        ),
        (
            b"v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt",
            (https("reporting.example.com", "/v1/tlsrpt"),),
        ),
        (b"v=TLSRPTv1 ; rua=mailto:a@b.example ; ", (AB,)),
        (b"v=TLSRPTv1\t;\trua=mailto:a@b.example\t;", (AB,)),
        (b"v=TLSRPTv1;rua=mailto:a@b.example,mailto:x@y.example", (AB, XY)),
        (b"v=TLSRPTv1;rua=mailto:x@y.example,mailto:a@b.example", (XY, AB)),
        (
            b"v=TLSRPTv1;rua=mailto:a@b.example \t,\t https://x.example/y",
            (AB, https("x.example", "/y")),
        ),
        (b"v=TLSRPTv1;rua=mailto:a@b.example;rua=mailto:x@y.example", (AB, XY)),
        (b"v=TLSRPTv1;x=y;rua=mailto:a@b.example;z=1", (AB,)),
        (b"v=TLSRPTv1;rua=mailto:a@b.example;v=TLSRPTv2", (AB,)),
        (b"v=TLSRPTv1;RUA=x;rua=mailto:a@b.example", (AB,)),
        (b"v=TLSRPTv1; rua= mailto:a@b.example", (AB,)),
        (b"v=TLSRPTv1;rua=mailto:a@b.example,MAILTO:a@B.Example,mailto:a%40b.example", (AB,)),
        (b"v=TLSRPTv1;rua=https://x.example/?a=b&c=d", (https("x.example", "/?a=b&c=d"),)),
    ],
)
def test_good(text: bytes, destinations: tuple[Mailto | Https, ...]) -> None:
    assert select([text]) == Record(destinations)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"v=TLSRPTv1;", "no-rua"),
        (b"v=TLSRPTv1; x=y", "no-rua"),
        (b"v=TLSRPTv1; RUA=mailto:a@b.example", "no-rua"),
        (b"v=TLSRPTv1; rua", "syntax"),
        (b"v=TLSRPTv1; rua =mailto:a@b.example", "syntax"),
        (b"v=TLSRPTv1;; rua=mailto:a@b.example", "syntax"),
        (b"v=TLSRPTv1; rua=mailto:a@b.example;;", "syntax"),
        (b"v=TLSRPTv1; rua=mailto:a@b.example ", "syntax"),
        (b"v=TLSRPTv1; rua=mailto:a@b.example; x=", "syntax"),
        (b"v=TLSRPTv1; rua=mailto:a@b.example; x=a b", "syntax"),
        (b"v=TLSRPTv1; rua=mailto:a@b.example; x=a=b", "syntax"),
        (b"v=TLSRPTv1; rua=mailto:a@b.example; mailto:x@y.example", "syntax"),
        (b"v=TLSRPTv1; rua=mailto:a;b@c.example", "syntax"),
        (b"v=TLSRPTv1; rua=mailto:a@b.example;" + b" " * abnf.MAX_RECORD, "overlong"),
    ],
)
def test_bad(text: bytes, why: record.Why) -> None:
    assert select([text]) == BadRecord(why)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"v=TLSRPTv1",
        b"v=TLSRPTv1 rua=mailto:a@b.example",
        b"v=TLSRPTv12; rua=mailto:a@b.example",
        b"v=tlsrptv1; rua=mailto:a@b.example",
        b" v=TLSRPTv1; rua=mailto:a@b.example",
        b"rua=mailto:a@b.example; v=TLSRPTv1",
        b"v=spf1 -all",
        b"\xff",
    ],
)
def test_none(text: bytes) -> None:
    assert select([text]) == NoRecord()
    assert select([text, b"v=TLSRPTv1; rua=mailto:a@b.example"]) == Record((AB,))


def test_several_records_are_none() -> None:
    one = b"v=TLSRPTv1; rua=mailto:a@b.example"
    assert select([]) == NoRecord()
    assert select([one, one]) == BadRecord("several")
    assert select([one, b"v=TLSRPTv1;"]) == BadRecord("several")


def test_one_bad_uri_hurts_no_other() -> None:
    text = (
        b"v=TLSRPTv1; rua=mailto:a@, mailto:a@b.example,,http://x.example/,\xfc,"
        b"https://x.example/,mailto:a@b.example!10m, mailto:x@y.example"
    )
    assert select([text]) == Record(
        (AB, https("x.example"), XY),
        (
            Rejected("mailto:a@", "address"),
            Rejected("", "empty"),
            Rejected("http://x.example/", "scheme"),
            Rejected("?", "syntax"),
            Rejected("mailto:a@b.example!10m", "unencoded"),
        ),
    )


def test_a_record_without_a_usable_uri_has_no_destination() -> None:
    assert select([b"v=TLSRPTv1; rua="]) == Record((), (Rejected("", "empty"),))


def test_text_is_fit_to_be_shown() -> None:
    good = select([b"v=TLSRPTv1; rua=mailto:a@b.example,\x1b\xff\r\n" + b"x" * 1000])
    assert isinstance(good, Record)
    assert good.text.startswith("v=TLSRPTv1; rua=mailto:a@b.example,????xx")
    assert len(good.text) == record.MAX_TEXT
    assert good.rejected[0].uri.startswith("????xx")
    assert len(good.rejected[0].uri) < 200
    several = select([b"v=TLSRPTv1;a", b"v=TLSRPTv1;b"])
    assert isinstance(several, BadRecord)
    assert several.text == "v=TLSRPTv1;a | v=TLSRPTv1;b"


def test_the_number_of_uris_is_bounded() -> None:
    def rua(count: int) -> bytes:
        return b"v=TLSRPTv1; rua=" + b",".join(b"mailto:a@h%d.example" % i for i in range(count))

    full = tuple(Mailto(f"a@h{i}.example") for i in range(record.MAX_URIS))
    assert select([rua(record.MAX_URIS)]) == Record(full)
    rest = Rejected(f"mailto:a@h{record.MAX_URIS}.example", "too-many")
    assert select([rua(record.MAX_URIS + 50)]) == Record(full, (rest,))


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("mailto:a@b.example", "a@b.example"),
        ("MAILTO:A@B.Example", "A@b.example"),  # case counts in a local part
        ("MailTo:a@b.example.", "a@b.example"),
        ("mailto:a%40b.example", "a@b.example"),
        ("mailto:a%21b@c.example", "a!b@c.example"),
        ("mailto:a%2Bb@c.example", "a+b@c.example"),
        ("mailto:a+b@c.example", "a+b@c.example"),
        ("mailto:a%25b@c.example", "a%b@c.example"),
        ("mailto:a%2525b@c.example", "a%25b@c.example"),  # decoded once
        ("mailto:a@b.example?subject=x&cc=evil@example.com", "a@b.example"),
        ("mailto:a@b.example?", "a@b.example"),
        ("mailto:a%3Fb@c.example", "a?b@c.example"),
        ("mailto:a@b.example#c", "a@b.example"),
        ("mailto:a.b.c@d.example", "a.b.c@d.example"),
        ("mailto:a@xn--bcher-kva.example", "a@xn--bcher-kva.example"),
        ("mailto:a@b%C3%BCcher.example", "a@xn--bcher-kva.example"),
        (f"mailto:{'a' * 64}@b.example", f"{'a' * 64}@b.example"),
    ],
)
def test_mailto(uri: str, address: str) -> None:
    assert destination(uri) == Mailto(address)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("https://x.example", https("x.example")),
        ("https://x.example/", https("x.example")),
        ("HTTPS://X.Example./Path", https("x.example", "/Path")),
        ("https://x.example:443/", https("x.example")),
        ("https://x.example:/", https("x.example")),
        ("https://x.example:8443", https("x.example", "/", 8443)),
        ("https://x.example:08443/", https("x.example", "/", 8443)),
        ("https://x.example:65535/", https("x.example", "/", 65535)),
        ("https://x.example?a=b", https("x.example", "/?a=b")),
        ("https://x.example/a//b/../c?d?e=/f:@", https("x.example", "/a//b/../c?d?e=/f:@")),
        ("https://x.example/%21%2C%3B%0D%0A", https("x.example", "/%21%2C%3B%0D%0A")),
        ("https://x.example/a#b", https("x.example", "/a")),
        ("https://x.example/@y.example", https("x.example", "/@y.example")),
        ("https://xn--bcher-kva.example/", https("xn--bcher-kva.example")),
    ],
)
def test_https(uri: str, expected: Https) -> None:
    assert destination(uri) == expected


REJECTED: list[tuple[str, record.UriWhy]] = [
    ("", "empty"),
    ("mailto:a@b.example!10m", "unencoded"),
    ("mailto:a@b.example;x", "unencoded"),
    ("mailto:a@b.example,x@y.example", "unencoded"),
    ("https://x.example/!", "unencoded"),
    ("mailto:a b@c.example", "syntax"),
    ("mailto:<a@b.example>", "syntax"),
    ('mailto:"', "syntax"),
    ('mailto:"a"@b.example', "syntax"),
    ("mailto:a@b\u00fccher.example", "syntax"),
    ("mailto:a@b.example\r\nBcc:x@y.example", "syntax"),
    ("mailto:a@b.example\n", "syntax"),
    ("mailto:a@b.example\x00", "syntax"),
    ("mailto:a%4@b.example", "syntax"),
    ("mailto:a%zz@b.example", "syntax"),
    ("https://x.example/a b", "syntax"),
    ("https://x.example/a\r\nHost:y", "syntax"),
    ("https://x.example\\@y.example/", "syntax"),
    ("https://x.example/[", "syntax"),
    ("https://x.example/?a]", "syntax"),
    ("a@b.example", "scheme"),
    ("mailto", "scheme"),
    ("https", "scheme"),
    (":a@b.example", "scheme"),
    ("#mailto:a@b.example", "scheme"),
    ("http://x.example/", "scheme"),
    ("ftp://x.example/", "scheme"),
    ("file:///etc/passwd", "scheme"),
    ("mailto%3Aa@b.example", "scheme"),
    ("mailto:", "address"),
    ("mailto:a", "address"),
    ("mailto:a@", "address"),
    ("mailto:@b.example", "address"),
    ("mailto:a@b", "address"),
    ("mailto:a@localhost", "address"),
    ("mailto:a@[1.2.3.4", "address"),
    ("mailto:a@[192.0.2.1]", "address"),
    ("mailto:a@192.0.2.1", "address"),
    ("mailto:a@b@c.example", "address"),
    ("mailto:.a@b.example", "address"),
    ("mailto:a.@b.example", "address"),
    ("mailto:a..b@c.example", "address"),
    ("mailto:-a@b.example", "address"),
    ("mailto:-oQ%2Ftmp@b.example", "address"),
    ("mailto:a(b)@c.example", "address"),
    ("mailto:a:b@c.example", "address"),
    ("mailto:%22a%22@b.example", "address"),
    ("mailto:a%5C@b.example", "address"),
    ("mailto:a%20b@c.example", "address"),
    ("mailto:a%2Cb@c.example", "address"),
    ("mailto:a@b.example%2Cx@y.example", "address"),
    ("mailto:a%3Bb@c.example", "address"),
    ("mailto:a%3Cb@c.example%3E", "address"),
    ("mailto:a%0D%0ABcc:x@b.example", "address"),
    ("mailto:a@b.example%0D%0ABcc:x", "address"),
    ("mailto:a@b.example%0A", "address"),
    ("mailto:a%00@b.example", "address"),
    ("mailto:a%7F@b.example", "address"),
    ("mailto:%C3%BC@b.example", "address"),  # needs SMTPUTF8, which reports do without
    ("mailto:%FF@b.example", "address"),
    (f"mailto:{'a' * 65}@b.example", "address"),
    (f"mailto:a@{'b' * 64}.example", "address"),
    ("https:", "host"),
    ("https:x.example/", "host"),
    ("https:/x.example/", "host"),
    ("https://", "host"),
    ("https:///x", "host"),
    ("https://:443/", "host"),
    ("https://localhost/", "host"),
    ("https://127.0.0.1/", "host"),
    ("https://127.1/", "host"),
    ("https://2130706433/", "host"),
    ("https://0x7f.1/", "host"),
    ("https://1.0x7f/", "host"),
    ("https://[::1]/", "host"),
    ("https://[::1]:443/", "host"),
    ("https://::1/", "host"),
    ("https://x.example:1:2/", "host"),
    ("https://x..example/", "host"),
    ("https://-x.example/", "host"),
    ("https://x%2Eexample/", "host"),
    ("https://%78.example/", "host"),
    ("https://x$.example/", "host"),
    ("https://user@x.example/", "userinfo"),
    ("https://user:pw@x.example/", "userinfo"),
    ("https://@x.example/", "userinfo"),
    ("https://x.example@127.0.0.1/", "userinfo"),
    ("https://x.example:0/", "port"),
    ("https://x.example:65536/", "port"),
    ("https://x.example:100000/", "port"),
    ("https://x.example:443a/", "port"),
    ("https://x.example:+443/", "port"),
    ("https://x.example:-1/", "port"),
    ("https://x.example:%34/", "port"),
    ("https://x.example/" + "a" * record.MAX_URI, "overlong"),
    # as long as may be, and then a slash comes in
    ("https://x.example?".ljust(record.MAX_URI, "a"), "overlong"),
]


@pytest.mark.parametrize(("uri", "why"), REJECTED)
def test_rejected(uri: str, why: record.UriWhy) -> None:
    got = destination(uri)
    assert isinstance(got, Rejected), got
    assert got.why == why


def test_the_longest_uri() -> None:
    uri = "https://x.example/".ljust(record.MAX_URI, "a")
    assert destination(uri) == https("x.example", uri.removeprefix("https://x.example"))
    assert isinstance(destination(uri + "a"), Rejected)


def test_every_reason_is_tested_and_has_a_section() -> None:
    assert {why for _, why in REJECTED} | {"too-many"} == set(get_args(record.UriWhy))
    sections = {why: section(why) for why in get_args(record.Why) + get_args(record.UriWhy)}
    assert sections["no-rua"] == sections["unencoded"] == "RFC 8460 §3"
    assert sections["address"] == "RFC 6068 §2"
    assert sections["host"] == "RFC 3986 §3.2"
    assert sections["too-many"] == "RFC 8460 §7"


@pytest.mark.parametrize(
    ("value", "uri"),
    [
        (Mailto("a!b@c.example"), "mailto:a%21b@c.example"),
        (Mailto("a%?/#&=b@c.example"), "mailto:a%25%3F%2F%23%26%3Db@c.example"),
        (https("x.example"), "https://x.example/"),
        (https("x.example", "/a?b", 8443), "https://x.example:8443/a?b"),
    ],
)
def test_the_canonical_uri(value: Mailto | Https, uri: str) -> None:
    assert value.uri == uri
    assert destination(uri) == value


def test_the_domain_of_an_address() -> None:
    assert Mailto("a@b.example").domain == "b.example"


# What a hostile record may hold, in pieces that get far into the parser.
PIECE = st.one_of(
    st.sampled_from(
        ["mailto:", "https://", "a", "b.example", "@", ":", "/", "?", "#", "[", "]", "!"]
    ),
    st.sampled_from(["%", "%40", "%0d%0a", "%00", "%22", "%2C", "%C3%BC", "%FF", ",", ".", "-"]),
    st.sampled_from(["443", "\\", "\r\n", " ", '"', "<", "\xfc", "127.0.0.1", "[::1]", "xn--"]),
    st.text(st.characters(max_codepoint=0xFF), max_size=3),
)
URI = st.lists(PIECE, max_size=10).map("".join)

ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[a-z0-9._-]{3,253}", re.ASCII)
URL = re.compile(r"https://[a-z0-9._-]{3,253}(?::[1-9][0-9]{0,4})?/[!-~]*", re.ASCII)


# ... and what is nearly right.
ATOMS = st.text("aZ9!#$%&'*+/=?^_`{|}~.-", min_size=1, max_size=6).map(str.encode)
ENCODED = st.one_of(ATOMS, st.binary(max_size=3)).map(lambda octets: quote(octets, safe=""))
HOST = st.sampled_from(["b.example", "B.Example.", "b%C3%BCcher.example", "b", "1.2.3.4"])
MAILTO = st.builds(lambda local, host: f"mailto:{local}@{host}", ENCODED, HOST)
HTTPS = st.builds(
    lambda host, port, rest: f"https://{host}{port}{rest}",
    HOST,
    st.sampled_from(["", ":", ":443", ":8443", ":0"]),
    st.one_of(st.just(""), URI.map(lambda rest: f"/{rest}"), ENCODED.map(lambda rest: f"?{rest}")),
)
ANY = st.one_of(URI, URI.map(lambda r: f"mailto:{r}"), URI.map(lambda r: f"https://{r}"))


@given(ANY)
def test_any_uri(uri: str) -> None:
    is_safe(destination(uri))


@given(st.one_of(MAILTO, HTTPS))
def test_a_nearly_right_uri(uri: str) -> None:
    is_safe(destination(uri))


def is_safe(got: Mailto | Https | Rejected) -> None:
    match got:
        case Mailto(address=address):
            assert ADDRESS.fullmatch(address)
            assert not address.startswith("-")
            assert names.parse(got.domain) == got.domain
        case Https(url=url, host=host, port=port):
            assert URL.fullmatch(url)
            assert len(url) <= record.MAX_URI
            assert names.parse(host) == host
            assert 0 < port < 65536
            assert not set(url) & set('"\\<>[]!,;#')
        case Rejected(uri=shown, why=why):
            assert why in get_args(record.UriWhy)
            assert not shown or (shown.isascii() and shown.isprintable())
            return
    # What an outbox keeps gives the same value again.
    assert destination(got.uri) == got


@given(st.binary(max_size=200), URI)
def test_any_octets(octets: bytes, uri: str) -> None:
    text = b"v=TLSRPTv1;rua=" + uri.encode("latin-1") + octets
    outcome = select([text])
    assert not isinstance(outcome, NoRecord)
    assert outcome.text.isascii()
    assert outcome.text.isprintable()
    if isinstance(outcome, Record):
        assert len(outcome.destinations) + len(outcome.rejected) <= record.MAX_URIS + 1
        assert len(set(outcome.destinations)) == len(outcome.destinations)
