"""What of the configuration the services obey; replaced as a whole on reload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mtastsd.names import Domain
from mtastsd.sts.flow import StsBranch, Timing
from mtastsd.verdict import Override, Rules


@dataclass(frozen=True, slots=True)
class Settings:
    """`[policy]`, `[cache]` and `[[override]]`, as rules take them."""

    rules: Rules = field(default_factory=Rules)
    timing: Timing = field(default_factory=Timing)
    overrides: Mapping[Domain, Override] = field(default_factory=dict)

    def enforces(self, sts: StsBranch | None, now: float) -> bool:
        """Whether there is an MTA-STS policy that holds and counts as enforced."""
        policy = sts.policy(now) if sts is not None else None
        return policy is not None and self.rules.enforces(policy)


@dataclass(slots=True)
class Current:
    """The one place that a reload writes to; every service reads it anew for each look-up."""

    settings: Settings
