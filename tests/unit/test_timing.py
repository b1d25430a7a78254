"""Spans and bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd import timing


@pytest.mark.parametrize(
    ("value", "result"),
    [(0.0, 5.0), (5.0, 5.0), (7.5, 7.5), (9.0, 9.0), (10.0, 9.0), (float("inf"), 9.0)],
)
def test_bounded(value: float, result: float) -> None:
    assert timing.bounded(value, 5.0, 9.0) == result


@pytest.mark.parametrize(("chance", "result"), [(0.0, 100.0), (0.5, 90.0), (0.999, 80.02)])
def test_spread(chance: float, result: float) -> None:
    assert timing.spread(100.0, chance) == pytest.approx(result)


@given(st.floats(min_value=0, max_value=1e9), st.floats(min_value=0, max_value=1, exclude_max=True))
def test_spread_never_lengthens(span: float, chance: float) -> None:
    assert span * (1 - timing.SPREAD) * 0.999 <= timing.spread(span, chance) <= span


@pytest.mark.parametrize(
    ("age", "chance", "now"),
    [
        (0.0, 0.0, False),
        (799.0, 0.0, False),  # not before the last fifth
        (800.0, 0.049, True),  # 10 of the 200 that are left
        (800.0, 0.051, False),
        (900.0, 0.09, True),
        (900.0, 0.11, False),
        (990.0, 0.999, True),  # no other round comes before it is due
        (1000.0, 0.999, True),
        (5000.0, 0.999, True),
    ],
)
def test_refresh_now(age: float, chance: float, now: bool) -> None:
    assert timing.refresh_now(age, 1000.0, 10.0, chance) is now
