"""What an examination means, in plain words: what is wrong, where, and who can do what about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from mtastsd.answers import Answer, DnsError, NoData
from mtastsd.dane import Finding, HostState, NoHosts
from mtastsd.outlook import Outlook
from mtastsd.postfix.nexthop import SMTP_PORT
from mtastsd.probing import Probe
from mtastsd.service.examine import Examination, MxHost
from mtastsd.sts import policy as policies
from mtastsd.sts import record as sts_records
from mtastsd.sts.failure import Failure
from mtastsd.tlsrpt import record as tlsrpt_records
from mtastsd.tlsrpt.probe import Failed, judge
from mtastsd.verdict import What

ENDS_SOON = 14 * 86400.0
"""Seconds before its end from which a certificate is told of: automatic renewal comes a month
before, so two weeks before the end it has failed."""

SHORT_LIFE = 86400
"""Seconds of max_age below which a policy protects little: RFC 8461 §3.2 has weeks in mind, and
whoever keeps the policy host away for so long ends it."""

SHOWN_NAMES = 3
"""Names of a wrong certificate that are told."""


@dataclass(frozen=True, slots=True)
class Note:
    """One thing worth saying. `word` is stable; `broken` false: worth knowing, nothing is wrong.

    `where` is the name or record it is about; `text` and `todo` are sentences, printable ASCII.
    """

    word: str
    where: str
    text: str
    todo: str = ""
    section: str = ""
    broken: bool = True


def notes(seen: Examination, deadline: float) -> tuple[Note, ...]:
    """All that is to be said, what is wrong first; `deadline` is `fetch.deadline`, seconds."""
    found = [*_mx(seen), *_names(seen), *_sts(seen, deadline), *_tls_rpt(seen), *_here(seen)]
    return tuple(sorted(dict.fromkeys(found), key=lambda note: not note.broken))


# ---- here


def _here(seen: Examination) -> Iterator[Note]:
    if seen.settings.rules.dane and not seen.validates:
        yield Note(
            "no-validating-resolver",
            "this machine",
            "no resolver here validates DNSSEC, so DANE can't be judged and finds nothing",
            "run one on this machine (apt install unbound) or name one in [dns] nameservers",
        )
    if _all_unreachable(seen):
        yield Note(
            "port-blocked",
            "this machine",
            f"no MX host could be connected to on port {seen.hop.port}: all are down, or this"
            " machine may not connect to that port",
            "check another domain; if it is the same there, ask your provider to open the port",
        )
    yield from _override(seen)
    if seen.verdict.why == "minimum":
        yield Note(
            "minimum",
            "this machine",
            f"[policy] minimum raised the answer to {seen.verdict.what.value}",
            broken=False,
        )


def _all_unreachable(seen: Examination) -> bool:
    outlooks = [outlook for host in seen.mx_hosts for _, outlook in host.seen]
    return bool(outlooks) and all(o.why == "unreachable" for o in outlooks)


def _override(seen: Examination) -> Iterator[Note]:
    override = seen.override
    if override is None:
        return
    until = f", until {override.until}" if override.until is not None else ""
    reason = f" ({override.reason})" if override.reason else ""
    if seen.now < override.ends_at():
        text = f"an [[override]] decides: {override.action}{reason}{until}"
        yield Note("override", seen.hop.domain, text, broken=False)
    else:
        text = f"an [[override]] has ended: {override.action}{reason}{until}"
        yield Note("override-ended", seen.hop.domain, text, "remove it", broken=False)


# ---- names


def _names(seen: Examination) -> Iterator[Note]:
    domain = seen.hop.domain
    if isinstance(seen.mx, DnsError):
        yield _dns_error(f"{domain} MX", seen.mx, f"dig {domain} MX")
    elif isinstance(seen.mx, NoData) and not seen.mx.exists:
        yield Note(
            "no-domain",
            domain,
            "the name does not exist",
            "look for a typing error in the address; else only its owner can help",
            "RFC 5321 §5.1",
        )
    elif isinstance(seen.mx, Answer) and seen.hosts == NoHosts(Finding.NONE, seen.mx.ttl):
        yield Note(
            "no-mx-host",
            domain,
            "no MX record names a host that could be asked for",
            "its owner must name hosts in the MX records",
            "RFC 5321 §5.1",
        )


def _dns_error(where: str, error: DnsError, command: str) -> Note:
    return Note(
        "dns-error",
        where,
        f"DNS gives no answer ({error.why})",
        f"`{command}` tells whether the resolver here or the domain's name servers fail",
    )


# ---- MTA-STS

_BAD_STS_RECORD = {
    "several": "there are several MTA-STS records, so none counts",
    "overlong": "the MTA-STS record is too long",
    "syntax": "the MTA-STS record is no list of fields between semicolons",
    "no-id": "the MTA-STS record has no id",
    "bad-id": "the MTA-STS record's id is not 1 to 32 letters and digits",
}

_FETCH = {
    "dns": "the policy host has no address",
    "address": "the policy host has only addresses that are not connected to",
    "connect": "the policy host can't be connected to",
    "tls": "the policy host's certificate is not good",
    "status": "the policy host answers with a status that is not 200",
    "redirect": "the policy host redirects, which is not followed",
    "type": "the policy is not served as text/plain",
    "size": "the policy is too large",
    "protocol": "the policy host does not speak HTTP",
    "encoding": "the policy is in a content coding that can't be undone",
    "timeout": "the policy host is too slow",
}

_NO_POLICY = (
    "only its owner can mend it; until then there is no policy, unless the daemon has one from"
    " before (mtastsd policy show)"
)


def _sts(seen: Examination, deadline: float) -> Iterator[Note]:
    side, domain = seen.sts, seen.hop.domain
    record = f"_mta-sts.{domain}"
    if isinstance(side.reading.record, DnsError):
        yield _dns_error(f"{record} TXT", side.reading.record, f"dig {record} TXT")
    elif isinstance(side.selected, sts_records.BadRecord):
        text = _BAD_STS_RECORD[side.selected.why]
        yield Note("sts-record", f"{record} TXT", text, _NO_POLICY, sts_records.SECTION)
    elif side.problems:
        first = side.problems[0]
        line = f" in line {first.line}" if first.line is not None else ""
        count = f", and {len(side.problems) - 1} more" if len(side.problems) > 1 else ""
        yield Note(
            "sts-policy",
            f"mta-sts.{domain}",
            f"the policy is invalid: {first.why}{line}{count}",
            _NO_POLICY,
            policies.section(first.why),
        )
    elif side.failure is not None:
        yield Note("sts-fetch", f"mta-sts.{domain}", _fetch(side.failure, side.certificate),
                   _NO_POLICY, "RFC 8461 §3.3")  # fmt: skip
    elif side.policy is not None:
        yield from _good_policy(seen, deadline)


def _fetch(failure: Failure, certificate: Probe | None) -> str:
    names = certificate.tls.names if certificate is not None and certificate.tls else ()
    mismatch = "hostname-mismatch" in failure.detail and names
    found = f"; it is for {_listed(names)}" if mismatch else ""
    text = _FETCH.get(failure.kind, failure.kind)
    if failure.kind == "tls" and (certificate is None or certificate.tls is None):
        text = "TLS with the policy host fails"
    return f"{text} ({failure.detail or failure.kind}){found}"


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return (", ".join(names[:SHOWN_NAMES]) + more) or "no name at all"


def _good_policy(seen: Examination, deadline: float) -> Iterator[Note]:
    side, host = seen.sts, f"mta-sts.{seen.hop.domain}"
    if side.seconds > deadline:
        yield Note(
            "sts-slow",
            host,
            f"it took {side.seconds:.0f} s, longer than a look-up waits ({deadline:g} s), so the"
            " first mail of all goes out without the policy",
            broken=False,
        )
    if side.policy is not None and side.policy.max_age < SHORT_LIFE and side.policy.mode != "none":
        yield Note(
            "sts-short-life",
            host,
            f"max_age is only {side.policy.max_age} s: whoever keeps the policy host away for so"
            " long ends the policy",
            section="RFC 8461 §3.2",
            broken=False,
        )
    if side.certificate is not None:
        yield from _ends_soon(host, side.certificate, seen.now)


def _ends_soon(where: str, probe: Probe, now: float) -> Iterator[Note]:
    end = leaf_end(probe)
    if end is not None and now <= end < now + ENDS_SOON:
        text = f"its certificate ends on {day(end)}"
        yield Note("certificate-ends", where, text, broken=False)


def leaf_end(probe: Probe) -> float | None:
    """When the host's certificate ends; None where none was seen or it can't be read."""
    end = probe.tls.chain[0].not_after if probe.tls is not None and probe.tls.chain else 0.0
    return end or None


def day(moment: float) -> str:
    """A date, UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")


