"""Netstrings: the same octets whole, byte by byte and in any pieces."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd.postfix.netstring import Decoder, NetstringError, encode

LIMIT = 120

GOOD: list[tuple[bytes, list[bytes]]] = [
    (b"", []),
    (b"0:,", [b""]),
    (b"5:hello,", [b"hello"]),
    (b"5:hello,5:world,", [b"hello", b"world"]),
    (b"0:,0:,1:,,", [b"", b"", b","]),
    (b"8:5:hello,,", [b"5:hello,"]),
    (b"3:\x00\xff\n,", [b"\x00\xff\n"]),
    (b"120:" + b"x" * 120 + b",", [b"x" * 120]),
]

UNFINISHED = [b"5", b"12", b"5:", b"5:hell", b"5:hello", b"0", b"0:", b"5:hello,1"]

BROKEN = [
    (b":", "length"),
    (b":hello,", "length"),
    (b"hello", "length"),
    (b"GET / HTTP/1.1\r\n", "length"),
    (b"\x16\x03\x01\x02", "length"),  # somebody speaks TLS
    (b" 5:hello,", "length"),
    (b"5 :hello,", "length"),
    (b"+5:hello,", "length"),
    (b"-1:,", "length"),
    (b"1_0:aaaaaaaaaa,", "length"),
    (b"5\n:hello,", "length"),
    (b"\xd9\xa5:hello,", "length"),  # an Arabic five in UTF-8
    (b"\xb2:ab,", "length"),  # a superscript two in Latin-1
    (b"05:hello,", "leading-zero"),
    (b"00:,", "leading-zero"),
    (b"121:", "too-long"),
    (b"121", "too-long"),
    (b"1000", "too-long"),
    (b"9" * 40, "too-long"),
    (b"5:hello;", "terminator"),
    (b"5:hello\n", "terminator"),
    (b"4:hello,", "terminator"),
    (b"0:x", "terminator"),
]


def feed(decoder: Decoder, pieces: Iterable[bytes]) -> list[bytes]:
    return [frame for piece in pieces for frame in decoder.feed(piece)]


def singly(octets: bytes) -> list[bytes]:
    return [octets[i : i + 1] for i in range(len(octets))]


@pytest.mark.parametrize(("octets", "frames"), GOOD)
def test_whole(octets: bytes, frames: list[bytes]) -> None:
    decoder = Decoder(LIMIT)
    assert decoder.feed(octets) == frames
    assert decoder.empty


@pytest.mark.parametrize(("octets", "frames"), GOOD)
def test_byte_by_byte(octets: bytes, frames: list[bytes]) -> None:
    decoder = Decoder(LIMIT)
    assert feed(decoder, singly(octets)) == frames
    assert decoder.empty


@pytest.mark.parametrize("octets", UNFINISHED)
def test_what_is_not_whole_waits(octets: bytes) -> None:
    for pieces in ([octets], singly(octets)):
        decoder = Decoder(LIMIT)
        feed(decoder, pieces)
        assert not decoder.empty


@pytest.mark.parametrize(("octets", "why"), BROKEN)
@pytest.mark.parametrize("before", [b"", b"2:ok,"], ids=["first", "second"])
def test_broken_whole(octets: bytes, why: str, before: bytes) -> None:
    decoder = Decoder(LIMIT)
    with pytest.raises(NetstringError) as caught:
        decoder.feed(before + octets)
    assert caught.value.why == why
    assert caught.value.frames == ((b"ok",) if before else ())


@pytest.mark.parametrize(("octets", "why"), BROKEN)
def test_broken_byte_by_byte(octets: bytes, why: str) -> None:
    decoder = Decoder(LIMIT)
    with pytest.raises(NetstringError) as caught:
        feed(decoder, singly(octets))
    assert caught.value.why == why


def test_nothing_is_understood_after_a_break() -> None:
    decoder = Decoder(LIMIT)
    with pytest.raises(NetstringError):
        decoder.feed(b"2:ok,x")
    with pytest.raises(NetstringError) as caught:
        decoder.feed(b"5:hello,")
    assert caught.value.why == "length"
    assert caught.value.frames == ()  # given once


def test_a_length_over_the_limit_is_refused_before_its_payload_comes() -> None:
    decoder = Decoder(10_000)
    assert decoder.feed(b"1000") == []
    with pytest.raises(NetstringError, match="too-long"):
        decoder.feed(b"1:")


def test_the_buffer_never_holds_more_than_one_frame() -> None:
    decoder = Decoder(LIMIT)
    frame = encode(b"x" * LIMIT)
    stream = frame * 50 + frame[:-1]
    for piece in singly(stream):
        decoder.feed(piece)
        assert len(decoder._buffer) < len(frame)
    assert decoder.feed(b",") == [b"x" * LIMIT]
    assert decoder.feed(frame * 50 + b"1") == [b"x" * LIMIT] * 50
    assert len(decoder._buffer) == 1


@given(st.lists(st.binary(max_size=LIMIT), max_size=6), st.data())
def test_pieces_of_any_size_make_no_difference(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(encode, payloads))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert feed(Decoder(LIMIT), pieces) == payloads
    assert feed(Decoder(LIMIT), singly(stream)) == payloads
    assert Decoder(LIMIT).feed(stream) == payloads


@given(st.lists(st.sampled_from([b"0", b"1", b"2", b":", b",", b"x"]), max_size=24).map(b"".join))
def test_whole_and_byte_by_byte_agree_on_any_octets(octets: bytes) -> None:
    def outcome(pieces: list[bytes]) -> tuple[list[bytes], str]:
        decoder, frames = Decoder(12), list[bytes]()
        try:
            for piece in pieces:
                frames += decoder.feed(piece)
        except NetstringError as error:
            return [*frames, *error.frames], error.why
        return frames, "" if decoder.empty else "unfinished"

    assert outcome([octets]) == outcome(singly(octets))


def test_encode() -> None:
    assert encode(b"") == b"0:,"
    assert encode(b"OK dane-only") == b"12:OK dane-only,"
