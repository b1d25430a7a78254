"""socketmap: requests and replies as octets."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd.postfix import netstring, socketmap
from mtastsd.postfix.socketmap import MAX_MAP_NAME, MAX_REPLY, BadRequest, Query, parse


@pytest.mark.parametrize(
    ("payload", "query"),
    [
        (b"postfix example.com", Query("postfix", b"example.com")),
        (b"postfix-tlsrpt [a.test]:587", Query("postfix-tlsrpt", b"[a.test]:587")),
        (b"QUERY ", Query("QUERY", b"")),
        (b" example.com", Query("", b"example.com")),
        (b" ", Query("", b"")),
        (b"a  b", Query("a", b" b")),
        (b"a b c", Query("a", b"b c")),
        (b"a \xff\x00\n", Query("a", b"\xff\x00\n")),
        (b"a\tb c", Query("a?b", b"c")),
        (b"a\nMAIL FROM:<x> c", Query("a?MAIL", b"FROM:<x> c")),
        (b"\x1b[31mred c", Query("?[31mred", b"c")),
        ("kärtchen c".encode(), Query("k??rtchen", b"c")),
        (b"x" * 64 + b" c", Query("x" * 64, b"c")),
        (b"x" * 65 + b" c", Query("x" * 64, b"c")),
    ],
)
def test_request(payload: bytes, query: Query) -> None:
    assert parse(payload) == query


@pytest.mark.parametrize("payload", [b"", b"example.com", b"postfix\texample.com", b"\xff"])
def test_a_request_without_a_blank_is_bad(payload: bytes) -> None:
    assert parse(payload) == BadRequest("no-key")


@given(st.binary(max_size=200))
def test_a_map_name_is_safe_to_log(payload: bytes) -> None:
    request = parse(payload)
    if isinstance(request, Query):
        assert re.fullmatch(r"[!-~]*", request.map_name)
        assert len(request.map_name) <= MAX_MAP_NAME
        assert payload.endswith(b" " + request.key)
    else:
        assert b" " not in payload


def test_replies() -> None:
    assert socketmap.ok("dane-only") == b"OK dane-only"
    assert socketmap.ok("secure match=grün") == "OK secure match=grün".encode()
    assert socketmap.notfound() == b"NOTFOUND "
    assert socketmap.temp("internal error") == b"TEMP internal error"
    assert socketmap.perm("no key") == b"PERM no key"


@pytest.mark.parametrize("make", [socketmap.temp, socketmap.perm])
def test_a_reason_is_one_short_printable_line(make: object) -> None:
    assert callable(make)
    payload = make("a\r\nOK may\x00 ü " + "x" * 1000)
    assert re.fullmatch(rb"(?:TEMP|PERM) a\?\?OK may\? \? x+", payload)
    assert len(payload) == len("TEMP ") + socketmap.MAX_REASON


def test_the_longest_reply_that_postfix_takes() -> None:
    assert len(socketmap.ok("x" * (MAX_REPLY - 3))) == MAX_REPLY


@pytest.mark.parametrize("text", ["", "x" * (MAX_REPLY - 2), "ü" * (MAX_REPLY // 2)])
def test_text_that_would_defer_mail_without_a_word_says_why(text: str) -> None:
    assert socketmap.ok(text) == b"TEMP no policy text that fits a reply"


def test_a_reply_in_its_frame() -> None:
    assert netstring.encode(socketmap.notfound()) == b"9:NOTFOUND ,"
