"""RFC 8460 §4.4: reports built, held against a schema of it and read back; others' reports."""

from __future__ import annotations

import copy
import json
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd import names
from mtastsd.names import Domain
from mtastsd.ports import Finding
from mtastsd.sts.flow import StsBranch
from mtastsd.tlsrpt import report as reports
from mtastsd.tlsrpt import session as sessions
from mtastsd.tlsrpt import tally as tallies
from mtastsd.tlsrpt.join import join
from mtastsd.tlsrpt.judge import judge_all
from mtastsd.tlsrpt.report import (
    BadReport,
    DateRange,
    FailureDetail,
    Identity,
    Policy,
    PolicyResult,
    Report,
    Summary,
    build,
    compress,
    decode,
    encode,
    file_name,
    pack,
    report_id,
)
from mtastsd.tlsrpt.session import Detail, PolicyKey, ResultType, Session
from mtastsd.tlsrpt.tally import MANY, Day, DomainTally, Tallies, Totals, add, day_of
from mtastsd.verdict import Rules, decide
from tests.unit.tlsrpt_schema import REPORT, problems

R = ResultType
D = Domain("example.com")
DAY = Day(20_000)  # 2024-10-04
WHO = Identity("Example Ltd", "tlsrpt@relay.example.net")
ID = "20241004.abc@relay.example.net"


def wrong(report: Report) -> list[str]:
    """What is wrong with a report as it is sent."""
    return list(problems(REPORT, json.loads(encode(report))))


# -- the RFC's example

COMPANY_Y = Domain("company-y.example")
APRIL_FIRST = day_of(1459468800)
POLICY_TEXT = (
    "version: STSv1",
    "mode: testing",
    "mx: *.mail.company-y.example",
    "max_age: 86400",
)
# RFC 8460 §B, with the array of erratum 6241, addresses in the form that RFC 8460 §4.4 asks for
# (RFC 5952), and a URI where the RFC's has blanks in it.
EXAMPLE: dict[str, Any] = {
    "organization-name": "Company-X",
    "date-range": {
        "start-datetime": "2016-04-01T00:00:00Z",
        "end-datetime": "2016-04-01T23:59:59Z",
    },
    "contact-info": "sts-reporting@company-x.example",
    "report-id": "5065427c-23d3-47ca-b6e0-946ea0e8c4be",
    "policies": [
        {
            "policy": {
                "policy-type": "sts",
                "policy-string": list(POLICY_TEXT),
                "policy-domain": "company-y.example",
                "mx-host": ["*.mail.company-y.example"],
            },
            "summary": {
                "total-successful-session-count": 5326,
                "total-failure-session-count": 303,
            },
            "failure-details": [
                {
                    "result-type": "certificate-expired",
                    "sending-mta-ip": "2001:db8:abcd:12::1",
                    "receiving-mx-hostname": "mx1.mail.company-y.example",
                    "failed-session-count": 100,
                },
                {
                    "result-type": "starttls-not-supported",
                    "sending-mta-ip": "2001:db8:abcd:13::1",
                    "receiving-mx-hostname": "mx2.mail.company-y.example",
                    "receiving-ip": "203.0.113.56",
                    "failed-session-count": 200,
                    "additional-information": "https://reports.company-x.example/report_info"
                    "?id=5065427c-23d3#StarttlsNotSupported",
                },
                {
                    "result-type": "validation-failure",
                    "sending-mta-ip": "198.51.100.62",
                    "receiving-ip": "203.0.113.58",
                    "receiving-mx-hostname": "mx-backup.mail.company-y.example",
                    "failed-session-count": 3,
                    "failure-reason-code": "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED",
                },
            ],
        }
    ],
}