# ---- MX hosts


def _mx(seen: Examination) -> Iterator[Note]:
    unsigned = isinstance(seen.mx, Answer) and not seen.mx.secure
    usable = any(host.reading.state is HostState.USABLE for host in seen.mx_hosts)
    if seen.validates and unsigned and usable:
        yield Note(
            "mx-unsigned",
            f"{seen.hop.domain} MX",
            "the MX records are unsigned, so the hosts' TLSA records prove little",
            section="RFC 7672 §2.2.1",
            broken=False,
        )
    for host in seen.mx_hosts:
        yield from _host(seen, host)


def _host(seen: Examination, host: MxHost) -> Iterator[Note]:
    if isinstance(host.addresses, DnsError):
        yield _dns_error(f"{host.host} A, AAAA", host.addresses, f"dig {host.host} A")
        return
    if host.reading.state is HostState.ERROR and seen.validates and seen.settings.rules.dane:
        name = f"_{seen.hop.port}._tcp.{host.reading.base or host.host}"
        yield _dns_error(f"{name} TLSA", DnsError("servfail"), f"dig +dnssec {name} TLSA")
    if host.reading.state is HostState.UNUSABLE and seen.settings.rules.dane:
        yield Note(
            "tlsa-unusable",
            host.host,
            "none of its TLSA records can be used: only 2 x x and 3 x x count for mail",
            "only its owner can mend them",
            "RFC 7672 §3.1.3",
        )
    yield from _outlook(seen, host)
    for probe, _ in host.seen:
        yield from _ends_soon(host.host, probe, seen.now)


