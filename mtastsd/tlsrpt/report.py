"""RFC 8460 §4.4: the report of one domain's day, as JSON and back; its id and file name.

Ours is written exactly as the RFC has it: `mx-host` is an array (erratum 6241), times have a zone,
what is not known is left out. The reader takes what others send: a zone that is missing, a host
that is a string, names of the drafts, fields left out or of another type.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from mtastsd.names import Domain
from mtastsd.tlsrpt.session import Detail, PolicyKey
from mtastsd.tlsrpt.tally import MANY, SECONDS, Day, DomainTally, Totals

MAX_COUNT = 2**53 - 1
"""The largest number that every reader of I-JSON understands (RFC 7493 §2.2)."""

MAX_FILE = 48 * 1024 * 1024
"""Octets of a report that is read, before and after decompression. Most have 2 kB; ours, with all
the variety that `tally` allows a hostile domain, stay below."""

MAX_OBJECTS = 200_000
"""Objects and arrays of a report that is read: an octet of JSON may become a hundred of memory."""

MAX_FIELD = 1024
"""Characters of a text that is read."""

MAX_LIST = 1000
"""Strings of a list that is read."""

MAX_UNIQUE = 64
"""Characters of the unique-id in a file name."""

UNTITLED = "?"


# ---- the report


class DateRange(Struct, frozen=True, rename="kebab"):
    """UTC, `2026-06-01T00:00:00Z`; of others' reports as they wrote it where that can't be read."""

    start_datetime: str
    end_datetime: str


class Policy(Struct, frozen=True, rename="kebab", omit_defaults=True):
    """The policy that sessions went by."""

    policy_type: str
    policy_string: tuple[str, ...] = ()
    policy_domain: str = ""
    mx_host: tuple[str, ...] = ()


class Summary(Struct, frozen=True, rename="kebab"):
    """Sessions, each counted once."""

    total_successful_session_count: int
    total_failure_session_count: int


class FailureDetail(Struct, frozen=True, rename="kebab", omit_defaults=True):
    """Failed sessions that are alike. "" where nothing is known."""

    result_type: str
    failed_session_count: int
    sending_mta_ip: str = ""
    receiving_mx_hostname: str = ""
    receiving_mx_helo: str = ""
    receiving_ip: str = ""
    additional_information: str = ""
    failure_reason_code: str = ""


class PolicyResult(Struct, frozen=True, rename="kebab"):
    """What came of the sessions under one policy."""

    policy: Policy
    summary: Summary
    failure_details: tuple[FailureDetail, ...]


class Report(Struct, frozen=True, rename="kebab"):
    """RFC 8460 §4.4."""

    organization_name: str
    date_range: DateRange
    contact_info: str
    report_id: str
    policies: tuple[PolicyResult, ...]

    @property
    def successes(self) -> int:
        return sum(p.summary.total_successful_session_count for p in self.policies)

    @property
    def failures(self) -> int:
        return sum(p.summary.total_failure_session_count for p in self.policies)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who reports: `report.organization` and `report.contact`, an address without display name."""

    organization: str
    contact: str

    @property
    def submitter(self) -> str:
        """RFC 8460 §5.3: the domain of the contact."""
        return self.contact.rpartition("@")[2]


def report_id(day: Day, unique: str, submitter: str) -> str:
    """The id of a report in the form of RFC 8460 §5.3, which is that of a Message-ID.

    `unique` are letters and digits that no other report of this submitter and day has.
    """
    return f"{_start(day):%Y%m%d}.{unique}@{submitter}"


def file_name(report: Report, day: Day, domain: Domain) -> str:
    """RFC 8460 §5.1, with the letters and digits of the id's left part as unique-id.

    With two long domains it passes the 255 octets that file systems allow.
    """
    submitter = Identity(report.organization_name, report.contact_info).submitter
    unique = re.sub(r"[^A-Za-z0-9]", "", report.report_id.partition("@")[0])[:MAX_UNIQUE]
    begin = day * SECONDS
    return f"{submitter}!{domain}!{begin}!{begin + SECONDS - 1}!{unique or 0}.json.gz"


def _start(day: Day) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)


# ---- from the totals of a day