def example_tally() -> DomainTally:
    """The example's day: a testing policy, so the expired certificate is a finding of a probe; the
    others are failures that Postfix sees in testing mode too."""
    body = "".join(f"{line}\r\n" for line in POLICY_TEXT).encode()
    at = APRIL_FIRST * 86400.0 + 3600
    known = StsBranch("present", at, at + 3600, "1", body, at, at + 86400)
    answered = decide(COMPANY_Y, known, None, None, Rules(), at)
    nothing = PolicyKey("no-policy-found", COMPANY_Y)
    no_starttls = Detail(
        R.STARTTLS_NOT_SUPPORTED,
        "2001:db8:abcd:13::1",
        "mx2.mail.company-y.example",
        "203.0.113.56",
        more="https://reports.company-x.example/report_info?id=5065427c-23d3#StarttlsNotSupported",
    )
    proxy = Detail(
        R.VALIDATION_FAILURE,
        "198.51.100.62",
        "mx-backup.mail.company-y.example",
        "203.0.113.58",
        reason="proxy_path_length_constraint_exceeded",
    )
    total = Tallies()
    for count, mx_host, details in (
        (5326, "mx3.mail.company-y.example", ()),
        (100, "mx1.mail.company-y.example", ()),
        (200, "mx2.mail.company-y.example", (no_starttls,)),
        (3, "mx-backup.mail.company-y.example", (proxy,)),
    ):
        for _ in range(count):
            session = Session(at, COMPANY_Y, nothing, not details, details, mx_host, source="log")
            counted = join(session, answered, both=False)
            assert add(total, day_of(session.at), session.domain, counted)
    mx1 = "mx1.mail.company-y.example"
    found = Finding(
        COMPANY_Y, mx1, "", True, R.CERTIFICATE_EXPIRED, sending_ip="2001:db8:abcd:12::1"
    )
    return judge_all(total.take()[APRIL_FIRST, COMPANY_Y], [found])


def test_the_example_of_the_rfc_comes_out_of_sessions() -> None:
    who = Identity("Company-X", "sts-reporting@company-x.example")
    report = build(who, APRIL_FIRST, COMPANY_Y, example_tally(), EXAMPLE["report-id"])
    got = json.loads(encode(report))
    details = got["policies"][0]["failure-details"]
    assert [d["failed-session-count"] for d in details] == [200, 100, 3]
    details.sort(key=lambda d: str(d["result-type"]))
    assert got == EXAMPLE
    assert wrong(report) == []
    assert decode(encode(report)) == report == decode(compress(encode(report)))
    assert (report.successes, report.failures) == (5326, 303)


def test_the_example_as_printed_can_be_read() -> None:
    printed = copy.deepcopy(EXAMPLE)
    printed["policies"][0]["policy"]["mx-host"] = "*.mail.company-y.example"
    assert decode(json.dumps(printed).encode()) == decode(json.dumps(EXAMPLE).encode())


# -- the schema itself


def broken(*path: str | int, value: object = None) -> dict[str, Any]:
    """The example with one value in another place or of another type; None takes it out."""
    whole = copy.deepcopy(EXAMPLE)
    inner: Any = whole
    for step in path[:-1]:
        inner = inner[step]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return whole


POLICY_AT = ("policies", 0, "policy")
SUMMARY_AT = ("policies", 0, "summary")
DETAIL_AT = ("policies", 0, "failure-details", 0)


@pytest.mark.parametrize(
    "value",
    [
        broken("organization-name"),
        broken("organization-name", value=""),
        broken("date-range", "start-datetime", value="2016-04-01T00:00:00"),
        broken("contact-info", value="X <a@b.example>"),
        broken("policies", value={}),
        broken("policies", value=[]),
        broken(*POLICY_AT, "policy-type", value="dane"),
        broken(*POLICY_AT, "policy-string", value=[]),
        broken(*POLICY_AT, "mx-host", value="*.mail.company-y.example"),
        broken(*POLICY_AT, "policy-domain"),
        broken(*SUMMARY_AT, "total-failure-session-count", value="303"),
        broken(*SUMMARY_AT, "total-failure-session-count", value=True),
        broken(*SUMMARY_AT, "total-failure-session-count", value=2**53),
        broken(*DETAIL_AT, "result-type", value="other"),
        broken(*DETAIL_AT, "failed-session-count", value=0),
        broken(*DETAIL_AT, "failed-session-count"),
        broken(*DETAIL_AT, "receiving-ip", value=""),
        broken(*DETAIL_AT, "more", value="x"),
    ],
)
def test_the_schema_refuses(value: dict[str, Any]) -> None:
    assert list(problems(REPORT, value))


