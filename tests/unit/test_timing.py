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


MINUTE = 60.0
HOUR = 3600.0


@pytest.mark.parametrize(
    ("tries", "age", "chance", "span"),
    [
        (1, 0.0, 0.0, 5 * MINUTE),
        (1, 0.0, 0.5, 4.5 * MINUTE),
        (2, 5 * MINUTE, 0.0, 10 * MINUTE),
        (3, 15 * MINUTE, 0.0, 20 * MINUTE),
        (4, 35 * MINUTE, 0.0, 40 * MINUTE),
        (5, 75 * MINUTE, 0.0, 80 * MINUTE),
        (6, 155 * MINUTE, 0.0, 160 * MINUTE),
        (7, 315 * MINUTE, 0.0, 4 * HOUR),
        (8, 555 * MINUTE, 0.0, 4 * HOUR),
        (9, 20 * HOUR, 0.5, 3.6 * HOUR),
        (2, 4 * MINUTE, 0.0, 10 * MINUTE),  # the first span was shortened
        (1, 20 * HOUR, 0.0, 5 * MINUTE),  # nobody was there to try
        (7, 2 * MINUTE, 0.0, 6 * MINUTE),  # six tries by hand
        (7, 0.0, 0.0, 5 * MINUTE),
        (3, -HOUR, 0.0, 5 * MINUTE),  # the clock was set back
        (0, 0.0, 0.0, 5 * MINUTE),
        (-1, HOUR, 0.0, 5 * MINUTE),
        (10**9, 48 * HOUR, 0.0, 4 * HOUR),
    ],
)
def test_next_try(tries: int, age: float, chance: float, span: float) -> None:
    at = timing.next_try(tries, 1000.0, 1000.0 + age, chance)
    assert at == pytest.approx(1000.0 + age + span)


@given(
    st.integers(),
    st.floats(min_value=-1e9, max_value=1e9),
    st.floats(min_value=0, max_value=1, exclude_max=True),
)
def test_next_try_is_neither_soon_nor_late(tries: int, age: float, chance: float) -> None:
    span = timing.next_try(tries, 0.0, age, chance) - age
    assert timing.FIRST_RETRY * (1 - timing.SPREAD) * 0.999 <= span <= timing.LAST_RETRY * 1.001


@pytest.mark.parametrize(("chance", "tries"), [(0.0, 11), (0.999, 13)])
def test_tries_of_a_day(chance: float, tries: int) -> None:
    """A receiver that is down all day is asked a dozen times, and last in its last hours."""
    moments = [0.0]
    while (at := timing.next_try(len(moments), 0.0, moments[-1], chance)) <= 24 * HOUR:
        moments.append(at)
    assert len(moments) == tries
    assert moments[-1] > 20 * HOUR
    assert sum(at < HOUR for at in moments) == 4
