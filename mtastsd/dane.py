"""RFC 7672: from the MX, address and TLSA answers of a next hop to one finding.

The rules are the design's table, and each row of it answers an attack. Two hold throughout: what
an unsigned answer says never makes DANE stronger than MTA-STS, and an error is never "no TLSA".

Only what decides is asked. Where the MX RRset is unsigned, the hosts matter only if no MTA-STS
policy enforces (`Finding.UNSIGNED_UNREAD` says that they were not asked).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from mtastsd.answers import DnsError, Mx, MxAnswer, NoData, Tlsa
from mtastsd.names import Domain
from mtastsd.timing import bounded

TTL_MIN, TTL_MAX = 60.0, 86400.0
"""Bounds in seconds for how long a finding is believed without asking again."""

KEEP_UNDER_ERRORS = 7 * 86400.0
"""Seconds past its TTL for which a finding is kept while nothing but errors come: without that,
an attacker who makes DNS fail would turn DANE off."""

STALE_USE = 86400.0
"""Seconds past its TTL for which a finding still answers at once, while it is read anew."""

ERROR_RETRY = 60.0
"""Seconds before DNS is asked again after errors."""

MAX_HOSTS = 32
"""MX hosts that are looked at, by preference: a hostile zone may list thousands."""


class Finding(Enum):
    """What DANE says of a next hop."""

    ALL = "all"
    """MX RRset signed, every reachable MX host has usable TLSA records."""
    SOME = "some"
    """MX RRset signed, some reachable MX hosts have."""
    UNUSABLE = "unusable"
    """MX RRset signed, there are TLSA records but none that can be used."""
    UNSIGNED = "unsigned"
    """MX RRset unsigned; a host has signed TLSA records."""
    UNSIGNED_UNREAD = "unsigned-unread"
    """MX RRset unsigned; the hosts were not asked for."""
    NONE = "none"
    """No TLSA records."""
    NULL_MX = "null-mx"
    """The domain takes no mail, RFC 7505, and the answer is signed."""
    NULL_MX_UNSIGNED = "null-mx-unsigned"
    """The domain takes no mail, or somebody forged that."""
    ERROR = "error"
    """DNS errors wherever we asked: nothing is known."""


WEAK = frozenset(
    {
        Finding.NONE,
        Finding.UNSIGNED,
        Finding.UNSIGNED_UNREAD,
        Finding.NULL_MX,
        Finding.NULL_MX_UNSIGNED,
        Finding.ERROR,
    }
)
"""Findings that protect nothing: their loss is no loss, and they are not worth a place on disk."""


class HostState(Enum):
    """What one MX host's address and TLSA answers amount to."""

    USABLE = "usable"
    UNUSABLE = "unusable"
    NO_TLSA = "no-tlsa"
    INSECURE = "insecure"
    """The address is unsigned, so TLSA is not asked for (RFC 7672 §2.2.2)."""
    UNREACHABLE = "unreachable"
    """The host has no address."""
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class HostReading:
    """One MX host as read. `base` is the TLSA base domain, `ttl` the lowest TTL seen, seconds."""

    host: Domain
    state: HostState
    ttl: int = 0
    tlsa: tuple[Tlsa, ...] = ()
    base: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class DaneBranch:
    """What is known of a next hop's DANE side.

    `expires_at`: end of the TTLs of the reading; `recheck_at`: when to ask again. `failing`
    says that the last try brought only errors and an older finding stands.
    """

    finding: Finding
    read_at: float
    expires_at: float
    recheck_at: float
    failing: bool = False


@dataclass(frozen=True, slots=True)
class Hosts:
    """The MX hosts to read, best preference first, and whether the RRset is signed."""

    hosts: tuple[Domain, ...]
    secure: bool
    ttl: int
    implicit: bool = False


@dataclass(frozen=True, slots=True)
class NoHosts:
    """The MX answer alone decides; `ttl` in seconds says for how long."""

    finding: Finding
    ttl: int = 0


def mx_hosts(domain: Domain, answer: MxAnswer) -> Hosts | NoHosts:
    """The hosts behind a domain, or the finding where no host need be asked for.

    No MX record: the domain is its own MX (RFC 5321 §5.1). A name that does not exist has no
    hosts: Finding.NONE.
    """
    match answer:
        case DnsError():
            return NoHosts(Finding.ERROR)
        case NoData(exists=False, ttl=ttl):
            return NoHosts(Finding.NONE, ttl)
        case NoData(ttl=ttl, secure=secure):
            return Hosts((domain,), secure, ttl, implicit=True)
    hosts = _by_preference(answer.records)
    if hosts:
        return Hosts(hosts, answer.secure, answer.ttl)
    if not any(mx.null for mx in answer.records):
        return NoHosts(Finding.NONE, answer.ttl)
    return NoHosts(Finding.NULL_MX if answer.secure else Finding.NULL_MX_UNSIGNED, answer.ttl)


def _by_preference(found: Sequence[Mx]) -> tuple[Domain, ...]:
    ordered = sorted(found, key=lambda mx: mx.preference)
    return tuple(dict.fromkeys(mx.host for mx in ordered if mx.host is not None))[:MAX_HOSTS]


def usable(record: Tlsa) -> bool:
    """RFC 7672 §3.1: usage DANE-TA(2) or DANE-EE(3), with a selector and matching type that exist.

    The PKIX usages 0 and 1 are unusable for SMTP (§3.1.3). A digest of the wrong length matches
    nothing.
    """
    lengths = {0: None, 1: 32, 2: 64}
    if record.usage not in (2, 3) or record.selector not in (0, 1):
        return False
    if record.matching not in lengths or not record.data:
        return False
    length = lengths[record.matching]
    return length is None or len(record.data) == length


def find(hosts: Hosts, readings: Sequence[HostReading]) -> Finding:
    """The finding for hosts that were all read."""
    states = {r.state for r in readings}
    errors = HostState.ERROR in states
    heard = states - {HostState.ERROR, HostState.UNREACHABLE}
    if not heard:
        return Finding.ERROR if errors else Finding.NONE
    if hosts.secure and errors and HostState.USABLE not in heard:
        # The host that can't be read may be the one that has usable records: whoever drops its
        # answers must not turn a finding into a weaker one.
        return Finding.ERROR
    if not heard & {HostState.USABLE, HostState.UNUSABLE}:
        return Finding.NONE
    if not hosts.secure:
        return Finding.UNSIGNED
    if heard == {HostState.USABLE}:
        return Finding.ALL
    return Finding.SOME if HostState.USABLE in heard else Finding.UNUSABLE


def settle(known: DaneBranch | None, now: float, finding: Finding, ttl: float) -> DaneBranch:
    """The branch after a reading; `ttl` in seconds is the lowest of all answers that it rests on.

    Errors keep the finding before them, up to `KEEP_UNDER_ERRORS` past its TTL.
    """
    if finding is Finding.ERROR:
        again = now + ERROR_RETRY
        if (
            known is not None
            and known.finding is not Finding.ERROR
            and now < known.expires_at + KEEP_UNDER_ERRORS
        ):
            return DaneBranch(known.finding, known.read_at, known.expires_at, again, failing=True)
        return DaneBranch(finding, now, again, again, failing=True)
    until = now + bounded(ttl, TTL_MIN, TTL_MAX)
    return DaneBranch(finding, now, until, until)
