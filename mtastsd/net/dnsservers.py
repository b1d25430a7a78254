"""The recursive servers: which there are, which answer, and whose AD bit is believed.

An AD bit is worth something only if the server validates. In mode `auto` a server proves it by
one response with AD set: that of a probe for the root's SOA, or any other. It loses it when a
probe comes back without. The bit is believed as sent, so the way to the server must be one that
nobody else writes to, best the same host (RFC 4035 §4.9.3).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mtastsd import addresses
from mtastsd.addresses import InetAddress
from mtastsd.answers import DnsWhy
from mtastsd.log import Log
from mtastsd.net.dnswire import ROOT_SOA, Question

Dnssec = Literal["auto", "on", "off"]

PORT = 53

MAX_SERVERS = 8
"""Servers that are used, in order: one question may be put to each of them twice."""

MAX_RESOLV_CONF = 65536
"""Characters of resolv.conf that are read."""

_INDEX = re.compile(r"[0-9]{1,9}", re.ASCII)
# As the C library reads it: the word at the start of a line, the value up to a comment.
_NAMESERVER = re.compile(r"^nameserver[ \t]+([^;#\x00-\x20\x7f]+)", re.ASCII | re.MULTILINE)


def parse_nameserver(text: str) -> InetAddress | None:
    """`192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1`, `[2001:db8::1]:5353`; `%eth0` after a v6 one.

    None for anything else; a host name is no server, for who would look it up?
    """
    found = addresses.parse_host_port(text, default_port=PORT, names_allowed=False)
    return found if isinstance(found, InetAddress) else None


def parse_resolv_conf(text: str) -> tuple[InetAddress, ...]:
    """All servers of resolv.conf(5) in order, with a port where one is given; lines that name none
    are passed over."""
    found = (parse_nameserver(word) for word in _NAMESERVER.findall(text[:MAX_RESOLV_CONF]))
    return tuple(dict.fromkeys(a for a in found if a is not None))[:MAX_SERVERS]


def family(address: InetAddress) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


def sockaddr(address: InetAddress) -> tuple[str, int] | tuple[str, int, int, int]:
    """For `connect`. OSError where the interface of a scoped address isn't there (now)."""
    if ":" not in address.host:
        return address.host, address.port
    host, _, scope = address.host.partition("%")
    if not scope:
        return host, address.port, 0, 0
    index = int(scope) if _INDEX.fullmatch(scope) else socket.if_nametoindex(scope)
    return host, address.port, 0, index


@dataclass(slots=True)
class Server:
    """One server as it is known. Times are those of the monotonic clock, in seconds.

    `silent`: the last try brought nothing back. `down`: a probe failed, and the log says so.
    `validates`: its AD bit is believed; `validated`: it was at some time. `witness`: the last
    question whose answer had AD set, for servers that know no signed root. `judged`: one probe is
    over, whatever it found; `probe_at`: when the next is due.
    """

    address: InetAddress
    validates: bool = False
    validated: bool = False
    silent: bool = False
    down: bool = False
    last_error: DnsWhy | None = None
    witness: Question | None = None
    judged: bool = False
    probe_at: float = 0.0


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A server for status and doctor. `last_error` is None when the last question was answered."""

    address: str
    validates: bool
    answers: bool
    last_error: DnsWhy | None


class Roster:
    """The servers in the order in which they are asked, and what became known of them."""

    def __init__(self, dnssec: Dnssec, log: Log) -> None:
        self._dnssec = dnssec
        self._log = log
        self._servers: list[Server] = []
        self._announced = False

    def replace(self, found: Iterable[InetAddress]) -> bool:
        """Take a list, have all of it probed; whether it differs from the one before.

        What is known of a server that stays is kept. A server that goes is forgotten, with its
        having validated: the list is the operator's word.
        """
        before = [server.address for server in self._servers]
        known = {server.address: server for server in self._servers}
        believed = self._dnssec == "on"
        self._servers = [
            known.get(a) or Server(a, validates=believed, validated=believed)
            for a in dict.fromkeys(found)
        ][:MAX_SERVERS]
        for server in self._servers:
            server.probe_at = 0.0
        changed = before != [server.address for server in self._servers]
        self._announced = self._announced and not changed
        return changed

    def order(self, *, validated: bool) -> list[Server]:
        """The servers to ask, silent ones last; with `validated` only those that are believed."""
        servers = [s for s in self._servers if s.validates or not validated]
        return sorted(servers, key=lambda s: s.silent) if len(servers) > 1 else servers

    def due(self, now: float) -> list[Server]:
        return [s for s in self._servers if now >= s.probe_at]

    def unjudged(self) -> list[Server]:
        """Servers of which nobody knows yet whether they validate."""
        if self._dnssec != "auto":
            return []
        return [s for s in self._servers if not (s.judged or s.validates)]

    def validates(self) -> bool:
        return any(s.validates for s in self._servers)

    def lost(self) -> bool:
        """Whether a server of the list validated once and none does now."""
        return not self.validates() and any(s.validated for s in self._servers)

    def heard(self, server: Server, asked: Question, *, secure: bool) -> None:
        """Note a response, and the evidence of its AD bit."""
        server.silent = False
        server.last_error = None
        if server.down:
            server.down = False
            self._log.info("dns-server-up", server=server.address.host_port)
        if not secure or self._dnssec != "auto":
            return
        if asked is not ROOT_SOA:
            server.witness = asked
        if not server.validates:
            server.validates = server.validated = True
            self._log.info("dnssec-found", server=server.address.host_port)

    def failed(self, server: Server, why: DnsWhy) -> None:
        """Note that no answer came. An error that a server sent makes it no worse than others:
        the domain may be to blame."""
        server.last_error = why
        server.silent = why in ("timeout", "network")

    def probed(self, server: Server, *, answered: bool, secure: bool) -> None:
        """Note what a probe found; `heard` or `failed` came before. No answer proves nothing."""
        server.judged = True
        if not answered:
            if not server.down:
                server.down = True
                self._log.warning(
                    "dns-server-down", server=server.address.host_port, why=server.last_error
                )
        elif self._dnssec == "auto" and server.validates and not secure:
            server.validates = False
            left = sum(s.validates for s in self._servers)
            self._log.warning("dnssec-lost", server=server.address.host_port, validating=left)

    def announce(self) -> None:
        """After the first probes of a list, say once that DANE is off."""
        if self._announced or not self._servers or self.unjudged():
            return
        self._announced = True
        if self._dnssec == "auto" and not self.validates():
            self._log.warning("dnssec-missing", servers=self.text())

    def text(self) -> str:
        return " ".join(s.address.host_port for s in self._servers)

    def status(self) -> Sequence[ServerStatus]:
        return tuple(
            ServerStatus(s.address.host_port, s.validates, not (s.silent or s.down), s.last_error)
            for s in self._servers
        )
