"""RFC 8460 §5.3: the mail around a report, read back by another parser; reports out of any mail."""

from __future__ import annotations

import base64
import quopri
import re
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd.names import Domain
from mtastsd.tlsrpt import message
from mtastsd.tlsrpt.message import compose, extract
from mtastsd.tlsrpt.record import Mailto, destination
from mtastsd.tlsrpt.report import Identity, Report, build, compress, decode, encode, file_name
from mtastsd.tlsrpt.session import Detail, PolicyKey, ResultType
from mtastsd.tlsrpt.tally import Day, DomainTally, Totals

D = Domain("company-y.example")
DAY = Day(16_892)
AT = 1459486800.75  # 2016-04-02 05:00 UTC
ID = "20160401.abc123@company-x.example"
CONTACT = "sts-reporting@company-x.example"
SENDER = "tlsrpt@company-x.example"
TO = Mailto("reports@company-y.example")
STS = PolicyKey("sts", D, ("version: STSv1", "mode: testing"), ("*.mail.company-y.example",))
R = ResultType
TALLY: DomainTally = {
    STS: Totals(
        5326,
        303,
        {
            Detail(R.CERTIFICATE_EXPIRED, mx_host="mx1.mail.company-y.example"): 100,
            Detail(
                R.STARTTLS_NOT_SUPPORTED, mx_host="mx2.mail.company-y.example", mx_ip="203.0.113.56"
            ): 200,
            Detail(R.VALIDATION_FAILURE, reason="X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"): 3,
        },
    )
}


def report(organization: str = "Company-X", tally: DomainTally = TALLY, ident: str = ID) -> Report:
    return build(Identity(organization, CONTACT), DAY, D, tally, ident)


def mail(given: Report | None = None, **changes: Any) -> bytes:
    given = given or report()
    domain = changes.pop("domain", D)
    name = changes.pop("file_name", file_name(given, DAY, domain))
    body = compress(encode(given))
    rest = {"domain": domain, "sender": SENDER, "to": TO, "at": AT, "file_name": name, **changes}
    return compose(given, body, **rest)


def parsed(octets: bytes) -> EmailMessage:
    read = message_from_bytes(octets, policy=policy.default)
    assert isinstance(read, EmailMessage)
    for part in read.walk():
        assert part.defects == []
        for name, value in part.items():
            assert value.defects == (), name
    return read


NAMES = [
    "From",
    "To",
    "Date",
    "Subject",
    "Message-ID",
    "Auto-Submitted",
    "TLS-Report-Domain",
    "TLS-Report-Submitter",
    "TLS-Required",
    "MIME-Version",
    "Content-Type",
]


def test_the_mail() -> None:
    read = parsed(mail())
    assert read.keys() == NAMES
    assert read["From"] == f"Company-X <{SENDER}>"
    assert read["To"].addresses[0].addr_spec == TO.address
    assert parsedate_to_datetime(read["Date"]).timestamp() == int(AT)
    assert read["Subject"] == (
        f"Report Domain: company-y.example Submitter: company-x.example Report-ID: <{ID}>"
    )
    assert read["Message-ID"] == f"<{ID}>"
    assert read["Auto-Submitted"] == "auto-generated"
    assert read["TLS-Report-Domain"] == "company-y.example"
    assert read["TLS-Report-Submitter"] == "company-x.example"
    assert read["TLS-Required"] == "No"
    assert read.get_content_type() == "multipart/report"
    assert read["Content-Type"].params["report-type"] == "tlsrpt"


def test_its_parts() -> None:
    text, attached = parsed(mail()).iter_parts()
    assert text.get_content_type() == "text/plain"
    assert attached.get_content_type() == "application/tlsrpt+gzip"
    assert attached.get_filename() == (
        "company-x.example!company-y.example!1459468800!1459555199!20160401abc123.json.gz"
    )
    assert attached.get_content_disposition() == "attachment"
    assert decode(attached.get_content()) == report()


def test_its_text() -> None:
    assert (
        text_of(mail())
        == f"""\
Company-X sends mail to company-y.example and reports how TLS went (RFC 8460).

From 2016-04-01T00:00:00Z to 2016-04-01T23:59:59Z
5629 sessions, 303 failed

sts company-y.example: 5326 succeeded, 303 failed
  200 x starttls-not-supported at mx2.mail.company-y.example [203.0.113.56]
  100 x certificate-expired at mx1.mail.company-y.example
  3 x validation-failure (X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED)

Questions: {CONTACT}
Report: {ID}
"""
    )


def text_of(octets: bytes) -> str:
    first = next(iter(parsed(octets).iter_parts()))
    content = first.get_content()
    assert isinstance(content, str)
    return content.replace("\r\n", "\n")