def build(
    identity: Identity, day: Day, domain: Domain, tally: DomainTally, report_id: str
) -> Report:
    """The report of a recipient domain's day. The tally is judged: sessions that still wait for a
    finding would be missing."""
    date = f"{_start(day):%Y-%m-%d}"
    return Report(
        identity.organization,
        DateRange(f"{date}T00:00:00Z", f"{date}T23:59:59Z"),
        identity.contact,
        report_id,
        tuple(_result(key, tally[key], domain) for key in sorted(tally, key=_order)),
    )


def _order(key: PolicyKey) -> tuple[str, str, tuple[str, ...], tuple[str, ...]]:
    return key.type, key.domain, key.strings, key.mx


def _result(key: PolicyKey, totals: Totals, domain: Domain) -> PolicyResult:
    named = domain if key.domain == MANY else key.domain
    details = [_failure(detail, count) for detail, count in totals.details.items()]
    return PolicyResult(
        Policy(key.type, key.strings, named, key.mx),
        Summary(min(totals.successes, MAX_COUNT), min(totals.failures, MAX_COUNT)),
        tuple(sorted(details, key=_rank)),
    )


def _failure(detail: Detail, count: int) -> FailureDetail:
    return FailureDetail(
        detail.result.value,
        min(count, MAX_COUNT),
        sending_mta_ip=detail.sending_ip,
        receiving_mx_hostname=detail.mx_host,
        receiving_mx_helo=detail.helo,
        receiving_ip=detail.mx_ip,
        additional_information=detail.more if _URI.fullmatch(detail.more) else "",
        failure_reason_code=detail.reason,
    )


# RFC 8460 §4.4: a URI, nothing else
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21\x23-\x3b\x3d\x3f-\x7e]+", re.ASCII)


_Rank = tuple[int, tuple[Any, ...]]


def _rank(detail: FailureDetail) -> _Rank:
    """The most frequent first, and one order whatever the order of the sessions was."""
    return -detail.failed_session_count, msgspec.structs.astuple(detail)


# ---- to octets


def encode(report: Report) -> bytes:
    """The JSON, UTF-8."""
    return msgspec.json.encode(report)


def compress(body: bytes) -> bytes:
    """Gzip without a time or a name in it: the same octets each time (RFC 1952 §2.3.1)."""
    return zlib.compress(body, level=9, wbits=31)


def pack(report: Report, max_bytes: int) -> tuple[Report, bytes]:
    """The compressed JSON, of at most `max_bytes`, and the report that is in it.

    What is too long loses the particulars of details, of the least frequent first: those are added
    up by result type. Then go the policies' strings. Summaries are never touched, so that what is
    left may in the extreme pass the limit still.
    """
    packed = _pack(report)
    if len(packed[1]) <= max_bytes:
        return packed
    fewest, most = 0, sum(len(p.failure_details) for p in report.policies)
    best = _pack(_cut(report, 0))
    while fewest < most:
        middle = (fewest + most + 1) // 2
        packed = _pack(_cut(report, middle))
        if len(packed[1]) <= max_bytes:
            best, fewest = packed, middle
        else:
            most = middle - 1
    return best if len(best[1]) <= max_bytes else _pack(_without_strings(best[0]))


def _pack(report: Report) -> tuple[Report, bytes]:
    return report, compress(encode(report))


def _cut(report: Report, kept: int) -> Report:
    """The report with the `kept` most frequent details of all its policies as they are."""
    ranked = sorted(
        (_rank(detail), at) for at, p in enumerate(report.policies) for detail in p.failure_details
    )
    keep: list[set[_Rank]] = [set() for _ in report.policies]
    for rank, at in ranked[:kept]:
        keep[at].add(rank)
    policies = [
        replace(p, failure_details=_summed(p.failure_details, keep[at]))
        for at, p in enumerate(report.policies)
    ]
    return replace(report, policies=tuple(policies))


def _summed(details: Sequence[FailureDetail], keep: set[_Rank]) -> tuple[FailureDetail, ...]:
    kept = [detail for detail in details if _rank(detail) in keep]
    rest: dict[str, int] = {}
    for detail in details:
        if _rank(detail) not in keep:
            so_far = rest.get(detail.result_type, 0)
            rest[detail.result_type] = min(so_far + detail.failed_session_count, MAX_COUNT)
    kept += [FailureDetail(result, count) for result, count in rest.items()]
    return tuple(sorted(kept, key=_rank))


def _without_strings(report: Report) -> Report:
    policies = [
        replace(p, policy=replace(p.policy, policy_string=(), mx_host=())) for p in report.policies
    ]
    return replace(report, policies=tuple(policies))


# ---- anybody's report


