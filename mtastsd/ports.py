"""The ports: what services need of the world, as Protocols.

Services see these and never `net/` or `store/`; `daemon.py` alone joins them. Expected outcomes
are values; an exception from a port is a bug, except `StoreUnavailable`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from mtastsd.answers import AddressAnswer, MxAnswer, TlsaAnswer, TxtAnswer
from mtastsd.dane import DaneBranch
from mtastsd.names import Domain
from mtastsd.sts.failure import Failure
from mtastsd.sts.flow import StsBranch


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
        self, *, fetched_before: float, used_since: float, limit: int
    ) -> Sequence[KnownDomain]:
        """Domains with a policy that was last fetched before, and used since, oldest first."""
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
