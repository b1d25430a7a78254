"""Lines of mail log files: forms, and the moment that each means."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd.postfix.syslog import LogLine, parse_line


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NOW = at("2026-03-01 12:00:00")


@pytest.mark.parametrize(
    "line",
    [
        "Mar  1 11:00:00 relay postfix/smtp[17]: text: with [all] of it",
        "Mar 01 11:00:00 relay postfix/smtp[17]: text: with [all] of it\n",
        "Mar  1 11:00:00 relay mail.info postfix/smtp[17]: text: with [all] of it\r\n",
        "2026-03-01T11:00:00Z relay postfix/smtp[17]: text: with [all] of it",
        "2026-03-01T11:00:00.000000+00:00 relay postfix/smtp[17]: text: with [all] of it",
        "2026-03-01T12:30:00+01:30 relay postfix/smtp[17]: text: with [all] of it",
        "2026-02-28T23:00:00-12:00 relay postfix/smtp[17]: text: with [all] of it",
    ],
)
def test_forms(line: str) -> None:
    moment = at("2026-03-01 11:00:00")
    wanted = LogLine(moment, "relay", "postfix/smtp", 17, "text: with [all] of it")
    assert parse_line(line, NOW) == wanted


def test_parts_of_a_second() -> None:
    line = parse_line("2026-03-01T11:00:00.25Z relay postfix-out/relay/smtp[1]: ", NOW)
    assert line == LogLine(
        at("2026-03-01 11:00:00") + 0.25, "relay", "postfix-out/relay/smtp", 1, ""
    )


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\n",
        "text",
        "Mar  1 11:00:00 relay kernel: no process",
        "Mar  1 11:00:00 relay postfix/smtp[x]: text",
        "Mar  1 11:00:00 relay postfix/smtp[]: text",
        "Mar  1 11:00:00 postfix/smtp[1]: text",
        "Mar  1 11:00:00 relay postfix/smtp[12345678901]: text",
        "Mrz  1 11:00:00 relay postfix/smtp[1]: text",
        "Mar 32 11:00:00 relay postfix/smtp[1]: text",
        "Feb 29 11:00:00 relay postfix/smtp[1]: text",  # of 2024 at the latest
        "Mar  1 1:00:00 relay postfix/smtp[1]: text",
        "Mar \u0661 11:00:00 relay postfix/smtp[1]: text",
        "2026-13-01T11:00:00Z relay postfix/smtp[1]: text",
        "2026-02-29T11:00:00Z relay postfix/smtp[1]: text",
        "2026-03-01T11:00:00 relay postfix/smtp[1]: text",
        "2026-03-01 11:00:00Z relay postfix/smtp[1]: text",
        "0000-03-01T11:00:00Z relay postfix/smtp[1]: text",
        "last message repeated 3 times",
        "Mar  1 11:00:00 relay " + "x" * 5000 + "[1]: text",
    ],
)
def test_other_lines(line: str) -> None:
    assert parse_line(line, NOW) is None


@pytest.mark.parametrize(
    ("stamp", "now", "offset", "moment"),
    [
        ("Mar  1 11:00:00", "2026-03-01 12:00:00", 0, "2026-03-01 11:00:00"),
        # yesterday's year on New Year's day, and a clock that is a little behind
        ("Dec 31 23:59:59", "2026-01-01 00:00:01", 0, "2025-12-31 23:59:59"),
        ("Jan  1 00:00:01", "2025-12-31 23:59:59", 0, "2026-01-01 00:00:01"),
        ("Mar  2 11:00:00", "2026-03-01 12:00:00", 0, "2026-03-02 11:00:00"),
        ("Mar  3 11:00:00", "2026-03-01 12:00:00", 0, "2025-03-03 11:00:00"),
        ("Dec 24 18:00:00", "2026-03-01 12:00:00", 0, "2025-12-24 18:00:00"),
        # leap days
        ("Feb 29 11:00:00", "2024-03-01 12:00:00", 0, "2024-02-29 11:00:00"),
        ("Feb 29 11:00:00", "2025-01-10 12:00:00", 0, "2024-02-29 11:00:00"),
        # local time: two hours ahead of UTC, five behind
        ("Mar  1 13:00:00", "2026-03-01 12:00:00", 7200, "2026-03-01 11:00:00"),
        ("Jan  1 01:30:00", "2025-12-31 23:45:00", 7200, "2025-12-31 23:30:00"),
        ("Dec 31 23:30:00", "2026-01-01 04:45:00", -18000, "2026-01-01 04:30:00"),
        ("Dec 31 23:30:00", "1970-01-01 04:45:00", 0, "1969-12-31 23:30:00"),
    ],
)
def test_the_year_is_guessed(stamp: str, now: str, offset: int, moment: str) -> None:
    line = parse_line(f"{stamp} relay postfix/smtp[1]: text", at(now), offset)
    assert line is not None
    assert line.at == at(moment)


@pytest.mark.parametrize("now", [-1e15, -1.0, 0.0, 1e15])
def test_clocks_that_are_beside_themselves(now: float) -> None:
    parse_line("Mar  1 11:00:00 relay postfix/smtp[1]: text", now)


@given(st.text(), st.floats(-1e12, 1e12))
def test_any_text(line: str, now: float) -> None:
    parse_line(line, now)


@given(st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)), st.integers(0, 363 * 86400))
def test_a_line_of_the_last_year_is_dated_right(moment: datetime, age: int) -> None:
    whole = moment.replace(microsecond=0, tzinfo=UTC)
    stamp = f"{whole:%b} {whole.day:2} {whole:%H:%M:%S}"
    line = parse_line(f"{stamp} relay postfix/smtp[1]: x", whole.timestamp() + age)
    assert line is not None
    assert line.at == whole.timestamp()
