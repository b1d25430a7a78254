"""An examination in one line: what mail to this next hop needs, and whether it will get through."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mtastsd.answers import DnsError, NoData
from mtastsd.dane import Finding, NoHosts
from mtastsd.service.examine import Examination
from mtastsd.verdict import Verdict, What, Why

_NULL_MX = (Finding.NULL_MX, Finding.NULL_MX_UNSIGNED)


def conclusion(seen: Examination) -> str:
    """One sentence without a full stop, for the top of the page and for the log of a tired head."""
    mail = f"mail to {seen.hop.key}"
    if isinstance(seen.hosts, NoHosts):
        return _without_hosts(seen, seen.hosts, mail)
    return f"{mail} {_needs(seen.verdict)}: {_hosts(seen)}"


def _without_hosts(seen: Examination, hosts: NoHosts, mail: str) -> str:
    if hosts.finding in _NULL_MX:
        return f"{seen.hop.key} takes no mail (null MX, RFC 7505)"
    match seen.mx:
        case DnsError(why=why):
            return f"{mail}: where it goes is not known, DNS gives no answer ({why})"
        case NoData(exists=False):
            return f"{mail} goes nowhere: the name does not exist"
        case _:
            return f"{mail} goes nowhere: no MX record names a host"


def _needs(verdict: Verdict) -> str:
    by = _BY.get(verdict.why, verdict.why)
    match verdict.what:
        case What.SECURE | What.DANE_ONLY:
            return f"needs verified TLS ({by})"
        case What.ENCRYPT:
            return f"needs TLS, unverified ({by})"
        case What.DANE:
            return f"is verified by DANE where a host can be ({by})"
        case What.MAY | What.NOTHING:
            return f"needs no TLS ({by})"


_BY: Mapping[Why, str] = MappingProxyType(
    {
        "dane": "DANE",
        "dane-partial": "DANE, not at all hosts",
        "dane-unsigned-mx": "DANE, but the MX records are unsigned",
        "dane-error": "DNS errors: Postfix asks for itself",
        "sts-enforce": "MTA-STS enforce",
        "sts-testing": "MTA-STS testing",
        "sts-testing-enforced": "MTA-STS testing, enforced here",
        "sts-none": "MTA-STS none",
        "sts-failed": "MTA-STS record, but no policy to be had",
        "sts-invalid": "MTA-STS record that doesn't count",
        "no-policy": "no policy",
        "dns-error": "DNS error: whether there is a policy is not known",
    }
)
"""Why, in people's words; the other words are theirs already."""


def _hosts(seen: Examination) -> str:
    if not seen.probed:
        return "the hosts were not looked at"
    outlooks = [host.outlook for host in seen.mx_hosts]
    refused = sum(o.passes is False for o in outlooks)
    unknown = sum(o.passes is None for o in outlooks)
    parts = []
    if refused:
        waits = ", so it waits" if refused == len(outlooks) else ""
        parts.append(f"{_count(refused, len(outlooks))} would be refused{waits}")
    if unknown:
        parts.append(f"{_count(unknown, len(outlooks))} could not be judged")
    if not parts:
        parts.append("its MX host passes" if len(outlooks) == 1 else "all MX hosts pass")
    testing = [host.enforced for host in seen.mx_hosts if host.enforced is not None]
    said = ", ".join(parts)
    if failing := sum(o.passes is False for o in testing):
        return f"{said}; if it were enforced, {_count(failing, len(testing))} would be refused"
    return said


def _count(some: int, of: int) -> str:
    if of == 1:
        return "its MX host"
    return f"all {of} MX hosts" if some == of else f"{some} of {of} MX hosts"
