"""Spans of time and sizes as people write them: `"2s"`, `"30d"`, `"10M"`.

One whole number and one unit. A bare number has no unit and is no span: whether 60 means seconds
or minutes is what every other program settles differently.
"""

from __future__ import annotations

import re

_SPAN = re.compile(r"([0-9]{1,9})(ms|s|m|h|d|w)", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,12})([KM]?)", re.ASCII)

_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_OCTETS = {"": 1, "K": 1024, "M": 1024 * 1024}


def parse_span(text: str) -> float | None:
    """Seconds of a span (`ms`, `s`, `m`, `h`, `d`, `w`); None where the text is none."""
    found = _SPAN.fullmatch(text)
    return int(found[1]) * _MILLISECONDS[found[2]] / 1000 if found else None


def render_span(seconds: float) -> str:
    """The shortest text that `parse_span` reads back, to the millisecond: 86400.0 is `1d`.

    Weeks are not used: `30d` is easier to read beside `7d` than beside `1w`.
    """
    count = round(seconds * 1000)
    if count == 0:
        return "0s"
    unit = next(u for u in ("d", "h", "m", "s", "ms") if count % _MILLISECONDS[u] == 0)
    return f"{count // _MILLISECONDS[unit]}{unit}"


def parse_size(text: str) -> int | None:
    """Octets of a size (no unit, `K` = 1024, `M` = 1024 K); None where the text is none."""
    found = _SIZE.fullmatch(text)
    return int(found[1]) * _OCTETS[found[2]] if found else None


def render_size(octets: int) -> str:
    """The shortest text that `parse_size` reads back: 65536 is `64K`."""
    unit = next(u for u in ("M", "K", "") if octets % _OCTETS[u] == 0)
    return f"{octets // _OCTETS[unit]}{unit}" if octets else "0"