def test_the_schema_takes_the_example() -> None:
    assert list(problems(REPORT, EXAMPLE)) == []


# -- building


STS = PolicyKey("sts", D, ("version: STSv1",), ("*.example.com",))
TLSA = PolicyKey("tlsa", Domain("mx.example.com"), ("3 1 1 AB",))
NONE = PolicyKey("no-policy-found", D)


def test_each_kind_of_policy() -> None:
    tally = {
        TLSA: Totals(1),
        STS: Totals(),
        NONE: Totals(0, 2),
        PolicyKey("sts", D): Totals(2, 0, {Detail(R.STS_POLICY_FETCH_ERROR, reason="timeout"): 2}),
    }
    report = build(WHO, DAY, D, tally, ID)
    assert wrong(report) == []
    assert report == Report(
        "Example Ltd",
        DateRange("2024-10-04T00:00:00Z", "2024-10-04T23:59:59Z"),
        "tlsrpt@relay.example.net",
        ID,
        (
            PolicyResult(Policy("no-policy-found", (), "example.com"), Summary(0, 2), ()),
            PolicyResult(
                Policy("sts", (), "example.com"),
                Summary(2, 0),
                (FailureDetail("sts-policy-fetch-error", 2, failure_reason_code="timeout"),),
            ),
            PolicyResult(
                Policy("sts", ("version: STSv1",), "example.com", ("*.example.com",)),
                Summary(0, 0),
                (),
            ),
            PolicyResult(Policy("tlsa", ("3 1 1 AB",), "mx.example.com"), Summary(1, 0), ()),
        ),
    )


def test_the_catch_all_stands_under_the_recipient() -> None:
    report = build(WHO, DAY, D, {PolicyKey("tlsa", MANY): Totals(3)}, ID)
    assert report.policies[0].policy == Policy("tlsa", (), "example.com")
    assert wrong(report) == []


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ("https://x.example/y?z#a", True),
        ("urn:x", True),
        ("This is text", False),
        ("https://x.example/a b", False),
        ('https://x.example/"', False),
        ("https:", False),
        ("1:x", False),
        ("", False),
    ],
)
def test_additional_information_is_a_uri_or_nothing(more: str, kept: bool) -> None:
    tally = {STS: Totals(0, 1, {Detail(R.DANE_REQUIRED, more=more): 1})}
    (detail,) = build(WHO, DAY, D, tally, ID).policies[0].failure_details
    assert detail.additional_information == (more if kept else "")


def test_counts_stay_within_what_json_can_tell() -> None:
    tally = {STS: Totals(2**60, 2**60, {Detail(R.DANE_REQUIRED): 2**60})}
    assert wrong(build(WHO, DAY, D, tally, ID)) == []


def test_the_order_of_sessions_makes_no_difference() -> None:
    details = {Detail(r): n % 3 + 1 for n, r in enumerate(R)}
    a = {STS: Totals(1, 9, details), NONE: Totals(1)}
    b = {NONE: Totals(1), STS: Totals(1, 9, dict(reversed(list(details.items()))))}
    assert encode(build(WHO, DAY, D, a, ID)) == encode(build(WHO, DAY, D, b, ID))


