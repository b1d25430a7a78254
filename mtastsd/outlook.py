"""Would a delivery to this MX host go through, under this verdict?

It is Postfix's own judgement done in advance: whether the policy lists the host (RFC 8461 §4.1) and
its certificate is good (§4.2), whether its TLSA records match (RFC 7672 §2.2, §3.1), and what is
left to chance where nothing is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mtastsd import tlsa
from mtastsd.dane import HostReading, HostState
from mtastsd.names import Domain
from mtastsd.probing import Probe, covers
from mtastsd.sts.matching import allows
from mtastsd.tlsrpt.probe import MISMATCH, Failed, Nothing, Passed, Silence, chain, session
from mtastsd.tlsrpt.session import ResultType
from mtastsd.verdict import Verdict, What

Why = (
    Literal[
        # goes through
        "verified",  # by the web's PKI, and the policy lists the host
        "dane",
        "encrypted",
        "opportunistic",  # encrypted, though nobody would mind
        "plaintext",  # nobody minds
        # does not
        "not-listed",
        "no-starttls",
        "starttls-refused",
        "handshake",
        "expired",
        "not-yet-valid",
        "untrusted",
        "host-mismatch",
        "no-tlsa",  # DANE is a must, and the host has none
        "tlsa-unusable",
        "tlsa-mismatch",
        "tlsa-host-mismatch",
        "tlsa-expired",
        "tlsa-error",  # the records can't be looked up
        "no-address",
        # can't be said
        "not-probed",
        "no-certificate",  # the chain was refused, and then not shown
    ]
    | Silence
)

Need = Literal["nothing", "encryption", "certificate", "tlsa"]


@dataclass(frozen=True, slots=True)
class Outlook:
    """`passes` is None where nothing can be said; `reason` is that of a report, "" for none."""

    passes: bool | None
    why: Why
    reason: str = ""


def outlook(verdict: Verdict, reading: HostReading, probe: Probe | None, now: float) -> Outlook:
    """The outlook for one host at one address; `probe` None where nobody looked.

    `verdict.domain` is the next hop's domain. Where the verdict asks for nothing the site's own
    level is taken to be `may` or `dane`.
    """
    need = _need(verdict, reading)
    if isinstance(need, Outlook):
        return need
    if probe is None:
        return Outlook(None, "not-probed")
    match need:
        case "nothing":
            return _opportunistic(probe)
        case "encryption":
            return _session(probe, "encrypted")
        case "certificate":
            return _verified(verdict, reading.host, probe)
        case "tlsa":
            return _dane(verdict.domain, reading, probe, now)


def best(outlooks: Iterable[Outlook]) -> Outlook:
    """That of a host with several addresses: Postfix tries each, and one that works will do.

    A refusal is told before an address that says nothing: many machines have no IPv6.
    """
    found = list(outlooks)
    passing = [o for o in found if o.passes]
    refused = [o for o in found if o.passes is False]
    return next(iter(passing + refused + found), Outlook(None, "not-probed"))


def _need(verdict: Verdict, reading: HostReading) -> Need | Outlook:
    if reading.state is HostState.UNREACHABLE:
        return Outlook(False, "no-address")
    match verdict.what:
        case What.NOTHING | What.MAY:
            return "nothing"
        case What.ENCRYPT:
            return "encryption"
        case What.SECURE:
            if verdict.mx and not any(allows(p, reading.host) for p in verdict.mx):
                return Outlook(False, "not-listed")
            return "certificate"
        case What.DANE | What.DANE_ONLY:
            return _dane_need(reading.state, only=verdict.what is What.DANE_ONLY)


def _dane_need(state: HostState, *, only: bool) -> Need | Outlook:
    """RFC 7672 §2.2: unusable records ask for encryption, none for nothing, an error for another
    host; `dane-only` takes no host that can't be authenticated."""
    match state:
        case HostState.USABLE:
            return "tlsa"
        case HostState.ERROR:
            return Outlook(False, "tlsa-error")
        case HostState.UNUSABLE:
            return Outlook(False, "tlsa-unusable") if only else "encryption"
        case _:
            return Outlook(False, "no-tlsa") if only else "nothing"


def _opportunistic(probe: Probe) -> Outlook:
    if _unseen(probe):
        return Outlook(True, "opportunistic")
    judged = session(probe)
    match judged:
        case Passed():
            return Outlook(True, "opportunistic")
        case Failed():
            # Postfix goes on, or tries again, without TLS.
            return Outlook(True, "plaintext", judged.reason)
        case Nothing(why):
            return Outlook(None, why)


def _unseen(probe: Probe) -> bool:
    """The chain was refused, and the second connection, made to see it, came to nothing."""
    return probe.tls is not None and bool(probe.tls.verify_code) and not probe.tls.chain


def _session(probe: Probe, good: Why) -> Outlook:
    if _unseen(probe):
        return Outlook(None, "no-certificate")
    judged = session(probe)
    match judged:
        case Passed():
            return Outlook(True, good)
        case Failed():
            return Outlook(False, _word(judged, probe), judged.reason)
        case Nothing(why):
            return Outlook(None, why)


def _verified(verdict: Verdict, host: Domain, probe: Probe) -> Outlook:
    refused = chain(probe)
    if refused is None and probe.tls is not None and not _named(verdict, host, probe.tls.names):
        refused = MISMATCH
    if refused is not None:
        return Outlook(False, _word(refused, probe), refused.reason)
    return _session(probe, "verified")


def _named(verdict: Verdict, host: Domain, names: tuple[str, ...]) -> bool:
    """Whether the certificate is for the host; without patterns of a policy Postfix wants the next
    hop or a name below it (`nexthop, dot-nexthop`)."""
    if verdict.mx:
        return covers(names, host)
    below = f".{verdict.domain}"
    return covers(names, verdict.domain) or any(name.endswith(below) for name in names)


def _dane(domain: Domain, reading: HostReading, probe: Probe, now: float) -> Outlook:
    if probe.tls is None or not probe.tls.chain:
        return _session(probe, "dane")
    references = [Domain(reading.base or reading.host), domain]
    found = tlsa.authenticate(reading.tlsa, probe.tls.chain, probe.tls.names, references, now)
    match found:
        case "ee" | "ta":
            return _session(probe, "dane")
        case "no-match":
            if not probe.tls.whole and any(r.usage == tlsa.DANE_TA for r in reading.tlsa):
                return Outlook(None, "no-certificate")
            return Outlook(False, "tlsa-mismatch")
        case "host-mismatch":
            return Outlook(False, "tlsa-host-mismatch")
        case "expired":
            return Outlook(False, "tlsa-expired")


def _word(failed: Failed, probe: Probe) -> Why:
    match failed.result:
        case ResultType.STARTTLS_NOT_SUPPORTED:
            return "starttls-refused" if probe.code else "no-starttls"
        case ResultType.CERTIFICATE_HOST_MISMATCH:
            return "host-mismatch"
        case ResultType.CERTIFICATE_EXPIRED:
            return "expired"
        case ResultType.CERTIFICATE_NOT_TRUSTED:
            return "untrusted"
        case _:
            return "not-yet-valid" if chain(probe) is not None else "handshake"
