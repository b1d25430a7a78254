"""One connection to a mail server whose every octet is counted, in plain and then through TLS."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl

from mtastsd.probing import Trouble

MAX_OCTETS = 262_144
"""Octets taken from the peer in one connection, TLS's own included: chains are mostly below 8 kB,
and OpenSSL itself takes 100 kB of certificates."""

MAX_LINE = 2048
"""Octets of a reply line; RFC 5321 §4.5.3.1.5 has 512, and Postfix takes as much as this."""

MAX_LINES = 100
"""Lines of one reply: servers list about twenty extensions."""

_READ = 16_384

_REPLY = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)


class Ended(Exception):
    """The peer, or what it said, ended the session early."""

    def __init__(self, trouble: Trouble, detail: str = "", code: int = 0) -> None:
        super().__init__(trouble)
        self.trouble, self.detail, self.code = trouble, detail, code


class Wire:
    """A connected socket, which stays the caller's. Nothing here has a time limit of its own.

    TLS is driven here and not by the event loop: what goes wrong in it is then the same under each
    loop, nothing is read ahead over the start of TLS, and closing waits for nobody.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._left = MAX_OCTETS
        self._buffer = bytearray()
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

    @property
    def waiting(self) -> bool:
        """Whether something was received that nobody has read."""
        return bool(self._buffer)

    async def reply(self) -> tuple[int, list[bytes]]:
        """One reply, RFC 5321 §4.2: the last line's code, and the text of each line."""
        lines: list[bytes] = []
        while len(lines) < MAX_LINES:
            found = _REPLY.fullmatch(await self._line())
            if found is None:
                raise Ended("protocol", "a line that is no SMTP reply")
            lines.append(found[3] or b"")
            if found[2] != b"-":
                return int(found[1]), lines
        raise Ended("protocol", f"a reply of more than {MAX_LINES} lines")

    async def _line(self) -> bytes:
        """The next line without its end: CR LF, or LF as some servers send it."""
        while (end := self._buffer.find(b"\n", 0, MAX_LINE)) < 0:
            if len(self._buffer) >= MAX_LINE:
                raise Ended("protocol", f"a line of more than {MAX_LINE} octets")
            self._buffer += await self._read()
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        return line

    async def send(self, data: bytes) -> None:
        if self._tls is None:
            await self._loop.sock_sendall(self._sock, data)
        else:
            self._tls.write(data)
            await self._flush()

    async def handshake(self, context: ssl.SSLContext, host: str) -> ssl.SSLObject:
        """Begin TLS. Raises ssl.SSLError, after the peer was told."""
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                self._incoming.write(await self._receive())
            except ssl.SSLError:
                with contextlib.suppress(OSError):  # which would hide why
                    await self._flush()  # the alert
                raise
            else:
                await self._flush()
                self._tls = tls
                return tls

    async def _read(self) -> bytes:
        if self._tls is None:
            return await self._receive()
        while True:
            try:
                data = self._tls.read(_READ)
            except ssl.SSLWantReadError:
                await self._flush()
                self._incoming.write(await self._receive())
            else:
                if not data:
                    raise Ended("closed")
                return data

    async def _receive(self) -> bytes:
        data = await self._loop.sock_recv(self._sock, _READ)
        self._left -= len(data)
        if not data:
            raise Ended("closed")
        if self._left < 0:
            raise Ended("protocol", f"more than {MAX_OCTETS} octets")
        return data

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._loop.sock_sendall(self._sock, data)
