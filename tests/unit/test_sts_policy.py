"""RFC 8461 §3.2 as tables."""

from __future__ import annotations

from typing import get_args

import pytest

from mtastsd.sts import policy
from mtastsd.sts.policy import Mode, Policy, PolicyError, parse, problems, section

# The RFC's own example.
EXAMPLE = (
    b"version: STSv1\r\n"
    b"mode: enforce\r\n"
    b"mx: mail.example.com\r\n"
    b"mx: *.example.net\r\n"
    b"mx: backupmx.example.com\r\n"
    b"max_age: 604800\r\n"
)


def body(*lines: str | bytes, end: bytes = b"\r\n") -> bytes:
    return b"".join((x.encode() if isinstance(x, str) else x) + end for x in lines)


def around(*lines: str | bytes) -> bytes:
    """A policy that is good but for what `lines` bring."""
    return body("version: STSv1", "mode: enforce", "mx: a.example", *lines, "max_age: 60")


def with_mx(*values: str | bytes) -> bytes:
    lines = [b"mx: " + (x.encode() if isinstance(x, str) else x) for x in values]
    return body("version: STSv1", "mode: enforce", *lines, "max_age: 60")


def good(text: bytes) -> Policy:
    parsed = parse(text)
    assert isinstance(parsed, Policy), parsed
    assert problems(text) == ()
    return parsed


def test_the_example() -> None:
    assert good(EXAMPLE) == Policy(
        mode="enforce",
        max_age=604800,
        mx=("mail.example.com", "*.example.net", "backupmx.example.com"),
        lines=(
            "version: STSv1",
            "mode: enforce",
            "mx: mail.example.com",
            "mx: *.example.net",
            "mx: backupmx.example.com",
            "max_age: 604800",
        ),
    )


SAME_AS_EXAMPLE = {
    "LF": EXAMPLE.replace(b"\r\n", b"\n"),
    "LF and CRLF": EXAMPLE.replace(b"\r\n", b"\n", 3),
    "no end of line at the end": EXAMPLE.removesuffix(b"\r\n"),
    "blank line at the end": EXAMPLE + b"\r\n",
    "many blank lines": EXAMPLE.replace(b"\r\n", b"\r\n\n \t\r\n") + b"\n\n",
    "blank line at the start": b"\r\n" + EXAMPLE,
    "WSP at line ends": EXAMPLE.replace(b"\r\n", b" \t \r\n"),
    "no WSP after the colon": EXAMPLE.replace(b": ", b":"),
    "much WSP after the colon": EXAMPLE.replace(b": ", b":\t  \t"),
    "upper-case host": EXAMPLE.replace(b"mail.example.com", b"MAIL.Example.COM"),
    "final dot": EXAMPLE.replace(b".com\r", b".com.\r").replace(b".net\r", b".net.\r"),
    "an mx twice": EXAMPLE + b"mx: Mail.Example.com\r\n",
    "another order": b"\n".join(
        [
            b"max_age: 604800",
            b"mx: mail.example.com",
            b"mode: enforce",
            b"mx: *.example.net",
            b"mx: backupmx.example.com",
            b"version: STSv1",
        ]
    ),
    "an extension": EXAMPLE + b"x-new_field.1: some Value, with: colons = and; more\r\n",
    "a UTF-8 extension": EXAMPLE + "note: gr\u00fc\u00dfe \u2028 \U0001f600\r\n".encode(),
    "a U+2028 splits no line": EXAMPLE + "note: a\u2028mode: none\u2029max_age: 1\r\n".encode(),
    "braces in an extension": EXAMPLE
    + b"x-note: } policy_failure=sts-webpki-invalid { policy_string = y\r\n",
    "names in another case are extensions": EXAMPLE + b"Mode: none\r\nMX: *\r\nMax_Age: x\r\n",
    "mode again: the first holds": EXAMPLE + b"mode: none\r\n",
    "mode again, invalid": EXAMPLE + b"mode: }{\r\nmode:\r\n",
    "max_age again": EXAMPLE + b"max_age: 1\r\nmax_age: x\r\n",
    "version again": EXAMPLE + b"version: STSv2\r\n",
    "leading zeros": EXAMPLE.replace(b"604800", b"0000604800"),
}


