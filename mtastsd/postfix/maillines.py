"""The lines of Postfix's mail log that tell of TLS: text in, events out.

The grammar is that of Postfix 3.4 to 3.12, where the smtp(8) and tlsproxy(8) programs write
`smtp_tls_loglevel = 1` lines. Each pattern stands from the first character on, for what follows a
colon may be a remote's reply or the text of a certificate; names and addresses are validated here.
Local faults (`client TLS configuration problem`, `our TLS engine is unavailable`) give no event.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mtastsd import names
from mtastsd.names import Domain, NotADomain
from mtastsd.postfix import nexthop
from mtastsd.postfix.details import (
    NO_HANDSHAKE,
    NO_STARTTLS,
    TLSA_UNUSABLE,
    Fault,
    address,
    host_name,
    printable,
    verification,
)
from mtastsd.tlsrpt.reasons import MX_MISMATCH
from mtastsd.tlsrpt.session import MAX_REASON, ResultType

MAX_MESSAGE = 2048
"""Characters of a message that are looked at: Postfix writes 2,000 at most."""

Word = Literal["Anonymous", "Untrusted", "Trusted", "Verified"]


@dataclass(frozen=True, slots=True)
class Peer:
    """The MX host and the address of a connection, valid and canonical."""

    host: Domain
    ip: str


@dataclass(frozen=True, slots=True)
class Established:
    """A new TLS handshake is done; whether its outcome is good enough is for the next line."""

    peer: Peer
    word: Word


@dataclass(frozen=True, slots=True)
class Wrong:
    """Something is wrong with a handshake.

    `broken`: there is no TLS session. `decisive`: the session failed, whether or not the mail goes
    out after all. `repeated`: a resumed session, whose fault was logged when it was new.
    """

    peer: Peer
    fault: Fault
    broken: bool = False
    decisive: bool = False
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class LibraryError:
    """OpenSSL's own word, behind the line that says which handshake came to nothing."""

    reason: str


@dataclass(frozen=True, slots=True)
class Told:
    """Postfix's own `TLSRPT:` line (3.10 and later): what it tells libtlsrpt. No fault: success."""

    domain: Domain
    peer: Peer | None
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """An MX host that was not connected to. `domain` is the next hop, None where none is named."""

    host: str
    domain: Domain | None
    fault: Fault


@dataclass(frozen=True, slots=True)
class Blame:
    """A delivery reason that TLS is to blame for. Without a fault the certificate is, and the lines
    before it say how. `peer` where the reason names it."""

    fault: Fault | None
    peer: Peer | None = None


@dataclass(frozen=True, slots=True)
class Remark:
    """`QUEUEID: text`: an MX host is given up and the next one tried, or anything else."""

    queue_id: str
    blame: Blame | None


@dataclass(frozen=True, slots=True)
class Delivered:
    """`QUEUEID: to=<...>`: the end of a delivery for one recipient, good or bad.

    `domain` None: the recipient is at an address literal, or nowhere. `connected`: over a
    connection, `peer` None where that goes to no MX host (a content filter, a unix socket).
    `reused`: the connection served a delivery before. `level`: what `tls=` says (3.11 and later).
    """

    queue_id: str
    domain: Domain | None
    peer: Peer | None
    connected: bool
    reused: bool
    sent: bool
    level: str
    blame: Blame | None
    skipped: Skipped | None


Event = Established | Wrong | LibraryError | Told | Skipped | Remark | Delivered

# host[address], host[address]:port as Postfix writes them; neither has blanks.
_HOST = r"(?P<host>[^][ ,]{1,255})\[(?P<ip>[0-9A-Fa-f.:]{2,45})\]"
_PEER = rf"{_HOST}(?::[0-9]{{1,5}})?"

# Long queue ids are in consonants, which tells them from `warning:` and `TLSRPT:`.
_QUEUE_ID = r"(?P<id>[0-9A-F]{5,32}|[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,32})"

# The external form, where a local part with blanks or brackets is quoted.
_ADDRESS = r'(?:"(?:[^"\\]|\\.)*"@[^<>" ]*|[^<>" ]*)'

