"""Names: text as people and Postfix write it, to a `Domain` or the word why not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd.names import MAX_NAME, MAX_TEXT, NotADomain, child, parse

GOOD = [
    ("example.com", "example.com"),
    ("EXAMPLE.Com", "example.com"),
    ("example.com.", "example.com"),
    ("a.b", "a.b"),
    ("a-b.example", "a-b.example"),
    ("r3---sn.example", "r3---sn.example"),
    ("_dmarc.example.com", "_dmarc.example.com"),
    ("mail_1.example.com", "mail_1.example.com"),
    ("1.example.com", "1.example.com"),
    ("4.3.2.1.example", "4.3.2.1.example"),
    ("1.2.3.4a", "1.2.3.4a"),
    ("xn--bcher-kva.test", "xn--bcher-kva.test"),
    ("bücher.test", "xn--bcher-kva.test"),
    ("BÜCHER.test", "xn--bcher-kva.test"),
    ("bücher.test.", "xn--bcher-kva.test"),
    ("bücher。test", "xn--bcher-kva.test"),  # ideographic full stop
    ("u\u0308ber.test", "xn--ber-goa.test"),  # combining marks are composed
    ("straße.example", "xn--strae-oqa.example"),  # IDNA 2008, not the "strasse" of 2003
    ("\uff45xample.com", "example.com"),
    ("ex\u00adample.com", "example.com"),  # a soft hyphen is mapped to nothing
    ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
    ("mail_1.bücher.test", "mail_1.xn--bcher-kva.test"),
    ("r3---sn.bücher.test", "r3---sn.xn--bcher-kva.test"),
    ("\u212a.test", "k.test"),  # the Kelvin sign is mapped, not lower-cased by accident
    (".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61]), None),
    (".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61]) + ".", None),
]

BAD = [
    ("", "empty"),
    (".example.com", "parent"),
    (".com", "parent"),
    (".", "parent"),
    (".bücher.test", "parent"),
    ("。bücher.test", "parent"),
    ("localhost", "single-label"),
    ("localhost.", "single-label"),
    ("bücher", "single-label"),
    ("1.2.3.4", "address"),
    ("1.2.3.4.", "address"),
    ("\uff11.\uff12.\uff13.\uff14", "address"),
    ("example.123", "address"),
    ("16909060", "address"),
    ("::1", "address"),
    ("2001:DB8::25", "address"),
    ("::ffff:192.0.2.1", "address"),
    ("example.com:25", "syntax"),
    ("a..test", "syntax"),
    ("example.com..", "syntax"),
    ("-a.test", "syntax"),
    ("a-.test", "syntax"),
    ("a b.test", "syntax"),
    ("ex ample.bücher.test", "syntax"),
    (" example.com", "syntax"),
    ("example.com\n", "syntax"),
    ("example.com\x00", "syntax"),
    ("example.com\u00a0", "syntax"),
    ("user@example.com", "syntax"),
    ("*.example.com", "syntax"),
    ("a/b.test", "syntax"),
    ("ü/evil.test", "syntax"),
    ("ü..test", "syntax"),
    ("☃.test", "syntax"),  # IDNA 2008 has no symbols
    ("a\u200db.test", "syntax"),  # a joiner where it joins nothing
    ("xn--ü.test", "syntax"),
    ("\ud800.test", "syntax"),
    ("a" * 64 + ".test", "syntax"),
    ("ü" * 64 + ".test", "syntax"),
    ("ü" * 63 + ".test", "syntax"),  # 63 characters, as an A-label more than 63 octets
    (".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 62]), "overlong"),
    ("a." * 200 + "test", "overlong"),
    ("ü." * 200 + "test", "overlong"),
    ("ü." * 60 + "test", "overlong"),  # short as U-labels only
    ("a" * (MAX_TEXT + 1), "overlong"),
    ("㍿" * MAX_TEXT, "overlong"),  # each is mapped to four characters
]


@pytest.mark.parametrize(("text", "name"), GOOD)
def test_a_name_becomes_its_lower_case_a_label_form(text: str, name: str | None) -> None:
    assert parse(text) == (text.removesuffix(".") if name is None else name)


@pytest.mark.parametrize(("text", "why"), BAD)
def test_what_is_no_domain_says_why(text: str, why: str) -> None:
    assert parse(text) == NotADomain(why)  # type: ignore[arg-type]


PROMISE = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])")
PIECES = st.sampled_from(["a", "B", "-", "_", ".", "9", "ü", "。", "ß", "\u00ad", "xn--", " ", ":"])


@given(st.one_of(st.text(), st.lists(PIECES, max_size=24).map("".join)))
def test_whatever_comes_a_domain_keeps_its_promise(text: str) -> None:
    found = parse(text)
    if isinstance(found, NotADomain):
        return
    assert PROMISE.fullmatch(found)
    assert len(found) <= MAX_NAME
    assert all(0 < len(label) <= 63 for label in found.split("."))
    assert "." in found
    assert parse(found) == found
    assert parse(found.upper() + ".") == found


def test_child_is_a_name_for_a_question() -> None:
    domain = parse("example.com")
    assert not isinstance(domain, NotADomain)
    assert child("_mta-sts", domain) == "_mta-sts.example.com"