@pytest.mark.parametrize("text", SAME_AS_EXAMPLE.values(), ids=SAME_AS_EXAMPLE.keys())
def test_says_the_same_as_the_example(text: bytes) -> None:
    read, example = good(text), good(EXAMPLE)
    assert (read.mode, read.max_age, read.mx) == (example.mode, example.max_age, example.mx)


@pytest.mark.parametrize("mode", get_args(Mode))
def test_modes(mode: Mode) -> None:
    assert good(body("version: STSv1", f"mode: {mode}", "mx: a.example", "max_age: 0")).mode == mode


def test_mode_none_needs_no_mx() -> None:
    assert good(body("version: STSv1", "mode: none", "max_age: 0")).mx == ()


@pytest.mark.parametrize(
    ("value", "max_age"),
    [
        ("0", 0),
        ("60", 60),
        ("0000000060", 60),
        ("31557600", 31557600),
        ("31557601", 31557600),
        ("99999999", 31557600),
        ("9999999999", 31557600),
    ],
)
def test_max_age(value: str, max_age: int) -> None:
    text = body("version: STSv1", "mode: none", f"max_age: {value}")
    assert good(text).max_age == max_age


@pytest.mark.parametrize(
    "value",
    [
        "",
        "+60",
        "-1",
        "-0",
        "86_400",
        "6e4",
        "60.0",
        "0x3c",
        "60 s",
        "60s",
        "1 2",
        "99999999999",
        "00000000060",
        "\u0666\u0660",  # Arabic-Indic digits, which int() takes
        "\uff16\uff10",  # full-width
        "\u2076\u2070",  # superscript: isdigit(), but int() raises
        "60\u00a0",  # strip() would take the no-break space
    ],
)
def test_bad_max_age(value: str) -> None:
    text = body("version: STSv1", "mode: none", f"max_age: {value}")
    assert problems(text) == (parse(text),)
    error = parse(text)
    assert isinstance(error, PolicyError)
    assert (error.why, error.line) == ("bad-max-age", 3)