_PEER_ALONE = re.compile(_PEER)
_ESTABLISHED = re.compile(
    rf"(?P<word>Anonymous|Untrusted|Trusted|Verified) TLS connection established to {_PEER}: "
)
_VERIFY = re.compile(
    rf"(?P<role>CA |server |)certificate verification failed for {_PEER}: (?P<text>.*)"
)
_CONNECT = re.compile(rf"SSL_connect error to {_PEER}: ")
_LIBRARY = re.compile(
    r"TLS library problem: error:[0-9A-Fa-f]+:[^:]*:[^:]*:(?P<reason>[A-Za-z0-9 ()/._-]{1,80}):"
)
_RESUMED = re.compile(
    rf"{_PEER}: re-using session with untrusted (?:certificate|peer credential), "
)
_UNUSABLE = re.compile(rf"{_PEER}: all TLSA records unusable")
_TOLD = re.compile(
    r"TLSRPT: status=(?P<status>success|failure), domain=(?P<domain>[^ ,]+), "
    r"receiving_mx=(?P<mx>[^ ,]+)"
    r"(?:, failure_type=(?P<type>[^ ,]+)(?:, failure_reason=(?P<reason>.*))?)?"
)
_UNLISTED = re.compile(
    r"MX name '(?P<host>[^' ]*)' does not match STS MX pattern for '(?P<domain>[^' ]*)'"
)
_LOOKUP = re.compile(
    r"TLS policy lookup(?: error)? for (?P<dest>[^ /]+)/(?P<host>[^ /]*): (?P<text>.*)"
)
_TLSA_LOOKUP = re.compile(r"TLSA lookup error for (?P<host>[^ ,:]+):[0-9]+")
_REMARK = re.compile(rf"{_QUEUE_ID}: (?P<text>.*)")
_DELIVERED = re.compile(
    rf"{_QUEUE_ID}: to=<(?P<to>{_ADDRESS})>(?:, orig_to=<{_ADDRESS}>)?, relay=(?P<relay>[^ ,]+)"
    r"(?:, conn_use=(?P<use>[0-9]+))?, delay=[^ ,]+, delays=[^ ,]+(?:, tls=(?P<level>[^ ,]+))?"
    r", dsn=[0-9.]+, status=(?P<status>[a-z]+) \((?P<why>.*)"
)
_NOT_OFFERED = re.compile(
    r"(?:TLS is required, but was|Sender requested REQUIRETLS, but TLS service was)"
    rf" not offered by host {_PEER}"
)
_REFUSED = re.compile(
    r"(?:TLS is required|Sender requested REQUIRETLS), but host "
    rf"{_PEER} refused to start TLS: (?P<code>[0-9]{{3}})?"
)
_UNMATCHED = re.compile(
    r"Server certificate not verified"
    r"|Sender requested REQUIRETLS, but no (?:matching|trusted) server certificate was found"
)
_NUMBERED = re.compile(r"num=[0-9]{1,4}:(?P<text>.*)")

_NOT_TRUSTED = Fault(ResultType.CERTIFICATE_NOT_TRUSTED)

_TEXTS: tuple[tuple[str, Fault], ...] = (
    ("not trusted by local or TLSA policy", verification("certificate not trusted")),
    ("self-signed certificate", verification("self-signed certificate")),
    ("untrusted issuer ", verification("unable to get local issuer certificate")),
    ("certificate not yet valid", verification("certificate is not yet valid")),
    ("certificate has expired", Fault(ResultType.CERTIFICATE_EXPIRED)),
    ("not designated for use as a ", verification("unsuitable certificate purpose")),
    ("certificate chain longer than limit(", verification("certificate chain too long")),
)
"""How `certificate verification failed` goes on where it has no number. As in Postfix's own TLSRPT
lines an expired certificate has no reason beside its result type."""

_CA_EXPIRED = Fault(ResultType.CERTIFICATE_EXPIRED, "ca-certificate-expired")

_REASONS: tuple[tuple[str, Fault], ...] = (
    ("no TLSA records found", Fault(ResultType.DANE_REQUIRED)),
    ("non DNSSEC destination", Fault(ResultType.DANE_REQUIRED)),
    ("TLSA records unusable", TLSA_UNUSABLE),
)
"""Why no MX host is connected to at level dane-only."""


def read(message: str) -> Event | None:
    """What a message of smtp(8) or tlsproxy(8) tells, None for all that is not about TLS."""
    text = message[:MAX_MESSAGE].removeprefix("warning: ")
    queued = _REMARK.match(text)
    if queued and queued["text"].startswith("to=<"):
        return _delivered(text)
    if queued:
        return Remark(queued["id"], _blame(queued["text"]))
    for sign, reader in _READERS:
        if sign in text:
            event = reader(text)
            if event is not None:  # else it was in a certificate's text
                return event
    return None


def _established(text: str) -> Event | None:
    found = _ESTABLISHED.match(text)
    peer = _peer(found)
    if found is None or peer is None:
        return None
    word: Word = found["word"]  # type: ignore[assignment]  # one of the pattern's four
    return Established(peer, word)


def _verify(text: str) -> Event | None:
    found = _VERIFY.match(text)
    peer = _peer(found)
    if found is None or peer is None:
        return None
    numbered = _NUMBERED.match(found["text"])
    if numbered:
        return Wrong(peer, verification(numbered["text"]))
    for start, fault in _TEXTS:
        if found["text"].startswith(start):
            expired = fault.result is ResultType.CERTIFICATE_EXPIRED
            return Wrong(peer, _CA_EXPIRED if expired and found["role"] == "CA " else fault)
    return Wrong(peer, _NOT_TRUSTED)


def _connect(text: str) -> Event | None:
    peer = _peer(_CONNECT.match(text))
    return Wrong(peer, NO_HANDSHAKE, broken=True, decisive=True) if peer else None


