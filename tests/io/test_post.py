"""Posting reports to receivers on loopback: what they say, how they fail."""

from __future__ import annotations

import asyncio

import pytest

from mtastsd.answers import Answer, NoData
from mtastsd.net import post
from mtastsd.net.https import USER_AGENT
from mtastsd.ports import Outcome, Sent
from mtastsd.tlsrpt import record
from tests.io.fakehttps import FakeHttps, Peer, Script
from tests.io.fetching import Loop, Names, loop, run
from tests.io.posting import BODY, HOST, MEDIA_TYPE, Sink, poster, send, status, url

__all__ = ["loop"]


async def said(script: Script) -> Sent:
    """What comes of a receiver with this script."""
    async with FakeHttps() as world:
        await world.serve(HOST, script)
        return await send(world)


# ---- what is sent


@pytest.mark.parametrize(
    ("rest", "target"),
    [
        ("/v1/tls-rpt", "/v1/tls-rpt"),
        ("", "/"),
        ("?key=a&b=%2C", "/?key=a&b=%2C"),
        ("/a//../b?c=/d#e", "/a//../b?c=/d"),
    ],
)
def test_the_request(loop: Loop, rest: str, target: str) -> None:
    async def main() -> None:
        sink = Sink(status(b"200 OK"))
        async with FakeHttps() as world:
            address = await world.serve(HOST, sink)
            by = poster(world)
            sent = await by.post(url(world, rest), BODY, media_type=MEDIA_TYPE)
            assert sent == Sent("delivered", "200")
            assert sink.bodies == [BODY]
            [hit] = world.hits
            assert (hit.sni, hit.address) == (HOST, address)
            first, *fields = hit.request.decode("ascii").split("\r\n")[:-2]
            assert first == f"POST {target} HTTP/1.1"
            assert {f.partition(": ")[0].lower(): f.partition(": ")[2] for f in fields} == {
                "host": f"{HOST}:{world.port}",
                "user-agent": USER_AGENT,
                "content-type": MEDIA_TYPE,
                "content-length": str(len(BODY)),
                "accept": "*/*",
                "accept-encoding": "identity",
                "connection": "close",
            }

    run(loop, main())


def test_the_usual_port_is_not_named() -> None:
    to = record.destination(f"https://{HOST}:443/x")
    assert isinstance(to, record.Https)
    assert (b"host", HOST.encode()) in list(post._request(to, 1, MEDIA_TYPE).headers)


@pytest.mark.parametrize(
    "odd",
    [
        "http://reports.example.org/",
        "mailto:a@example.org",
        "https://192.0.2.1/",
        "https://[::1]/",
        "https://localhost/",
        "https://user@reports.example.org/",
        "https://reports.example.org/ HTTP/1.1\r\nX: y",
        "https://reports.example.org/ä",
        "",
    ],
)
async def test_no_url(odd: str) -> None:
    async with FakeHttps() as world:
        names = Names(NoData(False, 60, False))
        sent = await poster(world, names=names).post(odd, BODY, media_type=MEDIA_TYPE)
        assert sent.outcome == "never"
        assert sent.detail.isprintable()
        assert not names.asked


def test_a_large_report(loop: Loop) -> None:
    async def main() -> None:
        large = bytes(range(256)) * 40_000 + b"end"
        sink = Sink(status(b"201 Created"))
        async with FakeHttps() as world:
            await world.serve(HOST, sink)
            assert await send(world, body=large) == Sent("delivered", "201")
        assert sink.bodies == [large]

    run(loop, main())


# ---- what a receiver says

ELSEWHERE = b"Location: https://elsewhere.example.net/x"

