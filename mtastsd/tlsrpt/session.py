"""One delivery's TLS outcome, whatever source told of it: the value that everything after it takes.

From here on nobody asks whether a datagram or a log line said so, except where the two differ in
what they can know (`Session.mx_host`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from mtastsd.names import MAX_NAME, Domain

MAX_REASON = 120
"""Characters of a failure-reason-code that are kept: OpenSSL's longest texts have some 70."""

MAX_STRINGS = 200
"""Policy strings or MX patterns that are kept of one policy."""

MAX_STRINGS_SIZE = 32768
"""Characters of all policy strings (or all MX patterns) of one policy: a policy has some 200, and
TLSA records with whole certificates in them some 4,000 each. They are the key of its counts."""


class ResultType(Enum):
    """RFC 8460 §4.3: what can be wrong with a session."""

    STARTTLS_NOT_SUPPORTED = "starttls-not-supported"
    CERTIFICATE_HOST_MISMATCH = "certificate-host-mismatch"
    CERTIFICATE_NOT_TRUSTED = "certificate-not-trusted"
    CERTIFICATE_EXPIRED = "certificate-expired"
    VALIDATION_FAILURE = "validation-failure"
    TLSA_INVALID = "tlsa-invalid"
    DNSSEC_INVALID = "dnssec-invalid"
    DANE_REQUIRED = "dane-required"
    STS_POLICY_FETCH_ERROR = "sts-policy-fetch-error"
    STS_POLICY_INVALID = "sts-policy-invalid"
    STS_WEBPKI_INVALID = "sts-webpki-invalid"


PolicyType = Literal["tlsa", "sts", "no-policy-found"]


@dataclass(frozen=True, slots=True)
class PolicyKey:
    """The `policy` object of RFC 8460 §4.4, which groups sessions in a report.

    `domain` is the policy domain, for `tlsa` the TLSA base domain. `strings` are policy lines, or
    TLSA records in presentation form, sorted; `mx` the patterns, A-labels. Both are `bounded` and
    printable. An empty `domain` stands for all policies of the type that are not told apart
    (`tally.MAX_POLICIES`).
    """

    type: PolicyType
    domain: Domain
    strings: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Detail:
    """A `failure-details` object without its count. "" where nothing is known.

    All texts are printable ASCII and bounded; `helo` is a host name, addresses are canonical.
    """

    result: ResultType
    sending_ip: str = ""
    mx_host: str = ""
    mx_ip: str = ""
    helo: str = ""
    reason: str = ""
    more: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """One SMTP session as Postfix saw it.

    `at` is wall time in seconds since 1970: the moment of receipt for a datagram, of the line for
    a log. `domain` is the recipient's policy domain, the next hop. `policy` is what Postfix says it
    went by. `counts` false: a failure that belongs to no session of its own (an MX host that was
    skipped while another took the mail), which stands in the details and not in the summary.
    `log_only`: no datagram tells of such a session, even where Postfix sends them (no STARTTLS at
    an opportunistic level); from 3.10 on it has no `TLSRPT:` line.
    """

    at: float
    domain: Domain
    policy: PolicyKey
    success: bool
    details: tuple[Detail, ...] = ()
    mx_host: str = ""
    mx_ip: str = ""
    source: Literal["datagram", "log"] = "datagram"
    counts: bool = True
    log_only: bool = False


def bounded(strings: Iterable[str]) -> tuple[str, ...]:
    """The first of them, as many as `MAX_STRINGS` and `MAX_STRINGS_SIZE` allow."""
    kept: list[str] = []
    room = MAX_STRINGS_SIZE
    for text in strings:
        room -= len(text)
        if room < 0 or len(kept) == MAX_STRINGS:
            break
        kept.append(text)
    return tuple(kept)


def is_whole(patterns: Sequence[str]) -> bool:
    """Whether `bounded` has certainly left out none of these MX patterns."""
    size = sum(map(len, patterns))
    return len(patterns) < MAX_STRINGS and size <= MAX_STRINGS_SIZE - MAX_NAME - len("*.")