def _outlook(seen: Examination, host: MxHost) -> Iterator[Note]:
    """What stops mail to this host; under a policy that only tests, what would stop it."""
    outlook = host.outlook
    probe = _decisive(host, outlook)
    if outlook.passes is False:
        text, section = explained(outlook, probe, seen.now)
        yield Note(f"mx-{outlook.why}", host.host, text, _way_out(seen, outlook), section)
    elif host.enforced is not None and host.enforced.passes is False:
        text, section = explained(host.enforced, _decisive(host, host.enforced), seen.now)
        text = f"{text}; the policy is in mode testing, so mail goes out all the same"
        todo = "its owner should mend it before the policy enforces"
        yield Note(f"mx-{host.enforced.why}", host.host, text, todo, section)
    elif outlook.passes is None and seen.probed and not _all_unreachable(seen):
        text, _ = explained(outlook, probe, seen.now)
        yield Note(f"mx-{outlook.why}", host.host, text, broken=False)
    elif outlook.passes and probe is not None and seen.verdict.what in (What.NOTHING, What.MAY):
        judged = judge(probe, host.host)
        if isinstance(judged, Failed):
            word = "no TLS" if outlook.why == "plaintext" else "a certificate that doesn't hold"
            text = f"{word} ({judged.result.value}); nothing asks for better"
            yield Note("mx-weak", host.host, text, broken=False)


def _decisive(host: MxHost, outlook: Outlook) -> Probe | None:
    """The probe that an outlook is of; where it is of none, the one that saw most."""
    exact = [probe for probe, of in host.seen if of == outlook]
    furthest = sorted((probe for probe, _ in host.seen), key=lambda probe: -probe.stage)
    return next(iter(exact + furthest), None)


def _way_out(seen: Examination, outlook: Outlook) -> str:
    owner = "only its owner can mend it"
    if any(host.outlook.passes for host in seen.mx_hosts):
        return f"{owner}; mail goes to the hosts that pass"
    if outlook.why == "no-address":
        return owner
    if seen.hop.bracketed or seen.hop.port != SMTP_PORT:
        owner = "a relay host is a policy domain too"
    action = "may" if outlook.why in _NO_TLS else "encrypt"
    return (
        f"{owner}; until then mail goes out unverified with [[override]] domain ="
        f' "{seen.hop.domain}" action = "{action}"'
    )


