"""One look-up: from a request's payload to the reply, and what is counted of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mtastsd.log import Log
from mtastsd.names import NotADomain
from mtastsd.postfix import netstring, nexthop, reply, socketmap
from mtastsd.postfix.nexthop import NextHop
from mtastsd.service.discovery import Answered, Discovery
from mtastsd.verdict import Verdict

SENDMAIL_DEADLINE = 4.5
"""Seconds: Sendmail's own limit for a map is 5."""

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply frame, until when it may be given again (0: never), and how it is counted."""

    frame: bytes
    valid_until: float
    outcome: str
    source: str


NOTFOUND = netstring.encode(socketmap.notfound())


class Lookups:
    """Answers look-ups. `answered` is told each verdict that goes out, for what comes of it."""

    def __init__(self, discovery: Discovery, log: Log, deadline: float) -> None:
        self._discovery = discovery
        self._log = log
        self.deadline = deadline
        self.counts: Counter[tuple[str, str]] = Counter()
        self.answered: Callable[[NextHop, Verdict], None] = lambda hop, verdict: None

    def at_once(self, payload: bytes) -> Reply | None:
        """The reply if it takes no waiting: no domain, or known and nothing due."""
        request = socketmap.parse(payload)
        if isinstance(request, socketmap.BadRequest):
            return self._count(Reply(NOTFOUND, FOREVER, "notfound", "invalid"))
        hop = nexthop.parse(request.key)
        if isinstance(hop, NotADomain):
            # Postfix asks for every parent of a name: no DNS question, no log line.
            return self._count(Reply(NOTFOUND, FOREVER, "notfound", "invalid"))
        found = self._discovery.at_once(hop)
        if found is None:
            return None
        return self._render(hop, found, reply.style(request.map_name))

    async def answer(self, payload: bytes) -> Reply:
        """The reply, within the deadline."""
        at_once = self.at_once(payload)
        if at_once is not None:
            return at_once
        request = socketmap.parse(payload)
        assert isinstance(request, socketmap.Query)
        hop = nexthop.parse(request.key)
        assert isinstance(hop, NextHop)
        how = reply.style(request.map_name)
        sendmail = how is reply.Style.SENDMAIL
        deadline = min(self.deadline, SENDMAIL_DEADLINE) if sendmail else self.deadline
        try:
            found = await self._discovery.verdict(hop, deadline)
        except Exception as bug:
            # Not "not found": whoever can provoke a bug could else switch a policy off.
            self._log.error("bug", exc=bug, hop=hop.key)
            frame = netstring.encode(socketmap.temp("internal error"))
            return self._count(Reply(frame, 0.0, "temp", "bug"))
        return self._render(hop, found, how)

    def _render(self, hop: NextHop, found: Answered, how: reply.Style) -> Reply:
        verdict = found.verdict
        text = reply.render(verdict, how)
        frame = NOTFOUND if text is None else netstring.encode(socketmap.ok(text))
        outcome = "notfound" if text is None else verdict.what.value
        if found.source != "memory":
            self._log.info(
                "lookup",
                hop=hop.key,
                answer=outcome,
                why=verdict.why,
                source=found.source,
                detail=verdict.detail,
            )
        self.answered(hop, verdict)
        return self._count(Reply(frame, verdict.valid_until, outcome, found.source))

    def _count(self, answer: Reply) -> Reply:
        self.counts[answer.outcome, answer.source] += 1
        return answer


class Frames:
    """Whole request frames to whole reply frames: what makes a known look-up cost one dict access.

    Each entry is (reply, valid_until, hits), hits being a list of one integer that all entries of
    an outcome share.
    """

    LIMIT = 24_576
    """Entries; past it all are dropped, which costs one slow look-up each."""
    MAX_OCTETS = 32 * 1024 * 1024
    """Octets of requests and replies together; a hostile policy makes a long reply."""
    MAX_ENTRY = 8192
    """Octets of an entry that is kept; longer ones are rendered each time."""

    def __init__(self) -> None:
        self.entries: dict[bytes, tuple[bytes, float, list[int]]] = {}
        self._octets = 0
        self._hits: dict[str, list[int]] = {}

    def keep(self, frame: bytes, answer: Reply) -> None:
        """Keep a reply, if it may be given again at all."""
        size = len(frame) + len(answer.frame)
        if answer.valid_until <= 0 or size > self.MAX_ENTRY:
            return
        if len(self.entries) >= self.LIMIT or self._octets + size > self.MAX_OCTETS:
            self.clear()
        hits = self._hits.setdefault(answer.outcome, [0])
        self._octets += size
        self.entries[bytes(frame)] = (answer.frame, answer.valid_until, hits)

    def clear(self) -> None:
        """Drop all: something that was answered may no longer hold."""
        self.entries.clear()
        self._octets = 0

    def counts(self) -> Iterator[tuple[str, str, int]]:
        """Outcome, source, hits."""
        for outcome, hits in list(self._hits.items()):
            yield outcome, "frame", hits[0]
