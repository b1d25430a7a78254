"""libtlsrpt datagrams: real ones, each field of the protocol, and all that is no datagram."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mtastsd.postfix.datagram import MAX_DETAILS, MAX_MORE, MAX_POLICIES, BadDatagram, decode
from mtastsd.tlsrpt.session import (
    MAX_REASON,
    MAX_STRINGS,
    MAX_STRINGS_SIZE,
    Detail,
    PolicyKey,
    ResultType,
    Session,
)

AT = 1764000000.5
SAMPLES = [
    json.loads(line)
    for line in Path(__file__).parents[1].joinpath("data/datagrams.jsonl").read_text().splitlines()
]


def shown(session: Session) -> str:
    words: list[str] = [session.policy.type, session.policy.domain]
    words.append("success" if session.success else "failure")
    for d in session.details:
        words += [d.result.value, f"{d.sending_ip}>{d.mx_host}[{d.mx_ip}]", d.helo]
        words += [d.reason] if d.reason else []
    return " ".join(words)


def make(policies: object = None, **fields: object) -> bytes:
    """A datagram with one policy, a success, unless other policies are given."""
    if policies is None:
        policies = [{"policy-type": 9, "t": 0, "f": 0}]
    return json.dumps(
        {"d": "example.com", "pr": "v=TLSRPTv1;", "policies": policies} | fields
    ).encode()


def policy(**fields: object) -> dict[str, object]:
    names = {"type": "policy-type", "domain": "policy-domain", "strings": "policy-string"}
    names |= {"mx": "mx-host", "failures": "failure-details"}
    return {"policy-type": 2, "f": 0} | {names.get(k, k): v for k, v in fields.items()}


def one(raw: bytes) -> Session:
    decoded = decode(raw, AT)
    assert not isinstance(decoded, BadDatagram), decoded
    (session,) = decoded
    return session


def key(**fields: object) -> PolicyKey:
    return one(make([policy(**fields)])).policy


def detail(**fields: object) -> Detail:
    failure = {"c": 205} | fields
    (found,) = one(make([policy(failures=[failure], f=1)])).details
    return found


# ---- what Postfix sends


@pytest.mark.parametrize("sample", SAMPLES, ids=[s["session"] for s in SAMPLES])
def test_real_datagrams(sample: dict[str, Any]) -> None:
    raw = sample["datagram"].encode()
    session = one(raw)
    assert shown(session) == sample["session"]
    assert session.policy.strings == tuple(sample["strings"])
    assert session.policy.mx == tuple(sample["mx"])
    assert session.domain == json.loads(raw)["d"]
    assert (session.at, session.source, session.counts) == (AT, "datagram", True)


@pytest.mark.parametrize("sample", SAMPLES, ids=[s["session"] for s in SAMPLES])
def test_the_tolerant_decoder_reads_the_same(sample: dict[str, Any]) -> None:
    told = json.loads(sample["datagram"])
    for item in told["policies"]:
        item["f"] = str(item["f"])
    assert decode(json.dumps(told).encode(), AT) == decode(sample["datagram"].encode(), AT)


# ---- version, domain, policies


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "json"),
        (b" ", "json"),
        (b"{", "json"),
        (make()[:-1], "json"),
        (make() + b"x", "json"),
        (b"\xff\xfe{}", "json"),
        (b"\xef\xbb\xbf" + make(), "json"),
        (b"[" * 100_000, "json"),
        (b'{"policies":' * 30_000, "json"),
        (b'{"d":"example.com","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "json"),
        (b"null", "shape"),
        (b"true", "shape"),
        (b"7", "shape"),
        (b"1" * 100_000, "shape"),
        (b"NaN", "shape"),
        (b'"' + b"x" * 100_000 + b'"', "shape"),
        (b"[]", "shape"),
        (make(dpv="2"), "version"),
        (make(dpv=""), "version"),
        (make(dpv="1.0"), "version"),
        (make(dpv=2), "version"),
        (make(dpv=True), "version"),
        (make({"of": "another shape"}, dpv="2"), "version"),
        (b"{}", "domain"),
        (make(d=""), "domain"),
        (make(d=None), "domain"),
        (make(d=17), "domain"),
        (make(d=1e300), "domain"),
        (make(d=["example.com"]), "domain"),
        (make(d="localhost"), "domain"),
        (make(d="192.0.2.1"), "domain"),
        (make(d="[192.0.2.1]"), "domain"),
        (make(d="a..b"), "domain"),
        (make(d="x." * 200), "domain"),
        (make(d="exa\u2028mple.com"), "domain"),
        (make().replace(b'"example.com"', b'"ex\xffample.com"'), "domain"),
        (make().replace(b'"example.com"', b'"\\ud800.com"'), "domain"),
        (make([]), "policies"),
        (make({}), "policies"),
        (make("x"), "policies"),
        (b'{"d":"example.com"}', "policies"),
        (make([None]), "policy-type"),
        (make([[]]), "policy-type"),
        (make([{}]), "policy-type"),
        (make([policy(type=3)]), "policy-type"),
        (make([policy(type=0)]), "policy-type"),
        (make([policy(type=-1)]), "policy-type"),
        (make([policy(type=901)]), "policy-type"),
        (make([policy(type=10**30)]), "policy-type"),
        (make([policy(type=2.5)]), "policy-type"),
        (make([policy(type=1e300)]), "policy-type"),
        (make([policy(type="two")]), "policy-type"),
        (make([policy(type="\u0662")]), "policy-type"),
        (make([policy(type=None)]), "policy-type"),
        (make([policy(type=float("inf"))]), "policy-type"),
        (make([policy(type=float("nan"))]), "policy-type"),
        (make([policy()]).replace(b'-type": 2', b'-type": ' + b"2" * 9000), "policy-type"),
        (make([policy(), policy(type=3)]), "policy-type"),
        (make([policy(f=None)]), "result"),
        (make([policy(f="yes")]), "result"),
        (make([policy(f=[])]), "result"),
        (make([{"policy-type": 9}]), "result"),
    ],
)  # fmt: skip
def test_no_session(raw: bytes, why: str) -> None:
    assert decode(raw, AT) == BadDatagram(why)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "raw",
    [
        make(),
        make(dpv="1"),
        make(dpv=1),
        make(dpv=None),
        make(more={"deep": [[[1e400, -0.0]]]}, d="example.com"),
        make(pr=7),
        make(d="EXAMPLE.com."),
        make([{"policy-type": 9, "f": 0, "x": None}]),
        make([{"policy-type": "9", "f": "0"}]),
        make([{"policy-type": 9.0, "f": 0.0}]),
        make([{"policy-type": 9, "f": False}]),
        make([{"policy-type": 9, "f": 0, "policy-domain": None, "mx-host": None}]),
        make([{"policy-type": 9, "f": 0, "policy-string": 3, "failure-details": {}}]),
        make([{"policy-type": 9, "f": 0, "policy-domain": "EXAMPLE.COM"}]),
        make([{"policy-type": 9, "f": 0, "policy-domain": "no domain"}]),
        make([{"policy-type": 9, "f": 0, "policy-domain": 17}]),
        make([{"policy-type": 9, "f": 0, "policy-string": ["a"], "mx-host": ["b.example"]}]),
        make().replace(b"v=TLSRPTv1", b"v=\xff\xfe\x00"),
        make().replace(b"v=TLSRPTv1", b"v=\t\x01\x7f"),
        make(x=0).replace(b'"x": 0', b'"x": ' + b"9" * 10_000),
        make(x=0).replace(b'"x": 0', b'"x": NaN, "y": -Infinity, "x": 1'),
        make([{"policy-type": 9, "f": 0}]).replace(b'"d"', b'"d": "first.example", "d"'),
        b"\r\n\t " + make() + b"\n",
    ],
)
def test_all_these_say_the_same(raw: bytes) -> None:
    domain = one(make()).domain
    assert one(raw) == Session(AT, domain, PolicyKey("no-policy-found", domain), True)


@pytest.mark.parametrize(
    ("f", "failures", "success", "count"),
    [
        (0, [], True, 0),
        (1, [], False, 0),
        (0, [{"c": 204}], True, 1),
        (1, [{"c": 204}], False, 1),
        (2, [], False, 0),
        (-1, [], False, 0),
        (True, [], False, 0),
        ("1", [], False, 0),
    ],
)
def test_the_final_result_is_not_that_of_the_failures(
    f: object, failures: list[object], success: bool, count: int
) -> None:
    session = one(make([policy(f=f, failures=failures, t=len(failures))]))
    assert (session.success, len(session.details)) == (success, count)


# ---- the policy


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"type": 9}, ("no-policy-found", "example.com")),
        ({"type": 9, "domain": "other.example"}, ("no-policy-found", "other.example")),
        ({"type": 2, "domain": "Bücher.example"}, ("sts", "xn--bcher-kva.example")),
        ({"type": 1, "domain": "MX1.example.com."}, ("tlsa", "mx1.example.com")),
        ({"type": 1}, ("tlsa", "example.com")),
        ({"type": 1, "domain": "mx"}, ("tlsa", "example.com")),
    ],
)
def test_type_and_domain(given: dict[str, object], wanted: tuple[str, str]) -> None:
    found = key(**given)
    assert (found.type, found.domain, found.strings, found.mx) == (*wanted, (), ())


@pytest.mark.parametrize(
    ("strings", "wanted"),
    [
        (["version: STSv1", "mode: testing"], ("version: STSv1", "mode: testing")),
        (["mx: b\u00fccher.example"], ("mx: b\u00fccher.example",)),
        (["a\r\nb\tc\x7f", "\u2028\u202e\u200b"], ("a??b?c?", "???")),
        (["\ud800"], ("?",)),
        (["x", 5, None, ["y"], "z"], ("x", "5", "z")),
        (["x"] * (MAX_STRINGS + 5), ("x",) * MAX_STRINGS),
        (["x" * MAX_STRINGS_SIZE, "y"], ("x" * MAX_STRINGS_SIZE,)),
        ("version: STSv1", ()),
    ],
)
def test_strings_of_a_policy(strings: object, wanted: tuple[str, ...]) -> None:
    assert key(strings=strings).strings == wanted


def test_octets_that_are_not_utf8_are_replaced() -> None:
    raw = make([policy(strings=["mode: enforce"])]).replace(b"enforce", b"en\xffforce")
    assert one(raw).policy.strings == ("mode: en\ufffdforce",)


@pytest.mark.parametrize(
    ("strings", "wanted"),
    [
        (["3 1 1 ABCD"], ("3 1 1 ABCD",)),
        (["3 1 1 abcd", "3 1 1 ABCD"], ("3 1 1 ABCD",)),
        (["3 1 1 CD", "2 0 1 AB"], ("2 0 1 AB", "3 1 1 CD")),
        (["3  1 01   AB cd"], ("3 1 1 ABCD",)),
        (["255 255 255 00"], ("255 255 255 00",)),
        (["256 1 1 00", "3 1 1 ABC", "3 1 1", "3 1 1 XY", "3 1 1 AB\n", "", "3\u0661 1 1 AB"], ()),
        ([f"3 1 1 {n:04X}" for n in range(500)], tuple(f"3 1 1 {n:04X}" for n in range(200))),
    ],
)
def test_tlsa_records(strings: list[str], wanted: tuple[str, ...]) -> None:
    assert key(type=1, strings=strings, mx=["a.example"]) == PolicyKey(
        "tlsa", one(make()).domain, wanted
    )


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        (["*.example.net", "mx.example.net"], ("*.example.net", "mx.example.net")),
        (["MX.Example.NET.", "mx.example.net"], ("mx.example.net",)),
        (["*.b\u00fccher.example"], ("*.xn--bcher-kva.example",)),
        (["*.net", "*", "*.", "*.*.net", ".example.net", "a b.example", "192.0.2.1"], ("*.net",)),
        ([f"mx{n}.example" for n in range(300)], tuple(f"mx{n}.example" for n in range(200))),
    ],
)
def test_mx_patterns(patterns: list[str], wanted: tuple[str, ...]) -> None:
    assert key(mx=patterns).mx == wanted


# ---- failures


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (201, ResultType.STARTTLS_NOT_SUPPORTED),
        (202, ResultType.CERTIFICATE_HOST_MISMATCH),
        (203, ResultType.CERTIFICATE_NOT_TRUSTED),
        (204, ResultType.CERTIFICATE_EXPIRED),
        (205, ResultType.VALIDATION_FAILURE),
        (301, ResultType.STS_POLICY_FETCH_ERROR),
        (302, ResultType.STS_POLICY_INVALID),
        (303, ResultType.STS_WEBPKI_INVALID),
        (304, ResultType.TLSA_INVALID),
        (305, ResultType.DNSSEC_INVALID),
        (306, ResultType.DANE_REQUIRED),
    ],
)
def test_codes(code: int, result: ResultType) -> None:
    assert detail(c=code, f="why") == Detail(result, reason="why")
    assert detail(c=str(code)) == Detail(result)


@pytest.mark.parametrize("code", [0, -5, 200, 206, 901, 2**63, 10**40])
def test_unknown_codes_are_told(code: int) -> None:
    found = detail(c=code, f="ignored")
    assert found == Detail(ResultType.VALIDATION_FAILURE, reason=f"libtlsrpt-code-{code}")


@pytest.mark.parametrize("code", [None, "x", [], 1.5])
def test_no_code(code: object) -> None:
    assert detail(c=code, f="why") == Detail(ResultType.VALIDATION_FAILURE, reason="why")


def test_a_failure_that_is_no_object() -> None:
    assert one(make([policy(failures=[7], f=1)])).details == (
        Detail(ResultType.VALIDATION_FAILURE),
    )


@pytest.mark.parametrize(
    ("field", "text", "wanted"),
    [
        ("n", "MX.example.com.", {"mx_host": "mx.example.com"}),
        ("n", "b\u00fccher.example", {"mx_host": "xn--bcher-kva.example"}),
        ("n", "mx", {}),
        ("n", "mx.example.com\r\nX: y", {}),
        ("n", 4, {}),
        ("s", "192.0.2.1", {"sending_ip": "192.0.2.1"}),
        ("s", "2001:DB8:0:0::1", {"sending_ip": "2001:db8::1"}),
        ("s", "192.0.2.300", {}),
        ("s", "192.0.2.01", {}),
        ("s", "fe80::1%eth0", {}),
        ("s", "\u0661.2.3.4", {}),
        ("s", "1" * 100, {}),
        ("s", 1, {}),
        ("s", "", {}),
        ("r", "::ffff:192.0.2.1", {"mx_ip": "::ffff:c000:201"}),
        ("r", "198.51.100.7", {"mx_ip": "198.51.100.7"}),
        ("r", "mx.example.com", {}),
        ("f", "self-signed_certificate", {"reason": "self-signed_certificate"}),
        ("f", "a\nb\u00e9\x00", {"reason": "a?b??"}),
        ("f", "x" * 500, {"reason": "x" * MAX_REASON}),
        ("f", 5, {"reason": "5"}),
        ("a", "https://example.com/?why", {"more": "https://example.com/?why"}),
        ("a", "https://example.com/" + "x" * MAX_MORE, {}),
        ("a", "no uri", {}),
        ("a", "https://a b", {}),
        ("h", "250-mx.example.com\r\n250-SIZE 1\r\n250 STARTTLS", {"helo": "mx.example.com"}),
        ("h", "250-mx.example.com Hello relay [192.0.2.1], nonce 123", {"helo": "mx.example.com"}),
        ("h", "250 mx.example.com", {"helo": "mx.example.com"}),
        ("h", "MX.example.com Hello\r\nSTARTTLS", {"helo": "mx.example.com"}),
        ("h", "mx.example.com\nSTARTTLS", {"helo": "mx.example.com"}),
        ("h", "250-mx.example.com\tHello", {"helo": "mx.example.com"}),
        ("h", "250-250-mx.example.com", {"helo": "250-mx.example.com"}),
        ("h", "250", {}),
        ("h", "250-", {}),
        ("h", "250-mx", {}),
        ("h", "250-[192.0.2.1] Hello", {}),
        ("h", "\r\n250-mx.example.com", {}),
        ("h", "x" * 100_000, {}),
        ("h", 250, {}),
    ],
)
def test_fields_of_a_failure(field: str, text: object, wanted: dict[str, str]) -> None:
    fields: dict[str, Any] = wanted
    assert detail(**{field: text}) == Detail(ResultType.VALIDATION_FAILURE, **fields)


def test_equal_failures_are_one() -> None:
    failures = [{"c": 204, "r": "192.0.2.1"}, {"c": 202}, {"c": 204, "r": "192.0.2.1"}]
    details = one(make([policy(failures=failures, f=1)])).details
    assert [d.result.value for d in details] == [
        "certificate-expired",
        "certificate-host-mismatch",
    ]


def test_failures_are_bounded() -> None:
    failures = [{"c": 205, "f": f"reason {n}"} for n in range(100)]
    assert len(one(make([policy(failures=failures, f=1)])).details) == MAX_DETAILS


# ---- several policies


def test_each_policy_has_its_own_result() -> None:
    failed = policy(domain="example.com", failures=[{"c": 302}, {"c": 303}], f=1, t=2)
    passed = policy(type=1, domain="mx.example.com", strings=["3 0 1 1F85"])
    decoded = decode(make([failed, passed], dpv="1"), AT)
    assert isinstance(decoded, tuple)
    assert [shown(s) for s in decoded] == [
        "sts example.com failure sts-policy-invalid >[]  sts-webpki-invalid >[] ",
        "tlsa mx.example.com success",
    ]
    assert all(s.counts and s.domain == "example.com" for s in decoded)


def test_a_policy_that_is_there_twice_is_one() -> None:
    twice = [policy(), policy(failures=[{"c": 204}], f=1), policy(failures=[{"c": 204}])]
    decoded = decode(make(twice), AT)
    assert isinstance(decoded, tuple)
    assert [shown(s) for s in decoded] == ["sts example.com failure certificate-expired >[] "]


def test_policies_are_bounded() -> None:
    many = [policy(domain=f"d{n}.example") for n in range(100)]
    for raw in (make(many), make(many, dpv=1)):
        decoded = decode(raw, AT)
        assert isinstance(decoded, tuple)
        assert len(decoded) == MAX_POLICIES
