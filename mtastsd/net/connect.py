"""TLS connections to hosts that remote parties name: resolve, judge each address, connect.

    reachable(resolver, host, ...)   -> Addresses that may be connected to | Failure
    dial(addresses, ...)             -> Link | Failure

`dial` connects to the very addresses that were judged; the name is not resolved a second time
(DNS rebinding), it is only sent as SNI and held against the certificate.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from mtastsd.answers import AddressAnswer, DnsError, NoData
from mtastsd.names import MAX_NAME
from mtastsd.net import guard
from mtastsd.ports import Clock, Resolver
from mtastsd.sts.failure import Failure, printable

MAX_RECORDS = 64
"""Address records that are judged: a hostile answer may hold four thousand."""

MAX_ADDRESSES = 4
"""Addresses of either kind of one host that are tried; twice as many connections may be open."""

STAGGER = 0.5
"""Seconds after which the next address is tried beside one that has neither connected nor failed.
Longer than RFC 8305 §5 has it, because it covers the TLS handshake too; short enough that a dead
address (broken IPv6 is the usual case) does not cost a look-up its deadline."""

P = TypeVar("P", bound=asyncio.Protocol)


@dataclass(frozen=True, slots=True)
class Link(Generic[P]):
    """An established TLS connection, its peer verified. Whoever holds it ends it by `abort`."""

    transport: asyncio.Transport
    protocol: P
    address: str

    def abort(self) -> None:
        """Close now. TLS's own shutdown would wait up to half a minute for a hostile peer."""
        self.transport.abort()


def client_context(ca_file: str = "") -> ssl.SSLContext:
    """The TLS settings of a client: the system's trust store, TLS 1.2 or better, DNS-ID only.

    `ca_file` adds authorities to the system's; SSL_CERT_FILE replaces those. Costs milliseconds
    and megabytes: build one and keep it. Raises OSError for a `ca_file` that can't be used.
    """
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # RFC 8461 §3.3: the name is matched against DNS-IDs, never against the common name.
    context.hostname_checks_common_name = False
    context.set_alpn_protocols(["http/1.1"])
    return context


@dataclass(frozen=True, slots=True)
class Addresses:
    """A host's addresses that may be connected to: those that are tried `first`, not none, and how
    to have the others, which are asked for only where none of the first connects in time."""

    first: tuple[str, ...]
    others: Callable[[], Coroutine[Any, Any, tuple[str, ...]]] | None = None


async def reachable(resolver: Resolver, host: str, *, allow_private: bool) -> Addresses | Failure:
    """The host's addresses that may be connected to, IPv4 first: nearly every policy host has one.

    Fails with `dns` (nxdomain, no-address, or why DNS gave no answer) or, where the guard refuses
    every address, with `address`.
    """
    if len(host) > MAX_NAME:
        return Failure("dns", "name")
    first = _judged(await resolver.some_addresses(host, validated=False), allow_private)
    if isinstance(first, Failure):
        if first.kind != "address":
            return first
        every = _judged(await resolver.addresses(host, validated=False), allow_private)
        return every if isinstance(every, Failure) else Addresses(every)
    if _is_six(first[0]):
        return Addresses(first)
    return Addresses(first, partial(_sixes, resolver, host, allow_private))


async def _sixes(resolver: Resolver, host: str, allow_private: bool) -> tuple[str, ...]:
    every = _judged(await resolver.addresses(host, validated=False), allow_private)
    return () if isinstance(every, Failure) else tuple(filter(_is_six, every))


def _is_six(address: str) -> bool:
    return ":" in address


def _judged(answer: AddressAnswer, allow_private: bool) -> tuple[str, ...] | Failure:
    """The addresses of an answer that the guard lets through, IPv4 first."""
    match answer:
        case DnsError(why=why):
            return Failure("dns", why)
        case NoData(exists=exists):
            return Failure("dns", "no-address" if exists else "nxdomain")
    good: dict[bool, list[str]] = {False: [], True: []}
    refused: list[str] = []
    for address in dict.fromkeys(answer.records[:MAX_RECORDS]):
        if guard.allowed(address, allow_private):
            good[_is_six(address)].append(address)
        else:
            refused.append(f"{address} {guard.scope(address)}")
    found = tuple(good[False][:MAX_ADDRESSES] + good[True][:MAX_ADDRESSES])
    if found:
        return found
    return Failure("address", printable(", ".join(refused))) if refused else _no_address()