ANSWERS: list[tuple[bytes, Outcome, str]] = [
    (status(b"200 OK"), "delivered", "200"),
    (status(b"201 Created", ELSEWHERE), "delivered", "201"),
    (status(b"202 Accepted", body=b"queued"), "delivered", "202"),
    (b"HTTP/1.1 204 No Content\r\n\r\n", "delivered", "204"),
    (b"HTTP/1.0 200 OK\r\n\r\n", "delivered", "200"),
    (b"HTTP/1.1 100 Continue\r\n\r\n" + status(b"200 OK"), "delivered", "200"),
    (status(b"299 Odd"), "delivered", "299"),
    (status(b"300 Choices"), "never", "300"),
    *[
        (status(b"%d Go" % code, ELSEWHERE), "never", f"{code}, https://elsewhere.example.net/x")
        for code in (301, 302, 303, 307, 308)
    ],
    (status(b"302 Go", b"Location: /x\x80"), "never", "302, /x?"),
    (status(b"304 Not Modified"), "never", "304"),
    (status(b"400 Bad Request", body=b"not\r\ngzip\x1b"), "never", "400, not? gzip?"),
    *[(status(b"%d No" % code), "never", str(code)) for code in (401, 403, 404, 405, 409, 410)],
    *[(status(b"%d No" % code), "never", str(code)) for code in (413, 415, 422, 451, 499)],
    *[(status(b"%d Wait" % code), "later", str(code)) for code in (408, 421, 425, 429)],
    (status(b"429 Wait", b"Retry-After: 3600"), "later", "429, retry after 3600"),
    (
        status(b"503 Wait", b"Retry-After: Fri, 02 Jan 2026 03:04:05 GMT", body=b"busy"),
        "later",
        "503, retry after Fri, 02 Jan 2026 03:04:05 GMT, busy",
    ),
    (
        status(b"503 Wait", b"Retry-After: " + b"9" * 1000),
        "later",
        "503, retry after " + "9" * post.MAX_TEXT,
    ),
    *[(status(b"%d Down" % code), "later", str(code)) for code in (500, 501, 502, 504, 507, 599)],
    (status(b"500 Down", body=b"x" * 10_000), "later", "500"),
    (b"HTTP/1.1 500 Down\r\n\r\n", "later", "500"),
    (b"HTTP/1.1 404 No\r\nContent-Length: 100\r\n\r\nhalf", "never", "404"),
    (b"", "later", "protocol: closed without a response"),
    (b"HTTP/1.1 200 OK\r\n", "later", "protocol: "),
    (b"SSH-2.0-OpenSSH\r\n\r\n", "later", "protocol: "),
    (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "later", "protocol: "),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 5000, "later", "protocol: "),
]


@pytest.mark.parametrize(("answer", "outcome", "detail"), ANSWERS, ids=lambda v: str(v)[:40])
def test_answers(loop: Loop, answer: bytes, outcome: Outcome, detail: str) -> None:
    async def main() -> None:
        sent = await said(Sink(answer))
        assert sent.outcome == outcome
        assert sent.detail == detail or (detail.endswith(": ") and sent.detail.startswith(detail))
        assert sent.detail.isascii()
        assert sent.detail.isprintable()

    run(loop, main())


def test_a_redirect_is_not_followed(loop: Loop) -> None:
    async def main() -> None:
        async with FakeHttps() as world:
            other = await world.serve("elsewhere.example.net", Sink(status(b"200 OK")))
            for place in (f"https://elsewhere.example.net:{world.port}/", url(world), "/"):
                moved = status(b"308 Moved", b"Location: " + place.encode())
                world.addresses[HOST] = []
                await world.serve(HOST, Sink(moved))
                names = Names(Answer((*world.addresses[HOST], other), 60, False, HOST))
                assert (await send(world, poster(world, names=names))).outcome == "never"
                assert names.asked == [f"A {HOST}"]
            assert len(world.hits) == 3
            assert other not in world.connections

    run(loop, main())


# ---- how they fail


def after(data: bytes, do: Script) -> Script:
    """Read the request, send these octets, then do that."""

    async def script(peer: Peer) -> None:
        await Sink(b"").read(peer)
        await peer.send(data)
        await do(peer)

    return script


async def reset(peer: Peer) -> None:
    peer.reset()


