"""What a datagram or a log line says of a failure, made fit for a report.

Texts that a remote wrote get here with no more than Postfix's own censoring, or none where another
program writes to the socket. What leaves is a host name, a canonical address, or bounded printable
ASCII. Which words become which result is for `tlsrpt.reasons`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from mtastsd import names
from mtastsd.tlsrpt import reasons
from mtastsd.tlsrpt.session import MAX_REASON, Detail, ResultType

MAX_ADDRESS = 45
"""Characters of an address: INET6_ADDRSTRLEN without its final NUL. An address with a zone is link
local and means nothing to the reader of a report."""

_NOT_ASCII = re.compile(r"[^ -~]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Fault:
    """What was wrong with a session: the result type and a failure-reason-code, "" for none."""

    result: ResultType
    reason: str = ""


NO_HANDSHAKE = Fault(ResultType.VALIDATION_FAILURE, "tls-handshake-failure")
"""A handshake that came to nothing, in the words of Postfix's own reports."""

NO_STARTTLS = Fault(ResultType.STARTTLS_NOT_SUPPORTED)

TLSA_UNUSABLE = Fault(ResultType.TLSA_INVALID, "all-TLSA-records-unusable")
"""Records of which Postfix can use none, in its own words."""


def verification(text: str) -> Fault:
    """A failed verification in OpenSSL's words; certificate-not-trusted for words that are new."""
    reason = printable(text, MAX_REASON).replace(" ", "_")
    known = reasons.settle(Detail(ResultType.VALIDATION_FAILURE, reason=reason))
    if known.reason == reason:
        return Fault(ResultType.CERTIFICATE_NOT_TRUSTED, reason)
    return Fault(known.result, known.reason)


def printable(text: str, limit: int) -> str:
    """At most `limit` characters of printable ASCII, with `?` for each that is not."""
    text = text[:limit]
    if text.isascii() and text.isprintable():
        return text
    return _NOT_ASCII.sub("?", text)


def host_name(text: str) -> str:
    """A host name in the form of `names.parse`, "" for anything else, addresses too."""
    name = names.parse(text)
    return "" if isinstance(name, names.NotADomain) else name


def address(text: str) -> str:
    """An IP address in canonical form (RFC 5952 for IPv6), "" for anything else."""
    if not text or len(text) > MAX_ADDRESS or "%" in text:
        return ""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
