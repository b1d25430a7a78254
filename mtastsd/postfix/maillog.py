"""From lines of the mail log to sessions, by process and queue id.

TLS lines have no queue id and no recipient. They belong to the next `QUEUEID:` line of their
process, whose `to=<user@domain>` names the domain and whose reason says what became of it; where an
MX host is given up, the line is `QUEUEID: reason`, and the domain comes with the host that is tried
last. smtp(8) does one delivery at a time, so a process needs no more than a list of attempts.

tlsproxy(8) serves many at once. A handshake over it is counted from the line that smtp(8) repeats;
what was wrong with it, which only tlsproxy logs, is noted by MX host until smtp(8) gives up.

A `TLSRPT:` line (3.10 and later) is Postfix's own finding, domain and all. It is taken as it is,
and the attempt that it speaks of is not counted again.

Limits. The log names no next hop but in `TLSRPT:`, `STS MX pattern` and `TLS policy lookup` lines;
for the rest it is taken to be the recipient's domain, which is wrong behind a relay host or a
transport map that sends elsewhere. It names no policy either: each session says no-policy-found,
and the join with what was answered tells. A start in the middle of a delivery loses the lines
before it: the sessions of the MX hosts that were given up, and of the last one what was wrong, so
that a good handshake before the start is not counted, and a bad certificate has no reason. Where
syslog folds equal lines (`message repeated`) the folded ones are lost.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from mtastsd.names import Domain
from mtastsd.postfix import maillines
from mtastsd.postfix.attempts import MAX_ATTEMPTS, Attempt, Attempts, by_word
from mtastsd.postfix.details import NO_STARTTLS, TLSA_UNUSABLE, Fault
from mtastsd.postfix.maillines import (
    Delivered,
    Established,
    LibraryError,
    Peer,
    Skipped,
    Told,
    Wrong,
)
from mtastsd.tlsrpt.session import Detail, PolicyKey, Session

MAX_PROCESSES = 4096
"""Processes whose lines are held; the one that was silent longest goes first. Postfix runs 100
smtp(8) by default, large relays some thousand."""

MAX_SILENCE = 3600.0
"""Seconds after which a process that said nothing is forgotten: an idle one ends after 100, and the
longest time limit of a delivery is 600 a step."""

MAX_NOTES = 512
"""What tlsproxy said and no smtp(8) has asked for."""

NOTE_AGE = 300.0
"""Seconds that a note of tlsproxy's waits: smtp(8) writes its line within moments."""

MAX_FAULTS = 2048
"""MX addresses of which the last fault is known, for sessions that are resumed."""

SAME_DELIVERY = 60.0
"""Seconds within which further lines of a queue id, recipient domain and MX host are recipients of
the same delivery. Postfix waits 300 or more before it tries again."""

_SMTP, _TLSPROXY = "smtp", "tlsproxy"


@dataclass(slots=True)
class _Note:
    """What tlsproxy said of a handshake. `host`: the relay. `told` as in an attempt."""

    at: float
    host: str
    peer: Peer | None
    fault: Fault | None
    failed: bool = False
    told: Domain | None = None


@dataclass(slots=True)
class _Process:
    """An smtp(8) process within a delivery, and the delivery before it."""

    at: float
    attempts: Attempts = field(default_factory=Attempts)
    skipped: dict[Skipped, None] = field(default_factory=dict)
    last: tuple[str, Domain | None, Peer | None] | None = None
    last_at: float = 0.0


_Key = tuple[str, str, int]


