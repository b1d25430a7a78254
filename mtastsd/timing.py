"""When things are due, computed from the time and a random number that are handed in.

All times are seconds since 1970 (wall time); all spans are seconds.
"""

from __future__ import annotations

SPREAD = 0.2
"""Share of a span by which it is shortened at random, so that relays that started together and
domains that were learnt together do not stay in step (RFC 8461 §10.2)."""

FIRST_RETRY = 300.0
"""Seconds from a delivery's first try to its second: what a restart or greylisting takes."""

LAST_RETRY = 4 * 3600.0
"""Seconds that tries are apart at most: an outage that ends within `report.retry` leaves tries
enough."""


def bounded(value: float, low: float, high: float) -> float:
    """`value` brought into [low, high]."""
    return max(low, min(high, value))


def spread(span: float, chance: float) -> float:
    """A span shortened by up to `SPREAD` of itself; `chance` in [0, 1). Never longer."""
    return span * (1.0 - SPREAD * chance)


def refresh_now(age: float, refresh: float, interval: float, chance: float) -> bool:
    """Whether a policy fetched `age` seconds ago is fetched anew in this round.

    Rounds come every `interval`. From (1 - SPREAD) of `refresh` on, each round takes it with the
    probability that makes the moment uniform over what is left, so that nobody can foresee it
    (RFC 8461 §10.2) and it comes by `refresh` at the latest.
    """
    left = refresh - age
    if left > refresh * SPREAD:
        return False
    return left <= interval or chance < interval / left


def next_try(tries: int, first_at: float, now: float, chance: float) -> float:
    """When a delivery that failed just now is tried again: exponential back-off, RFC 8460 §5.5.

    `tries` so far, this one included; `first_at`: when the delivery was there to be tried. Whether
    that moment is still within `report.retry` the caller says.
    """
    # Bounded first: a counter from the store may be anything, and 2.0 ** 1024 overflows.
    backoff = FIRST_RETRY * 2.0 ** bounded(tries - 1, 0, 10)
    # Tries made by hand count too, but some in a row shall not put off the next one for hours.
    # Thrice the age is more than the back-off of any try that was made in its time.
    by_age = max(FIRST_RETRY, 3.0 * (now - first_at))
    return now + spread(min(backoff, by_age, LAST_RETRY), chance)
