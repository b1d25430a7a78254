"""Each citation of an RFC in the code names a section that exists.

The form is `RFC 8461 §3.2`; a further `§3.3` belongs to the RFC named last. Anything that looks
like a citation in another form fails as well, since it would not be checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mtastsd
from tests.unit.rfc_sections import SECTIONS

ROOT = Path(mtastsd.__file__).parent
FILES = sorted(p for p in ROOT.rglob("*") if p.suffix in {".py", ".sql"})

_CITED = re.compile(
    r"\bRFC (?P<number>[0-9]+)|§(?P<section>(?:[0-9]+|[A-Z])(?:\.[0-9]+)*)(?![0-9A-Za-z])"
)
_ODD = re.compile(
    r"\bRFC[0-9-]|(?<!message/)\brfc ?[0-9]|\bRFC [0-9]+,? ?\(?(?:[Ss]ection|[Ss]ec\.|[Aa]ppendix)"
    r"|\b[Ss]ections? [0-9]|§(?![0-9A-Z])|§[A-Z]{2}"
)
_URL = re.compile(r"https?://\S+")
# A line of a docstring or a comment goes on in the next one.
_LINE_END = re.compile(r"[ \t]*\n[ \t]*(?:(?:#|--)[ \t]*)?")


def citations(text: str) -> Iterator[tuple[int | None, str]]:
    """RFC and section of each citation; "" for an RFC as a whole, None for a bare section."""
    number: int | None = None
    for match in _CITED.finditer(_LINE_END.sub(" ", text)):
        if match["number"]:
            number = int(match["number"])
        yield number, match["section"] or ""


def problems(text: str) -> list[str]:
    """What is wrong with the citations in a text."""
    bad = []
    for number, section in citations(text):
        if number is None:
            bad.append(f"§{section} of no RFC")
        elif number not in SECTIONS:
            bad.append(f"RFC {number} is not listed")
        elif section and section not in SECTIONS[number]:
            bad.append(f"RFC {number} has no §{section}, or it is not listed")
    plain = _LINE_END.sub(" ", _URL.sub("", text))
    return bad + [f"not in the form `RFC 8461 §3.2`: {m[0]}" for m in _ODD.finditer(plain)]


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(ROOT)) for p in FILES])
def test_each_cited_section_exists(path: Path) -> None:
    assert problems(path.read_text("utf-8")) == []


def test_the_rules_are_cited_at_all() -> None:
    found = {c for path in FILES for c in citations(path.read_text("utf-8"))}
    assert {(8461, "3.1"), (8461, "3.2"), (8461, "3.3"), (8461, "4.1"), (7672, "2.2.2")} <= found


@pytest.mark.parametrize(
    "text",
    [
        "RFC 8461 §3.5",
        "RFC 8461 §3.2.1",
        "RFC 8461 §12",
        "RFC 8461 §3.3 and §5.2",
        "RFC 8461 §3.3, §9.9.",
        "# as RFC 8461\n    # §3.9 says",
        '"""RFC 8460\n    §4.9."""',
        "RFC 8461 §C",
        "RFC 9999",
        "RFC 9999 §1",
        "RFC 952 §1",
        "(§3.1)",
        "RFC8461 §3.1",
        "rfc 8461",
        "RFC-8461",
        "RFC 8461 section 3.1",
        "RFC 8461, Section 3.1",
        "RFC 8461 (section 3.1)",
        "RFC 8461 Appendix A",
        "see section 3.1",
        "RFC 8461 § 3.1",
        "RFC 8461 §x",
    ],
)
def test_what_is_wrong_is_caught(text: str) -> None:
    assert problems(text)


@pytest.mark.parametrize(
    "text",
    [
        "RFC 8461",
        "RFC 8461 §3.1: the record",
        "RFC 8461 §3.1.",
        "(RFC 8461 §3.1)",
        "RFC 8461 §3.3 and §5.1, RFC 7672 §2.2.2",
        "# as RFC 8461\n    # §3.2 says",
        "RFC 8461 §A",
        "RFC 8461 erratum 6285",
        "RFC 5234 §B.1",
        "RFC 7672 §3.1: usages. PKIX can't be used (§3.1.3).",
        "https://www.rfc-editor.org/rfc/rfc8461#section-3.1",
        "a part of type message/rfc822",
    ],
)
def test_what_is_right_is_not(text: str) -> None:
    assert problems(text) == []
