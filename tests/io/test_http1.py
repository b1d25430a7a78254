"""One exchange fed octets directly: no split and no garbage makes a difference or an exception."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtastsd.net.http1 import MAX_HEAD, Exchange, Head, Response
from mtastsd.sts.failure import MAX_DETAIL, Failure

LIMIT = 100
REQUEST = h11.Request(method="GET", target="/", headers=[("Host", "a.example")])


def exchange(pieces: list[bytes]) -> Response | Failure:
    """What comes of these reads and then the end of the connection."""

    async def main() -> Response | Failure:
        transport = Mock(asyncio.Transport)
        transport.get_extra_info.return_value.read.return_value = b""  # closed within TLS
        link = Exchange(lambda _head: None, LIMIT)
        link.connection_made(transport)
        link.send(REQUEST)
        for piece in pieces:
            link.data_received(piece)
        link.eof_received()
        link.connection_lost(None)
        return await link.result()

    return asyncio.run(main())


WORDS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 \r\n", b"HTTP/1.0 404 x\r\n", b"HTTP/1.1 101 x\r\n",
        b"\r\n", b"\n", b"Content-Length: 5\r\n", b"Content-Length: 99999999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\n", b"Connection: upgrade\r\n", b"Upgrade: x\r\n",
        b"5\r\nabcde\r\n", b"0\r\n", b"0\r\n\r\n", b"ffffffffffffffffffff\r\n", b"abcde",
        b"X: y\r\n", b" folded\r\n", b":\r\n", b"\0", b"\xff", b"x" * LIMIT,
    ]
)  # fmt: skip


def alike(one: Response | Failure, other: Response | Failure) -> bool:
    """The same but for h11's words, which depend on how far it had read when it gave up."""
    if isinstance(one, Failure) and isinstance(other, Failure):
        return one.kind == other.kind
    return one == other


@settings(deadline=None)
@given(st.lists(st.one_of(WORDS, st.binary(max_size=20)), max_size=20))
def test_any_octets_in_any_pieces(words: list[bytes]) -> None:
    whole = exchange([b"".join(words)])
    assert alike(exchange(words), whole)
    assert alike(exchange([bytes((octet,)) for octet in b"".join(words)]), whole)
    if isinstance(whole, Response):
        assert len(whole.body) <= LIMIT
    else:
        assert whole.detail.isascii()
        assert whole.detail.isprintable()
        assert len(whole.detail) <= MAX_DETAIL


def test_head_is_bounded_in_one_read() -> None:
    """h11 itself would take a head of any size that is there whole."""
    fields = b"".join(b"X-%d: y\r\n" % n for n in range(MAX_HEAD // 4))
    got = exchange([b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n"])
    assert isinstance(got, Failure)
    assert got.kind == "protocol"


def test_number_that_h11_does_not_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """h11 0.14 ends in ValueError for a Content-Length that int() refuses."""

    def next_event(_self: h11.Connection) -> h11.Event:
        raise ValueError("Exceeds the limit (4300 digits) for integer string conversion")

    monkeypatch.setattr(h11.Connection, "next_event", next_event)
    assert exchange([b"HTTP/1.1 200 OK\r\n"]) == Failure("protocol", "bad Content-Length")


def test_objection_ends_it() -> None:
    async def main() -> None:
        seen: list[Head] = []

        def objection(head: Head) -> Failure:
            seen.append(head)
            return Failure("status", "500")

        link = Exchange(objection, LIMIT)
        link.connection_made(Mock(asyncio.Transport))
        link.send(REQUEST)
        for _ in range(2):
            link.data_received(b"HTTP/1.1 500 No\r\nX: y\r\nx: z\r\n\r\n" + b"x" * 1000)
        assert await link.result() == Failure("status", "500")
        (head,) = seen
        assert head.values(b"x") == [b"y", b"z"]

    asyncio.run(main())


def test_bug_is_an_exception() -> None:
    async def main() -> None:
        link = Exchange(lambda _head: None, LIMIT)
        link.connection_made(Mock(asyncio.Transport))
        link.connection_lost(KeyError("bug"))
        with pytest.raises(KeyError):
            await link.result()

    asyncio.run(main())


def test_body_follows_the_request() -> None:
    async def main() -> None:
        transport = Mock(asyncio.Transport)
        link = Exchange(lambda _head: None, LIMIT)
        link.connection_made(transport)
        fields = [("Host", "a.example"), ("Content-Length", "3")]
        link.send(h11.Request(method="POST", target="/x", headers=fields), b"abc")
        (written,) = transport.write.call_args.args
        assert written.startswith(b"POST /x HTTP/1.1\r\n")
        assert written.endswith(b"\r\n\r\nabc")

    asyncio.run(main())
