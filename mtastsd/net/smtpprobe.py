"""The `Prober` port: one mail host at one address, as far as a delivery would go before MAIL.

Python's ssl module shows no certificate of a handshake that it refused. So a host is first
connected to with verification, as enforcement would do it; only where the chain is refused a
second connection without verification brings the certificate, and the chain that DANE is judged
by. The two may end at different machines behind one address: then the details are those of the
second. The name is no part of either handshake, since DANE-EE has none and rules judge it.

The whole chain is to be had from Python 3.13 on, and by a private method of 3.10 to 3.12; where
neither is there, the leaf alone is looked at, and a DANE-TA(2) record can't be judged.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mtastsd.names import Domain
from mtastsd.net import guard
from mtastsd.net.certificates import tls_seen
from mtastsd.net.connect import failed, tls_reason
from mtastsd.net.smtpwire import Ended, Wire
from mtastsd.probing import Probe, Stage, Tls, Trouble
from mtastsd.sts.failure import printable

MAX_HELO = 253
"""Characters kept of the peer's name for itself: what a name can have."""

QUIT_TIMEOUT = 3.0
"""Seconds for the answer to QUIT, which decides nothing."""

WRAPPED = 465
"""The port on which TLS comes before SMTP, RFC 8314 §3.3."""

_STARTTLS = re.compile(rb"STARTTLS(?:[ \t].*)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How to probe. Spans are seconds: `connect`, `reply` for each reply and for the handshake,
    `whole` for all of it, a second connection included.

    `helo`: our name for EHLO, "" for an address literal. `source`: the address to connect from.
    `allow_private` and `ca_file` are those of `[fetch]`.
    """

    helo: str = ""
    source: str = ""
    allow_private: bool = False
    ca_file: str = ""
    connect: float = 15.0
    reply: float = 30.0
    whole: float = 60.0


@dataclass(slots=True)
class _Session:
    """One connection: where it goes, and what was seen so far."""

    host: str
    address: str
    port: int
    context: ssl.SSLContext
    stage: Stage = Stage.CONNECT
    trouble: Trouble | None = None
    detail: str = ""
    code: int = 0
    helo: str = ""
    sending_ip: str = ""
    tls: Tls | None = None

    def ended(self, trouble: Trouble, detail: str = "", code: int = 0) -> None:
        self.trouble, self.detail, self.code = trouble, printable(detail), code

    def probe(self) -> Probe:
        return Probe(
            self.host,
            self.address,
            self.stage,
            self.trouble,
            self.detail,
            self.code,
            self.helo,
            self.sending_ip,
            self.tls,
        )


_Talk = Callable[[_Session, Wire], Awaitable[None]]


class SmtpProber:
    """`ports.Prober`. Holds two TLS contexts and nothing of any probe.

    Raises OSError where `ca_file` can't be used.
    """

    def __init__(self, settings: ProbeSettings) -> None:
        self._settings = settings
        self._strict = _context(settings.ca_file)
        self._lenient = _context("")
        self._lenient.verify_mode = ssl.CERT_NONE

    async def probe(self, host: Domain, address: str, port: int) -> Probe:
        return await self._look(host, address, port, self._smtp)

    async def certificate(self, host: str, address: str, port: int) -> Probe:
        return await self._look(host, address, port, self._handshake)

    async def _look(self, host: str, address: str, port: int, talk: _Talk) -> Probe:
        if not guard.allowed(address, self._settings.allow_private):
            return Probe(host, address, Stage.CONNECT, "address", guard.scope(address))
        first = running = _Session(host, address, port, self._strict)
        try:
            async with asyncio.timeout(self._settings.whole):
                await self._run(first, talk)
                if first.tls is not None and first.tls.verify_code:
                    running = _Session(host, address, port, self._lenient)
                    await self._run(running, talk)
        except TimeoutError:
            running.ended("timeout")
        if first is running or first.tls is None or running.tls is None:
            return first.probe()
        running.tls = _refused(running.tls, first.tls.verify_code)
        return running.probe()

    async def _run(self, session: _Session, talk: _Talk) -> None:
        try:
            with _socket(session.address, self._settings.source) as sock:
                await self._connect(session, sock)
                await talk(session, Wire(sock))
        except Ended as end:
            session.ended(end.trouble, end.detail, end.code)
        except ssl.SSLCertVerificationError as error:
            session.tls = Tls(error.verify_code)
            session.ended("tls", error.verify_message)
        except ssl.SSLError as error:
            session.ended("tls", tls_reason(error))
        except TimeoutError:
            session.ended("timeout")
        except OSError as error:
            at_first = session.stage is Stage.CONNECT
            session.ended("connect" if at_first else "closed", failed(error).detail)

    async def _connect(self, session: _Session, sock: socket.socket) -> None:
        end = (session.address, session.port)
        async with asyncio.timeout(self._settings.connect):
            await asyncio.get_running_loop().sock_connect(
                sock, (*end, 0, 0) if sock.family == socket.AF_INET6 else end
            )
        session.sending_ip = sock.getsockname()[0]

    # -- the talk

    async def _smtp(self, session: _Session, wire: Wire) -> None:
        hello = b"EHLO " + _literal(self._settings.helo, session.sending_ip).encode("ascii")
        if session.port == WRAPPED:
            await self._handshake(session, wire)
        session.stage = Stage.BANNER
        await self._expect(wire, None)
        if session.port != WRAPPED:
            session.stage = Stage.EHLO
            lines = await self._expect(wire, hello)
            session.helo = _first_word(lines[0])
            if not any(_STARTTLS.fullmatch(line) for line in lines[1:]):
                await self._quit(wire)
                raise Ended("no-starttls")
            session.stage = Stage.STARTTLS
            await self._expect(wire, b"STARTTLS", "starttls-refused")
            await self._handshake(session, wire)
        session.stage = Stage.SECOND_EHLO
        lines = await self._expect(wire, hello)
        session.helo = _first_word(lines[0])
        await self._quit(wire)
        session.stage = Stage.DONE

    async def _handshake(self, session: _Session, wire: Wire) -> None:
        session.stage = Stage.HANDSHAKE
        if wire.waiting:
            # Said before TLS, to be taken for something said within (response injection).
            raise Ended("tls", "data between the reply and the handshake")
        async with asyncio.timeout(self._settings.reply):
            tls = await wire.handshake(session.context, session.host)
        session.tls = tls_seen(tls)
        session.stage = Stage.DONE

    async def _expect(
        self, wire: Wire, command: bytes | None, refused: Trouble = "reply"
    ) -> list[bytes]:
        """Send a command, None for the banner; the texts of a good reply's lines."""
        async with asyncio.timeout(self._settings.reply):
            if command is not None:
                await wire.send(command + b"\r\n")
            code, lines = await wire.reply()
        if code < 400:
            return lines
        await self._quit(wire)
        raise Ended(refused, f"{code} {lines[0].decode('latin-1')}", code)

    async def _quit(self, wire: Wire) -> None:
        """Say goodbye. What comes of it decides nothing, so any failure is passed over."""
        try:
            async with asyncio.timeout(QUIT_TIMEOUT):
                await wire.send(b"QUIT\r\n")
                await wire.reply()
        except (Ended, OSError, TimeoutError):
            pass


def _refused(tls: Tls, code: int) -> Tls:
    return Tls(code, tls.version, tls.cipher, tls.chain, tls.names, tls.issuer, tls.whole)


def _context(ca_file: str) -> ssl.SSLContext:
    """The system's store, TLS 1.2 or better, the chain judged as Postfix judges it."""
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    # Python 3.13 refuses by default what Postfix takes: a root without a key identifier and more.
    context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
    return context


def _socket(address: str, source: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    if source and (":" in source) == (":" in address):
        try:
            sock.bind((source, 0))
        except OSError:
            sock.close()
            raise
    return sock


def _literal(helo: str, sending_ip: str) -> str:
    """Our name, or the address literal that stands for one (RFC 5321 §4.1.3)."""
    if helo:
        return helo
    return f"[IPv6:{sending_ip}]" if ":" in sending_ip else f"[{sending_ip}]"


def _first_word(line: bytes) -> str:
    return printable(line.decode("latin-1").partition(" ")[0], MAX_HELO)
