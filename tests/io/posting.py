"""A poster in a fake world, and a receiver that takes what it posts."""

from __future__ import annotations

import gzip
import re

from mtastsd.answers import Answer
from mtastsd.net.post import HttpsPoster, PostSettings
from mtastsd.ports import Sent
from tests.io.fakehttps import FakeHttps, Peer
from tests.io.fetching import Hasty, Names, Patient

HOST = "reports.example.org"
BODY = gzip.compress(b'{"organization-name":"x"}', mtime=0)
MEDIA_TYPE = "application/tlsrpt+gzip"


class Sink:
    """Reads a whole request, keeps its body, then answers with these octets."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.bodies: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        await self.read(peer)
        await peer.send(self.answer)

    async def read(self, peer: Peer) -> None:
        length = re.search(rb"\r\nContent-Length: ([0-9]+)\r\n", peer.request, re.IGNORECASE)
        assert length
        body = b""
        while len(body) < int(length[1]) and (data := await peer.receive()):
            body += data
        self.bodies.append(body)


def status(line: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    lines = [b"HTTP/1.1 " + line, b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def poster(
    world: FakeHttps,
    *,
    untrusted: bool = False,
    private: bool = True,
    timeout: float = 20.0,
    names: Names | None = None,
    clock: Hasty | None = None,
) -> HttpsPoster:
    found = Answer(tuple(world.addresses.get(HOST, ())), 60, False, HOST)
    settings = PostSettings(untrusted, private, world.ca_file, timeout)
    return HttpsPoster(settings, names or Names(found), clock or Patient())


def url(world: FakeHttps, rest: str = "/v1/tls-rpt") -> str:
    return f"https://{HOST}:{world.port or 1}{rest}"


async def send(world: FakeHttps, by: HttpsPoster | None = None, body: bytes = BODY) -> Sent:
    return await (by or poster(world)).post(url(world), body, media_type=MEDIA_TYPE)
