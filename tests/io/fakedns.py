"""A recursive DNS server that says what a table tells it, faults included, over UDP and TCP.

    async with FakeDns({("example.com", "MX"): Says("10 mx.example.com.", ad=True)}) as server:
        ... server.address ... server.questions() ...

It follows CNAMEs through the table as a recursive server does. A name that is in the table with
another type only has no data; a name that isn't there at all doesn't exist.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Fault = Literal[
    "",
    "drop",
    "truncate",  # over UDP only
    "wrong-id",
    "wrong-question",
    "wrong-source",  # from another port, over UDP only
    "no-response",  # the query comes back, QR not set
    "garbage",  # header and question are right, the rest is not DNS
    "short",  # cut in the middle of the question
    "referral",  # NS records and no SOA, as of a server that doesn't recurse
]
TcpFault = Literal["", "drop", "close", "short", "wrong-id", "truncate"]


@dataclass(frozen=True, slots=True)
class Says:
    """What the server says for a name and type.

    `records` in presentation form, one or several, none for "no data". `ad`: the data is signed,
    so a server that validates sets AD for whoever asked for it. `soa` is TTL and minimum of the
    SOA of a negative answer, None for none. `strays`: datagrams with a wrong id that come before
    the answer. `delay`: seconds, by the loop's clock.
    """

    records: str | tuple[str, ...] = ()
    ttl: int = 300
    ad: bool = False
    rcode: str = "NOERROR"
    soa: tuple[int, int] | None = (3600, 900)
    fault: Fault = ""
    tcp_fault: TcpFault = ""
    strays: int = 0
    delay: float = 0.0

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.records,) if isinstance(self.records, str) else self.records


Table = Mapping[tuple[str, str], Says | str]
"""(name in lower case without final dot, type) to what is said; a bare text is one record."""

ROOT = ("", "SOA")
"""What probes ask. Signed, unless the table says otherwise."""


@dataclass
class FakeDns:
    """The server. All but `host` may be changed while it runs.

    `validates` makes it set AD where the data is signed. `once` holds what the next questions are
    told, whatever they are; `always` is told to all, but no records to probes. `asked` has name,
    type and transport of each question in order, `wire` the queries, `ports` where they came from.
    """

    table: Table = field(default_factory=dict)
    validates: bool = False
    host: str = "127.0.0.1"
    always: Says | None = None
    once: list[Says] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    wire: list[bytes] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    port: int = 0

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def questions(self) -> list[tuple[str, str]]:
        """Names and types asked, without the probes."""
        return [(name, kind) for name, kind, _ in self.asked if (name, kind) != ROOT]

    def probes(self) -> int:
        return sum((name, kind) == ROOT for name, kind, _ in self.asked)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the port of the last time if there was one."""
        loop = asyncio.get_running_loop()
        tcp, udp = _pair(self.host, self.port)
        self.port = tcp.getsockname()[1]
        self._writers: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Event()
        self._tcp = await asyncio.start_server(self._serve_tcp, sock=tcp)
        self._udp: asyncio.DatagramTransport
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(self), sock=udp)

    async def stop(self) -> None:
        """Close all; from then on the port refuses."""
        self._udp.close()
        self._tcp.close()
        for writer in self._writers:
            writer.close()
        await self._tcp.wait_closed()
        await asyncio.sleep(0)  # the datagram socket is closed by the loop's next turn

    # -- what is said

    def hear(self, data: bytes, transport: str) -> tuple[dns.message.Message, Says]:
        query = dns.message.from_wire(data)
        name, kind = _asked(query)
        self.wire.append(data)
        self.asked.append((name, kind, transport))
        self._changed.set()
        if self.once:
            return query, self.once.pop(0)
        always = self.always
        if always is not None and (always.texts == () or (name, kind) != ROOT):
            return query, always
        return query, self._entry(name, kind) or Says(rcode="")

    async def heard(self, count: int) -> None:
        """Wait until so many questions came."""
        while len(self.asked) < count:
            self._changed.clear()
            await self._changed.wait()

    async def idle(self) -> None:
        """Wait until no TCP connection is open."""
        while self._writers:
            self._changed.clear()
            await self._changed.wait()

    def _entry(self, name: str, kind: str) -> Says | None:
        said = self.table.get((name, kind))
        if said is None and (name, kind) == ROOT:
            said = Says("a.test. b.test. 1 1800 900 604800 86400", ad=True)
        return Says(said) if isinstance(said, str) else said

    def response(self, query: dns.message.Message, said: Says) -> dns.message.Message:
        """The honest response; faults are put upon it later."""
        name, kind = _asked(query)
        reply = dns.message.make_response(query, recursion_available=True)
        signed = True
        for _ in range(20):
            alias = self._entry(name, "CNAME")
            if said.rcode or alias is None:
                break
            signed = signed and alias.ad
            _add(reply.answer, name, "CNAME", alias)
            name = alias.texts[0].lower().removesuffix(".")
            said = self._entry(name, kind) or said
        exists = any(known == name for known, _ in self.table)
        rcode = said.rcode or ("NOERROR" if exists else "NXDOMAIN")
        reply.set_rcode(dns.rcode.from_text(rcode))
        if said.texts:
            _add(reply.answer, name, kind, said)
        elif said.fault == "referral":
            _add(reply.authority, name, "NS", Says("ns.test."))
        elif said.soa is not None and rcode in ("NOERROR", "NXDOMAIN"):
            ttl, minimum = said.soa
            _add(reply.authority, "", "SOA", Says(f"a.test. b.test. 1 2 3 4 {minimum}", ttl=ttl))
        wants_ad = query.flags & dns.flags.AD or query.ednsflags & dns.flags.DO
        if self.validates and signed and said.ad and wants_ad:
            reply.flags |= dns.flags.AD
        return reply

    # -- transports

    def answer_udp(self, data: bytes, peer: tuple[Any, ...]) -> None:
        self.ports.append(peer[1])
        query, said = self.hear(data, "udp")
        if said.delay:
            asyncio.get_running_loop().call_later(said.delay, self._send, query, said, peer)
        else:
            self._send(query, said, peer)

    def _send(self, query: dns.message.Message, said: Says, peer: tuple[Any, ...]) -> None:
        if self._udp.is_closing():
            return
        reply = self.response(query, said)
        honest = reply.to_wire(max_size=65535)
        for number in range(said.strays):
            ident = (reply.id + 1 + number) % 65536
            self._udp.sendto(ident.to_bytes(2, "big") + honest[2:], peer)
        message = _spoilt(said.fault, query, reply)
        if said.fault == "wrong-source":
            with socket.socket(_family(self.host), socket.SOCK_DGRAM) as other:
                other.bind((self.host, 0))
                other.sendto(message, peer)
        elif message:
            self._udp.sendto(message, peer)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            size = int.from_bytes(await reader.readexactly(2), "big")
            query, said = self.hear(await reader.readexactly(size), "tcp")
            if said.tcp_fault == "drop":
                await reader.read()  # until the other side gives up
            elif said.tcp_fault != "close":
                reply = self.response(query, said).to_wire(max_size=65535)
                writer.write(len(reply).to_bytes(2, "big") + _spoilt_tcp(said.tcp_fault, reply))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)
            self._changed.set()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: FakeDns) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._server.answer_udp(data, addr)