def _library(text: str) -> Event | None:
    found = _LIBRARY.match(text)
    return LibraryError(found["reason"].replace(" ", "_")) if found else None


def _resumed(text: str) -> Event | None:
    peer = _peer(_RESUMED.match(text))
    return Wrong(peer, _NOT_TRUSTED, repeated=True) if peer else None


def _unusable(text: str) -> Event | None:
    peer = _peer(_UNUSABLE.match(text))
    return Wrong(peer, TLSA_UNUSABLE, decisive=True) if peer else None


def _told(text: str) -> Event | None:
    found = _TOLD.match(text)
    domain = names.parse(found["domain"]) if found else NotADomain("empty")
    if found is None or isinstance(domain, NotADomain):
        return None
    fault = None
    if found["status"] == "failure":
        result = _result((found["type"] or "").replace("_", "-"))
        fault = Fault(result, printable(found["reason"] or "", MAX_REASON))
    return Told(domain, _peer(_PEER_ALONE.fullmatch(found["mx"])), fault)


def _result(text: str) -> ResultType:
    try:
        return ResultType(text)
    except ValueError:
        return ResultType.VALIDATION_FAILURE


def _unlisted(text: str) -> Event | None:
    found = _UNLISTED.fullmatch(text)
    domain = names.parse(found["domain"]) if found else NotADomain("empty")
    if found is None or isinstance(domain, NotADomain):
        return None
    host = host_name(found["host"])
    return Skipped(host, domain, Fault(ResultType.VALIDATION_FAILURE, MX_MISMATCH))


def _lookup(text: str) -> Event | None:
    """`TLS policy lookup for NEXTHOP/MXHOST`: the one line that names the next hop as it is."""
    found = _LOOKUP.match(text)
    skipped = _policy_reason(found["text"]) if found else None
    if found is None or skipped is None:
        return None
    hop = nexthop.parse(found["dest"].encode("utf-8", "replace"))
    domain = None if isinstance(hop, NotADomain) else hop.domain
    return Skipped(host_name(found["host"]), domain, skipped.fault)


def _policy_reason(why: str) -> Skipped | None:
    lookup = _TLSA_LOOKUP.match(why)
    if lookup:
        return Skipped(host_name(lookup["host"]), None, Fault(ResultType.DNSSEC_INVALID))
    for start, fault in _REASONS:
        if why.startswith(start):
            return Skipped("", None, fault)
    return None


# In what a message must hold before its pattern is tried.
_READERS: tuple[tuple[str, Callable[[str], Event | None]], ...] = (
    (" TLS connection established to ", _established),
    ("TLSRPT: ", _told),
    ("certificate verification failed for ", _verify),
    ("SSL_connect error to ", _connect),
    ("TLS library problem: ", _library),
    (": re-using session with untrusted ", _resumed),
    (": all TLSA records unusable", _unusable),
    (" does not match STS MX pattern for ", _unlisted),
    ("TLS policy lookup ", _lookup),
)


def _delivered(text: str) -> Event | None:
    """A second `>, relay=` is in a reply or in an address that Postfix 3.4 writes unquoted; what
    stands where can't be known then, and whoever wrote it may wish to be taken for another."""
    found = _DELIVERED.match(text)
    if found is None or text.count(">, relay=") > 1:
        return None
    domain = names.parse(found["to"].rpartition("@")[2])
    sent = found["status"] == "sent"
    return Delivered(
        queue_id=found["id"],
        domain=None if isinstance(domain, NotADomain) else domain,
        peer=_peer(_PEER_ALONE.fullmatch(found["relay"])),
        connected=found["relay"] != "none",
        reused=found["use"] is not None,
        sent=sent,
        level=found["level"] or "",
        blame=None if sent else _blame(found["why"]),
        skipped=None if sent else _policy_reason(found["why"]),
    )


def _blame(why: str) -> Blame | None:
    """Replies of a remote stand behind `host ... said: `, so that no server can write these."""
    found = _NOT_OFFERED.match(why) or _REFUSED.match(why)
    if found:
        code = found.groupdict().get("code")
        reason = f"smtp-starttls-reply-code-{code}" if code else ""
        peer = _peer(found)
        return Blame(Fault(NO_STARTTLS.result, reason), peer) if peer else None
    if _UNMATCHED.match(why):
        return Blame(None)
    if why.startswith("Server certificate not trusted"):  # Postfix 3.4 and 3.5
        return Blame(_NOT_TRUSTED)
    if why.startswith("Cannot start TLS: handshake failure"):
        return Blame(NO_HANDSHAKE)
    return None


def _peer(found: re.Match[str] | None) -> Peer | None:
    """The peer of a match; None for what is no MX host: an address, a single label."""
    if found is None:
        return None
    host, ip = names.parse(found["host"]), address(found["ip"])
    return Peer(host, ip) if ip and not isinstance(host, NotADomain) else None
