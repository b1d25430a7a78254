"""One HTTP/1.1 request and its response on one connection, by h11.

h11 on an asyncio protocol instead of a client library: a policy fetch takes one request on a fresh
connection, so that pools, locks and streams would be paid for and not used. On top of connection
and handshake (0.9 ms of CPU) this costs about 0.1 ms, httpcore's connection 0.3, its pool 0.8.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import h11

from mtastsd.net.connect import failed
from mtastsd.sts.failure import Failure, printable

MAX_HEAD = 16384
"""Octets of all that comes before the body, interim responses included, and again of one chunk's
header or of the trailer, give or take a `SLICE`. Good hosts send some hundred; parsing all of these
takes 10 ms, in which the daemon answers nobody."""

SLICE = 4096
"""Octets handed to h11 at once: it does not hold against its limit what is there whole."""

MAX_PIECES = 1024
"""Parts of a response that h11 reports: interim responses, chunks, reads. A body in chunks of one
octet each would hold up the daemon for a third of a second."""

CUT_OFF = "closed without TLS close_notify"

_H11Event = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]


@dataclass(frozen=True, slots=True)
class Head:
    """Status and header fields, names in lower case."""

    status: int
    fields: tuple[tuple[bytes, bytes], ...]

    def values(self, name: bytes) -> list[bytes]:
        return [value for field, value in self.fields if field == name]


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response; the body without its transfer coding, with its content coding."""

    head: Head
    body: bytes


class Exchange(asyncio.Protocol):
    """Send one request, await `result`. The holder of the transport closes it.

    `objection` sees the head before any of the body is taken and may end the exchange there.
    A body of more than `limit` octets fails with `size`. Data is taken as it comes and nothing is
    kept but the body; the deadline is the caller's.
    """

    def __init__(self, objection: Callable[[Head], Failure | None], limit: int) -> None:
        self._objection = objection
        self._limit = limit
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._outcome: asyncio.Future[Response | Failure]
        self._outcome = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._head: Head | None = None
        self._body = bytearray()
        self._before_body = 0
        self._pieces = 0

    def send(self, request: h11.Request, body: bytes = b"") -> None:
        """Write the request whole; the body's length is the request's Content-Length."""
        assert self._transport is not None
        out = self._h11.send(request) or b""
        if body:
            out += self._h11.send(h11.Data(data=body)) or b""
        self._transport.write(out + (self._h11.send(h11.EndOfMessage()) or b""))

    async def result(self) -> Response | Failure:
        """The response, or why there is none: connect, tls, protocol, size or the objection."""
        return await self._outcome

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's TLS transport is no subclass of asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self._outcome.done():
            for start in range(0, len(data), SLICE):
                self._feed(data[start : start + SLICE])

    def eof_received(self) -> None:
        if self._outcome.done():
            return
        if self._cut_off():
            # Anyone on the path can send a FIN: a body that lasts until the end of the connection
            # is whole only if the peer said so within TLS (RFC 9112 §9.8).
            self._settle(Failure("connect", CUT_OFF))
        elif self._h11.their_state is h11.SEND_RESPONSE and not self._h11.trailing_data[0]:
            self._settle(Failure("protocol", "closed without a response"))
        else:
            self._feed(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._outcome.done():
            return
        if exc is None:
            self._settle(Failure("connect", CUT_OFF))  # uvloop's form of the same
        elif isinstance(exc, OSError):
            self._settle(failed(exc))
        else:
            self._outcome.set_exception(exc)  # a bug in one of the callbacks above

    def _cut_off(self) -> bool:
        assert self._transport is not None
        tls = self._transport.get_extra_info("ssl_object")
        if tls is None:
            return True
        try:
            return bool(tls.read(1))
        except ssl.SSLZeroReturnError:
            return False
        except ssl.SSLError:
            return True

    def _feed(self, data: bytes) -> None:
        if self._outcome.done():
            return
        if self._head is None:
            if self._before_body > MAX_HEAD:
                self._settle(Failure("protocol", f"head of more than {MAX_HEAD} octets"))
                return
            self._before_body += len(data)
        try:
            self._h11.receive_data(data)
            while not self._outcome.done():
                event = self._next()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                self._take(event)
        except h11.RemoteProtocolError as error:
            self._settle(Failure("protocol", printable(str(error))))

    def _next(self) -> _H11Event:
        try:
            return self._h11.next_event()
        except ValueError:
            # Before 0.15 h11 hands a Content-Length of any number of digits to int().
            raise h11.RemoteProtocolError("bad Content-Length") from None

    def _take(self, event: _H11Event) -> None:
        self._pieces += 1
        if self._pieces > MAX_PIECES:
            self._settle(Failure("protocol", f"more than {MAX_PIECES} pieces"))
        elif isinstance(event, h11.Response):
            self._head = Head(event.status_code, tuple(event.headers))
            objection = self._objection(self._head)
            if objection is not None:
                self._settle(objection)
        elif isinstance(event, h11.Data):
            self._body += event.data
            if len(self._body) > self._limit:
                self._settle(Failure("size", f"more than {self._limit} octets"))
        elif isinstance(event, h11.EndOfMessage):
            assert self._head is not None
            self._settle(Response(self._head, bytes(self._body)))

    def _settle(self, outcome: Response | Failure) -> None:
        if not self._outcome.done():
            self._outcome.set_result(outcome)