def test_gzip_is_the_same_each_time_and_has_no_clock_in_it() -> None:
    body = compress(b"{}" * 1000)
    assert body == compress(b"{}" * 1000)
    assert body[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"
    assert zlib.decompress(body, wbits=31) == b"{}" * 1000


@pytest.mark.parametrize(
    ("day", "text"),
    [(0, "19700101"), (19782, "20240229"), (20_000, "20241004"), (16_892, "20160401")],
)
def test_ids(day: int, text: str) -> None:
    ident = report_id(Day(day), "aB3", WHO.submitter)
    assert ident == f"{text}.aB3@relay.example.net"


@pytest.mark.parametrize(
    ("ident", "unique"),
    [
        ("20241004.aB3@relay.example.net", "20241004aB3"),
        ("5065427c-23d3", "5065427c23d3"),
        ("a" * 100 + "@x", "a" * 64),
        ("../@x", "0"),
        ("", "0"),
    ],
)
def test_file_names(ident: str, unique: str) -> None:
    report = build(WHO, DAY, D, {}, ident)
    name = f"relay.example.net!example.com!1728000000!1728086399!{unique}.json.gz"
    assert file_name(report, DAY, D) == name


# -- the limit


def wide(policies: int = 3, details: int = 200) -> DomainTally:
    return {
        PolicyKey("tlsa", Domain(f"mx{p}.example.com"), (f"3 1 1 {p:064X}",)): Totals(
            5,
            details,
            {
                Detail(
                    R.CERTIFICATE_EXPIRED if n % 2 else R.VALIDATION_FAILURE,
                    mx_host=f"mx{p}.example.com",
                    helo=f"h{hash_of(n)}.example.com",
                ): n + 1
                for n in range(details)
            },
        )
        for p in range(policies)
    }


def hash_of(n: int) -> str:
    return f"{zlib.crc32(str(n).encode()):08x}"


def sums(report: Report) -> list[tuple[Summary, dict[str, int]]]:
    rows = []
    for p in report.policies:
        by_result: dict[str, int] = {}
        for d in p.failure_details:
            by_result[d.result_type] = by_result.get(d.result_type, 0) + d.failed_session_count
        rows.append((p.summary, by_result))
    return rows


def test_what_fits_is_left_alone() -> None:
    report = build(WHO, DAY, D, wide(), ID)
    body = compress(encode(report))
    assert pack(report, len(body)) == (report, body)


@pytest.mark.parametrize("share", [0.95, 0.5, 0.2])
def test_what_is_too_long_loses_the_least_frequent(share: float) -> None:
    report = build(WHO, DAY, D, wide(), ID)
    limit = int(len(compress(encode(report))) * share)
    smaller, body = pack(report, limit)
    assert limit * 0.8 < len(body) <= limit
    assert decode(body) == smaller
    assert wrong(smaller) == []
    assert sums(smaller) == sums(report)
    kept = {d for p in smaller.policies for d in p.failure_details if d.receiving_mx_hostname}
    gone = {d for p in report.policies for d in p.failure_details} - kept
    assert kept
    assert gone
    least = min(d.failed_session_count for d in kept)
    assert least >= max(d.failed_session_count for d in gone)


def test_strings_go_last_and_summaries_stay() -> None:
    report = build(WHO, DAY, D, wide(), ID)
    smaller, body = pack(report, 10)
    assert decode(body) == smaller
    assert sums(smaller) == sums(report)
    assert all(p.policy.policy_string == () for p in smaller.policies)
    assert all(len(p.failure_details) == 2 for p in smaller.policies)
    assert wrong(smaller) == []
    with_strings = pack(report, len(body) + 200)[0]
    assert all(p.policy.policy_string for p in with_strings.policies)


# -- anybody's report


def read(value: object) -> Report | BadReport:
    return decode(json.dumps(value).encode())


EMPTY = Report("", DateRange("", ""), "", "", ())


@pytest.mark.parametrize(
    ("value", "report"),
    [
        ({"policies": []}, EMPTY),
        ({"policies": [1, None, [], "x"]}, EMPTY),
        ({"policies": [], "organization-name": 7, "date-range": [], "contact-info": None}, EMPTY),
        (
            {"policies": [{}]},
            Report("", DateRange("", ""), "", "", (PolicyResult(Policy("?"), Summary(0, 0), ()),)),
        ),
        (
            {
                "policies": [
                    {
                        "policy": {
                            "policy-type": "sts",
                            "policy-string": "one",
                            "mx-host-pattern": ["a", 1, "b"],
                        },
                        "summary": {
                            "total-successful-session-count": "12",
                            "total-failure-session-count": 3.0,
                        },
                        "failure-details": [
                            {
                                "failure-error-code": "x",
                                "additional-info-uri": "y",
                                "failed-session-count": -1,
                            },
                            0,
                        ],
                    }
                ]
            },
            Report(
                "",
                DateRange("", ""),
                "",
                "",
                (
                    PolicyResult(
                        Policy("sts", ("one",), "", ("a", "b")),
                        Summary(12, 3),
                        (
                            FailureDetail(
                                "?", 0, additional_information="y", failure_reason_code="x"
                            ),
                        ),
                    ),
                ),
            ),
        ),
    ],
)
def test_what_others_leave_out_or_write_otherwise(value: object, report: Report) -> None:
    assert read(value) == report


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (0, 0),
        (2**53, 2**53 - 1),
        (1e300, 2**53 - 1),
        (-5, 0),
        (True, 0),
        (None, 0),
        ([], 0),
        ("7", 7),
        ("\u0667", 0),  # a digit to int(), not to JSON
        ("1_0", 0),
        (" 7", 0),
        ("9" * 17, 0),
    ],
)
def test_counts_of_any_type(value: object, count: int) -> None:
    found = read({"policies": [{"summary": {"total-successful-session-count": value}}]})
    assert isinstance(found, Report)
    assert found.successes == count


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2016-04-01T00:00:00Z", "2016-04-01T00:00:00Z"),
        ("2016-04-01T00:00:00", "2016-04-01T00:00:00Z"),  # Microsoft
        ("2016-04-01t00:00:00z", "2016-04-01T00:00:00Z"),
        ("2016-04-01 00:00:00", "2016-04-01T00:00:00Z"),
        ("2016-04-01T00:00:00.123456789Z", "2016-04-01T00:00:00Z"),
        ("2016-04-01T02:00:00+02:00", "2016-04-01T00:00:00Z"),
        ("2016-03-31T23:59:59-00:30", "2016-04-01T00:29:59Z"),
        ("2016-04-01T24:00:00Z", "2016-04-01T24:00:00Z"),
        ("0001-01-01T00:00:00+01:00", "0001-01-01T00:00:00+01:00"),
        ("2016-04-01", "2016-04-01"),
        ("yesterday\x1b[2J", "yesterday?[2J"),
        ("\u0662016-04-01T00:00:00Z", "\u0662016-04-01T00:00:00Z"),
    ],
)
def test_times(text: str, moment: str) -> None:
    found = read({"policies": [], "date-range": {"start-datetime": text}})
    assert isinstance(found, Report)
    assert found.date_range.start_datetime == moment


