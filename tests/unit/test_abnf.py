"""The productions that both TXT records share, as tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd import abnf
from mtastsd.abnf import Field

V = "v=STSv1"


@pytest.mark.parametrize(
    ("record", "begins"),
    [
        (b"v=STSv1;", True),
        (b"v=STSv1; id=1;", True),
        (b"v=STSv1 ;id=1", True),
        (b"v=STSv1\t \t;id=1", True),
        (b"v=STSv1", False),
        (b"v=STSv1 ", False),
        (b"v=STSv1 id=1;", False),
        (b"v=STSv12;id=1", False),
        (b"v=STSv1\x0b;id=1", False),
        (b"v=STSv1\xa0;id=1", False),
        (b"v=stsv1;id=1", False),
        (b"V=STSv1;id=1", False),
        (b" v=STSv1;id=1", False),
        (b"v =STSv1;id=1", False),
        (b'"v=STSv1;id=1"', False),
        (b"id=1;v=STSv1;", False),
        (b"", False),
        (b";", False),
    ],
)
def test_a_record_begins_with_its_version_and_a_delimiter(record: bytes, begins: bool) -> None:
    assert abnf.candidates([record], V) == ([record] if begins else [])


def test_candidates_keep_their_order() -> None:
    assert abnf.candidates([b"x", b"v=STSv1;b", b"", b"v=STSv1;a"], V) == [
        b"v=STSv1;b",
        b"v=STSv1;a",
    ]


@pytest.mark.parametrize(
    ("record", "fields"),
    [
        (b"v=STSv1;", ()),
        (b"v=STSv1; \t", ()),
        (b"v=STSv1;a=1", (Field("a", "1"),)),
        (b"v=STSv1 ; a=1 \t;\t b=2", (Field("a", "1"), Field("b", "2"))),
        (b"v=STSv1;a=1;", (Field("a", "1"),)),
        (b"v=STSv1;a=1 ; ", (Field("a", "1"),)),
        (b"v=STSv1;a=", (Field("a", ""),)),
        (b"v=STSv1;a=b=c", (Field("a", "b=c"),)),
        (b"v=STSv1;a= x y ;", (Field("a", " x y"),)),
        (b"v=STSv1;A_b-c.9=1", (Field("A_b-c.9", "1"),)),
        (b"v=STSv1;" + b"a" * 32 + b"=1", (Field("a" * 32, "1"),)),
        (b"v=STSv1;a=\xff\x00", (Field("a", "\xff\x00"),)),
        (b"v=STSv1;a=1;a=2", (Field("a", "1"), Field("a", "2"))),
        (b"v=STSv1;a=1;;", None),
        (b"v=STSv1;;a=1", None),
        (b"v=STSv1;a=1; ;b=2", None),
        (b"v=STSv1;a=1 ", None),  # WSP belongs to a delimiter
        (b"v=STSv1;a=1\t", None),
        (b"v=STSv1;a", None),
        (b"v=STSv1;=1", None),
        (b"v=STSv1;a =1", None),
        (b"v=STSv1;_a=1", None),
        (b"v=STSv1;" + b"a" * 33 + b"=1", None),
        (b"v=STSv1;\xe4=1", None),
        (b"v=STSv1;\x0ba=1", None),  # VT is no WSP
        (b"v=STSv1;\xa0a=1", None),
        (b"v=STSv1;a\n=1", None),
    ],
)
def test_fields(record: bytes, fields: tuple[Field, ...] | None) -> None:
    assert abnf.fields(record) == fields


def test_length_is_bounded() -> None:
    longest = b"v=STSv1;a=" + b"x" * (abnf.MAX_RECORD - 10)
    assert abnf.fields(longest) == (Field("a", "x" * (abnf.MAX_RECORD - 10)),)
    assert abnf.fields(longest + b"x") is None


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("1", True),
        ("!#$%&'()*+,-./:<>?@[]^_`{|}~", True),
        ("", False),
        ("a b", False),
        ("a=b", False),
        ("a;b", False),
        ("a\x7f", False),
        ("a\n", False),
        ("\xe4", False),
        ("\u0661", False),
    ],
)
def test_extension_value(value: str, good: bool) -> None:
    assert Field("x", value).is_extension() is good


@given(st.binary(max_size=300))
def test_any_octets_have_fields_or_none(rest: bytes) -> None:
    for field in abnf.fields(b"v=STSv1;" + rest) or ():
        assert abnf.EXTENSION_NAME.fullmatch(field.name)
        assert ";" not in field.value


NAMES = st.from_regex(abnf.EXTENSION_NAME, fullmatch=True)
VALUES = st.from_regex(abnf.EXTENSION_VALUE, fullmatch=True)
DELIMITERS = st.from_regex(r"[ \t]{0,3};[ \t]{0,3}", fullmatch=True)


@given(st.lists(st.tuples(DELIMITERS, NAMES, VALUES), max_size=8), DELIMITERS, st.booleans())
def test_what_the_grammar_makes_is_read_back(
    parts: list[tuple[str, str, str]], end: str, ended: bool
) -> None:
    text = V + "".join(f"{delim}{name}={value}" for delim, name, value in parts)
    record = (text + end if ended or not parts else text).encode("ascii")
    assert abnf.candidates([record], V) == [record]
    assert abnf.fields(record) == tuple(Field(name, value) for _, name, value in parts)
