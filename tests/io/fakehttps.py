"""HTTPS hosts on loopback: each at an address of its own, all on one port, each with its script.

    async with FakeHttps() as world:
        await world.serve("mta-sts.example.com", policy(b"version: STSv1\\r\\n..."))
        world.port, world.ca_file       for the client
        world.addresses                 for the resolver, name to list of addresses
        world.hits                      what was asked, in order

A script is a coroutine function that takes a `Peer`. Certificates are good unless told otherwise.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import tempfile
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

MAX_REQUEST = 65536


@dataclass(frozen=True)
class Hit:
    """One request: the SNI name, the request's octets, and the address that was connected to."""

    sni: str | None
    request: bytes
    address: str


class Peer:
    """The server's side of one connection, for scripts."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> None:
        self._reader = reader
        self._writer = writer
        self.request = request

    async def send(self, data: bytes) -> None:
        """Write; a client that has gone is no error of a script."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            await self.gone()

    async def receive(self) -> bytes:
        """What the client sent; empty when it has closed."""
        return await self._reader.read(MAX_REQUEST)

    async def gone(self, within: float | None = None) -> bool:
        """Wait until the client has closed, at most `within` seconds; whether it has."""
        try:
            async with asyncio.timeout(within):
                while await self._reader.read(MAX_REQUEST):
                    pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def reset(self) -> None:
        """End with a TCP RST."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def cut(self) -> None:
        """End with a TCP FIN and without TLS's close_notify."""
        self._writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


def reply(data: bytes) -> Script:
    """Send these octets, then close properly."""

    async def script(peer: Peer) -> None:
        await peer.send(data)

    return script


def response(
    body: bytes, *fields: bytes, status: bytes = b"200 OK", kind: bytes | None = b"text/plain"
) -> Script:
    """A response with Content-Length; `kind` None leaves Content-Type out."""
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *fields]
    if kind is not None:
        lines.append(b"Content-Type: " + kind)
    return reply(b"\r\n".join(lines) + b"\r\n\r\n" + body)


def policy(body: bytes) -> Script:
    """A policy as a good host serves it."""
    return response(body)


def chunked(*chunks: bytes, fields: bytes = b"") -> Script:
    """A response in chunks, without a length."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks)
    return reply(head + fields + b"\r\n" + body + b"0\r\n\r\n")


def handshake(context: ssl.SSLContext) -> Script:
    """A raw host's handshake. Unlike asyncio's it tells the client by an alert why it failed."""

    async def script(peer: Peer) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        done = False
        while not done:
            try:
                tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                done = True
            await peer.send(outgoing.read())
            if not done:
                incoming.write(await peer.receive())

    return script


class FakeHttps:
    """The hosts, their certificates and what they were asked. An async context manager."""

    def __init__(self) -> None:
        self.ca = trustme.CA()
        self.addresses: dict[str, list[str]] = {}
        self.hits: list[Hit] = []
        self.connections: dict[str, int] = {}
        """Connections by address, TLS completed or not."""
        self.dropped: asyncio.Queue[str] = asyncio.Queue()
        """Addresses of connections that have ended, in order."""
        self.port = 0
        self.ca_file = ""
        self._errors: list[Exception] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._folder = tempfile.TemporaryDirectory()
        self._count = 1

    async def __aenter__(self) -> FakeHttps:
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

    def certificate(self, *names: str, common_name: str | None = None, days: int = 30) -> Leaf:
        """A certificate of the world's CA; with negative `days` it ended so long ago."""
        end = datetime.now(UTC) + timedelta(days=days)
        return self.ca.issue_cert(
            *names, common_name=common_name, not_before=end - timedelta(days=365), not_after=end
        )

    async def serve(
        self,
        host: str,
        script: Script,
        *,
        certificate: Leaf | ssl.SSLContext | None = None,
        address: str | None = None,
    ) -> str:
        """A host that handshakes, reads one request and runs its script; the address it got."""
        if isinstance(certificate, ssl.SSLContext):
            context = certificate
        else:
            context = server_context(certificate or self.certificate(host))
        seen: list[str | None] = []
        context.sni_callback = lambda _tls, name, _context: seen.append(name)

        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await reader.readuntil(b"\r\n\r\n")
            local = writer.get_extra_info("sockname")[0]
            self.hits.append(Hit(seen[-1] if seen else None, request, local))
            await script(Peer(reader, writer, request))

        return await self._listen(host, run, context, address)

    async def serve_raw(self, host: str, script: Script, *, address: str | None = None) -> str:
        """A host that speaks TCP only: the script runs at once, without a request."""

        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await script(Peer(reader, writer, b""))

        return await self._listen(host, run, None, address)

    def dead(self, host: str) -> str:
        """An address of the host where nobody listens."""
        address = self._next_address()
        self.addresses.setdefault(host, []).append(address)
        return address

    def _next_address(self) -> str:
        self._count += 1
        return f"127.0.{self._count // 250}.{self._count % 250 + 1}"

    async def _listen(
        self,
        host: str,
        run: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        context: ssl.SSLContext | None,
        address: str | None,
    ) -> str:
        address = address or self._next_address()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            self.connections[address] = self.connections.get(address, 0) + 1
            try:
                await run(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                pass  # the client went away
            except Exception as error:
                self._errors.append(error)
            finally:
                self._tasks.discard(task)
                writer.close()
                self.dropped.put_nowait(address)

        server = await asyncio.start_server(connected, address, self.port, ssl=context)
        self._servers.append(server)
        self.port = server.sockets[0].getsockname()[1]
        self.addresses.setdefault(host, []).append(address)
        return address


Leaf = trustme.LeafCert


def server_context(leaf: Leaf, *, tls11: bool = False) -> ssl.SSLContext:
    """A server's context with this certificate; `tls11`: TLS 1.1 and nothing better."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    leaf.configure_cert(context)
    if tls11:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1_1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def self_signed(name: str) -> ssl.SSLContext:
    """A server's context with a certificate that its own key signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.NamedTemporaryFile() as file:
        file.write(secret + certificate.public_bytes(pem))
        file.flush()
        context.load_cert_chain(file.name)
    return context