def test_texts_are_printable_and_bounded() -> None:
    found = read(
        {
            "policies": [
                {"policy": {"policy-type": "\x1b]0;x\x07", "policy-string": ["a"] * 5000}},
            ],
            "organization-name": "Müller\n& Söhne" + "x" * 5000,
        }
    )
    assert isinstance(found, Report)
    assert found.organization_name.startswith("Müller?& Söhnexxx")
    assert len(found.organization_name) == reports.MAX_FIELD
    assert found.policies[0].policy.policy_type == "?]0;x?"
    assert len(found.policies[0].policy.policy_string) == reports.MAX_LIST


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "json"),
        (b"{", "json"),
        (b'{"policies": NaN}', "json"),
        (b'{"policies": [], "x": "\xff"}', "json"),
        (b'{"policies": [], "x": "\\ud800"}', "json"),
        (b"[" * 100_000, "json"),
        (b'{"policies":' * 50_000, "json"),
        (b"[]", "no-report"),
        (b"7", "no-report"),
        (b"{}", "no-report"),
        (b'{"policies": {}}', "no-report"),
        (b"\x1f\x8b", "gzip"),
        (b"\x1f\x8b" + b"x" * 100, "gzip"),
        (compress(b"{}" * 100)[:-1], "gzip"),
        (compress(b"{}")[:-4] + b"\0\0\0\0", "gzip"),
        (compress(b" " * reports.MAX_FILE + b"{}"), "overlong"),
        (b" " * reports.MAX_FILE + b"{}", "overlong"),
        (b'{"policies": [' + b"{}," * reports.MAX_OBJECTS + b"{}]}", "overlong"),
    ],
    ids=range(18),
)
def test_no_report(body: bytes, why: str) -> None:
    assert decode(body) == BadReport(why)  # type: ignore[arg-type]