def _asked(query: dns.message.Message) -> tuple[str, str]:
    question = query.question[0]
    name = question.name.to_text(omit_final_dot=True).lower().removesuffix(".")
    return name, dns.rdatatype.to_text(question.rdtype)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _pair(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A TCP and a UDP socket on the same port."""
    for _ in range(50):
        tcp = socket.socket(_family(host), socket.SOCK_STREAM)
        udp = socket.socket(_family(host), socket.SOCK_DGRAM)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((host, port))
            udp.bind(tcp.getsockname()[:2])
        except OSError:
            tcp.close()
            udp.close()
            continue
        return tcp, udp
    raise OSError(f"no free port on {host}")


def _add(section: list[dns.rrset.RRset], name: str, kind: str, said: Says) -> None:
    section.append(dns.rrset.from_text_list(name + ".", said.ttl, "IN", kind, said.texts))


def _spoilt(fault: Fault, query: dns.message.Message, reply: dns.message.Message) -> bytes:
    match fault:
        case "drop":
            return b""
        case "truncate":
            reply.flags |= dns.flags.TC
            reply.answer.clear()
        case "wrong-id":
            reply.id ^= 1
        case "wrong-question":
            asked = reply.question[0]
            kind = dns.rdatatype.to_text(asked.rdtype)
            reply.question[0] = dns.rrset.from_text(f"x{asked.name}", 0, "IN", kind)
        case "no-response":
            return query.to_wire()
    message = reply.to_wire(max_size=65535)
    end = _question_end(message)
    match fault:
        case "garbage":
            return message[:end] + b"\xff" * 40
        case "short":
            return message[: end - 3]
    return message


def _spoilt_tcp(fault: TcpFault, message: bytes) -> bytes:
    match fault:
        case "short":
            return message[:-5]
        case "wrong-id":
            return bytes((message[0] ^ 1,)) + message[1:]
        case "truncate":
            return message[:2] + bytes((message[2] | 2,)) + message[3:]
    return message


def _question_end(message: bytes) -> int:
    at = 12
    while message[at]:
        at += message[at] + 1
    return at + 5