BadWhy = Literal[
    "overlong",  # our own limits, `MAX_FILE` and `MAX_OBJECTS`
    "gzip",  # cut off, or broken
    "json",
    "no-report",  # JSON without a list of policies
]


@dataclass(frozen=True, slots=True)
class BadReport:
    """Octets that are no report, and why."""

    why: BadWhy


def decode(body: bytes) -> Report | BadReport:
    """Read a report, compressed or not. All text in it is printable and bounded, Unicode."""
    text = _decompress(body) if body.startswith(b"\x1f\x8b") else body
    if isinstance(text, BadReport):
        return text
    if len(text) > MAX_FILE or text.count(b"{") + text.count(b"[") > MAX_OBJECTS:
        return BadReport("overlong")
    try:
        found = msgspec.json.decode(text.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return BadReport("json")
    if not isinstance(found, dict) or not isinstance(found.get("policies"), list):
        return BadReport("no-report")
    dates = _object(found, "date-range")
    return Report(
        _text(found, "organization-name"),
        DateRange(_moment(_text(dates, "start-datetime")), _moment(_text(dates, "end-datetime"))),
        _text(found, "contact-info"),
        _text(found, "report-id"),
        tuple(_read_result(item) for item in _objects(found["policies"])),
    )


def _decompress(body: bytes) -> bytes | BadReport:
    inflate = zlib.decompressobj(wbits=31)
    try:
        text = inflate.decompress(body, MAX_FILE + 1)
    except zlib.error:
        return BadReport("gzip")
    if len(text) > MAX_FILE:
        return BadReport("overlong")
    return text if inflate.eof else BadReport("gzip")


_Object = Mapping[str, Any]


def _read_result(found: _Object) -> PolicyResult:
    policy, summary = _object(found, "policy"), _object(found, "summary")
    return PolicyResult(
        Policy(
            _text(policy, "policy-type") or UNTITLED,
            _texts(policy, "policy-string"),
            _text(policy, "policy-domain"),
            _texts(policy, "mx-host", "mx-host-pattern"),
        ),
        Summary(
            _count(summary, "total-successful-session-count"),
            _count(summary, "total-failure-session-count"),
        ),
        tuple(_read_detail(item) for item in _objects(found.get("failure-details"))),
    )


def _read_detail(found: _Object) -> FailureDetail:
    return FailureDetail(
        _text(found, "result-type") or UNTITLED,
        _count(found, "failed-session-count"),
        _text(found, "sending-mta-ip"),
        _text(found, "receiving-mx-hostname"),
        _text(found, "receiving-mx-helo"),
        _text(found, "receiving-ip"),
        _text(found, "additional-information", "additional-info-uri"),
        _text(found, "failure-reason-code", "failure-error-code"),
    )


def _object(found: _Object, name: str) -> _Object:
    value = found.get(name)
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> Iterable[_Object]:
    items = value if isinstance(value, list) else []
    return (item for item in items if isinstance(item, dict))


def _text(found: _Object, *names: str) -> str:
    """The first of these that is a text."""
    for name in names:
        value = found.get(name)
        if isinstance(value, str):
            return _printable(value)
    return ""


def _texts(found: _Object, *names: str) -> tuple[str, ...]:
    """The first of these that is a list of texts, or one text."""
    for name in names:
        value = found.get(name)
        if isinstance(value, str):
            return (_printable(value),)
        if isinstance(value, list):
            return tuple(_printable(v) for v in value[:MAX_LIST] if isinstance(v, str))
    return ()


def _printable(text: str) -> str:
    text = text[:MAX_FIELD]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)


_DIGITS = re.compile(r"[0-9]{1,16}", re.ASCII)


def _count(found: _Object, name: str) -> int:
    """A number of sessions; a number in quotes is one too."""
    value = found.get(name)
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(min(max(value, 0), MAX_COUNT))


_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})?",
    re.ASCII,
)


def _moment(text: str) -> str:
    """A time of RFC 3339 §5.6 in UTC; without a zone it is taken for UTC, as Microsoft means it."""
    found = _MOMENT.fullmatch(text)
    if found is None:
        return text
    date, time, zone = found.groups()
    zone = zone if zone and zone not in "Zz" else "+00:00"
    try:
        moment = datetime.fromisoformat(f"{date}T{time}{zone}").astimezone(UTC)
    except (ValueError, OverflowError):
        return text
    return moment.isoformat().replace("+00:00", "Z")
