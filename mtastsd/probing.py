"""What a look at a mail host found: the value between the adapter that looked and the rules that
judge (`tlsrpt.probe` for the web's PKI, `tlsa` for DANE, `outlook` for a verdict).

Everything in it is bounded, and all text is printable ASCII.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from mtastsd.names import Domain
from mtastsd.sts.matching import allows

MIN_DOTS = 2
"""Dots in a certificate's wildcard name: `*.com` vouches for nobody (RFC 6125 §7.2), and OpenSSL
takes it no more than we do."""


class Stage(IntEnum):
    """How far it went, in order: the stage at which it ended, DONE for the whole way."""

    CONNECT = 1
    BANNER = 2
    EHLO = 3
    STARTTLS = 4
    HANDSHAKE = 5
    SECOND_EHLO = 6
    DONE = 7


Trouble = Literal[
    "address",  # an address that is not connected to
    "connect",
    "timeout",
    "closed",  # the peer ended the connection
    "reply",  # 4xx or 5xx to the banner or EHLO
    "protocol",  # no SMTP, or too much of it
    "no-starttls",  # not offered
    "starttls-refused",  # offered, then 4xx or 5xx
    "tls",  # the handshake failed, or an alert came after it
]


@dataclass(frozen=True, slots=True)
class ChainCertificate:
    """One certificate as the peer sent it. Times are seconds since 1970, 0 where unreadable.

    `issued_by_next`: the signature on it is that of the key in the next one.
    """

    der: bytes
    not_before: float = 0.0
    not_after: float = 0.0
    issued_by_next: bool = False


@dataclass(frozen=True, slots=True)
class Tls:
    """A TLS session, or the refusal of a chain.

    `verify_code` is OpenSSL's X509_V_ERR code for the chain (0: it leads to an authority of the
    system's store); the name is not in it. `names` are the DNS-IDs, lower case. `chain` has the
    leaf first, empty where the details could not be had; `whole` is false where this Python shows
    the leaf only.
    """

    verify_code: int
    version: str = ""
    cipher: str = ""
    chain: tuple[ChainCertificate, ...] = ()
    names: tuple[str, ...] = ()
    issuer: str = ""
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Probe:
    """One host at one address, as far as a delivery would go before MAIL.

    `host` is the name that was sent as SNI. `trouble` says why it ended before DONE, `detail` what
    the other side or the system said, `code` is the SMTP reply code where one ended it. `helo` is
    the peer's name for itself, "" where unknown; `sending_ip` is our own address.
    """

    host: str
    address: str
    stage: Stage
    trouble: Trouble | None = None
    detail: str = ""
    code: int = 0
    helo: str = ""
    sending_ip: str = ""
    tls: Tls | None = None


def covers(names: Iterable[str], host: Domain) -> bool:
    """Whether one of a certificate's DNS-IDs is for the host (RFC 6125 §6.4).

    A wildcard is the whole left-most label and stands for one label. RFC 8461 §4.1 knows no common
    name, so none is looked at.
    """
    return any(
        allows(name, host)
        for name in names
        if not name.startswith("*.") or name.count(".") >= MIN_DOTS
    )
