"""RFC 8460 §5.3: the mail around a report, and the report out of a mail.

Nothing remote stands in a header but the names that `names` and `record` have checked; what is
not ASCII is encoded (RFC 2047), and a word that could end a field is refused. The reader splits
what others send without parsing it as a mail library would: those raise, recurse or take their
time on what the net sends.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64encode, encodebytes
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

from mtastsd.names import Domain
from mtastsd.tlsrpt.record import Mailto
from mtastsd.tlsrpt.report import FailureDetail, Identity, PolicyResult, Report

LINE = 78
"""Characters at which a field is folded, where it has a blank (RFC 5322 §2.1.1)."""

ENCODED_OCTETS = 45
"""Octets in an encoded word, which may have 75 characters (RFC 2047 §2)."""

MAX_LINES = 60
"""Lines about policies and failures in the text part: it is for a first look."""

MAX_MAIL = 64 * 1024 * 1024
"""Octets of a mail that is read: a report of `report.MAX_FILE` in base64."""

MAX_HEAD = 256 * 1024
"""Octets of a mail's header, or a part's."""

MAX_PARTS = 100
MAX_DEPTH = 8
"""Parts of a mail that are looked at, and parts within parts: a forwarded report has three."""


# ---- out


def compose(
    report: Report,
    body: bytes,
    *,
    domain: Domain,
    sender: str,
    to: Mailto,
    file_name: str,
    at: float,
) -> bytes:
    """The mail: CRLF, 7-bit. The same arguments give the same octets.

    `body` is the gzipped report that `file_name` names, `sender` an address for From, `at` the
    time for Date in seconds since 1970. ValueError where an argument is unfit for a header,
    which only a bug can make it.
    """
    boundary = f"=_{hashlib.sha256(body).hexdigest()[:40]}"
    lines = [
        *_field("From", *_phrase(report.organization_name), f"<{sender}>"),
        *_field("To", f"<{to.address}>"),
        *_field("Date", *_date(at).split(" ")),
        *_fields_of(report, domain),
        *_field("MIME-Version", "1.0"),
        *_field(
            "Content-Type", "multipart/report;", 'report-type="tlsrpt";', f'boundary="{boundary}"'
        ),
        "",
        f"--{boundary}",
        *_field("Content-Type", "text/plain;", "charset=utf-8"),
        *_field("Content-Transfer-Encoding", "quoted-printable"),
        "",
        _quoted(_text(report, domain)),
        f"--{boundary}",
        *_field("Content-Type", "application/tlsrpt+gzip"),
        *_field("Content-Transfer-Encoding", "base64"),
        *_field("Content-Disposition", "attachment;", f'filename="{_parameter(file_name)}"'),
        "",
        encodebytes(body).decode("ascii").replace("\n", "\r\n").removesuffix("\r\n"),
        f"--{boundary}--",
        "",
    ]
    return "\r\n".join(lines).encode("ascii")


def _fields_of(report: Report, domain: Domain) -> list[str]:
    """The fields that say which report it is, the same to every destination."""
    submitter = Identity(report.organization_name, report.contact_info).submitter
    ident = report.report_id if "@" in report.report_id else f"{report.report_id}@{submitter}"
    subject = f"Report Domain: {domain} Submitter: {submitter} Report-ID: <{ident}>"
    return [
        *_field("Subject", *subject.split(" ")),
        *_field("Message-ID", f"<{ident}>"),
        # RFC 3834 §5: no out-of-office replies.
        *_field("Auto-Submitted", "auto-generated"),
        *_field("TLS-Report-Domain", domain),
        *_field("TLS-Report-Submitter", submitter),
        # RFC 8460 §3: it must arrive although TLS fails, which RFC 8689 §3 has a field for.
        *_field("TLS-Required", "No"),
    ]


_WORD = re.compile(r"[\x20-\x7e]+", re.ASCII)
_PARAMETER = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+", re.ASCII)  # in quotes, nothing to escape

# A phrase of atoms, and text that may stand in quotes. Not `=` and `?`, which begin encoded words.
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/^_`{|}~-]+)*", re.ASCII)
_QUOTABLE = re.compile(r"[A-Za-z0-9!#$%&'()*+,./:;<>@\[\]^_`{|}~ -]{1,60}", re.ASCII)


def _field(name: str, *words: str) -> list[str]:
    """A header field in lines of at most `LINE` characters, as far as its words are that short."""
    lines, line = [], f"{name}:"
    for at, word in enumerate(words):
        if not _WORD.fullmatch(word):
            raise ValueError(f"unfit for a header: {word!a}")
        if at and len(line) + 1 + len(word) > LINE:
            lines.append(line)
            line = ""
        line += f" {word}"
    return [*lines, line]


def _parameter(value: str) -> str:
    if not _PARAMETER.fullmatch(value):
        raise ValueError(f"unfit for a parameter: {value!a}")
    return value


def _phrase(text: str) -> list[str]:
    """A display name: as it is, in quotes, or as encoded words, which a reader joins again."""
    if _ATOMS.fullmatch(text):
        return text.split(" ")
    if _QUOTABLE.fullmatch(text):
        return [f'"{text}"']
    words, room = [""], ENCODED_OCTETS
    for character in text:
        size = len(character.encode("utf-8", "replace"))
        if size > room:
            words.append("")
            room = ENCODED_OCTETS
        words[-1] += character
        room -= size
    encoded = [b64encode(word.encode("utf-8", "replace")).decode("ascii") for word in words if word]
    return [f"=?utf-8?B?{word}?=" for word in encoded]


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _date(at: float) -> str:
    """RFC 5322 §3.3, in English wherever the program runs."""
    t = datetime.fromtimestamp(int(at), UTC)
    day = f"{_DAYS[t.weekday()]}, {t.day:02} {_MONTHS[t.month - 1]} {t.year:04}"
    return f"{day} {t.hour:02}:{t.minute:02}:{t.second:02} +0000"


def _quoted(text: str) -> str:
    """Quoted-printable, RFC 2045 §6.7; the lines of `text` end in CRLF."""
    return binascii.b2a_qp(text.encode("utf-8", "replace"), istext=True).decode("ascii")


def _text(report: Report, domain: Domain) -> str:
    """What people read: the totals, and what failed."""
    who, when = report.organization_name, report.date_range
    about = list(_about(report))
    if len(about) > MAX_LINES:
        more = len(about) - MAX_LINES
        about = [*about[:MAX_LINES], f"... and {more} lines more: the attached file has all."]
    lines = [
        f"{who} sends mail to {domain} and reports how TLS went (RFC 8460).",
        "",
        f"From {when.start_datetime} to {when.end_datetime}",
        f"{_sessions(report.successes + report.failures)}, {report.failures} failed",
        "",
        *about,
        "",
        f"Questions: {report.contact_info}",
        f"Report: {report.report_id}",
    ]
    return "".join(f"{line}\r\n" for line in lines)


def _sessions(count: int) -> str:
    return "1 session" if count == 1 else f"{count} sessions"


def _about(report: Report) -> Iterator[str]:
    for result in report.policies:
        yield _policy_line(result)
        yield from (_detail_line(detail) for detail in result.failure_details)


def _policy_line(result: PolicyResult) -> str:
    policy, summary = result.policy, result.summary
    good, bad = summary.total_successful_session_count, summary.total_failure_session_count
    return f"{policy.policy_type} {policy.policy_domain}: {good} succeeded, {bad} failed"


def _detail_line(detail: FailureDetail) -> str:
    host, ip = detail.receiving_mx_hostname, detail.receiving_ip
    where = f" at {host}" if host else ""
    where += f" [{ip}]" if ip else ""
    reason = f" ({detail.failure_reason_code})" if detail.failure_reason_code else ""
    return f"  {detail.failed_session_count} x {detail.result_type}{where}{reason}"


# ---- in


_GZIP = b"\x1f\x8b"
_BLANK_LINE = re.compile(rb"\r?\n\r?\n|\A\r?\n")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_TYPE = re.compile(rb"^content-type[ \t]*:[ \t]*([^\s;]+)(.*)$", re.I | re.M)
_ENCODING = re.compile(rb"^content-transfer-encoding[ \t]*:[ \t]*([^\s;]+)", re.I | re.M)
_BOUNDARY = re.compile(
    rb';[ \t]*boundary[ \t]*=[ \t]*(?:"([^"\r\n]{1,200})"|([^\s;"]{1,200}))', re.I
)
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")


def extract(mail: bytes) -> bytes | None:
    """The report in a mail, decompressed or not, for `report.decode`; None where there is none.

    The first part of a type of RFC 8460 §6.4 or §6.5, else the first that looks like one:
    receivers get reports forwarded, and from senders that don't know the types.
    """
    if len(mail) > MAX_MAIL:
        return None
    likely = None
    for kind, body in islice(_leaves(mail, 0), MAX_PARTS):
        if kind.startswith(b"application/tlsrpt"):
            return body
        if likely is None and (body.startswith(_GZIP) or body.lstrip()[:1] == b"{"):
            likely = body
    return likely


def _leaves(part: bytes, depth: int) -> Iterator[tuple[bytes, bytes]]:
    """The media type and decoded body of each part that is not made of parts."""
    blank = _BLANK_LINE.search(part, 0, MAX_HEAD)
    if blank is None:
        return
    head, body = _FOLD.sub(b" ", part[: blank.start()]), part[blank.end() :]
    found = _TYPE.search(head)
    kind, parameters = (found[1].lower(), found[2]) if found else (b"text/plain", b"")
    boundary = _BOUNDARY.search(parameters)
    if kind.startswith(b"multipart/") and boundary is not None:
        if depth < MAX_DEPTH:
            for inner in _split(body, boundary[1] or boundary[2]):
                yield from _leaves(inner, depth + 1)
        return
    encoding = _ENCODING.search(head)
    body = _undo(body, encoding[1].lower() if encoding else b"")
    if kind == b"message/rfc822" and depth < MAX_DEPTH:
        yield from _leaves(body, depth + 1)
    else:
        yield kind, body


def _split(body: bytes, boundary: bytes) -> Iterator[bytes]:
    """The parts between the lines of a boundary (RFC 2046 §5.1.1); the last may lack its end."""
    line = re.compile(rb"(?:\r?\n|\A)--" + re.escape(boundary) + rb"(--)?[ \t]*(?=\r?\n|\Z)")
    begin = None
    for found in line.finditer(body):
        if begin is not None:
            yield body[begin : found.start()].removeprefix(b"\r").removeprefix(b"\n")
        begin = found.end()
        if found[1]:
            return
    if begin is not None:
        yield body[begin:].removeprefix(b"\r").removeprefix(b"\n")


def _undo(body: bytes, encoding: bytes) -> bytes:
    match encoding:
        case b"base64":
            digits = _NOT_BASE64.sub(b"", body)
            digits = digits[:-1] if len(digits) % 4 == 1 else digits
            return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))
        case b"quoted-printable":
            return binascii.a2b_qp(body)
        case _:
            return body