def test_one_session_is_one() -> None:
    assert "\n1 session, 0 failed\n" in text_of(mail(report(tally={STS: Totals(1)})))


def test_long_texts_are_cut() -> None:
    details = {Detail(R.CERTIFICATE_EXPIRED, helo=f"h{n}.example"): n + 1 for n in range(500)}
    text = text_of(mail(report(tally={STS: Totals(0, 500, details)})))
    assert f"... and {501 - message.MAX_LINES} lines more" in text
    assert len(text.splitlines()) < message.MAX_LINES + 12


def test_the_same_report_is_the_same_mail() -> None:
    assert mail() == mail()
    other = mail(to=Mailto("x@y.example"))
    assert parsed(other)["Message-ID"] == parsed(mail())["Message-ID"]


def test_an_id_of_another_form_is_made_one() -> None:
    octets = mail(report(ident="5065427c-23d3"))
    assert parsed(octets)["Message-ID"] == "<5065427c-23d3@company-x.example>"
    assert str(parsed(octets)["Subject"]).endswith("Report-ID: <5065427c-23d3@company-x.example>")


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0, "Thu, 01 Jan 1970 00:00:00 +0000"),
        (1709251199, "Thu, 29 Feb 2024 23:59:59 +0000"),
        (1798761599, "Thu, 31 Dec 2026 23:59:59 +0000"),
    ],
)
def test_dates(at: float, text: str) -> None:
    assert f"\r\nDate: {text}\r\n".encode() in mail(at=at)


# -- form: 7-bit, CRLF, line lengths


def organization(octets: bytes) -> str:
    """The display name as RFC 2047 has it shown: no blank between encoded words (§6.2), where the
    parser of `policy.default` leaves one in Python 3.11."""
    field = message_from_bytes(octets)["From"]
    name, _, address = re.sub(r"\r\n(?=[ \t])", "", field).rpartition(" ")
    assert address == f"<{SENDER}>"
    if name.startswith('"'):
        return str(name[1:-1])
    return str(make_header(decode_header(name)))


def check_form(octets: bytes, longest: int) -> None:
    text = octets.decode("ascii")
    assert "\0" not in text
    lines = text.split("\r\n")
    assert not any("\n" in line or "\r" in line for line in lines)
    assert max(map(len, lines)) <= longest
    for line in lines:
        # Longer than it should be only where there was no blank to fold at.
        assert len(line) <= 78 or " " not in line.split(":", 1)[-1].strip()


def test_form() -> None:
    check_form(mail(), 998)
    check_form(mail(report("Müller & Söhne GmbH " * 9)), 998)


LABEL = "x" * 61
LONG = Domain(f"{LABEL}.{LABEL}.{LABEL}.{'y' * 59}.example")


def test_the_longest_names() -> None:
    who = Identity("Ü" * 200, f"{'l' * 64}@{LONG}")
    tally: DomainTally = {PolicyKey("tlsa", LONG): Totals(1)}
    given = build(who, DAY, LONG, tally, f"20160401.abc@{LONG}")
    to = Mailto(f"{'r' * 64}@{LONG}")
    octets = mail(given, domain=LONG, to=to)
    check_form(octets, 998)
    read = parsed(octets)
    assert organization(octets) == "Ü" * 200
    assert read["To"].addresses[0].addr_spec == to.address
    assert read["TLS-Report-Domain"] == LONG
    assert decode(extract(octets) or b"") == given


def test_a_long_report() -> None:
    details = {
        Detail(R.CERTIFICATE_EXPIRED, helo=f"h{n}.example", reason="=" * 100): n + 1
        for n in range(500)
    }
    octets = mail(report(tally={STS: Totals(0, 500, details)}))
    check_form(octets, 998)
    assert len(octets) > 5000


# -- what may not happen


@pytest.mark.parametrize(
    "name",
    [
        "Company-X",
        "Example Ltd",
        "Example, Inc.",
        'Say "hello"',
        "back\\slash",
        "two  blanks",
        " blanks around ",
        "Müller & Söhne",
        "株式会社" * 20,
        "=?utf-8?Q?=0D=0ABcc:_x?=",
        "a@b.example",
        "<x@y.example>",
        "(comment)",
        "x" * 200,
        "x. " * 60 + "y",
        "😀" * 30,
    ],
    ids=range(16),
)
def test_any_organization(name: str) -> None:
    octets = mail(report(name))
    check_form(octets, 998)
    read = parsed(octets)
    assert read.keys() == NAMES
    (address,) = read["From"].addresses
    assert address.addr_spec == SENDER
    assert organization(octets) == name
    assert text_of(octets).startswith(f"{name} sends mail to")