def test_a_byte_order_mark_is_skipped() -> None:
    assert decode(b'\xef\xbb\xbf{"policies": []}') == EMPTY


def test_what_follows_the_gzip_is_ignored() -> None:
    assert decode(compress(b'{"policies": []}') + b"\r\n") == EMPTY


@given(st.binary(max_size=200))
def test_any_octets(body: bytes) -> None:
    decode(body)
    decode(b"\x1f\x8b\x08" + body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["policies", "policy", "summary", "failure-details", "mx-host", "date-range"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_json(value: object) -> None:
    for shape in (value, {"policies": [value]}, {"policies": value, "date-range": value}):
        found = read(shape)
        if isinstance(found, Report):
            assert decode(encode(found)) == found


# -- what is built can be read


HOSTS = st.sampled_from(["", "mx.example.com", "mx.example.net"])
DETAILS = st.builds(
    Detail,
    st.sampled_from(list(R)),
    st.sampled_from(["", "192.0.2.1", "2001:db8::1"]),
    HOSTS,
    st.sampled_from(["", "198.51.100.1"]),
    HOSTS,
    st.sampled_from(["", "X509_V_ERR_CERT_UNTRUSTED", "a reason"]),
    st.sampled_from(["", "https://x.example/", "no uri"]),
)
TALLY = st.dictionaries(
    st.builds(
        PolicyKey,
        st.sampled_from(["sts", "tlsa", "no-policy-found"]),
        st.sampled_from([D, Domain("mx.example.com"), MANY]),
        st.sampled_from([(), ("3 1 1 AB",), ("mx: ü.example",)]),
        st.sampled_from([(), ("*.example.com",)]),
    ),
    st.builds(
        Totals,
        st.integers(0, 9),
        st.integers(0, 9),
        st.dictionaries(DETAILS, st.integers(1, 9), max_size=5),
    ),
    min_size=1,
    max_size=4,
)


@given(TALLY, st.sampled_from([250, 400, 10_000]))
def test_any_tally(tally: DomainTally, limit: int) -> None:
    report = build(WHO, DAY, D, tally, ID)
    assert wrong(report) == []
    smaller, body = pack(report, limit)
    assert decode(body) == smaller
    assert wrong(smaller) == []
    assert sums(smaller) == sums(report)


def test_our_longest_report_can_be_read() -> None:
    """All the variety that a tally may have, in the widest words."""
    label = "x" * 61
    host = Domain(f"{label}.{label}.{label}.{'y' * 59}.example")
    assert len(host) == names.MAX_NAME
    ip = "2001:db8:1111:2222:3333:4444:5555:6666"
    detail = Detail(
        R.CERTIFICATE_HOST_MISMATCH, ip, host, ip, host, "r" * sessions.MAX_REASON, f"a:{host}"
    )
    half = "q" * (sessions.MAX_STRINGS_SIZE // 2)
    key = PolicyKey("tlsa", host, sessions.bounded(['"' * len(half)] * 9), (half, half))
    report = build(WHO, DAY, D, {key: Totals(0, 0, {detail: 2**53})}, ID)
    (policy,) = report.policies
    one = len(msgspec.json.encode(policy.failure_details[0]))
    policies = tallies.MAX_POLICIES + 3
    details = tallies.MAX_DETAILS + len(R)
    assert (len(encode(report)) + details * one) * policies < reports.MAX_FILE
    assert policies * (details + 6) < reports.MAX_OBJECTS
