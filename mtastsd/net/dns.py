"""The `Resolver` port over recursive DNS servers: UDP, TCP where an answer is cut, fail-over.

Servers are asked in order, those that lately said nothing last. An error is final only when all
servers were asked. DANE questions (`mx`, `tlsa`, `secure_alias`, validated `addresses`) go to
servers that validate: else whoever can drop the packets of the validating one would have DANE
judged by one that takes unsigned answers for good.

`mx` alone is answered where no server ever validated, and the answer is then insecure: without
DNSSEC there is no DANE, and null MX still counts. Where one of the servers did validate and none
does now, an insecure `mx` answer is `DnsError("no-server")`, and what was found before stands.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from mtastsd.addresses import InetAddress
from mtastsd.answers import (
    AddressAnswer,
    Answer,
    DnsError,
    MxAnswer,
    NoData,
    TlsaAnswer,
    TxtAnswer,
)
from mtastsd.log import Log
from mtastsd.names import Domain
from mtastsd.net import dnswire as wire
from mtastsd.net.dnsservers import (
    MAX_RESOLV_CONF,
    PORT,
    Dnssec,
    Roster,
    Server,
    ServerStatus,
    family,
    parse_nameserver,
    parse_resolv_conf,
    sockaddr,
)
from mtastsd.ports import Clock

T = TypeVar("T")

MAX_TRYING = 3
"""How often `timeout` may pass before a question makes no further try, however many servers there
are: with the try that goes on then it is over within four times `timeout`."""

MAX_SOCKETS = 256
"""Questions on the way at once. Each has a socket; the process may hold 1,024 files, and look-ups
need theirs."""

MAX_STRAYS = 16
"""Datagrams on one socket that don't fit the query before TCP is used: they are guesses at id and
question by somebody who has found the port."""

PROBE_AGAIN = 60.0
"""Seconds between probes of a server that doesn't validate or answer."""

PROBE_GOOD = 600.0
"""Seconds between probes of a server that validates: it may lose its trust anchor."""

WATCH = 5.0
"""Seconds between looks at resolv.conf, and at which probes are due."""

_RECV = 4096  # servers that heed no EDNS size are understood too
_LOCAL = InetAddress("127.0.0.1", PORT)  # resolv.conf(5): the server where none is named


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """`[dns]` of the configuration. `timeout` in seconds is for one try at one server."""

    nameservers: tuple[str, ...] = ()
    timeout: float = 2.0
    dnssec: Dnssec = "auto"


