"""What is added up of a UTC day: totals by policy domain and policy.

Merging is commutative and associative: that alone gives batches, the spool and many relays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType

from mtastsd.tlsrpt.session import Detail, PolicyKey

Day = NewType("Day", int)
"""A UTC day, as days since 1970-01-01."""

SECONDS = 86400


def day_of(moment: float) -> Day:
    """The UTC day of a wall time in seconds since 1970."""
    return Day(int(moment // SECONDS))


@dataclass(frozen=True, slots=True)
class Totals:
    """The counts of one policy on one day.

    `details` counts failed sessions by detail; as RFC 8460 §4.3 has it they may overlap and need
    not add up to `failures`. `unjudged` counts sessions under a testing policy by MX host and
    address ("" and "" where the source names none): they succeeded as far as Postfix is concerned,
    and whether they would have under enforcement is known once the MX host has been probed.
    They are not in `successes`.
    """

    successes: int = 0
    failures: int = 0
    details: Mapping[Detail, int] = field(default_factory=dict)
    unjudged: Mapping[tuple[str, str], int] = field(default_factory=dict)


DomainTally = Mapping[PolicyKey, Totals]
"""A day of one recipient domain, by policy. A policy with zero counts is there to be listed."""
