"""Spans and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd.units import parse_size, parse_span, render_size, render_span


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("1ms", 0.001),
        ("1500ms", 1.5),
        ("2s", 2.0),
        ("60s", 60.0),
        ("15m", 900.0),
        ("4h", 14400.0),
        ("1d", 86400.0),
        ("180d", 15552000.0),
        ("2w", 1209600.0),
        ("007s", 7.0),
        ("999999999w", 999999999 * 604800.0),
        ("", None),
        ("2", None),
        ("s", None),
        ("-1s", None),
        ("+1s", None),
        ("1.5h", None),
        ("1h30m", None),
        ("2 s", None),
        (" 2s", None),
        ("2s\n", None),
        ("2S", None),
        ("2M", None),
        ("2sec", None),
        ("1_0s", None),
        ("\uff12s", None),  # a full-width digit
        ("1000000000s", None),
    ],
)
def test_span(text: str, seconds: float | None) -> None:
    assert parse_span(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.1, "100ms"),
        (1.5, "1500ms"),
        (60.0, "1m"),
        (90.0, "90s"),
        (5400.0, "90m"),
        (86400.0, "1d"),
        (604800.0, "7d"),
        (30 * 86400.0, "30d"),
    ],
)
def test_a_span_is_rendered_in_its_largest_unit(seconds: float, text: str) -> None:
    assert render_span(seconds) == text


@given(st.integers(0, 10**12))
def test_a_rendered_span_reads_back(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    text = render_span(seconds)
    if len(text.rstrip("msdhw")) <= 9:
        assert parse_span(text) == seconds


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("0", 0),
        ("65536", 65536),
        ("64K", 65536),
        ("10M", 10485760),
        ("", None),
        ("K", None),
        ("10m", None),
        ("10G", None),
        ("10MB", None),
        ("1.5M", None),
        ("-1", None),
        ("1 K", None),
        ("1_000", None),
        ("1000000000000000", None),
    ],
)
def test_size(text: str, octets: int | None) -> None:
    assert parse_size(text) == octets


@given(st.integers(0, 10**12 - 1))
def test_a_rendered_size_reads_back(octets: int) -> None:
    assert parse_size(render_size(octets)) == octets
