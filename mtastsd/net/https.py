"""The policy of a domain by HTTPS GET, RFC 8461 §3.3.

No redirects, no proxies from the environment, 200 and text/plain only, everything bounded: the
policy host is whatever the domain's owner says it is.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from dataclasses import dataclass

import h11

from mtastsd import __version__
from mtastsd.names import Domain, child
from mtastsd.net.connect import Addresses, Link, Target, client_context, dial, reachable
from mtastsd.net.http1 import Exchange, Head, Response
from mtastsd.ports import Clock, Fetched, FetchOutcome, Resolver
from mtastsd.sts.failure import Failure, printable

PORT = 443
PATH = "/.well-known/mta-sts.txt"

USER_AGENT = f"mtastsd/{__version__}"
"""Some hosts refuse requests without one, and their operators should be able to tell who asks."""

_TEXT_PLAIN = re.compile(rb"text/plain[ \t]*(?:;.*)?", re.IGNORECASE | re.DOTALL)

_WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
"""Content codings that are undone, RFC 9110 §8.4.1, with zlib's word for each."""

RAW_DEFLATE = -15
"""Window bits of a deflate stream without its zlib header, which some servers send."""


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """`[fetch]` of the configuration.

    `timeout` in seconds holds for the whole fetch, DNS included. `max_bytes` bounds the body both
    as sent and as decoded. `ca_file`: authorities that are trusted beside the system's.
    """

    timeout: float = 60.0
    max_bytes: int = 65536
    allow_private_addresses: bool = False
    ca_file: str = ""


class HttpsPolicyFetcher:
    """`ports.PolicyFetcher`. Holds the one TLS context and nothing of any fetch.

    Raises OSError where `ca_file` can't be used. `port` is for tests.
    """

    def __init__(
        self, settings: FetchSettings, resolver: Resolver, clock: Clock, *, port: int = PORT
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._clock = clock
        self._port = port
        self._context = client_context(settings.ca_file)

    def configure(self, settings: FetchSettings) -> None:
        """Use these settings from now on; trust store and `ca_file` are read again.

        Raises OSError where `ca_file` can't be used; the old settings then stay.
        """
        self._context = client_context(settings.ca_file)
        self._settings = settings

    async def fetch(self, domain: Domain) -> FetchOutcome:
        """GET the policy of `domain`. The outcome is a value; nothing stays open afterwards.

        A `timeout` names where the time was up: dns, connect (with the TLS handshake) or response.
        """
        host = child("mta-sts", domain)
        stage = "dns"
        try:
            async with asyncio.timeout(self._settings.timeout) as deadline:
                addresses = await reachable(
                    self._resolver, host, allow_private=self._settings.allow_private_addresses
                )
                if isinstance(addresses, Failure):
                    return addresses
                stage = "connect"
                link = await self._dial(host, addresses)
                if isinstance(link, Failure):
                    return link
                stage = "response"
                outcome = await self._get(host, link)
        except TimeoutError:
            if not deadline.expired():
                raise
            return Failure("timeout", stage)
        if isinstance(outcome, Failure):
            return outcome
        return _decoded(outcome, self._settings.max_bytes)

    async def _dial(self, host: str, addresses: Addresses) -> Link[Exchange] | Failure:
        limit = self._settings.max_bytes
        # asyncio's own handshake limit must not come before the deadline.
        target = Target(host, self._port, self._context, self._settings.timeout + 1.0)
        return await dial(
            addresses,
            target,
            lambda: Exchange(lambda head: _objection(head, limit), limit),
            self._clock,
        )

    async def _get(self, host: str, link: Link[Exchange]) -> Response | Failure:
        try:
            link.protocol.send(
                h11.Request(
                    method="GET",
                    target=PATH,
                    headers=[
                        ("Host", host if self._port == PORT else f"{host}:{self._port}"),
                        ("User-Agent", USER_AGENT),
                        ("Accept", "text/plain"),
                        # A policy is some hundred octets; what comes coded all the same is decoded.
                        ("Accept-Encoding", "identity"),
                        ("Connection", "close"),
                    ],
                )
            )
            return await link.protocol.result()
        finally:
            link.abort()


def _objection(head: Head, limit: int) -> Failure | None:
    """What of the head alone says that this is no policy, RFC 8461 §3.3."""
    if 300 <= head.status < 400:
        places = b" ".join([b"", *head.values(b"location")]).decode("latin-1")
        return Failure("redirect", printable(f"{head.status}{places}"))
    if head.status != 200:
        return Failure("status", str(head.status))
    types = head.values(b"content-type")
    if not types:
        return Failure("type", "missing")
    for value in types:
        if not _TEXT_PLAIN.fullmatch(value):
            return Failure("type", printable(value.decode("latin-1")))
    coding = _coding(head)
    if isinstance(coding, Failure):
        return coding
    for value in head.values(b"content-length"):
        if int(value) > limit:  # h11 has checked that these are digits, and not many
            return Failure("size", printable(f"Content-Length {value.decode('latin-1')}"))
    return None


def _coding(head: Head) -> bytes | Failure:
    """The one content coding, lower case, empty for identity; several are refused."""
    listed = b",".join(head.values(b"content-encoding")).lower().split(b",")
    codings = [c for c in (token.strip(b" \t") for token in listed) if c not in (b"", b"identity")]
    if not codings:
        return b""
    if len(codings) == 1 and codings[0] in _WINDOW_BITS:
        return codings[0]
    return Failure("encoding", printable(b", ".join(codings).decode("latin-1")))


def _decoded(response: Response, limit: int) -> FetchOutcome:
    coding = _coding(response.head)
    if isinstance(coding, Failure):
        return coding
    if not coding:
        return Fetched(response.body)
    bits = _WINDOW_BITS[coding]
    if coding == b"deflate" and not _has_zlib_header(response.body):
        bits = RAW_DEFLATE
    return _inflated(response.body, bits, limit)


def _has_zlib_header(body: bytes) -> bool:
    """RFC 1950 §2.2: method 8, and the first two octets a multiple of 31."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0


def _inflated(body: bytes, bits: int, limit: int) -> FetchOutcome:
    inflater = zlib.decompressobj(bits)
    try:
        # Never more than this in memory, whatever a bomb would expand to.
        out = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        return Failure("encoding", printable(str(error)))
    if len(out) > limit:
        return Failure("size", f"more than {limit} octets decoded")
    if not inflater.eof:
        return Failure("encoding", "truncated")
    if inflater.unused_data:
        return Failure("encoding", "data behind the end")
    return Fetched(out)
