"""A session, and the verdict that was last answered for its next hop, to what is counted.

Postfix knows what it went by; what it was not told it can't say: that a policy could not be
fetched, that one was in testing mode, that it came over a plain map name without attributes. The
verdict knows. One table, from the top, the first row that fits:

    tlsa or sts          as Postfix said; a policy of MTA-STS beside tlsa is listed without counts
    DANE, from a log     tlsa, as Postfix's outcome: a log names no policy
    enforce              sts, as Postfix's outcome
    testing              sts; failures as they are, successes wait for what a probe finds
    record, no policy    sts, as Postfix's outcome, and a detail that says why there is no policy
    anything else        no-policy-found

Where datagrams and a log are both read, most sessions are told twice. The datagram counts, always:
it alone knows what Postfix went by, and a rule that asked the verdict would count twice, or not
at all, where Postfix found DANE beside a testing policy, or where the mode changed between the
two. From the log comes what no datagram tells (`_log_only`), and the sight of MX hosts in testing
mode, which counts no session (`Totals.unjudged`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mtastsd import names
from mtastsd.names import Domain, NotADomain
from mtastsd.sts.failure import Failure
from mtastsd.sts.policy import Policy
from mtastsd.tlsrpt import reasons
from mtastsd.tlsrpt.session import Detail, PolicyKey, ResultType, Session, bounded
from mtastsd.tlsrpt.tally import UNKNOWN, Counted
from mtastsd.verdict import Verdict, What

_DANE_RESULTS = frozenset(
    {ResultType.TLSA_INVALID, ResultType.DNSSEC_INVALID, ResultType.DANE_REQUIRED}
)

_NEVER_SENT = frozenset({ResultType.DNSSEC_INVALID, ResultType.DANE_REQUIRED})
"""Results for which libtlsrpt has codes that Postfix does not use."""

# The stable word with which the detail of a syntax error begins
_WORD = re.compile(r"[a-z-]+", re.ASCII)

# RFC 6698 §2.2: usage, selector, matching type, and hexadecimal digits with blanks anywhere
_TLSA = re.compile(
    r"([0-9]{1,3}) +([0-9]{1,3}) +([0-9]{1,3}) +([0-9A-Fa-f][0-9A-Fa-f ]*)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class _Basis:
    """Under which policy a session stands. `testing`: in testing mode, so that a success waits for
    a finding. `missing` says why there is none, `beside` is one that exists as well."""

    key: PolicyKey
    testing: bool = False
    missing: Failure | None = None
    beside: PolicyKey | None = None


def join(session: Session, answered: Verdict | None, *, both: bool) -> tuple[Counted, ...]:
    """What a session adds to the totals of its day; nothing where the other source tells of it.

    `answered` is the verdict last answered for its next hop, None for none. `both`: datagrams and
    a log are read, so that most sessions come twice.
    """
    basis = _basis(session, answered)
    waits = basis.testing and session.success and session.counts
    seen = ((session.mx_host, session.mx_ip),) if waits and session.mx_host else ()
    if both and session.source == "log" and not _log_only(session):
        return (Counted(basis.key, unjudged=seen),) if seen else ()
    details = session.details and tuple(dict.fromkeys(map(reasons.settle, session.details)))
    if basis.missing is not None and session.counts:
        details += (_missing(basis.missing),)
    own = Counted(
        basis.key,
        successes=int(session.counts and session.success and not waits),
        failures=int(session.counts and not session.success),
        details=details,
        unjudged=(UNKNOWN, *seen) if waits else (),
    )
    return (own,) if basis.beside is None else (own, Counted(basis.beside))


def _log_only(session: Session) -> bool:
    """Whether the log tells what no datagram does."""
    return (
        session.log_only
        or not session.counts
        or any(d.result in _NEVER_SENT or d.reason == reasons.MX_MISMATCH for d in session.details)
    )


def _basis(session: Session, answered: Verdict | None) -> _Basis:
    said, policy = session.policy, _active(answered)
    if said.type == "sts" and said.strings and said.domain:
        # DANE beside it is not listed: of that only the finding is known, no host and no records.
        return _Basis(said)
    sts = _sts_key(policy, session.domain) if policy is not None else None
    if said.type == "sts":
        return _Basis(_said_sts(session, sts))
    if said.type == "tlsa":
        return _Basis(_tlsa_key(said, session), beside=sts)
    nothing = _Basis(PolicyKey("no-policy-found", said.domain or session.domain))
    if answered is None:
        return nothing
    if _went_by_dane(session, answered):
        return _Basis(_tlsa_key(PolicyKey("tlsa", Domain("")), session), beside=sts)
    if policy is None or sts is None:
        failure = _failure(answered)
        return nothing if failure is None else _Basis(_bare_sts(session), missing=failure)
    if _enforced(answered):
        return _Basis(sts)
    if policy.mode == "testing" and not answered.enforced and answered.why != "override":
        return _Basis(sts, testing=True)
    return nothing


def _active(answered: Verdict | None) -> Policy | None:
    """The policy of MTA-STS that holds. Mode `none` is as good as none (RFC 8461 §5)."""
    if answered is None or answered.policy is None or answered.policy.mode == "none":
        return None
    return answered.policy


def _enforced(answered: Verdict) -> bool:
    """Whether the policy's own patterns went out as what to match: where a map name with attributes
    would have told Postfix of a policy. (An override may name other hosts, or weaken.)"""
    policy = answered.policy
    return (
        answered.what is What.SECURE
        and answered.enforced
        and policy is not None
        and answered.mx == policy.mx
    )


def _went_by_dane(session: Session, answered: Verdict) -> bool:
    """A log names no policy, but at `dane-only` nothing goes out without TLSA, and some failures
    are those of DANE alone. A datagram that says no-policy-found found no TLSA."""
    return session.source == "log" and (
        answered.what is What.DANE_ONLY or any(d.result in _DANE_RESULTS for d in session.details)
    )


def _failure(answered: Verdict) -> Failure | None:
    """Why there is no policy although the domain has a record."""
    failure = answered.failure
    if failure is None or answered.policy is not None or answered.why == "override":
        return None
    # The look-up of the record itself failed: nobody knows whether there is one.
    return None if failure.kind == "dns" and failure.detail.startswith("TXT ") else failure


def _missing(failure: Failure) -> Detail:
    """RFC 8460 §4.3.2.2. The reason is the kind, or what is wrong in the policy or the record."""
    word = _WORD.match(failure.detail) if failure.kind in {"syntax", "record"} else None
    return Detail(ResultType(failure.result_type), reason=word[0] if word else failure.kind)


def _sts_key(policy: Policy, domain: Domain) -> PolicyKey:
    return PolicyKey("sts", domain, bounded(policy.lines), bounded(policy.mx))


def _bare_sts(session: Session) -> PolicyKey:
    return PolicyKey("sts", session.domain)


def _said_sts(session: Session, ours: PolicyKey | None) -> PolicyKey:
    """The policy that Postfix named; its strings are ours where the reply had no room for them."""
    said = session.policy
    domain = said.domain or session.domain
    if not said.strings and ours is not None and ours.domain == domain:
        return ours
    return PolicyKey("sts", domain, said.strings, said.mx)


def _tlsa_key(said: PolicyKey, session: Session) -> PolicyKey:
    """RRsets have no order, so the records are sorted: equal sets are one policy."""
    domain = said.domain
    if not domain:
        host = names.parse(session.mx_host)
        domain = session.domain if isinstance(host, NotADomain) else host
    return PolicyKey("tlsa", domain, tuple(sorted(set(map(_record, said.strings)))), said.mx)


def _record(text: str) -> str:
    """A TLSA record in the form of RFC 8460 §4.4: single blanks, here with upper-case digits."""
    found = _TLSA.fullmatch(text)
    if found is None:
        return text
    usage, selector, matching, data = found.groups()
    return f"{usage} {selector} {matching} {data.replace(' ', '').upper()}"
