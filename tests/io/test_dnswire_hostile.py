"""Responses that are not what they should be: which fit a query, and that none raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd.answers import Answer, DnsError, NoData
from mtastsd.net import dnswire as wire
from tests.io.test_dnswire import SOA, VALUES, asked, respond, wire_text

# -- which responses fit

GOOD = respond("example.com", "MX", [("example.com", "MX", "10 mx.example.com.")])
QUESTION_END = 12 + len(b"\x07example\x03com\0") + 4

# what is done to GOOD, and whether it still fits
FITS: list[tuple[Callable[[bytes], bytes], bool]] = [
    (lambda m: m, True),
    (
        lambda m: m[:12] + m[12:QUESTION_END].replace(b"example", b"EXamPLE") + m[QUESTION_END:],
        True,
    ),
    (lambda m: b"\0\0" + m[2:], False),
    (lambda m: m[:2] + bytes((m[2] & 0x7F,)) + m[3:], False),  # a query
    (lambda m: m[:2] + bytes((m[2] | 0x28,)) + m[3:], False),  # an update
    (lambda m: m[:4] + b"\0\0" + m[6:], False),
    (lambda m: m[:4] + b"\0\2" + m[6:], False),
    (lambda m: m.replace(b"example", b"exbmple"), False),
    (lambda m: m[: QUESTION_END - 4] + b"\0\x10\0\1" + m[QUESTION_END:], False),  # type
    (lambda m: m[: QUESTION_END - 4] + b"\0\x0f\0\3" + m[QUESTION_END:], False),  # class
    (lambda m: m[: QUESTION_END - 1], False),
    (lambda m: b"", False),
    (lambda m: m[:12], False),
]


@pytest.mark.parametrize(("change", "fits"), FITS)
def test_which_messages_fit_a_query(change: Callable[[bytes], bytes], fits: bool) -> None:
    assert wire.matches(asked("example.com", wire.MX), 4711, change(GOOD)) is fits


@pytest.mark.parametrize("cut", range(QUESTION_END, len(GOOD)))
def test_a_cut_response_is_malformed(cut: int) -> None:
    question = asked("example.com", wire.MX)
    assert wire.matches(question, 4711, GOOD[:cut])
    assert wire.read(question, wire.MX.value, GOOD[:cut]) == DnsError("malformed")


# -- whatever comes

SEEDS = [
    (kind, name, respond(name, wire_text(kind), answer, [SOA], ttl=ttl, ad=True))
    for kind, name, answer, ttl, _ in VALUES
]


@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=4)), max_size=6),
    cut=st.one_of(st.none(), st.integers(0, 400)),
    tail=st.binary(max_size=30),
)
def test_no_response_raises(
    seed: tuple[wire.Kind[Any], str, bytes],
    edits: list[tuple[int, bytes]],
    cut: int | None,
    tail: bytes,
) -> None:
    kind, name, good = seed
    question = asked(name, kind)
    head, body = good[:12], bytearray(good[12 + len(question.section) :])
    for at, octets in edits:
        at %= len(body)
        body[at : at + len(octets)] = octets
    message = head + question.section + bytes(body)[:cut] + tail
    assert wire.matches(question, 4711, message)
    found = wire.read(question, kind.value, message)
    assert isinstance(found, Answer | NoData | DnsError)
    if isinstance(found, Answer):
        assert found.records
        assert found.ttl >= 0
        assert found.name.isascii()


@given(
    seed=st.sampled_from(SEEDS),
    counts=st.tuples(*[st.integers(0, 5)] * 3),
    flags=st.binary(min_size=2, max_size=2),
)
def test_no_header_raises(
    seed: tuple[wire.Kind[Any], str, bytes], counts: tuple[int, int, int], flags: bytes
) -> None:
    kind, name, good = seed
    numbers = b"".join(n.to_bytes(2, "big") for n in counts)
    message = good[:2] + flags + good[4:6] + numbers + good[12:]
    question = asked(name, kind)
    wire.truncated(message)
    if wire.matches(question, 4711, message):
        found = wire.read(question, kind.value, message)
        assert isinstance(found, Answer | NoData | DnsError)


@given(message=st.binary(max_size=600))
def test_no_datagram_raises(message: bytes) -> None:
    assert wire.matches(wire.ROOT_SOA, 4711, message) in (True, False)


@given(name=st.text(max_size=300))
def test_no_name_raises(name: str) -> None:
    question = wire.question(name, 16)
    if question is not None:
        parsed = dns.message.from_wire(wire.query(question, 1)).question[0].name
        assert parsed.to_text(omit_final_dot=True) == question.name
