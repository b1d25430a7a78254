"""Reports by HTTPS POST, RFC 8460 §5.4, to a URL that a stranger's DNS record names.

What holds for a policy fetch holds here: addresses are judged, the connection goes to the very
address that was judged, no proxies, no redirects. A redirect is a "never": the record names the
URL, its owner can change it, and following it would let one host send us to any other.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass

import h11

from mtastsd.net.connect import Addresses, Link, Target, client_context, dial, reachable
from mtastsd.net.http1 import Exchange, Head, Response
from mtastsd.net.https import USER_AGENT
from mtastsd.ports import Clock, Outcome, Resolver, Sent
from mtastsd.sts.failure import Failure, printable
from mtastsd.tlsrpt import record
from mtastsd.tlsrpt.record import HTTPS_PORT, Https

TIMEOUT = 120.0
"""Seconds for a whole POST, DNS included: ten megabytes take 0.7 Mbit/s then."""

PIECE = 65536
"""Octets that are encrypted and written at once, 0.1 ms; others have their turn in between."""

MAX_BODY = 4096
"""Octets of a response's body that are read, to see what a receiver has against a report."""

MAX_TEXT = 120
"""Characters kept of a receiver's words."""

LATER = frozenset({408, 421, 425, 429})
"""4xx that speak of the moment or the connection, not of the report: RFC 9110 §15.5, and 425 Too
Early, 429 Too Many Requests. All of 5xx is "later" as well (RFC 8460 §5.5)."""


@dataclass(frozen=True, slots=True)
class PostSettings:
    """`[report]` and `[fetch]`, what of them holds for a POST. `timeout` in seconds is for all.

    `untrusted`: a server whose certificate can't be verified gets the report all the same, which
    RFC 8460 §3 allows.
    """

    untrusted: bool = False
    allow_private_addresses: bool = False
    ca_file: str = ""
    timeout: float = TIMEOUT


@dataclass(slots=True)
class _Trace:
    """How far a POST has come, for what is told of it when it ends."""

    stage: str = "dns"
    upload: Upload | None = None
    distrust: str = ""


class HttpsPoster:
    """`ports.Poster`. Holds TLS contexts and nothing of any report.

    Raises OSError where `ca_file` can't be used.
    """

    def __init__(self, settings: PostSettings, resolver: Resolver, clock: Clock) -> None:
        self._resolver = resolver
        self._clock = clock
        self.configure(settings)

    def configure(self, settings: PostSettings) -> None:
        """Use these settings from now on; trust store and `ca_file` are read again.

        Raises OSError where `ca_file` can't be used; the old settings then stay.
        """
        self._verifying = client_context(settings.ca_file)
        self._settings = settings

    async def post(self, url: str, body: bytes, *, media_type: str) -> Sent:
        """POST `body`. 2xx is "delivered", as soon as the receiver has said so.

        "never" is what the receiver says no to for good, and where no address of it may be
        connected to; a certificate that can't be verified is mended more often than not: "later".
        """
        to = record.destination(url)
        if not isinstance(to, Https):
            return Sent("never", printable(f"no URL to post to: {url}"))
        trace = _Trace()
        try:
            async with asyncio.timeout(self._settings.timeout) as deadline:
                outcome = await self._try(to, body, media_type, trace)
        except TimeoutError:
            if not deadline.expired():
                raise
            outcome = Failure("timeout", trace.stage)
        return _sent(outcome, trace)

    async def _try(
        self, to: Https, body: bytes, media_type: str, trace: _Trace
    ) -> Response | Failure:
        private = self._settings.allow_private_addresses
        addresses = await reachable(self._resolver, to.host, allow_private=private)
        if isinstance(addresses, Failure):
            return addresses
        trace.stage = "connect"
        link = await self._dial(to, addresses, self._verifying)
        if isinstance(link, Failure) and link.kind == "tls" and self._settings.untrusted:
            trace.distrust = link.detail
            link = await self._dial(to, addresses, _blind_context())
        if isinstance(link, Failure):
            return link
        trace.upload = link.protocol
        try:
            trace.stage = "request"
            await link.protocol.upload(_request(to, len(body), media_type), body)
            trace.stage = "response"
            return await link.protocol.result()
        finally:
            link.abort()

    async def _dial(
        self, to: Https, addresses: Addresses, context: ssl.SSLContext
    ) -> Link[Upload] | Failure:
        # asyncio's own handshake limit must not come before the deadline.
        target = Target(to.host, to.port, context, self._settings.timeout + 1.0)
        return await dial(addresses, target, Upload, self._clock)


def _blind_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _request(to: Https, length: int, media_type: str) -> h11.Request:
    authority = to.url.removeprefix("https://").partition("/")[0]
    return h11.Request(
        method="POST",
        target=to.url.removeprefix(f"https://{authority}"),
        headers=[
            ("Host", to.host if to.port == HTTPS_PORT else f"{to.host}:{to.port}"),
            ("User-Agent", USER_AGENT),
            ("Content-Type", media_type),
            ("Content-Length", str(length)),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ],
    )


class Upload(Exchange):
    """A request with a body that goes out as fast as the peer takes it.

    `answer` is the head of the response once it is there, `whole` whether all was written.
    """

    def __init__(self) -> None:
        super().__init__(self._note, MAX_BODY)
        self.answer: Head | None = None
        self.whole = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._outcome.add_done_callback(lambda _: self._writable.set())

    async def upload(self, request: h11.Request, body: bytes) -> None:
        """Write the request; returns early when the exchange has ended before."""
        assert self._transport is not None
        self._transport.write(self._h11.send(request) or b"")
        for start in range(0, len(body), PIECE):
            piece = h11.Data(data=body[start : start + PIECE])
            self._transport.write(self._h11.send(piece) or b"")
            await asyncio.sleep(0)
            await self._writable.wait()
            if self._outcome.done():
                return
        self._transport.write(self._h11.send(h11.EndOfMessage()) or b"")
        self.whole = True

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _note(self, head: Head) -> Failure | None:
        self.answer = head
        # Nothing in a body could take back a 2xx, but the connection might break meanwhile.
        return Failure("status", str(head.status)) if 200 <= head.status < 300 else None


def _sent(outcome: Response | Failure, trace: _Trace) -> Sent:
    distrust = f" (untrusted certificate: {trace.distrust})" if trace.distrust else ""
    if trace.upload is not None and trace.upload.answer is not None:
        head = trace.upload.answer
        words = _words(head, outcome)
        if not trace.upload.whole:
            words += " before the report was sent"
        return Sent(_verdict(head.status, trace.upload.whole), printable(words) + distrust)
    assert isinstance(outcome, Failure)
    refused = outcome.kind == "address"
    return Sent("never" if refused else "later", f"{outcome}{distrust}")


def _verdict(status: int, whole: bool) -> Outcome:
    if 200 <= status < 300:
        return "delivered" if whole else "later"
    return "later" if status >= 500 or status in LATER else "never"


def _words(head: Head, outcome: Response | Failure) -> str:
    """The status and what else of the response is of use to people."""
    words = [str(head.status)]
    if 300 <= head.status < 400:
        words += [_text(b" ".join(head.values(b"location")))]
    words += [f"retry after {_text(value)}" for value in head.values(b"retry-after")[:1]]
    if isinstance(outcome, Response) and outcome.body and head.status >= 400:
        words += [_text(outcome.body)]
    return ", ".join(word for word in words if word)


def _text(data: bytes) -> str:
    return printable(" ".join(data[: 2 * MAX_TEXT].decode("latin-1").split("\n")), MAX_TEXT)