def _no_address() -> Failure:
    return Failure("dns", "no-address")


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect: the name that the peer must prove, and the port.

    `timeout` in seconds bounds one TLS handshake; the caller's own deadline should come first.
    """

    host: str
    port: int
    context: ssl.SSLContext
    timeout: float


async def dial(
    addresses: Addresses, target: Target, factory: Callable[[], P], clock: Clock
) -> Link[P] | Failure:
    """Connect to the first address that completes a verified TLS handshake.

    The next one is tried when one fails or after `STAGGER`. If all fail, a TLS failure is told
    before a refused connection. Waits without end: the caller has the deadline.
    """
    if len(addresses.first) == 1 and addresses.others is None:
        return await _attempt(addresses.first[0], target, factory, [])
    opened: list[Link[P]] = []
    winner: Link[P] | None = None
    try:
        outcome = await _race(addresses, target, factory, clock, opened)
        winner = outcome if isinstance(outcome, Link) else None
        return outcome
    finally:
        # Two may connect in the same turn of the loop, and all of them are lost on cancellation.
        for link in opened:
            if link is not winner:
                link.abort()


async def _race(
    addresses: Addresses,
    target: Target,
    factory: Callable[[], P],
    clock: Clock,
    opened: list[Link[P]],
) -> Link[P] | Failure:
    failures: list[Failure] = []
    waiting, others = list(reversed(addresses.first)), addresses.others
    running: set[asyncio.Task[Link[P] | Failure | tuple[str, ...]]] = set()
    pauses: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as group:
        try:
            while waiting or running or others:
                if waiting:
                    attempt = _attempt(waiting.pop(), target, factory, opened)
                    running.add(group.create_task(attempt))
                elif others:
                    running.add(group.create_task(others()))
                    others = None
                pauses = {group.create_task(clock.sleep(STAGGER))} if waiting or others else set()
                await asyncio.wait(running | pauses, return_when=asyncio.FIRST_COMPLETED)
                for pause in pauses:
                    pause.cancel()
                ended = {task for task in running if task.done()}
                running -= ended
                for outcome in (task.result() for task in ended):
                    if isinstance(outcome, Link):
                        return outcome
                    if isinstance(outcome, Failure):
                        failures.append(outcome)
                    else:
                        waiting.extend(reversed(outcome))
        finally:
            for task in running | pauses:
                task.cancel()
    return next((f for f in failures if f.kind == "tls"), failures[0])


async def _attempt(
    address: str, target: Target, factory: Callable[[], P], opened: list[Link[P]]
) -> Link[P] | Failure:
    loop = asyncio.get_running_loop()
    try:
        transport, protocol = await loop.create_connection(
            factory,
            address,
            target.port,
            ssl=target.context,
            server_hostname=target.host,
            ssl_handshake_timeout=target.timeout,
        )
    except OSError as error:  # ssl.SSLError is one
        return failed(error, f" at {address}")
    link = Link(transport, protocol, address)
    opened.append(link)
    return link


def failed(error: OSError, where: str = "") -> Failure:
    """A connection's or handshake's error as a value; `where` is added to the detail."""
    if isinstance(error, ssl.SSLError) and not isinstance(
        error, ssl.SSLEOFError | ssl.SSLZeroReturnError
    ):
        return Failure("tls", printable(tls_reason(error) + where))
    return Failure("connect", printable(_os_reason(error) + where))


_VERIFY = {
    2: "unknown-issuer",  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT
    7: "bad-signature",
    9: "certificate-not-yet-valid",
    10: "certificate-expired",
    18: "self-signed",
    19: "untrusted-root",  # the chain ends in a root that is not in the store
    20: "unknown-issuer",  # ..._ISSUER_CERT_LOCALLY
    21: "unknown-issuer",  # X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE
    22: "chain-too-long",
    23: "certificate-revoked",
    25: "path-length-exceeded",
    26: "wrong-purpose",
    62: "hostname-mismatch",
    66: "weak-key",
    67: "weak-key",
    68: "weak-signature",
}
"""OpenSSL's X509_V_ERR codes (x509_vfy.h) as words."""

_HANDSHAKE = {
    "UNSUPPORTED_PROTOCOL": "protocol-version",
    "TLSV1_ALERT_PROTOCOL_VERSION": "protocol-version",
    "WRONG_SSL_VERSION": "protocol-version",
    "WRONG_VERSION_NUMBER": "not-tls",
    "RECORD_LAYER_FAILURE": "not-tls",  # OpenSSL 3.2 and later, for the same
    "HTTP_REQUEST": "not-tls",
}


def tls_reason(error: ssl.SSLError) -> str:
    """A stable word for what went wrong in TLS: `certificate-expired`, `handshake <reason>` ..."""
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _VERIFY.get(error.verify_code)
        return known or f"verify-{error.verify_code} {error.verify_message}"
    reason = error.reason or "unknown"
    return _HANDSHAKE.get(reason) or f"handshake {reason.lower().replace('_', '-')}"


_ERRNO = {
    errno.ENETUNREACH: "network-unreachable",
    errno.EHOSTUNREACH: "host-unreachable",
    errno.ECONNREFUSED: "connection-refused",
    errno.ECONNRESET: "connection-reset",
    errno.EPIPE: "connection-reset",
    errno.ETIMEDOUT: "connection-timed-out",
    errno.EMFILE: "too-many-open-files",
    errno.ENFILE: "too-many-open-files",
}


def _os_reason(error: OSError) -> str:
    if error.errno in _ERRNO:
        return _ERRNO[error.errno]
    if isinstance(error, ConnectionResetError | ssl.SSLError):
        return "connection-reset"  # without errno: asyncio's word for an end amid the handshake
    if isinstance(error, ConnectionAbortedError):
        return "handshake-timed-out"
    code = errno.errorcode.get(error.errno or 0)
    return code.lower() if code else type(error).__name__
