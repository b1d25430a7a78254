"""Two branches, an override and the time, to one `Verdict`: what holds for a next hop, and why.

MTA-STS never overrides DANE (RFC 8461 §2), and no unsigned answer makes DANE override MTA-STS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from types import MappingProxyType
from typing import Literal

from mtastsd.dane import DaneBranch, Finding
from mtastsd.names import Domain
from mtastsd.sts.failure import Failure
from mtastsd.sts.flow import StsBranch
from mtastsd.sts.policy import Policy


class What(Enum):
    """What is asked of the delivery. The values are Postfix's security levels."""

    NOTHING = ""
    MAY = "may"
    ENCRYPT = "encrypt"
    DANE = "dane"
    SECURE = "secure"
    DANE_ONLY = "dane-only"


Why = Literal[
    "override",
    "dane",  # DANE alone decides
    "dane-partial",  # some MX hosts only, or nothing usable
    "dane-unsigned-mx",
    "dane-error",
    "null-mx",
    "sts-enforce",
    "sts-testing",
    "sts-testing-enforced",  # policy.testing = "enforce"
    "sts-none",
    "sts-failed",  # a record is there, but no policy is to be had
    "sts-invalid",  # the record itself is invalid
    "no-policy",
    "dns-error",
    "pending",  # the deadline passed before the first answer
    "busy",  # too many discoveries at once
    "minimum",
    "not-a-domain",
]

Minimum = Literal["", "encrypt", "secure"]
Action = Literal["off", "may", "encrypt", "secure"]


@dataclass(frozen=True, slots=True)
class Override:
    """An operator's word for one exact domain. `until` is inclusive, UTC; `mx` for secure only."""

    domain: Domain
    action: Action
    mx: tuple[str, ...] = ()
    until: date | None = None
    reason: str = ""

    def ends_at(self) -> float:
        """The moment at which it is over, seconds since 1970; infinity without an end.

        The last day of the calendar, which people write for "never", has no day after it.
        """
        if self.until is None or self.until == date.max:
            return float("inf")
        day = datetime(self.until.year, self.until.month, self.until.day, tzinfo=UTC)
        return (day + timedelta(days=1)).timestamp()


@dataclass(frozen=True, slots=True)
class Rules:
    """`[policy]` of the configuration."""

    dane: bool = True
    testing: Literal["report", "enforce"] = "report"
    minimum: Minimum = ""

    def enforces(self, policy: Policy) -> bool:
        """Whether this policy counts as one that enforces."""
        return policy.mode == "enforce" or (policy.mode == "testing" and self.testing == "enforce")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What holds for a policy domain.

    `mx` are the patterns to match for SECURE, empty where Postfix's own matching is meant.
    `policy` is the unexpired MTA-STS policy, if any, whatever `what` says; `enforced` that it is
    one that enforces. `finding` and `failure` are what the branches said. `valid_until`: the
    earliest moment at which anything this rests on may change; 0 for what must not be kept.
    """

    domain: Domain
    what: What
    why: Why
    valid_until: float
    mx: tuple[str, ...] = ()
    policy: Policy | None = None
    enforced: bool = False
    finding: Finding | None = None
    failure: Failure | None = None
    reason: str = ""

    @property
    def detail(self) -> str:
        """What stands behind it, for a log line."""
        parts = [self.reason] if self.reason else []
        parts += [f"dane={self.finding.value}"] if self.finding is not None else []
        parts += [str(self.failure)] if self.failure is not None else []
        return " ".join(parts)


def decide(
    domain: Domain,
    sts: StsBranch | None,
    dane: DaneBranch | None,
    override: Override | None,
    rules: Rules,
    now: float,
    *,
    pending: Literal["", "pending", "busy"] = "",
) -> Verdict:
    """The verdict for a domain.

    A branch is None where it is off or not known yet; `pending` says why, and makes a verdict that
    is not kept. An override that has ended is none.
    """
    policy = sts.policy(now) if sts is not None else None
    enforced = policy is not None and rules.enforces(policy)
    until = _valid_until(sts, dane, now, pending)
    finding = dane.finding if dane is not None else None
    failure = sts.failure if sts is not None else None
    what, why = _branches(sts, dane, policy, enforced, pending)
    reason, mx = "", policy.mx if enforced and policy is not None else ()
    raised = _at_least(what, dane, rules.minimum)
    if raised is not what:
        what, why = raised, "minimum"
    if override is not None and now < override.ends_at():
        what, why, reason = _ACTIONS[override.action], "override", override.reason
        mx = override.mx or (policy.mx if policy is not None else ())
        until = min(until, override.ends_at())
    if what is not What.SECURE:
        mx = ()
    return Verdict(domain, what, why, until, mx, policy, enforced, finding, failure, reason)


def _valid_until(sts: StsBranch | None, dane: DaneBranch | None, now: float, pending: str) -> float:
    if pending:
        return 0.0
    ends = [sts.valid_until(now)] if sts is not None else []
    ends += [dane.recheck_at] if dane is not None else []
    return min(ends, default=0.0)


_ACTIONS: Mapping[Action, What] = MappingProxyType(
    {"off": What.NOTHING, "may": What.MAY, "encrypt": What.ENCRYPT, "secure": What.SECURE}
)


def _branches(
    sts: StsBranch | None,
    dane: DaneBranch | None,
    policy: Policy | None,
    enforced: bool,
    pending: Literal["", "pending", "busy"],
) -> tuple[What, Why]:
    finding = dane.finding if dane is not None else Finding.NONE
    match finding:
        case Finding.NULL_MX:
            return What.NOTHING, "null-mx"
        case Finding.ALL:
            return What.DANE_ONLY, "dane"
        case Finding.SOME if enforced:
            # Never weaker than either: with `dane`, a host without TLSA would go unverified.
            return What.DANE_ONLY, "dane"
        case _ if enforced:
            # An unsigned MX RRset, unusable records or errors are within an attacker's reach:
            # they must not turn "verified" into "opportunistic".
            testing = policy is not None and policy.mode == "testing"
            return What.SECURE, "sts-testing-enforced" if testing else "sts-enforce"
        case Finding.SOME | Finding.UNUSABLE:
            return What.DANE, "dane-partial"
        case Finding.UNSIGNED:
            return What.DANE, "dane-unsigned-mx"
        case Finding.ERROR:
            return What.DANE, "dane-error"
        case Finding.NULL_MX_UNSIGNED if not pending:
            return What.NOTHING, "null-mx"
        case _:
            return What.NOTHING, pending or _why_nothing(sts, policy)


def _why_nothing(sts: StsBranch | None, policy: Policy | None) -> Why:
    if policy is not None:
        return "sts-testing" if policy.mode == "testing" else "sts-none"
    if sts is None:
        return "no-policy"
    match sts.record:
        case "unknown":
            return "dns-error"
        case "invalid":
            return "sts-invalid"
        case "present":
            return "sts-failed"
        case _:
            return "no-policy"


def _at_least(what: What, dane: DaneBranch | None, minimum: Minimum) -> What:
    """Raise an answer that would weaken a site whose own level is `minimum`.

    `OK dane` falls back to `may` where no record is usable. NOTFOUND leaves the site's own level
    in force and is never raised.
    """
    if not minimum or what is not What.DANE:
        return what
    if dane is not None and dane.finding is Finding.SOME:
        return What.DANE_ONLY
    return What.SECURE if minimum == "secure" else What.ENCRYPT