@pytest.mark.parametrize(
    ("value", "pattern"),
    [
        ("mail.example.com", "mail.example.com"),
        ("*.example.com", "*.example.com"),
        ("BACKUP.Example.TEST", "backup.example.test"),
        ("*.EXAMPLE.test.", "*.example.test"),
        ("mail.example.com.", "mail.example.com"),
        ("_mail.ex_ample.com", "_mail.ex_ample.com"),
        ("example.com", "example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("1.2.example", "1.2.example"),
        ("*.co.uk", "*.co.uk"),  # what is a public suffix nobody can know for good
        (f"{'a' * 63}.example", f"{'a' * 63}.example"),
        (".".join(["a" * 49] * 5), ".".join(["a" * 49] * 5)),
    ],
)
def test_mx(value: str, pattern: str) -> None:
    assert good(with_mx(value)).mx == (pattern,)


BAD_MX: list[tuple[str | bytes, policy.Why]] = [
    ("", "mx-syntax"),
    (".", "mx-syntax"),
    (".example.com", "mx-syntax"),
    ("a..example", "mx-syntax"),
    ("a.example..", "mx-syntax"),
    ("-a.example", "mx-syntax"),
    ("a-.example", "mx-syntax"),
    (f"{'a' * 64}.example", "mx-syntax"),
    (".".join(["a" * 63] * 4), "mx-syntax"),  # 255 octets
    ("mail.example.com servername=evil.example protocols=TLSv1", "mx-syntax"),
    ("mail.example.com,b.example", "mx-syntax"),
    ("mail.example.com tafile=/etc/x", "mx-syntax"),
    ("mail.example.com }", "mx-syntax"),
    ("mail.example.com\tb.example", "mx-syntax"),
    ("mail.example.com:.com", "mx-syntax"),
    ("mail.example.com:25", "mx-syntax"),
    ("hostname", "mx-single-label"),  # a word of Postfix's own in match=
    ("nexthop", "mx-single-label"),
    ("localhost.", "mx-single-label"),
    ("*", "mx-wildcard"),
    ("*.", "mx-wildcard"),
    ("*.com", "mx-wildcard"),
    ("*.com.", "mx-wildcard"),
    ("*example.com", "mx-wildcard"),
    ("m*.example.com", "mx-wildcard"),
    ("*.*.example.com", "mx-wildcard"),
    ("a.*.example.com", "mx-wildcard"),
    ("**.example.com", "mx-wildcard"),
    ("*..example.com", "mx-wildcard"),
    ("192.0.2.1", "mx-address"),
    ("*.0.2.1", "mx-address"),
    ("2001:db8::1", "mx-address"),
    ("[192.0.2.1]", "mx-syntax"),
    ("b\u00fccher.example", "mx-u-label"),
    ("mail\u3002example", "mx-u-label"),  # a full stop to IDNA
    ("ma\u00adil.example", "mx-u-label"),  # a soft hyphen, which IDNA would drop
    ("mail.example\u2028", "mx-u-label"),
    (b"mail\xff.example", "encoding"),
    ("mail.example\x00.com", "control"),
    ("mail.example\x0bmx: b.example", "control"),
]


@pytest.mark.parametrize(("value", "why"), BAD_MX)
def test_a_bad_mx_line_makes_the_policy_invalid(value: str | bytes, why: policy.Why) -> None:
    text = with_mx("good.example", value, "other.example")
    error = parse(text)
    assert isinstance(error, PolicyError)
    assert (error.why, error.line) == (why, 4)
    assert problems(text) == (error,)
    # ... whatever the mode is
    assert isinstance(parse(text.replace(b"enforce", b"none")), PolicyError)


BAD_LINES: list[tuple[str | bytes, policy.Why]] = [
    ("mode enforce", "syntax"),
    ("# a comment", "syntax"),
    ("<html>", "syntax"),
    (": x", "syntax"),
    (" mode: none", "syntax"),  # the first draft allowed leading WSP, the RFC does not
    ("\tmode: none", "syntax"),
    ("mode : none", "syntax"),
    ("_x: y", "syntax"),
    ("x y: z", "syntax"),
    ("a" * 33 + ": y", "syntax"),
    ("\u00fc: y", "syntax"),
    ("\uff4dode: none", "syntax"),
    ("\ufeffx: y", "byte-order-mark"),
    ("x:", "bad-extension"),
    ("x: \t", "bad-extension"),
    (b"x: \xff", "encoding"),
    (b"x: \xc0\xaf", "encoding"),  # overlong
    (b"x: \xed\xa0\x80", "encoding"),  # a surrogate
    (b"x: \xfc", "encoding"),  # Latin-1
    ("x: a\x00b", "control"),
    ("x: a\x7fb", "control"),
    ("x: a\x1b[31m", "control"),
    ("x: a\rmode: none", "control"),
    ("x: a\r\r", "control"),
    ("x: a\x0bmode: none", "control"),
    ("x: a\x0cmode: none", "control"),
    ("x: a\x1cmode: none", "control"),
    ("x: a\x85mode: none", "control"),  # NEL
    ("\x0c", "control"),
    ("x: " + "y" * policy.MAX_LINE, "line-too-long"),
]


@pytest.mark.parametrize(("line", "why"), BAD_LINES)
def test_bad_lines(line: str | bytes, why: policy.Why) -> None:
    error = parse(around(line))
    assert isinstance(error, PolicyError)
    assert (error.why, error.line) == (why, 4)
    assert problems(around(line)) == (error,)


@pytest.mark.parametrize(
    ("text", "why", "line"),
    [
        (b"", "missing-version", None),
        (b"\r\n \n", "missing-version", None),
        (body("mode: enforce", "mx: a.example", "max_age: 60"), "missing-version", None),
        (body("version: STSv1", "mx: a.example", "max_age: 60"), "missing-mode", None),
        (body("version: STSv1", "mode: testing", "mx: a.example"), "missing-max-age", None),
        (body("version: STSv1", "mode: enforce", "max_age: 60"), "missing-mx", None),
        (body("version: STSv1", "mode: testing", "max_age: 60"), "missing-mx", None),
        (EXAMPLE.replace(b"version", b"Version"), "missing-version", None),
        (EXAMPLE.replace(b"mode", b"Mode"), "missing-mode", None),
        (EXAMPLE.replace(b"STSv1", b"STSv2"), "bad-version", 1),
        (EXAMPLE.replace(b"STSv1", b"stsv1"), "bad-version", 1),
        (EXAMPLE.replace(b"STSv1", b"STSv12"), "bad-version", 1),
        (EXAMPLE.replace(b"STSv1", b""), "bad-version", 1),
        (EXAMPLE.replace(b"enforce", b"Enforce"), "bad-mode", 2),
        (EXAMPLE.replace(b"enforce", b"enforced"), "bad-mode", 2),
        (EXAMPLE.replace(b"enforce", b"enforce;"), "bad-mode", 2),
        (EXAMPLE.replace(b"enforce", b"enf\0orce"), "control", 2),
        (EXAMPLE.replace(b"enforce", "enforce\u2028".encode()), "bad-mode", 2),
        (b"mode: x\r\n" + EXAMPLE, "bad-mode", 1),  # the first of two holds, also if it is bad
        (b"\xef\xbb\xbf" + EXAMPLE, "byte-order-mark", 1),
        (EXAMPLE.replace(b"\r\n", b"\r"), "control", 1),
        (EXAMPLE.replace(b"\r\n", b"\r\r\n"), "control", 1),
        (EXAMPLE.removesuffix(b"\n"), "control", 6),  # CR without LF at the very end
        (EXAMPLE.replace(b"\r\n", "\u2028".encode()), "bad-version", 1),
        (EXAMPLE.decode().encode("utf-16"), "encoding", 1),
        (b"\n\n" + EXAMPLE.replace(b"mx: *", b"mx: **"), "mx-wildcard", 6),
    ],
)
def test_bad_policies(text: bytes, why: policy.Why, line: int | None) -> None:
    error = parse(text)
    assert isinstance(error, PolicyError)
    assert (error.why, error.line) == (why, line)


def test_problems_lists_every_line_and_what_is_missing() -> None:
    text = body("version: STSv2", "nonsense", "mode: x", "mx: *", "mx: a.example", "note:")
    assert [(p.why, p.line, p.text) for p in problems(text)] == [
        ("bad-version", 1, "version: STSv2"),
        ("syntax", 2, "nonsense"),
        ("bad-mode", 3, "mode: x"),
        ("mx-wildcard", 4, "mx: *"),
        ("bad-extension", 6, "note:"),
        ("missing-max-age", None, ""),
    ]
    assert parse(text) == problems(text)[0]


def test_problems_are_bounded() -> None:
    assert len(problems(b"x\n" * 1000)) == policy.MAX_PROBLEMS


def test_limits() -> None:
    def mx(count: int) -> bytes:
        return with_mx(*(f"h{i}.example" for i in range(count)))

    assert len(good(mx(policy.MAX_MX)).mx) == policy.MAX_MX
    last = policy.MAX_MX + 3
    assert problems(mx(policy.MAX_MX + 5)) == (
        PolicyError("too-many-mx", last, f"mx: h{policy.MAX_MX}.example"),
    )
    # the same pattern again is a line as well
    assert problems(with_mx(*(["a.example"] * (policy.MAX_MX + 1))))[0].why == "too-many-mx"

    filled = EXAMPLE + b"\n" * 100 + b"x: y\n" * (policy.MAX_LINES - 6)
    assert len(good(filled).lines) == policy.MAX_LINES
    assert problems(filled + b"x: y\n" * 5) == (
        PolicyError("too-many-lines", policy.MAX_LINES + 101),
    )

    longest = "x: " + "y" * (policy.MAX_LINE - 3)
    assert good(around(longest)).lines[3] == longest


def test_lines_have_no_tab_and_no_blank_at_the_end() -> None:
    text = b"version:\tSTSv1 \t\r\n\r\nmode: none\nmax_age: 1\t\nnote: \xc3\xbc\t{ x }"
    assert parse(text) == Policy(
        "none", 1, (), ("version: STSv1", "mode: none", "max_age: 1", "note: \u00fc { x }")
    )


def test_the_text_of_an_error_is_fit_to_be_shown() -> None:
    error = parse(around("x: \x1b]0;evil\x07\u202e" + "y" * 500))
    assert isinstance(error, PolicyError)
    assert error.text.startswith("x: ?]0;evil????y")
    assert len(error.text) == policy.MAX_TEXT


@pytest.mark.parametrize("why", get_args(policy.Why))
def test_every_reason_has_a_section(why: policy.Why) -> None:
    assert section(why) in {"RFC 8461 §3.2", "RFC 8461 §3.3", "RFC 8461 §4.1"}


def test_every_reason_is_tested() -> None:
    bad = {why for _, why in BAD_MX + BAD_LINES}
    missing = {"missing-version", "missing-mode", "missing-max-age", "missing-mx"}
    others = {"bad-version", "bad-mode", "bad-max-age", "too-many-mx", "too-many-lines"}
    assert bad | missing | others == set(get_args(policy.Why))
