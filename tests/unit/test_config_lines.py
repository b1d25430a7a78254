"""On which line each key of a TOML text stands."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd.config.lines import Path, find


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# a = 1\n", {}),
        ("\n\na = 1", {("a",): 3}),
        ("[dns]\ntimeout = 2 # timeout = 3\n", {("dns",): 1, ("dns", "timeout"): 2}),
        ("[ dns ]\n  a=1\n\tb =  2\n", {("dns",): 1, ("dns", "a"): 2, ("dns", "b"): 3}),
        ("dns.a = 1\ndns.b = 2\n", {("dns",): 1, ("dns", "a"): 1, ("dns", "b"): 2}),
        ("dns . a = 1\n", {("dns",): 1, ("dns", "a"): 1}),
        ("dns = { a = 1, b = 2 }\n", {("dns",): 1, ("dns", "a"): 1, ("dns", "b"): 1}),
        (
            "[a.b]\nc = 1\n[a]\nd = 1\n",
            {("a", "b"): 1, ("a", "b", "c"): 2, ("a",): 3, ("a", "d"): 4},
        ),
        ('"a b" = 1\n\'c.d\' = 2\n"\\u0065" = 3\n', {("a b",): 1, ("c.d",): 2, ("e",): 3}),
        (
            "[[o]]\na = 1\n[[o]]\nb = 1\n",
            {("o",): 1, ("o", 0): 1, ("o", 0, "a"): 2, ("o", 1): 3, ("o", 1, "b"): 4},
        ),
        (
            "[r]\nx = 1\n[[r.s]]\ny = 1\n[[r.s]]\nz = 1\n",
            {
                ("r",): 1,
                ("r", "x"): 2,
                ("r", "s"): 3,
                ("r", "s", 0): 3,
                ("r", "s", 0, "y"): 4,
                ("r", "s", 1): 5,
                ("r", "s", 1, "z"): 6,
            },
        ),
        (
            "[[o]]\n[o.p]\na = 1\n[[o.q]]\n[[o]]\n[o.p]\n",
            {
                ("o",): 1,
                ("o", 0): 1,
                ("o", 0, "p"): 2,
                ("o", 0, "p", "a"): 3,
                ("o", 0, "q"): 4,
                ("o", 0, "q", 0): 4,
                ("o", 1): 5,
                ("o", 1, "p"): 6,
            },
        ),
        (
            'a = [ # [x]\n  "]",\n\n  [1, 2],\n  {b = 1},\n]\nc = 1\n',
            {
                ("a",): 1,
                ("a", 0): 2,
                ("a", 1): 4,
                ("a", 1, 0): 4,
                ("a", 1, 1): 4,
                ("a", 2): 5,
                ("a", 2, "b"): 5,
                ("c",): 7,
            },
        ),
        ('a = """\n[x]\nb = 1\n"""\nc = 1\n', {("a",): 1, ("c",): 5}),
        ('a = """x""""\nb = 1\n', {("a",): 1, ("b",): 2}),
        ('a = """\\"""\n"""\nb = 1\n', {("a",): 1, ("b",): 3}),
        ("a = '''\n[x]\n'''''\nb = 1\n", {("a",): 1, ("b",): 4}),
        ('a = "\\"[x] # "\nb = \'\\\'\nc = 1\n', {("a",): 1, ("b",): 2, ("c",): 3}),
        ('a = ""\nb = \'\'\nc = """"""\nd = 1\n', {("a",): 1, ("b",): 2, ("c",): 3, ("d",): 4}),
        (
            "a = 1979-05-27 07:32:00\nb = 2026-12-31\nc = -1.5e+3\nd = +inf\n",
            {("a",): 1, ("b",): 2, ("c",): 3, ("d",): 4},
        ),
        ("1-2 = 1\n", {("1-2",): 1}),
    ],
)
def test_places(text: str, expected: Mapping[Path, int]) -> None:
    tomllib.loads(text)
    assert find(text) == expected


def paths(value: object, so_far: Path = ()) -> Iterator[Path]:
    """The path of everything in a parsed document."""
    items: Iterator[tuple[str | int, object]] = iter(())
    if isinstance(value, dict):
        items = iter(value.items())
    elif isinstance(value, list):
        items = iter(enumerate(value))
    for key, item in items:
        yield (*so_far, key)
        yield from paths(item, (*so_far, key))


KEYS = st.sampled_from(["a", "b", "c-d", '"e f"', "'g.h'", '"[i]"', '"#j"', '"k = 1"'])
SCALARS = st.one_of(
    st.integers().map(str),
    st.booleans().map(lambda b: str(b).lower()),
    st.dates().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"])).map(json.dumps),
    st.sampled_from(['"""x\ny"""', "'''\n[a]\n'''", "'# \"'", '"""a""b"""', '"""a"""""']),
)


def _array(items: list[str]) -> str:
    return "[" + ",\n # ]\n ".join(items) + "]"


def _inline(pairs: dict[str, str]) -> str:
    return "{" + ", ".join(f"{k} = {v}" for k, v in pairs.items()) + "}"


VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(_array),
        st.dictionaries(KEYS, inner, max_size=3).map(_inline),
    ),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, VALUES), st.lists(st.dictionaries(KEYS, VALUES), max_size=3))
def test_every_path_of_a_document_has_its_line(
    pairs: dict[str, str], tables: list[dict[str, str]]
) -> None:
    lines: list[str] = []
    expected: dict[Path, int] = {}
    line = 1

    def write(text: str) -> None:
        nonlocal line
        lines.append(text + "\n")
        line += text.count("\n") + 1

    def write_pairs(of: dict[str, str], under: Path) -> None:
        for key, value in of.items():
            write("# [x]")
            expected[
                *under, tomllib.loads(f"x = {key}" if key[0] in "\"'" else f"x = '{key}'")["x"]
            ] = line
            write(f"{key} = {value}")

    write_pairs(pairs, ())
    for index, table in enumerate(tables):
        expected["table", index] = line
        write("[[table]]")
        write_pairs(table, ("table", index))
    text = "".join(lines)
    found = find(text)
    assert found.keys() == set(paths(tomllib.loads(text)))
    assert {**found, **expected} == found
