"""RFC 8461 §3.2 as properties of any octets."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from mtastsd.sts import policy
from mtastsd.sts.policy import Mode, PolicyError, parse, problems, render
from tests.unit.test_sts_policy import good

# Lines that are nearly a policy's: random octets alone never get past the first one.
PIECES = [
    b"version: STSv1",
    b"version: STSv2",
    b"mode: enforce",
    b"mode: none",
    b"mode:",
    b"mx: a.example",
    b"mx: *.B.example.",
    b"mx: *",
    b"max_age: 86400",
    b"max_age:\t1",
    b"x: { y }",
    b"",
    b" ",
]
LINES = st.one_of(
    st.sampled_from(PIECES),
    st.binary(max_size=12),
    st.text(max_size=12).map(lambda text: b"x: " + text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=12).map(lambda octets: b"mx: " + octets),
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r", b"\x0b", b"\xc2\x85", b""])
NEARLY = st.lists(st.tuples(LINES, ENDS), max_size=10).map(
    lambda parts: b"".join(line + end for line, end in parts)
)
VALID = [b"version: STSv1", b"mode: enforce", b"max_age: 60", b"mx: a.example"]
HARMLESS = st.sampled_from([b"x: { y }", b"y: }", b"", b" \t", b"mx: *.B.example.", b"z:\tz\t"])
SPICED = (
    st.one_of(st.lists(LINES, max_size=3), st.lists(HARMLESS, max_size=8))
    .flatmap(lambda more: st.permutations([*VALID, *more]))
    .map(lambda lines: b"\n".join(lines))
)


@given(st.one_of(st.binary(max_size=200), NEARLY, SPICED))
def test_any_octets(text: bytes) -> None:
    parsed, wrong = parse(text), problems(text)
    if isinstance(parsed, PolicyError):
        assert wrong[0] == parsed
        for error in wrong:
            assert error.why in get_args(policy.Why)
            assert error.text.isascii()
            assert error.text.isprintable() or not error.text
            assert len(error.text) <= policy.MAX_TEXT
        return
    assert wrong == ()
    assert 0 <= parsed.max_age <= policy.MAX_AGE
    assert parsed.mx or parsed.mode == "none"
    for pattern in parsed.mx:
        assert set(pattern.removeprefix("*.")) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
    for line in parsed.lines:
        assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in line)
    # What is kept says the same again, to the octet ...
    assert parse(render(parsed)) == parsed
    # ... and a line with a brace in it says nothing, so that a reply may leave it out.
    bare = "\n".join(line for line in parsed.lines if not set(line) & {"{", "}"})
    again = good(bare.encode())
    assert (again.mode, again.max_age, again.mx) == (parsed.mode, parsed.max_age, parsed.mx)


@given(
    st.sampled_from(get_args(Mode)),
    st.integers(min_value=0, max_value=9999999999),
    st.lists(st.sampled_from(["a.example", "*.b.example", "c_d.example"]), min_size=1, unique=True),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", " ", "\t \t"]),
)
def test_what_the_grammar_makes_is_read(
    mode: Mode, max_age: int, mx: list[str], end: str, blank: str
) -> None:
    fields = [("version", "STSv1"), ("mode", mode), ("max_age", str(max_age))]
    fields += [("mx", pattern) for pattern in mx]
    text = "".join(f"{name}:{blank}{value}{blank}{end}" for name, value in fields)
    read = good(text.encode())
    assert (read.mode, read.max_age, read.mx) == (mode, min(max_age, policy.MAX_AGE), tuple(mx))