async def cut(peer: Peer) -> None:
    peer.cut()


async def wait(peer: Peer) -> None:
    await peer.gone()


BROKEN: list[tuple[Script, Outcome, str]] = [
    (after(b"", reset), "later", "connect: "),
    (after(b"", cut), "later", "connect: "),
    (after(b"HTTP/1.1 200 OK\r\nContent-", cut), "later", "connect: "),
    (after(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", cut), "delivered", "200"),
    (after(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", wait), "delivered", "200"),
    (after(b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\nhalf", cut), "never", "404"),
]


@pytest.mark.parametrize(("script", "outcome", "detail"), BROKEN)
def test_broken(loop: Loop, script: Script, outcome: Outcome, detail: str) -> None:
    async def main() -> None:
        sent = await said(script)
        assert sent.outcome == outcome
        assert sent.detail.startswith(detail)

    run(loop, main())


SILENT: dict[str, tuple[Script, bool, Sent]] = {
    "handshake": (wait, False, Sent("later", "timeout: connect")),
    "response": (after(b"", wait), True, Sent("later", "timeout: response")),
    "head": (after(b"HTTP/1.1 200 OK\r\n", wait), True, Sent("later", "timeout: response")),
    "body": (
        after(b"HTTP/1.1 503 Wait\r\nContent-Length: 9\r\n\r\nhalf", wait),
        True,
        Sent("later", "503"),
    ),
    "refusal": (
        after(b"HTTP/1.1 400 No\r\nContent-Length: 9\r\n\r\nhalf", wait),
        True,
        Sent("never", "400"),
    ),
}


def test_silent(loop: Loop) -> None:
    """All of them side by side, so that the time-out is waited for once."""

    async def one(name: str) -> None:
        script, tls, outcome = SILENT[name]
        async with FakeHttps() as world:
            await (world.serve if tls else world.serve_raw)(HOST, script)
            assert await send(world, poster(world, timeout=0.5)) == outcome
            await world.dropped.get()  # nothing stays open

    async def main() -> None:
        await asyncio.gather(*[one(name) for name in SILENT])

    run(loop, main())


def test_a_receiver_that_stops_reading(loop: Loop) -> None:
    async def main() -> None:
        over = asyncio.Event()

        async def script(peer: Peer) -> None:
            await over.wait()
            read = 0
            while data := await peer.receive():
                read += len(data)
            total.append(read)

        total: list[int] = []
        large = bytes(50_000_000)
        async with FakeHttps() as world:
            await world.serve(HOST, script)
            sent = await send(world, poster(world, timeout=1.0), large)
            assert sent == Sent("later", "timeout: request")
            over.set()
            await world.dropped.get()
        assert sum(total) < len(large)

    run(loop, main())


@pytest.mark.parametrize(
    ("answer", "outcome", "detail"),
    [
        (status(b"413 Too Large"), "never", "413 before the report was sent"),
        (status(b"503 Busy"), "later", "503 before the report was sent"),
        # who says yes to what it has not read has not got it
        (status(b"200 OK"), "later", "200 before the report was sent"),
    ],
)
def test_answered_too_soon(loop: Loop, answer: bytes, outcome: Outcome, detail: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(answer)
        await peer.gone()

    async def main() -> None:
        async with FakeHttps() as world:
            await world.serve(HOST, script)
            assert await send(world, body=bytes(50_000_000)) == Sent(outcome, detail)

    run(loop, main())


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 400 No\r\nContent-Length: 9\r\n\r\nhalf"])
def test_cancelled(loop: Loop, data: bytes) -> None:
    async def main() -> None:
        reached = asyncio.Event()

        async def waiting(peer: Peer) -> None:
            reached.set()
            await peer.gone()

        async with FakeHttps() as world:
            await world.serve(HOST, after(data, waiting))
            task = asyncio.ensure_future(send(world))
            await reached.wait()
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            await world.dropped.get()

    run(loop, main())
