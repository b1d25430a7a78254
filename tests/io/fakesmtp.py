"""Mail servers on loopback, each with its script.

    async with FakeSmtp() as world:
        address = await world.serve(mail_server(world.context("mx.example.com")))
        world.port, world.ca_file     for the client
        world.talks                   the commands of each connection, in order

A script is a coroutine function that takes a `Peer`.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from tests.io.fakehttps import server_context

MAX_READ = 65536

GREETING = b"220 mx.example.com ESMTP\r\n"
EHLO = b"250-mx.example.com at your service\r\n250-SIZE 1000\r\n250 STARTTLS\r\n"
EHLO_WITHIN = b"250-mx.example.com\r\n250 SIZE 1000\r\n"


class Peer:
    """The server's side of one connection.

    It drives TLS itself: asyncio's servers close a handshake that fails without the alert by which
    a real server says why.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, talk: list[str]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._unread = b""
        self.talk = talk

    async def say(self, data: bytes) -> None:
        if self._tls is not None:
            self._tls.write(data)
            data = self._outgoing.read()
        self._writer.write(data)
        await self._writer.drain()

    async def command(self) -> str:
        """The next command; "" when the client has closed."""
        while b"\r\n" not in self._unread:
            data = await self.receive()
            if not data:
                self.talk.append("closed")
                return ""
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\r\n")
        self.talk.append(line.decode("ascii"))
        return line.decode("ascii")

    async def receive(self) -> bytes:
        """What the client sent; empty when it has closed."""
        while self._tls is not None:
            try:
                return self._tls.read(MAX_READ)
            except ssl.SSLWantReadError:
                data = await self._reader.read(MAX_READ)
                if not data:
                    return b""
                self._incoming.write(data)
        return await self._reader.read(MAX_READ)

    async def gone(self) -> None:
        """Wait until the client has closed."""
        while await self._reader.read(MAX_READ):
            pass

    async def start_tls(self, context: ssl.SSLContext) -> bool:
        """Whether the handshake succeeded; if not, the client was told why."""
        tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.say(self._outgoing.read())
                self._incoming.write(await self._reader.read(MAX_READ))
            except ssl.SSLError:
                await self.say(self._outgoing.read())
                self.talk.append("tls refused")
                return False
            else:
                await self.say(self._outgoing.read())
                self._tls = tls
                self.talk.append("tls")
                return True


Script = Callable[[Peer], Awaitable[None]]


def mail_server(
    context: ssl.SSLContext | None = None,
    *,
    greeting: bytes = GREETING,
    ehlo: bytes = EHLO,
    starttls: bytes = b"220 2.0.0 ready\r\n",
    within: bytes = EHLO_WITHIN,
) -> Script:
    """A server that ends where one of these replies is empty; without `context` at STARTTLS."""

    async def script(peer: Peer) -> None:
        if greeting:
            await peer.say(greeting)
        secured = False
        while command := await peer.command():
            verb = command.partition(" ")[0]
            answer = {
                "EHLO": within if secured else ehlo,
                "STARTTLS": starttls,
                "QUIT": b"221 2.0.0 bye\r\n",
            }[verb]
            if not answer:
                return
            await peer.say(answer)
            if verb == "QUIT":
                return
            if verb == "STARTTLS" and answer.startswith(b"220"):
                if context is None or not await peer.start_tls(context):
                    return
                secured = True

    return script


def over_tls(context: ssl.SSLContext, then: Script) -> Script:
    """TLS at once, then a script."""

    async def script(peer: Peer) -> None:
        if await peer.start_tls(context):
            await then(peer)

    return script


class FakeSmtp:
    """The servers, their certificates and what they were told. An async context manager."""

    def __init__(self) -> None:
        self.ca = trustme.CA()
        self.port = 0
        self.ca_file = ""
        self.talks: list[list[str]] = []
        self._errors: list[Exception] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._folder = tempfile.TemporaryDirectory()
        self._count = 1

    async def __aenter__(self) -> FakeSmtp:
        path = Path(self._folder.name, "ca.pem")
        self.ca.cert_pem.write_to_path(path)
        self.ca_file = str(path)
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._folder.cleanup()
        if self._errors:
            raise ExceptionGroup("scripts failed", self._errors)

    def leaf(self, *names: str, days: int = 30) -> trustme.LeafCert:
        """A certificate of the world's CA; with negative `days` it ended so long ago."""
        end = datetime.now(UTC) + timedelta(days=days)
        return self.ca.issue_cert(*names, not_before=end - timedelta(days=365), not_after=end)

    def context(self, *names: str, days: int = 30) -> ssl.SSLContext:
        return server_context(self.leaf(*names, days=days))

    async def serve(self, script: Script) -> str:
        """Run the script for each connection; the address it got."""
        self._count += 1
        address = f"127.0.1.{self._count}"

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            talk: list[str] = []
            self.talks.append(talk)
            try:
                await script(Peer(reader, writer, talk))
            except OSError:
                pass  # the client went away, or refused the certificate
            except Exception as error:
                self._errors.append(error)
            finally:
                self._tasks.discard(task)
                writer.close()

        server = await asyncio.start_server(connected, address, self.port)
        self._servers.append(server)
        self.port = server.sockets[0].getsockname()[1]
        return address
