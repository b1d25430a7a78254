"""What was measured, held against its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

HEADINGS = ("what", "target", "measured", "", "median of")
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One line. `met` is None where there is no target; `rounds` holds what the median is of."""

    what: str
    target: str
    measured: str
    met: bool | None = None
    rounds: str = ""

    def cells(self) -> tuple[str, ...]:
        met = "" if self.met is None else "met" if self.met else "NOT MET"
        return (self.what, self.target, self.measured, met, self.rounds)


def at_most(
    what: str, limit: float, values: Sequence[float], unit: str = "", places: int = 2
) -> Row:
    """A row whose median must not pass `limit`."""
    return _row(what, "<=", limit, values, unit, places)


def at_least(
    what: str, limit: float, values: Sequence[float], unit: str = "", places: int = 2
) -> Row:
    """A row whose median must reach `limit`."""
    return _row(what, ">=", limit, values, unit, places)


def untold(what: str, values: Sequence[float], unit: str = "", places: int = 2) -> Row:
    """A row without a target."""
    return Row(what, "", _number(median(values), unit, places), None, _list(values, places))


def _row(
    what: str, relation: str, limit: float, values: Sequence[float], unit: str, places: int
) -> Row:
    middle = median(values)
    met = middle <= limit if relation == "<=" else middle >= limit
    target = f"{relation} {limit:g}{unit}"
    return Row(what, target, _number(middle, unit, places), met, _list(values, places))


def _number(value: float, unit: str, places: int) -> str:
    return f"{value:.{places}f}{unit}"


def _list(values: Sequence[float], places: int) -> str:
    return " ".join(f"{value:.{places}f}" for value in values) if len(values) > 1 else ""


def render(rows: Sequence[Row]) -> str:
    """The table, columns aligned."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])