class MailLog:
    """The state between lines. One for each reader, fed in the order of the log.

    `beside_datagrams`: Postfix sends datagrams too. Then only what they never carry comes out: MX
    hosts that were not connected to, successes of `TLSRPT:` lines, which name the MX host (for
    domains in testing mode), and sessions without STARTTLS.
    """

    def __init__(self, *, beside_datagrams: bool = False) -> None:
        self._beside = beside_datagrams
        self._processes: dict[_Key, _Process] = {}
        self._notes: deque[_Note] = deque(maxlen=MAX_NOTES)
        self._faults: dict[Peer, Fault] = {}

    @property
    def held(self) -> int:
        """How many values are held; bounded whatever is fed."""
        attempts = sum(len(p.attempts) + len(p.skipped) for p in self._processes.values())
        return len(self._processes) + attempts + len(self._notes) + len(self._faults)

    def feed(
        self, program: str, pid: int, message: str, at: float, host: str = ""
    ) -> tuple[Session, ...]:
        """The sessions that a message completes.

        `program` is the syslog name (`postfix/smtp`, `postfix-out/smtp`), `at` the wall time of the
        line, `host` where it was logged, if lines of several relays come together. Messages of
        other programs, LMTP among them, mean nothing here. Never raises.
        """
        prefix, _, service = program.rpartition("/")
        if not prefix or service not in (_SMTP, _TLSPROXY):
            return ()
        event = maillines.read(message)
        if event is None:
            return ()
        if isinstance(event, Wrong):
            event = self._with_memory(event)
        if service == _TLSPROXY:
            return self._of_tlsproxy(event, host, at)
        return self._of_smtp(event, (host, program, pid), at)

    # ---- smtp(8)

    def _of_smtp(self, event: maillines.Event, key: _Key, at: float) -> tuple[Session, ...]:
        process = self._process(key, at)
        match event:
            case Established():
                process.attempts.established(event)
            case Wrong():
                process.attempts.wrong(event)
            case LibraryError():
                process.attempts.explained(event)
            case Told():
                process.attempts.told(event)
                return self._as_told(event, at)
            case Skipped():
                if len(process.skipped) < MAX_ATTEMPTS:
                    process.skipped[event] = None
            case Delivered():
                return self._delivered(process, event, key[0], at)
            case _:
                process.attempts.given_up(event)
        return ()

    def _process(self, key: _Key, at: float) -> _Process:
        """The state of a process, newest in the dict; old ones fall off the other end."""
        process = self._processes.pop(key, None)
        if process is None or at - process.at > MAX_SILENCE:
            process = _Process(at)
        process.at = at
        self._processes[key] = process
        while True:
            oldest = next(iter(self._processes))
            silent = at - self._processes[oldest].at > MAX_SILENCE
            if not silent and len(self._processes) <= MAX_PROCESSES:
                return process
            del self._processes[oldest]

    def _as_told(self, event: Told, at: float) -> tuple[Session, ...]:
        if self._beside and event.fault is not None:
            return ()
        return (_session(at, event.domain, event.peer, event.fault, success=event.fault is None),)

    def _delivered(
        self, process: _Process, event: Delivered, host: str, at: float
    ) -> tuple[Session, ...]:
        """The end of a delivery: what it was about is known, and its attempts are judged."""
        mark = (event.queue_id, event.domain, event.peer)
        again = process.last == mark and at - process.last_at <= SAME_DELIVERY
        attempts = process.attempts.ended(event, again=again)
        skipped = list(process.skipped)
        process.skipped = {}
        process.last, process.last_at = mark, at
        if event.skipped is not None and not (skipped or attempts or again or event.connected):
            skipped = [event.skipped]
        domain = _next_hop(attempts, skipped) or event.domain
        if domain is None:
            return ()
        sessions = [s for a in attempts for s in self._judged(a, domain, host, at)]
        if not (attempts or again or event.reused):
            sessions += self._by_level(event, domain, host, at)
        counts = not (attempts or event.connected)
        return (*sessions, *(_left_out(s, domain, at, counts=counts) for s in skipped))

    def _judged(
        self, attempt: Attempt, domain: Domain, host: str, at: float
    ) -> tuple[Session, ...]:
        note = self._noted(attempt, domain, host, at)
        if attempt.told is not None or self._beside:
            return ()
        fault, failed = attempt.fault, attempt.failed
        if note is not None:
            if note.told is not None:
                return ()
            fault, failed = fault or note.fault, failed or note.failed
        if failed and fault is None:
            fault = by_word(attempt.word)
        return (_session(at, domain, attempt.peer, fault, success=not failed),)

    def _by_level(
        self, event: Delivered, domain: Domain, host: str, at: float
    ) -> tuple[Session, ...]:
        """What `tls=` says (3.11 and later) of a new connection of which no line was logged.

        `!` a level that was not met, for which there is a reason; `?` undecided. `may:none` is said
        as well of the second connection, after a handshake over tlsproxy(8) that broke.
        """
        level = event.level.partition("/")[0]
        wanted, _, got = level.partition(":")
        if event.peer is None or wanted in ("", "none", "unknown") or level.endswith("?"):
            return ()
        if wanted.startswith("!"):
            return ()
        if got == "none":
            if self._noted(Attempt(event.peer), domain, host, at) is not None:
                return ()
            return (_session(at, domain, event.peer, NO_STARTTLS, success=False, log_only=True),)
        if self._beside:
            return ()
        unusable = got == "encrypt" and wanted in ("dane", "half-dane")
        fault = TLSA_UNUSABLE if unusable else None
        return (_session(at, domain, event.peer, fault, success=not unusable),)

    # ---- tlsproxy(8)

    def _of_tlsproxy(self, event: maillines.Event, host: str, at: float) -> tuple[Session, ...]:
        if isinstance(event, Wrong):
            self._notes.append(_Note(at, host, event.peer, event.fault, event.decisive))
        if not isinstance(event, Told):
            return ()
        self._open_note(event, host, at).told = event.domain
        return self._as_told(event, at)

    def _open_note(self, event: Told, host: str, at: float) -> _Note:
        """The note of the fault that a TLSRPT line follows, or a new one."""
        for note in reversed(self._notes):
            if note.told is None and note.peer == event.peer and note.host == host:
                return note
        self._notes.append(_Note(at, host, event.peer, event.fault))
        return self._notes[-1]

    def _noted(self, attempt: Attempt, domain: Domain, host: str, at: float) -> _Note | None:
        """Take what tlsproxy said of an attempt on this MX host and address.

        Rather what it said of this domain than what it said of none; and if the attempt failed,
        then even what it said of another: the next hop is not the recipient's domain.
        """
        while self._notes and at - self._notes[0].at > NOTE_AGE:
            self._notes.popleft()
        near = [n for n in self._notes if n.host == host and _is_about(n, attempt, domain)]
        spoken_for = attempt.told is not None
        for wanted in (None,) if spoken_for else (domain, None):
            for note in near:
                if note.told == wanted:
                    self._notes.remove(note)
                    return note
        if near and attempt.failed and not spoken_for:
            self._notes.remove(near[0])
            return near[0]
        return None

    # ---- resumed sessions

    def _with_memory(self, event: Wrong) -> Wrong:
        """A fault as it was when its session was new; a new one is remembered."""
        if event.repeated:
            return Wrong(event.peer, self._faults.get(event.peer, event.fault))
        if not event.broken:
            self._faults.pop(event.peer, None)
            self._faults[event.peer] = event.fault
            if len(self._faults) > MAX_FAULTS:
                del self._faults[next(iter(self._faults))]
        return event


