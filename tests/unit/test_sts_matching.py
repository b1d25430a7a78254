"""RFC 8461 §4.1 as a table."""

from __future__ import annotations

import pytest

from mtastsd.names import Domain
from mtastsd.sts.matching import allows, permitted
from mtastsd.sts.policy import Mode, Policy


@pytest.mark.parametrize(
    ("pattern", "host", "allowed"),
    [
        ("mail.example.com", "mail.example.com", True),
        ("mail.example.com", "example.com", False),
        ("mail.example.com", "a.mail.example.com", False),
        ("example.com", "mail.example.com", False),
        ("*.example.com", "mail.example.com", True),  # the RFC's three
        ("*.example.com", "example.com", False),
        ("*.example.com", "foo.bar.example.com", False),
        ("*.example.com", "mail.example.org", False),
        ("*.example.com", "mail.badexample.com", False),
        ("*.example.com", "mailexample.com", False),
        ("*.example.com", "_mail.example.com", True),
        ("*.bar.example.com", "foo.bar.example.com", True),
        ("*.xn--bcher-kva.example", "mx.xn--bcher-kva.example", True),
    ],
)
def test_allows(pattern: str, host: str, allowed: bool) -> None:
    assert allows(pattern, Domain(host)) is allowed


@pytest.mark.parametrize(
    ("mode", "mx", "host", "allowed"),
    [
        ("enforce", ("a.example.com", "*.example.net"), "a.example.com", True),
        ("enforce", ("a.example.com", "*.example.net"), "b.example.net", True),
        ("enforce", ("a.example.com", "*.example.net"), "b.example.com", False),
        ("testing", ("a.example.com",), "b.example.com", False),
        ("none", (), "b.example.com", True),
        ("none", ("a.example.com",), "b.example.com", True),
    ],
)
def test_permitted(mode: Mode, mx: tuple[str, ...], host: str, allowed: bool) -> None:
    assert permitted(Policy(mode, 86400, mx, ()), Domain(host)) is allowed
