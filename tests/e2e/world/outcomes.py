"""What became of each recipient, read from Postfix's log."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tests.e2e.world.scenarios import Want

LINE = re.compile(r"postfix[\w/-]*/(?P<program>\w+)\[(?P<pid>\d+)\]: (?P<text>.*)")
TLS = re.compile(r"(?P<level>\w+) TLS connection established to (?P<host>[^\[]+)\[")
DELIVERY = re.compile(
    r"\w+: to=<(?P<to>[^>]*)>, .*?relay=(?P<relay>[^,\[]*).*?, status=(?P<status>\w+) \("
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The first try at one recipient. `tls` is Postfix's word for the session, or empty.

    `lines`: what the log says of it, for the message of a failing test.
    """

    recipient: str
    status: str
    relay: str
    tls: str
    lines: tuple[str, ...]

    @property
    def came_to(self) -> Want:
        if self.status != "sent":
            return "refused"
        return "verified" if self.tls == "Verified" else "sent"


def outcomes(log: Iterable[str]) -> dict[str, Outcome]:
    """The outcome of each recipient that the log has one for, by address."""
    found: dict[str, Outcome] = {}
    sessions: dict[str, list[str]] = {}
    for line in log:
        if (match := LINE.search(line)) is None:
            continue
        said = sessions.setdefault(match["pid"], [])
        said.append(match["text"])
        if delivery := DELIVERY.match(match["text"]):
            # Each smtp(8) process does one delivery at a time, so all it said belongs to this.
            del sessions[match["pid"]]
            outcome = _outcome(delivery, said)
            found.setdefault(outcome.recipient, outcome)
    return found


def _outcome(delivery: re.Match[str], said: list[str]) -> Outcome:
    levels = {m["host"].lower(): m["level"] for text in said if (m := TLS.search(text))}
    tls = levels.get(delivery["relay"].lower(), "")
    return Outcome(delivery["to"], delivery["status"], delivery["relay"], tls, tuple(said))