def _next_hop(attempts: list[Attempt], skipped: list[Skipped]) -> Domain | None:
    """The next hop where a line of the delivery has named it."""
    named = [a.told for a in attempts] + [s.domain for s in skipped]
    return next((domain for domain in named if domain is not None), None)


def _is_about(note: _Note, attempt: Attempt, domain: Domain) -> bool:
    """Of a handshake that broke in tlsproxy smtp(8) may name no host when it tries the next."""
    return note.told == domain if attempt.peer is None else note.peer == attempt.peer


def _left_out(skipped: Skipped, domain: Domain, at: float, *, counts: bool) -> Session:
    """An MX host that was not connected to: counted as a session only where there was none."""
    of = skipped.domain or domain
    detail = Detail(skipped.fault.result, mx_host=skipped.host, reason=skipped.fault.reason)
    policy = PolicyKey("no-policy-found", of)
    return Session(at, of, policy, False, (detail,), skipped.host, "", "log", counts, log_only=True)


def _session(
    at: float,
    domain: Domain,
    peer: Peer | None,
    fault: Fault | None,
    *,
    success: bool,
    log_only: bool = False,
) -> Session:
    host, ip = (peer.host, peer.ip) if peer is not None else ("", "")
    details: tuple[Detail, ...] = ()
    if fault is not None:
        details = (Detail(fault.result, mx_host=host, mx_ip=ip, reason=fault.reason),)
    policy = PolicyKey("no-policy-found", domain)
    return Session(at, domain, policy, success, details, host, ip, "log", True, log_only)
