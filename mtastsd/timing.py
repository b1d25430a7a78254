"""When things are due, computed from the time and a random number that are handed in.

All times are seconds since 1970 (wall time); all spans are seconds.
"""

from __future__ import annotations

SPREAD = 0.2
"""Share of a span by which it is shortened at random, so that relays that started together and
domains that were learnt together do not stay in step (RFC 8461 §10.2)."""


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
