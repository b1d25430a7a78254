"""The ports: what services need of the world, as Protocols.

Services see these and never `net/` or `store/`; `daemon.py` alone joins them. Expected outcomes
are values; an exception from a port is a bug, except `StoreUnavailable`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from mtastsd.answers import AddressAnswer, MxAnswer, TlsaAnswer, TxtAnswer
from mtastsd.dane import DaneBranch
from mtastsd.names import Domain
from mtastsd.probing import Probe
from mtastsd.sts.failure import Failure
from mtastsd.sts.flow import StsBranch
from mtastsd.tlsrpt.session import ResultType
from mtastsd.tlsrpt.tally import Day, DomainTally


class Clock(Protocol):
    """Time and chance. `now` is wall time in seconds since 1970, `monotonic` runs timers."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...

    def random(self) -> float:
        """A number in [0, 1)."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class Resolver(Protocol):
    """DNS. Each call returns within the resolver's own time-out, with a value."""

    async def txt(self, name: str) -> TxtAnswer: ...

    async def mx(self, domain: Domain) -> MxAnswer: ...

    async def addresses(self, host: str, *, validated: bool) -> AddressAnswer:
        """A and AAAA together. One of both failing is an error only when the other has nothing.

        `validated`: ask only servers that validate, for `Answer.secure` counts.
        """
        ...

    async def some_addresses(self, host: str, *, validated: bool) -> AddressAnswer:
        """The A records; AAAA is asked for, and `addresses` says what comes, where there are none.

        For whoever can do with one address or with whether it is signed: half of the questions.
        """
        ...

    async def secure_alias(self, host: str) -> bool:
        """Whether the CNAME record at `host` itself is signed (RFC 7672 §2.2.2)."""
        ...

    async def tlsa(self, name: str) -> TlsaAnswer: ...

    def validates(self) -> bool:
        """Whether there is a server now whose AD bit is believed."""
        ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """The body of a policy file as it came, decoded, within the size limit."""

    body: bytes


FetchOutcome = Fetched | Failure


class PolicyFetcher(Protocol):
    """HTTPS GET of a policy, RFC 8461 §3.3, whole within `fetch.timeout`."""

    async def fetch(self, domain: Domain) -> FetchOutcome: ...


class StoreUnavailable(Exception):
    """The store can't be read or written now (locked, full, away). Look-ups go on without it."""


@dataclass(frozen=True, slots=True)
class KnownDomain:
    """The MTA-STS branch of a policy domain as the store keeps it.

    `used_at`: when a look-up last asked for it, to the hour or so.
    """

    domain: Domain
    sts: StsBranch
    used_at: float


@dataclass(frozen=True, slots=True)
class KnownHop:
    """The DANE branch of a next hop. `hop` is the canonical key, `example.com` or `[host]:587`."""

    hop: str
    dane: DaneBranch
    used_at: float


class PolicyStore(Protocol):
    """Policies and findings, by policy domain and by next hop.

    All calls may raise `StoreUnavailable`. Writes are idempotent and durable when they return.
    """

    async def load(
        self, domain: Domain, hop: str
    ) -> tuple[KnownDomain | None, KnownHop | None]: ...

    async def save(self, domains: Sequence[KnownDomain], hops: Sequence[KnownHop]) -> None:
        """Write all in one transaction; a row that is there is replaced."""
        ...

    async def touch(self, domains: Sequence[tuple[Domain, float]]) -> None:
        """Note when domains were last used; never moves `used_at` back."""
        ...

    async def due(
        self, *, now: float, refresh: float, used_since: float, limit: int
    ) -> Sequence[KnownDomain]:
        """Domains with a policy to be fetched anew, and used since; the longest unfetched first.

        A policy is due (1 - timing.SPREAD) of `StsBranch.refresh_after(refresh)` seconds after it
        was fetched; one whose last reading failed, not before its `recheck_at`.
        """
        ...

    def scan(self, *, after: str = "") -> AsyncIterator[KnownDomain]:
        """All domains in order of name, read in pages, from the one behind `after`."""
        ...

    async def forget(self, *, unused_since: float, now: float) -> int:
        """Drop domains not used since then, and negative rows long over; how many went."""
        ...

    async def delete(self, domain: Domain) -> bool:
        """Drop what is known of a domain and of all its next hops; whether there was anything."""
        ...

    async def count(self) -> int:
        """How many policy domains are kept."""
        ...

    async def close(self) -> None: ...


class Prober(Protocol):
    """Looks at mail hosts as a delivery would, without delivering.

    Each call is bounded in time and octets and returns a value, whatever the peer does. It judges
    the address before it connects. Where the chain is not trusted it connects a second time, to
    see the certificate.
    """

    async def probe(self, host: Domain, address: str, port: int) -> Probe:
        """Banner, EHLO, STARTTLS with `host` as SNI, EHLO again, QUIT; never MAIL."""
        ...

    async def certificate(self, host: str, address: str, port: int) -> Probe:
        """The certificate of a server that speaks TLS at once, such as a policy host's."""
        ...


# ---- TLS-RPT


