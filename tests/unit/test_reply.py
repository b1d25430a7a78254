"""Verdicts to the text that Postfix reads."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd.names import Domain
from mtastsd.postfix import socketmap
from mtastsd.postfix.reply import MAX_TEXT, NO_HOST, Style, render, style
from mtastsd.postfix.socketmap import MAX_REPLY
from mtastsd.sts import policy as policies
from mtastsd.sts.policy import Mode, Policy
from mtastsd.verdict import Verdict, What, Why

D = Domain("example.com")
MX = ("mail.example.com", "*.example.net", "backup.example.org")
LINES = ("version: STSv1", "mode: enforce", "mx: mail.example.com", "max_age: 86400")
STYLES = list(Style)


def policy(
    mx: tuple[str, ...] = MX, lines: tuple[str, ...] = LINES, mode: Mode = "enforce"
) -> Policy:
    return Policy(mode, 86400, mx, lines)


def verdict(
    what: What,
    why: Why = "dane",
    *,
    mx: tuple[str, ...] = (),
    known: Policy | None = None,
    enforced: bool = False,
) -> Verdict:
    return Verdict(D, what, why, 1.0, mx, known, enforced)


def enforcing(known: Policy | None = None) -> Verdict:
    known = known or policy()
    return verdict(What.SECURE, "sts-enforce", mx=known.mx, known=known, enforced=True)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("postfix", Style.PLAIN),
        ("QUERY", Style.PLAIN),
        ("postfix-tlsrpt", Style.TLSRPT),
        ("QUERYwithTLSRPT", Style.TLSRPT),
        ("sts", Style.SENDMAIL),
        ("", Style.PLAIN),
        ("anything", Style.PLAIN),
        # a name that only looks like one gets what every Postfix understands
        ("STS", Style.PLAIN),
        ("postfix-TLSRPT", Style.PLAIN),
        ("querywithtlsrpt", Style.PLAIN),
    ],
)
def test_style(name: str, how: Style) -> None:
    assert style(name) is how


MATCH = "secure match=mail.example.com:.example.net:backup.example.org"
SECURE = MATCH + " servername=hostname"
TLSRPT = (
    SECURE + " policy_type=sts policy_domain=example.com"
    " mx_host_pattern=mail.example.com mx_host_pattern=*.example.net"
    " mx_host_pattern=backup.example.org"
    " { policy_string = version: STSv1 } { policy_string = mode: enforce }"
    " { policy_string = mx: mail.example.com } { policy_string = max_age: 86400 }"
)
OWN = ("mx.provider.example",)
P = policy()
T = policy(mode="testing")

ROWS: list[tuple[str, Verdict, str | None, str | None, str | None]] = [
    # what, plain, tlsrpt, sendmail
    ("nothing", verdict(What.NOTHING, "no-policy"), None, None, None),
    ("testing", verdict(What.NOTHING, "sts-testing", known=T), None, None, None),
    (
        "null MX, signed, of a domain that enforces",
        verdict(What.NOTHING, "null-mx", known=P, enforced=True),
        None,
        None,
        None,
    ),
    ("dane", verdict(What.DANE, "dane-partial"), "dane", "dane", None),
    ("dane-only", verdict(What.DANE_ONLY), "dane-only", "dane-only", None),
    (
        "dane-only, STS enforces: Sendmail looks for DANE itself",
        verdict(What.DANE_ONLY, known=P, enforced=True),
        "dane-only",
        "dane-only",
        MATCH,
    ),
    ("dane-only, STS tests", verdict(What.DANE_ONLY, known=T), "dane-only", "dane-only", None),
    ("enforce", enforcing(), SECURE, TLSRPT, MATCH),
    (
        "testing = enforce",
        verdict(What.SECURE, "sts-testing-enforced", mx=MX, known=T, enforced=True),
        SECURE,
        TLSRPT,
        MATCH,
    ),
    ("minimum encrypt", verdict(What.ENCRYPT, "minimum"), "encrypt", "encrypt", None),
    (
        "minimum secure: Postfix's own matching",
        verdict(What.SECURE, "minimum"),
        "secure servername=hostname",
        "secure servername=hostname",
        None,
    ),
    ("override off", verdict(What.NOTHING, "override", known=P, enforced=True), None, None, None),
    ("override may", verdict(What.MAY, "override", known=P, enforced=True), "may", "may", None),
    (
        "override encrypt",
        verdict(What.ENCRYPT, "override", known=P, enforced=True),
        "encrypt",
        "encrypt",
        None,
    ),
    (
        "override secure with its own mx, STS enforces: no attributes",
        verdict(What.SECURE, "override", mx=OWN, known=P, enforced=True),
        "secure match=mx.provider.example servername=hostname",
        "secure match=mx.provider.example servername=hostname",
        "secure match=mx.provider.example",
    ),
    (
        "override secure with its own mx, no policy",
        verdict(What.SECURE, "override", mx=OWN),
        "secure match=mx.provider.example servername=hostname",
        "secure match=mx.provider.example servername=hostname",
        "secure match=mx.provider.example",
    ),
    (
        "override secure with the policy's mx",
        verdict(What.SECURE, "override", mx=MX, known=P, enforced=True),
        SECURE,
        TLSRPT,
        MATCH,
    ),
    (
        "override secure with the mx of a testing policy: Postfix must not report it as applied",
        verdict(What.SECURE, "override", mx=MX, known=T),
        SECURE,
        SECURE,
        MATCH,
    ),
    (
        "override secure, nothing known",
        verdict(What.SECURE, "override"),
        "secure servername=hostname",
        "secure servername=hostname",
        "secure match=example.com:.example.com",
    ),
]


@pytest.mark.parametrize(
    ("given", "plain", "tlsrpt", "sendmail"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS]
)
def test_each_verdict_in_each_style(
    given: Verdict, plain: str | None, tlsrpt: str | None, sendmail: str | None
) -> None:
    assert render(given, Style.PLAIN) == plain
    assert render(given, Style.TLSRPT) == tlsrpt
    assert render(given, Style.SENDMAIL) == sendmail


# -- what a remote text could try. The policy reaches `render` as no parser of ours would let it.

KEYWORDS = ("hostname", "nexthop", "dot-nexthop")  # they match whatever name DNS gave
INJECTIONS = [
    "mail.example.com servername=evil.test protocols=TLSv1",
    "mail.example.com:.com",
    "mail.example.com,servername=evil.test",
    "mail.example.com\ttafile=/etc/passwd",
    "mail.example.com\nOK may",
    "mail.example.com\x00",
    "mail.example.com.",
    "MAIL.example.com",
    "*",
    "*.",
    "*.*.example.com",
    "mail.*.example.com",
    "**.example.com",
    ".example.com",
    "",
    " ",
    "192.0.2.1",
    "*.2.1",
    "[192.0.2.1]",
    "2001:db8::1",
    "bücher.test",
    "{",
    "mail.example.com}",
    "a" * 64 + ".test",
    *KEYWORDS,
]


@pytest.mark.parametrize("pattern", INJECTIONS, ids=ascii)
@pytest.mark.parametrize("how", STYLES)
def test_a_pattern_that_is_no_host_name_never_goes_out(pattern: str, how: Style) -> None:
    alone = render(enforcing(policy((pattern,), ())), how)
    among = render(enforcing(policy(("a.test", pattern, "*.b.test"), ())), how)
    clean = render(enforcing(policy(("a.test", "*.b.test"), ())), how)
    assert among == clean
    assert alone is not None
    assert alone.split()[:2] == ["secure", f"match={NO_HOST}"]
    assert "mx_host_pattern" not in alone


def test_an_override_goes_through_the_same_check() -> None:
    odd = verdict(What.SECURE, "override", mx=("hostname", "mx.test may"))
    assert render(odd, Style.PLAIN) == f"secure match={NO_HOST} servername=hostname"
    assert render(odd, Style.SENDMAIL) == f"secure match={NO_HOST}"


def strings(lines: tuple[str, ...]) -> list[str]:
    text = render(enforcing(policy(("a.test",), lines)), Style.TLSRPT)
    assert text is not None
    head = "secure match=a.test servername=hostname policy_type=sts policy_domain=example.com"
    assert text.startswith(f"{head} mx_host_pattern=a.test")
    return attributes(text)[6:]


def attributes(text: str) -> list[str]:
    """As Postfix parts them: at blanks and commas, but not within braces."""
    found, level, token = [], 0, ""
    for char in text + " ":
        level += (char == "{") - (char == "}" and level > 0)
        if level == 0 and char in " ,\t\r\n":
            found += [token] if token else []
            token = ""
        else:
            token += char
    assert level == 0
    return found


GOOD_LINES = [
    "version: STSv1",
    "mx: *.example.com",
    "x-note: a, b, c",
    'x-note: "quoted" \\ back',
    "x-note: servername=evil.test policy_failure=sts-webpki-invalid",
    "x-note: $myhostname #",
    "x-note: grüße",
    "= =",
]


@pytest.mark.parametrize("line", GOOD_LINES)
def test_a_harmless_line_goes_out_in_braces(line: str) -> None:
    assert strings((line,)) == [f"{{ policy_string = {line} }}"]


BAD_LINES = [
    "x-note: } policy_failure=sts-webpki-invalid {",
    "x-note: }",
    "x-note: {",
    "x-note: {balanced}",
    "x-note: {{",
    "x-note: a\r\nb",
    "x-note: a\nb",
    "x-note: \x00",
    "x-note: \x1b[2J",
    "x-note: \x7f",
    "x-note: \x85",
    "x-note: \u2028",
    "x-note: \ud800",
    "",
    " ",
    "\t",
]


@pytest.mark.parametrize("line", BAD_LINES, ids=ascii)
def test_a_line_that_could_end_the_attribute_is_left_out(line: str) -> None:
    assert strings((line,)) == []
    assert strings(("mode: enforce", line, "max_age: 1")) == [
        "{ policy_string = mode: enforce }",
        "{ policy_string = max_age: 1 }",
    ]


def test_blanks_around_a_line_and_tabs_in_it() -> None:
    assert strings((" mode:\tenforce \t",)) == ["{ policy_string = mode: enforce }"]


ALLOWED = re.compile(
    r"secure|match=[a-z0-9_.:-]+|servername=hostname|policy_type=sts|policy_domain=example\.com"
    r"|mx_host_pattern=(?:\*\.)?[a-z0-9_.-]+|\{ policy_string = [^{}\x00-\x1f\x7f]+ \}"
)


@given(
    st.lists(st.one_of(st.text(max_size=30), st.sampled_from([*MX, *INJECTIONS])), max_size=6),
    st.lists(st.one_of(st.text(max_size=30), st.sampled_from(GOOD_LINES)), max_size=6),
    st.sampled_from(STYLES),
)
def test_whatever_a_policy_holds_postfix_sees_only_attributes_of_ours(
    mx: list[str], lines: list[str], how: Style
) -> None:
    text = render(enforcing(policy(tuple(mx), tuple(lines))), how)
    if text is None:
        return
    text.encode()
    found = attributes(text)
    assert all(ALLOWED.fullmatch(a) for a in found)
    once = [a.partition("=")[0] for a in found if not a.startswith(("{", "mx_host_pattern="))]
    assert len(once) == len(set(once))


@given(st.binary(max_size=400))
def test_what_the_parser_lets_through_is_fit_for_a_reply(extra: bytes) -> None:
    parsed = policies.parse(b"version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 1\n" + extra)
    if isinstance(parsed, Policy):
        text = render(enforcing(parsed), Style.TLSRPT)
        assert text is not None
        assert all(ALLOWED.fullmatch(a) for a in attributes(text))


# -- too long for Postfix


def many(count: int, length: int = 0) -> tuple[str, ...]:
    """That many host names, about that long."""
    return tuple(f"h{i}{'x' * length}.example.com" for i in range(count))


def octets(text: str | None) -> int:
    assert text is not None
    return len(socketmap.ok(text))


def test_what_fits_to_the_octet_is_kept() -> None:
    bare = octets(render(enforcing(policy(lines=("",))), Style.TLSRPT))
    room = MAX_REPLY - bare - len(" { policy_string =  }")
    fits = render(enforcing(policy(lines=("x" * room,))), Style.TLSRPT)
    assert octets(fits) == MAX_REPLY
    over = render(enforcing(policy(lines=("x" * (room + 1),))), Style.TLSRPT)
    assert octets(over) == bare
    # counted in octets, not in characters
    wide = render(enforcing(policy(lines=("x" * (room - 1) + "ü",))), Style.TLSRPT)
    assert octets(wide) == bare


def test_policy_strings_go_first_then_patterns() -> None:
    def of(count: int) -> str:
        mx = many(count, 20)
        text = render(enforcing(policy(mx, tuple(f"mx: {m}" for m in mx))), Style.TLSRPT)
        assert text is not None
        assert octets(text) <= MAX_REPLY
        assert text.startswith("secure match=" + ":".join(mx) + " servername=hostname policy_type=")
        return text

    whole, no_strings, no_patterns = of(600), of(900), of(2500)
    assert whole.count("mx_host_pattern=") == whole.count("policy_string") == 600
    assert no_strings.count("mx_host_pattern=") == 900
    assert "policy_string" not in no_strings
    assert no_patterns.endswith(" policy_type=sts policy_domain=example.com")


@pytest.mark.parametrize("how", STYLES)
def test_names_that_no_longer_fit_are_left_out_whole_from_the_end(how: Style) -> None:
    mx = many(4000, 20)
    text = render(enforcing(policy(mx)), how)
    assert text is not None
    assert octets(text) <= MAX_REPLY
    value = text.split()[1].removeprefix("match=")
    kept = tuple(value.split(":"))
    assert kept == mx[: len(kept)]
    # not one more would have fitted
    assert (
        len(f"secure match={value}:{mx[len(kept)]}")
        + (len(" servername=hostname") if how is not Style.SENDMAIL else 0)
        > MAX_TEXT
    )
    assert "mx_host_pattern" not in text


def test_no_room_for_any_attribute() -> None:
    around = len("secure match=") + len(" servername=hostname")
    mx = [f"h{i:05}.example.com" for i in range((MAX_TEXT - around + 1) // 19)]
    mx[-1] = "h" * (MAX_TEXT - around - len(":".join(mx))) + mx[-1]
    full = "secure match=" + ":".join(mx) + " servername=hostname"
    assert len(full) == MAX_TEXT
    for how in (Style.PLAIN, Style.TLSRPT):
        assert render(enforcing(policy(tuple(mx))), how) == full
    mx[-1] = "h" + mx[-1]
    shorter = render(enforcing(policy(tuple(mx))), Style.PLAIN)
    assert shorter == "secure match=" + ":".join(mx[:-1]) + " servername=hostname"


def test_a_name_listed_twice_goes_out_once() -> None:
    text = render(enforcing(policy(("a.test", "b.test", "a.test"), ())), Style.TLSRPT)
    assert text is not None
    assert text.startswith("secure match=a.test:b.test servername=hostname ")
    assert text.count("mx_host_pattern=a.test") == 1
