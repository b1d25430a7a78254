"""A line of a mail log file: time, host, program and process id before the message.

    Nov 24 15:22:33 relay postfix/smtp[1]: ...                       old syslog, maillog_file
    2026-11-24T15:22:33.123456+01:00 relay postfix/smtp[1]: ...      RFC 3339: rsyslog, syslog-ng

A journal gives these as fields, so it needs none of this.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

MAX_LINE = 4096
"""Characters of a line that are read; what matters of a message stands at its beginning."""

AHEAD = 86400.0
"""Seconds that a line without a year may lie ahead of the clock, for a clock or a zone that is
wrong, before it is taken for one of the year before."""

_EPOCH = date(1970, 1, 1).toordinal()

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_CLOCK = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_OLD = rf"(?P<name>[A-Z][a-z]{{2}}) +(?P<day1>[0-9]{{1,2}}) {_CLOCK}"
_NEW = (
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})T"
    + _CLOCK
    + r"(?P<part>\.[0-9]{1,9})?(?P<zone>Z|[+-][0-9]{2}:[0-9]{2})"
)
# Some write facility and level before the program: `mail.info`.
_REST = (
    r" (?P<host>[^ ]{1,255})(?: [a-z0-9]+\.[a-z]+)?"
    r" (?P<program>[^][ :]{1,128})\[(?P<pid>[0-9]{1,10})\]: (?P<message>.*)"
)
_OLD_LINE = re.compile(_OLD + _REST)
_NEW_LINE = re.compile(_NEW + _REST)


@dataclass(frozen=True, slots=True)
class LogLine:
    """What a line of a log says. `at`: seconds since 1970. `host` is the relay that logged it."""

    at: float
    host: str
    program: str
    pid: int
    message: str


def parse_line(line: str, at: float, utc_offset: int = 0) -> LogLine | None:
    """Read a line; None for one of another form, without a process id, or at no possible time.

    `at` is the wall time of reading, in seconds: a line without a year is from the last such day up
    to then. `utc_offset`: seconds by which the local time of such lines is ahead of UTC.
    """
    text = line[:MAX_LINE].rstrip("\r\n")
    found = _OLD_LINE.match(text)
    moment = None
    if found is not None:
        moment = _guessed(found, at, utc_offset)
    elif (found := _NEW_LINE.match(text)) is not None:
        moment = _stated(found)
    if found is None or moment is None:
        return None
    return LogLine(moment, found["host"], found["program"], int(found["pid"]), found["message"])


def _stated(found: re.Match[str]) -> float | None:
    midnight = _midnight(int(found["year"]), int(found["month"]), int(found["day"]))
    return None if midnight is None else midnight + _clock(found) - _zone(found["zone"])


def _zone(text: str) -> int:
    if text == "Z":
        return 0
    seconds = int(text[1:3]) * 3600 + int(text[4:6]) * 60
    return -seconds if text[0] == "-" else seconds


def _guessed(found: re.Match[str], at: float, utc_offset: int) -> float | None:
    if found["name"] not in _MONTHS:
        return None
    month, day = _MONTHS.index(found["name"]) + 1, int(found["day1"])
    latest = at + AHEAD
    for year in _years(latest + utc_offset):
        midnight = _midnight(year, month, day)
        moment = None if midnight is None else midnight + _clock(found) - utc_offset
        if moment is not None and moment <= latest:
            return moment
    return None


def _years(moment: float) -> tuple[int, int]:
    """The year of a moment and the one before it. 29 February of an older one is a broken line."""
    last = min(max(int(moment // 86400) + _EPOCH, 366), date.max.toordinal())
    year = date.fromordinal(last).year
    return year, year - 1


def _midnight(year: int, month: int, day: int) -> int | None:
    try:
        return (date(year, month, day).toordinal() - _EPOCH) * 86400
    except ValueError:
        return None


def _clock(found: re.Match[str]) -> float:
    seconds = int(found["hour"]) * 3600 + int(found["minute"]) * 60 + int(found["second"])
    return seconds + float("0" + (found.groupdict().get("part") or ""))