class DnsResolver:
    """`ports.Resolver`; `run` keeps an eye on the servers and on resolv.conf.

    Each question has a socket of its own: a fresh random port beside the random id is what keeps
    a blind forger out (RFC 5452 §9.2), and an ICMP error reaches just the question it is for.
    Without `run` questions are answered too, the servers are then judged at the first DANE
    question and never again. Raises ValueError where a name server of the settings is none.
    """

    def __init__(
        self,
        settings: DnsSettings,
        clock: Clock,
        log: Log,
        *,
        resolv_conf: Path = Path("/etc/resolv.conf"),
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._log = log
        self._resolv_conf = resolv_conf
        self._seen: tuple[int, int, int] | None = None
        self._roster = Roster(settings.dnssec, log)
        self._sockets = asyncio.Semaphore(MAX_SOCKETS)
        self._probing = asyncio.Lock()
        self._closed = False
        self._appoint()

    def configure(self, settings: DnsSettings) -> None:
        """Use these settings from now on. Raises ValueError, as the constructor."""
        _addresses(settings.nameservers)
        before, self._settings = self._settings, settings
        if settings.dnssec != before.dnssec:
            self._roster = Roster(settings.dnssec, self._log)
        elif settings.nameservers == before.nameservers:
            return
        self._appoint()

    def _appoint(self) -> None:
        if self._settings.nameservers:
            self._roster.replace(_addresses(self._settings.nameservers))
        else:
            self._seen, found = self._read_resolv_conf()
            self._roster.replace(found or (_LOCAL,))

    # -- questions

    async def txt(self, name: str) -> TxtAnswer:
        return await self._ask(name, wire.TXT, validated=False)

    async def mx(self, domain: Domain) -> MxAnswer:
        await self._judge()
        found = await self._ask(domain, wire.MX, validated=self._roster.validates())
        if not isinstance(found, DnsError) and not found.secure and self._roster.lost():
            return DnsError("no-server")
        return found

    async def addresses(self, host: str, *, validated: bool) -> AddressAnswer:
        if validated:
            await self._judge()
        async with asyncio.TaskGroup() as group:
            six = group.create_task(self._ask(host, wire.AAAA, validated=validated))
            four = await self._ask(host, wire.A, validated=validated)
        return wire.merged(four, six.result())

    async def some_addresses(self, host: str, *, validated: bool) -> AddressAnswer:
        if validated:
            await self._judge()
        four = await self._ask(host, wire.A, validated=validated)
        if isinstance(four, Answer):
            return four
        return wire.merged(four, await self._ask(host, wire.AAAA, validated=validated))

    async def secure_alias(self, host: str) -> bool:
        await self._judge()
        found = await self._ask(host, wire.CNAME, validated=True)
        return isinstance(found, Answer) and found.secure

    async def tlsa(self, name: str) -> TlsaAnswer:
        await self._judge()
        return await self._ask(name, wire.TLSA, validated=True)

    def validates(self) -> bool:
        return self._roster.validates()

    def servers(self) -> Sequence[ServerStatus]:
        """The servers in their order, for status and doctor."""
        return self._roster.status()

    async def close(self) -> None:
        """From now on every question is `DnsError("no-server")`; those on the way end by
        themselves, and no socket outlives its question."""
        self._closed = True
        self._roster.replace(())

    # -- servers

    async def run(self) -> None:
        """For ever: probe the servers that are due, read resolv.conf anew when it changes."""
        while not self._closed:
            self._reload()
            async with self._probing:
                await self._probe(self._roster.due(self._clock.monotonic()))
            await self._clock.sleep(WATCH)

    async def _judge(self) -> None:
        """See to it that all servers were probed once, whoever asks first."""
        if self._roster.unjudged():
            async with self._probing:
                await self._probe(self._roster.unjudged())

    async def _probe(self, servers: Sequence[Server]) -> None:
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(self._probe_one(server))
        self._roster.announce()

    async def _probe_one(self, server: Server) -> None:
        found = await self._try(server, wire.ROOT_SOA, wire.unread)
        if not isinstance(found, DnsError) and not found.secure and server.witness is not None:
            # A resolver with a trust anchor for some zones only knows no signed root.
            found = await self._try(server, server.witness, wire.unread)
        answered = not isinstance(found, DnsError)
        secure = not isinstance(found, DnsError) and found.secure
        self._roster.probed(server, answered=answered, secure=secure)
        good = answered and server.validates
        server.probe_at = self._clock.monotonic() + (PROBE_GOOD if good else PROBE_AGAIN)

    def _reload(self) -> None:
        if self._settings.nameservers or self._signature() == self._seen:
            return
        self._seen, found = self._read_resolv_conf()
        if not found:
            # Written just now, or gone: servers that were good a moment ago are better than none.
            self._log.warning("resolv-conf-empty", file=self._resolv_conf)
            return
        if self._roster.replace(found):
            self._log.info("resolv-conf-changed", servers=self._roster.text())

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            stat = self._resolv_conf.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _read_resolv_conf(self) -> tuple[tuple[int, int, int] | None, tuple[InetAddress, ...]]:
        seen = self._signature()  # before the text: a change between the two is read next time
        try:
            with self._resolv_conf.open(encoding="ascii", errors="replace") as file:
                return seen, parse_resolv_conf(file.read(MAX_RESOLV_CONF))
        except OSError:
            return seen, ()

    # -- one question

    async def _ask(
        self, name: str, kind: wire.Kind[T], *, validated: bool
    ) -> Answer[T] | NoData | DnsError:
        asked = wire.question(name, kind.rdtype)
        if asked is None:
            return DnsError("name")
        until = self._clock.monotonic() + MAX_TRYING * self._settings.timeout
        errors: list[DnsError] = []
        left = self._roster.order(validated=validated)
        # A lost datagram is sent again, but not to a server that said nothing the last time too.
        lively = {id(server) for server in left if not server.silent}
        while left and self._clock.monotonic() < until:
            server = left.pop(0)
            found = await self._try(server, asked, kind.value)
            if not isinstance(found, DnsError):
                return found
            errors.append(found)
            if found.why == "timeout" and id(server) in lively:
                lively.discard(id(server))
                left.append(server)
        return wire.worst(errors)

    async def _try(
        self, server: Server, asked: wire.Question, value: wire.Value[T]
    ) -> Answer[T] | NoData | DnsError:
        found: Answer[T] | NoData | DnsError
        try:
            # Waiting for a socket is not the server's fault and not in its time.
            async with self._sockets, asyncio.timeout(self._settings.timeout):
                message = await exchange(server.address, asked)
        except TimeoutError:
            found = DnsError("timeout")
        except OSError:
            found = DnsError("network")
        else:
            found = wire.read(asked, value, message) if message else DnsError("malformed")
        if isinstance(found, DnsError):
            self._roster.failed(server, found.why)
        else:
            self._roster.heard(server, asked, secure=found.secure)
            if found.secure and self._settings.dnssec == "off":
                found = replace(found, secure=False)
        return found


def _addresses(texts: Sequence[str]) -> list[InetAddress]:
    found = []
    for text in texts:
        address = parse_nameserver(text)
        if address is None:
            raise ValueError(f"not a name server: {text!r}")
        found.append(address)
    return found


# -- the network


async def exchange(address: InetAddress, asked: wire.Question) -> bytes:
    """Ask one server once: over UDP, and over TCP where the response is cut or forged responses
    come. Empty where what came over TCP is no response to it. Raises OSError."""
    return await _udp(address, asked) or await _tcp(address, asked)


def _ident() -> int:
    return int.from_bytes(os.urandom(2), "big")


async def _udp(address: InetAddress, asked: wire.Question) -> bytes:
    loop = asyncio.get_running_loop()
    ident = _ident()
    with socket.socket(family(address), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect(sockaddr(address))  # the kernel picks the port, and drops other sources
        sock.send(wire.query(asked, ident))
        for _ in range(MAX_STRAYS):
            message = await loop.sock_recv(sock, _RECV)
            if wire.matches(asked, ident, message):
                return b"" if wire.truncated(message) else message
    return b""


async def _tcp(address: InetAddress, asked: wire.Question) -> bytes:
    loop = asyncio.get_running_loop()
    ident = _ident()
    query = wire.query(asked, ident)
    with socket.socket(family(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        await loop.sock_connect(sock, sockaddr(address))
        # Length and query in one segment, RFC 7766 §8.
        await loop.sock_sendall(sock, len(query).to_bytes(2, "big") + query)
        size = int.from_bytes(await _exactly(sock, 2), "big")
        message = await _exactly(sock, size)
    good = wire.matches(asked, ident, message) and not wire.truncated(message)
    return message if good else b""


async def _exactly(sock: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    got = bytearray()
    while len(got) < size:
        chunk = await loop.sock_recv(sock, size - len(got))
        if not chunk:
            raise ConnectionError("closed within a message")
        got += chunk
    return bytes(got)