def test_no_organization() -> None:
    assert parsed(mail(report("")))["From"].addresses[0].addr_spec == SENDER


@given(st.text(max_size=200))
def test_no_organization_breaks_out(name: str) -> None:
    octets = mail(report(name.encode("utf-8", "replace").decode()))
    head = octets.partition(b"\r\n\r\n")[0]
    assert [line.partition(b":")[0].decode() for line in unfolded(head)] == NAMES
    assert b"\n" not in head.replace(b"\r\n", b"")
    assert extract(octets)


def test_a_lone_surrogate_is_no_error() -> None:
    octets = compose(report("a\ud800"), b"x", domain=D, sender=SENDER, to=TO, file_name="x", at=AT)
    assert organization(octets) == "a?"


def unfolded(head: bytes) -> list[bytes]:
    return re.sub(rb"\r\n(?=[ \t])", b"", head).split(b"\r\n")


@pytest.mark.parametrize(
    "changes",
    [
        {"sender": "a@b.example>\r\nBcc: x@y.example"},
        {"sender": "a@b.example\n"},
        {"to": Mailto("a@b.example\r\n\r\nbody")},
        {"to": Mailto("ä@b.example")},
        {"domain": Domain("b.example\r\nX: y"), "file_name": "x"},
        {"domain": Domain("b.example\0"), "file_name": "x"},
        {"file_name": 'x"; filename="y'},
        {"file_name": "x\r\ny"},
        {"file_name": "x y"},
        {"file_name": "x\\"},
        {"file_name": ""},
        {"file_name": "ü"},
        {"given": report(ident="x>\r\nBcc: y")},
        {"given": report(ident="x\ud800")},
    ],
)
def test_what_is_unfit_is_refused(changes: dict[str, Any]) -> None:
    """None of it passes the parsers that these values come from."""
    changes.setdefault("file_name", "x")
    given = changes.pop("given", None) or report()
    rest = {"domain": D, "sender": SENDER, "to": TO, "at": AT, **changes}
    with pytest.raises(ValueError, match="unfit"):
        compose(given, b"x", **rest)


ODD_LOCALS = st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}", fullmatch=True)


@given(ODD_LOCALS)
def test_each_address_that_a_record_may_name(local: str) -> None:
    """Addresses from a punctuation-heavy alphabet, as a hostile zone would have them."""
    to = destination("mailto:" + "".join(f"%{ord(c):02x}" for c in local) + "@b.example")
    if isinstance(to, Mailto):
        octets = mail(to=to)
        check_form(octets, 998)
        assert f"\r\nTo: <{to.address}>\r\n".encode() in octets


# -- reports out of mails


BODY = compress(encode(report()))
PLAIN = encode(report())


def part(kind: str, body: bytes, encoding: str = "base64", more: str = "") -> bytes:
    match encoding:
        case "base64":
            body = base64.encodebytes(body)
        case "quoted-printable":
            body = quopri.encodestring(body)
        case _:
            pass
    head = f"Content-Type: {kind}\nContent-Transfer-Encoding: {encoding}\n{more}\n"
    return head.encode() + body


def multi(*parts: bytes, kind: str = "mixed", boundary: str = "=_b", end: bool = True) -> bytes:
    head = f'From: x\nContent-Type: multipart/{kind};\n\tboundary="{boundary}"\n\npreamble\n'
    body = b"".join(b"--" + boundary.encode() + b"\n" + p + b"\n" for p in parts)
    return head.encode() + body + (b"--" + boundary.encode() + b"--\n" if end else b"")


TEXT = part("text/plain", b"see below", "7bit")


@pytest.mark.parametrize(
    "octets",
    [
        mail(),
        mail().replace(b"\r\n", b"\n"),
        b"From x@y.example Sat Apr  2 05:00:00 2016\n" + mail().replace(b"\r\n", b"\n"),
        part("application/tlsrpt+gzip", BODY),
        part("Application/TLSRPT+gzip; name=x", BODY),
        part("application/tlsrpt+gzip", BODY).replace(b"\n", b"\r\n"),
        part("application/tlsrpt+gzip", BODY).replace(b"=\n", b"\n"),
        part("application/tlsrpt+gzip", BODY, "BASE64").replace(BODY, base64.b64encode(BODY)),
        part("application/tlsrpt+gzip", base64.b64encode(BODY), "Base64"),
        multi(TEXT, part("application/tlsrpt+gzip", BODY), kind="report"),
        multi(TEXT, part("application/tlsrpt+gzip", BODY), end=False),
        multi(TEXT, part("application/tlsrpt+gzip", BODY), boundary="a b'()+_,-./:=?"),
        multi(TEXT, part("application/tlsrpt+gzip", BODY)).replace(b'"', b""),
        multi(TEXT, part("application/tlsrpt+json", PLAIN, "8bit")),
        multi(TEXT, part("application/tlsrpt+json", PLAIN, "quoted-printable")),
        multi(TEXT, part("application/json", PLAIN, "7bit")),
        multi(TEXT, part("application/gzip", BODY)),
        multi(TEXT, part("application/octet-stream", BODY, more="X: y\n")),
        multi(TEXT, multi(TEXT, part("application/x-gzip", BODY), boundary="in")),
        multi(TEXT, part("message/rfc822", mail().replace(b"\r\n", b"\n"), "7bit")),
        multi(TEXT, part("message/rfc822", mail(), "base64")),
        multi(
            part("application/json", b"{}", "7bit"),
            part("application/gzip", b"\x1f\x8bx"),
            part("application/tlsrpt+gzip", BODY),
        ),
        b"\n" + PLAIN,
        b"\n\n " + PLAIN,
        multi(b"\n" + PLAIN),
    ],
    ids=range(25),
)
def test_extract(octets: bytes) -> None:
    found = extract(octets)
    assert found is not None
    assert decode(found) == report()