@dataclass(frozen=True, slots=True)
class TallyBatch:
    """What was added up since the last batch of this source.

    `sequence` grows by one with each batch of `source`: a batch that is offered twice, because
    the first answer got lost, is counted once. `cursors` are the positions of log readers by name,
    written with the sessions that were read up to them.
    """

    source: str
    sequence: int
    tallies: Mapping[tuple[Day, Domain], DomainTally]
    cursors: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe of one MX host found on a day; `result` None: enforcement would have passed.

    `preferred`: the host is of the best preference of the domain's MX hosts.
    """

    domain: Domain
    mx_host: str
    mx_ip: str
    preferred: bool
    result: ResultType | None
    reason: str = ""
    sending_ip: str = ""
    helo: str = ""


class TallyStore(Protocol):
    """Day totals. All calls may raise StoreUnavailable; writes are durable when they return."""

    async def add(self, batch: TallyBatch) -> bool:
        """Merge a batch in one transaction; False if its sequence was taken before.

        What comes for a domain's day that is settled is kept with it and not reported any more.
        """
        ...

    async def sequence(self, source: str) -> int:
        """The last sequence taken from this source, 0 for none."""
        ...

    async def cursor(self, name: str) -> str:
        """A log reader's position, "" for none."""
        ...

    async def days(self, *, before: Day) -> Sequence[Day]:
        """Days before this one that have domains not yet settled (reported or passed over)."""
        ...

    async def waiting(self, day: Day, *, after: str, limit: int) -> Sequence[Domain]:
        """The domains of a day not yet settled, in order of name, behind `after`."""
        ...

    async def tally(self, day: Day, domain: Domain) -> DomainTally:
        """What was added up, as `tally.merge` makes it; empty for nothing."""
        ...

    async def note(self, day: Day, findings: Sequence[Finding]) -> None:
        """Keep probe findings of a day; one that is there for domain, host and address is kept."""
        ...

    async def findings(self, day: Day, domain: Domain) -> Sequence[Finding]: ...

    async def forget_days(self, *, before: Day) -> int:
        """Drop tallies and findings of days before this one; how many days went.

        A day with a domain that is not settled stays whole.
        """
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """A report as it is sent, the same octets each time. `body` is the gzipped JSON.

    `report_id` is unique; `file_name` is that of RFC 8460 §5.1.
    """

    report_id: str
    day: Day
    domain: Domain
    body: bytes
    file_name: str
    created_at: float
    sessions: int
    failures: int


DeliveryState = Literal["waiting", "delivered", "failed", "suppressed"]

_REASON = re.compile(r"(?:[A-Za-z]{1,16}:? )?([0-9]{3})(?![\w.])|([A-Za-z]{1,16})\b", re.ASCII)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One report to one destination (a rua URI). Times are wall time.

    `tries` so far; `next_at` is when it may be tried again, `give_up_at` the end of trying.
    `last` is what came of the last try, printable.
    """

    report_id: str
    destination: str
    state: DeliveryState
    tries: int
    next_at: float
    give_up_at: float
    last: str = ""
    done_at: float = 0.0

    @property
    def reason(self) -> str:
        """Why it was not delivered, in a word to count by; "" where it was or was not tried.

        The status that `last` begins with (`550`, `RCPT: 550`, `status 404`), else its first word,
        which is ours: a receiver can choose nothing but three digits.
        """
        if not self.last or self.state in ("delivered", "suppressed"):
            return ""
        found = _REASON.match(self.last)
        return (found[1] or found[2].lower()) if found else "other"


class Outbox(Protocol):
    """Reports and where they go. All calls may raise StoreUnavailable."""

    async def settle(
        self, day: Day, domain: Domain, why: str, report: Report | None, to: Sequence[Delivery]
    ) -> bool:
        """End a domain's day, with a report or without; False if it was settled before.

        `why` is a stable word: reported, no-record, looped, suppressed, expired... One
        transaction: a day that is closed twice makes no second report, and neither does a report
        whose id is there. A destination that is named twice gets one delivery.
        """
        ...

    async def due(self, now: float, *, limit: int) -> Sequence[Delivery]:
        """Deliveries that wait and may be tried, by `next_at`."""
        ...

    async def update(self, delivery: Delivery) -> None:
        """Write a delivery's new state. Idempotent; nothing if its report is not kept any more."""
        ...

    async def report(self, report_id: str) -> Report | None: ...

    async def deliveries(self, report_id: str) -> Sequence[Delivery]:
        """All of a report's, in the order in which they were given."""
        ...

    async def reports(
        self, *, day: Day | None, domain: Domain | None, after: str, limit: int
    ) -> Sequence[Report]:
        """Reports in order of id, behind `after`."""
        ...

    async def mailed(self, day: Day, domain: Domain, count: int) -> None:
        """Note that we handed over this many report mails to a next hop on a day."""
        ...

    async def mailed_to(self, day: Day, domain: Domain) -> int: ...

    async def settled(self, day: Day, *, after: str, limit: int) -> Sequence[tuple[Domain, str]]:
        """The settled domains of a day and why, in order of name, behind `after`."""
        ...

    async def destination_load(self, day: Day, destination: str) -> tuple[int, int]:
        """Reports of a day for one destination so far, and their octets; suppressed ones apart."""
        ...

    async def counts(self) -> Mapping[str, int]:
        """Deliveries by state, and domains settled by why as `settled-WHY`.

        Those that wait or failed with a reason are counted by it too, as `failed-550`. What is
        missing is 0.
        """
        ...

    async def waiting_since(self) -> tuple[int, float]:
        """How many deliveries wait, and the creation time of the oldest report among them (0)."""
        ...

    async def forget_reports(self, *, before: float) -> int:
        """Drop reports created before, with their deliveries; how many went.

        With them goes what is kept of destinations and next hops for the days before.
        """
        ...


Outcome = Literal["delivered", "later", "never"]


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of one try; `detail` is printable and says what the other side said."""

    outcome: Outcome
    detail: str


class Mailer(Protocol):
    """Hands a report mail over to the MTA."""

    async def send(self, message: bytes, *, sender: str, recipient: str) -> Sent: ...


class Poster(Protocol):
    """HTTPS POST of a report, RFC 8460 §3."""

    async def post(self, url: str, body: bytes, *, media_type: str) -> Sent: ...