_NO_TLS = ("no-starttls", "starttls-refused", "handshake")


_EXPLAINED: dict[str, tuple[str, str]] = {
    "not-listed": ("no mx line of the policy lists it", "RFC 8461 §4.1"),
    "no-starttls": (
        "it offers no STARTTLS, or somebody in between takes the offer away",
        "RFC 3207 §6",
    ),
    "no-tlsa": ("it has no signed TLSA record, while other hosts have", "RFC 7672 §2.2"),
    "tlsa-unusable": ("none of its TLSA records can be used", "RFC 7672 §3.1.3"),
    "tlsa-mismatch": ("its certificate matches none of its TLSA records", "RFC 7672 §3.1"),
    "tlsa-expired": ("a certificate below its TLSA trust anchor is over", "RFC 7672 §3.1.2"),
    "tlsa-error": ("its TLSA records can't be looked up, so Postfix skips it", "RFC 7672 §2.1.2"),
    "no-address": ("it has no address", "RFC 5321 §5.1"),
    "not-probed": ("it was not looked at", ""),
    "no-certificate": ("its certificate was refused, and then not shown", ""),
    "unreachable": ("it can't be connected to from here", ""),
    "closed": ("it closed the connection", ""),
    "protocol": ("it doesn't speak SMTP", ""),
    "address": ("its address is one that is not connected to", ""),
    "timeout": ("it is too slow to answer", ""),
}


def explained(outlook: Outlook, probe: Probe | None, now: float) -> tuple[str, str]:
    """A sentence for an outlook that is not good, and the section of the rule."""
    said = f" ({probe.detail})" if probe is not None and probe.detail else ""
    tls = probe.tls if probe is not None else None
    match outlook.why:
        case "starttls-refused":
            return f"it offers STARTTLS and then refuses it{said}", "RFC 3207 §4"
        case "handshake":
            return f"the TLS handshake fails{said}", "RFC 8461 §4.2"
        case "expired":
            end = leaf_end(probe) if probe is not None else None
            if end is not None and end <= now:
                return f"its certificate ended on {day(end)}", "RFC 8461 §4.2"
            return "a certificate of its chain has ended", "RFC 8461 §4.2"
        case "not-yet-valid":
            return "its certificate is not valid yet", "RFC 8461 §4.2"
        case "untrusted":
            by = f"; issued by {tls.issuer}" if tls is not None and tls.issuer else ""
            text = f"its certificate leads to no trusted authority ({outlook.reason}){by}"
            return text, "RFC 8461 §4.2"
        case "host-mismatch" | "tlsa-host-mismatch":
            names = _listed(tls.names if tls is not None else ())
            rule = "RFC 8461 §4.2" if outlook.why == "host-mismatch" else "RFC 7672 §3.2.2"
            return f"its certificate is for {names}", rule
        case "refused":
            return f"it doesn't want to talk to us{said}", ""
        case why:
            text, section = _EXPLAINED[why]
            return f"{text}{said}" if outlook.passes is None else text, section


# ---- TLS-RPT

_BAD_TLS_RPT_RECORD = {
    "several": "there are several TLS-RPT records, so none counts",
    "overlong": "the TLS-RPT record is too long",
    "syntax": "the TLS-RPT record is no list of fields between semicolons",
    "no-rua": "the TLS-RPT record has no rua",
}


def _tls_rpt(seen: Examination) -> Iterator[Note]:
    side, name = seen.tls_rpt, f"_smtp._tls.{seen.hop.domain}"
    if isinstance(side.record, DnsError):
        yield _dns_error(f"{name} TXT", side.record, f"dig {name} TXT")
    elif isinstance(side.selected, tlsrpt_records.BadRecord):
        text = f"{_BAD_TLS_RPT_RECORD[side.selected.why]}: no reports are sent"
        section = tlsrpt_records.section(side.selected.why)
        yield Note("tls-rpt-record", f"{name} TXT", text, "only its owner can mend it", section)
    elif isinstance(side.selected, tlsrpt_records.Record):
        for rejected in side.selected.rejected:
            text = f"no reports can go to {rejected.uri or 'an empty URI'} ({rejected.why})"
            section = tlsrpt_records.section(rejected.why)
            yield Note("tls-rpt-uri", f"{name} TXT", text, "only its owner can mend it", section)
