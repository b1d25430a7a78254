"""The Debian trees that scripts/e2e-setup builds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SETUP = "scripts/e2e-setup"


@dataclass(frozen=True, slots=True)
class Tree:
    """A Debian to chroot into. Nothing is written to it: what changes is mounted over."""

    suite: str

    @property
    def path(self) -> Path:
        return cache() / self.suite

    @property
    def ready(self) -> bool:
        return (self.path / "e2e-ready").exists()


def cache() -> Path:
    """Where the trees are, as in scripts/e2e-setup."""
    if folder := os.environ.get("MTASTSD_E2E_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mtastsd-e2e"