def nested(depth: int) -> bytes:
    inner = part("application/tlsrpt+gzip", BODY)
    for level in range(depth):
        inner = multi(inner, boundary=f"b{level}")
    return inner


def wrapped(depth: int) -> bytes:
    inner = part("application/tlsrpt+gzip", BODY)
    for _ in range(depth):
        inner = part("message/rfc822", inner, "7bit")
    return inner


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\n",
        b"x",
        b"Subject: x\n",
        b"Subject: x\n\nhello",
        multi(TEXT, TEXT),
        multi(TEXT, part("application/gzip", b"PK")),
        multi(),
        b'Content-Type: multipart/mixed; boundary="x"\n\nno part',
        b"Content-Type: multipart/mixed\n\nno boundary",
        b'Content-Type: multipart/mixed; boundary="x"\n\n--x\n--x\n--x--',
        nested(message.MAX_DEPTH + 1),
        wrapped(message.MAX_DEPTH + 1),
        multi(*[TEXT] * message.MAX_PARTS, part("application/tlsrpt+gzip", BODY)),
        b"X: " + b"y" * message.MAX_HEAD + b"\n" + part("application/tlsrpt+gzip", BODY),
        part("application/tlsrpt+gzip", BODY) + b"\n" * message.MAX_MAIL,
    ],
    ids=range(16),
)
def test_nothing_to_extract(octets: bytes) -> None:
    assert extract(octets) is None


def test_depth() -> None:
    assert extract(nested(message.MAX_DEPTH)) == BODY
    assert extract(wrapped(message.MAX_DEPTH)) == BODY
    deep = b"".join(
        f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n".encode() for n in range(5000)
    )
    assert extract(deep) is None


@pytest.mark.parametrize("length", range(9))
def test_base64_that_was_cut_off(length: int) -> None:
    cut = base64.b64encode(b"\x1f\x8b\x00\x00\x00\x00")[:length]
    found = extract(
        b"Content-Type: application/tlsrpt+gzip\nContent-Transfer-Encoding: base64\n\n" + cut
    )
    assert found == b"\x1f\x8b\x00\x00\x00\x00"[: length * 6 // 8]


@given(st.binary(max_size=300))
def test_any_octets(octets: bytes) -> None:
    extract(octets)
    extract(b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" + octets + b"\n--b\n" + octets)
    for encoding in (b"base64", b"quoted-printable", b"x"):
        extract(
            b"Content-Type: application/tlsrpt+gzip\nContent-Transfer-Encoding: "
            + encoding
            + b"\n\n"
            + octets
        )


@given(
    st.lists(
        st.sampled_from(
            [
                b"\n",
                b"\r\n",
                b"--b",
                b"--",
                b" ",
                b"Content-Type: ",
                b"multipart/x; boundary=b",
                b"message/rfc822",
                b"application/tlsrpt+json",
                b"{",
                b"x",
            ]
        ),
        max_size=60,
    )
)
def test_any_mail_like_octets(pieces: list[bytes]) -> None:
    extract(b"".join(pieces))


@pytest.mark.parametrize("filler", [b"\n", b"\r\n--", b"--b\n", b"\n ", b"--b ", b"\t", b'"', b"="])
def test_work_is_linear_in_the_mail(filler: bytes) -> None:
    """A megabyte of each, in head and body: quadratic work would take hours."""
    long = filler * (1_000_000 // len(filler))
    head = b'Content-Type: multipart/mixed; boundary="b"' + long[: message.MAX_HEAD - 100]
    extract(head + b"\n\n--b\n" + long)
    extract(b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" + long)
    extract(long)
