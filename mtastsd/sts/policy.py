"""RFC 8461 §3.2: the policy file, from octets to a `Policy` or the reason why it is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["enforce", "testing", "none"]


@dataclass(frozen=True, slots=True)
class Policy:
    """A valid policy.

    `mx` holds the patterns in the policy's order, lower-case A-labels, `*.` kept, no final dot.
    `max_age` is in seconds, at most `MAX_AGE`. `lines` are all lines as they came, without their
    line ends and blank lines; printable ASCII or UTF-8, checked: no control characters.
    """

    mode: Mode
    max_age: int
    mx: tuple[str, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicyError:
    """Why the text is no policy: a stable word, and the line (from 1) where it stands, if any."""

    why: str
    line: int | None = None
    text: str = ""


def parse(body: bytes) -> Policy | PolicyError:
    """Parse a policy file."""
    raise NotImplementedError
