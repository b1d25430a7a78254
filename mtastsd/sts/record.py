"""RFC 8461 §3.1: the `_mta-sts` TXT record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """A valid record."""

    id: str


@dataclass(frozen=True, slots=True)
class NoRecord:
    """No record among them is an MTA-STS record."""


@dataclass(frozen=True, slots=True)
class BadRecord:
    """There is more than one, or the only one is invalid. `why` is a stable word."""

    why: str


def select(found: Sequence[bytes]) -> Record | NoRecord | BadRecord:
    """Pick the one record out of a TXT RRset."""
    raise NotImplementedError
