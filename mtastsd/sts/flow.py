"""RFC 8461 §3.3 and §5.1: how a sender finds, keeps, renews and loses a policy, as pure steps.

    begin(known, now)                      -> Use | UseAndAsk | Ask
    on_record(known, now, answer, ...)     -> Settled | Fetch(record id)
    on_fetch(known, now, id, outcome, ...) -> Settled

The caller does the I/O between the steps. A `StsBranch` is all that is kept of a domain's MTA-STS
side; the policy is kept as the octets that came and parsed by the one parser, so that a stored
text which that parser no longer takes is no policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mtastsd.answers import DnsError, NoData, TxtAnswer
from mtastsd.sts import policy as policies
from mtastsd.sts import record as records
from mtastsd.sts.failure import Failure
from mtastsd.sts.policy import Policy
from mtastsd.timing import bounded, spread

FETCH_RETRY = 300.0
"""Seconds between fetches of one record id that failed: RFC 8461 §3.3 asks for five minutes."""

NEGATIVE_MIN, NEGATIVE_MAX = 300.0, 3600.0
"""Bounds in seconds for how long "no policy" is believed: the negative TTL of many zones is a day,
and a domain that turns MTA-STS on should not wait for that."""

ERROR_HOLD = 60.0
"""Seconds before DNS is asked again after an error, where nothing is known of the domain."""

RecordState = Literal["present", "absent", "invalid", "unknown"]


@dataclass(frozen=True, slots=True)
class StsBranch:
    """What is known of a domain's MTA-STS side. Times are wall time in seconds since 1970.

    `record` and `record_id` are the last reading of the TXT record, `checked_at` its time and
    `recheck_at` when to ask again. `body` is the last policy fetched, None where there never was
    one or it is over; it counts until `expires_at` = `fetched_at` + max_age and nothing but a fetch
    moves that. `failure` is what went wrong last (None: nothing since the last success); no
    fetch for `failed_id` before `retry_at`.
    """

    record: RecordState
    checked_at: float
    recheck_at: float
    record_id: str = ""
    body: bytes | None = None
    fetched_at: float = 0.0
    expires_at: float = 0.0
    failure: Failure | None = None
    failed_id: str = ""
    retry_at: float = 0.0

    def holds(self, now: float) -> bool:
        """Whether there is a policy that has not expired."""
        return self.body is not None and now < self.expires_at

    def policy(self, now: float) -> Policy | None:
        """The policy that holds, parsed; None where there is none."""
        if self.body is None or now >= self.expires_at:
            return None
        parsed = policies.parse(self.body)
        return parsed if isinstance(parsed, Policy) else None

    def refresh_after(self, refresh: float) -> float:
        """Seconds after `fetched_at` at which to fetch anew: `refresh`, or half of a shorter life.

        RFC 8461 §3.3, §10.2: before it expires, and with time for further tries; a policy that may
        be kept for a day would else lapse between one refresh and the next.
        """
        return min(refresh, max((self.expires_at - self.fetched_at) / 2, FETCH_RETRY))

    def valid_until(self, now: float) -> float:
        """The earliest moment at which what holds now may change by the clock alone."""
        return min(self.recheck_at, self.expires_at) if self.holds(now) else self.recheck_at


@dataclass(frozen=True, slots=True)
class Timing:
    """`cache.recheck` and `cache.refresh`, in seconds."""

    recheck: float = 3600.0
    refresh: float = 86400.0


@dataclass(frozen=True, slots=True)
class Use:
    """The branch answers as it is."""

    branch: StsBranch


@dataclass(frozen=True, slots=True)
class UseAndAsk:
    """The branch answers; the TXT record is asked for in the background."""

    branch: StsBranch


@dataclass(frozen=True, slots=True)
class Ask:
    """First contact, or a policy or a negative answer that is over: ask for the TXT record."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Fetch the policy that goes with this record id."""

    record_id: str


@dataclass(frozen=True, slots=True)
class Settled:
    """The branch as it stands now. `keep` false: it answers this look-up and is not stored."""

    branch: StsBranch
    keep: bool = True


def begin(known: StsBranch | None, now: float) -> Use | UseAndAsk | Ask:
    """What to do when a look-up comes."""
    if known is None:
        return Ask()
    # Times that lie ahead were written by a clock that has been set back since.
    due = now >= known.recheck_at or now < known.checked_at
    if known.holds(now):
        return UseAndAsk(known) if due else Use(known)
    if known.body is not None and now >= known.expires_at:
        return Ask()  # an expired policy is no policy, whatever the recheck time says
    return Ask() if due else Use(known)


def on_record(
    known: StsBranch | None,
    now: float,
    answer: TxtAnswer,
    timing: Timing,
    chance: float,
    *,
    force: bool = False,
) -> Settled | Fetch:
    """What the TXT answer leads to. `chance` in [0, 1) spreads rechecks; `force` fetches anew."""
    if isinstance(answer, DnsError):
        return Settled(_unanswered(known, now, answer.why))
    if isinstance(answer, NoData):
        return Settled(_without_record(known, now, "absent", None, answer.ttl))
    return _on_records(known, now, answer.records, answer.ttl, timing, chance, force)


def _on_records(
    known: StsBranch | None,
    now: float,
    found: Sequence[bytes],
    ttl: int,
    timing: Timing,
    chance: float,
    force: bool,
) -> Settled | Fetch:
    selected = records.select(found)
    if isinstance(selected, records.NoRecord):
        return Settled(_without_record(known, now, "absent", None, ttl))
    if isinstance(selected, records.BadRecord):
        failure = Failure("record", selected.why)
        return Settled(_without_record(known, now, "invalid", failure, ttl))
    record_id = selected.id
    if force or known is None:
        return Fetch(record_id)
    if now < known.retry_at and known.failed_id == record_id:
        return Settled(_held_off(known, now))
    after = spread(known.refresh_after(timing.refresh), chance)
    fresh = known.holds(now) and now < known.fetched_at + after
    # `failed_id`: a fetch that failed left its id here, and the policy of the one before.
    if fresh and known.record_id == record_id and known.failed_id != record_id:
        # RFC 8461 §3.1: the same id says that nothing changed; it does not lengthen the life.
        return Settled(
            replace(
                known,
                record="present",
                checked_at=now,
                recheck_at=now + spread(_recheck_after(known, timing), chance),
                failure=None,
            )
        )
    return Fetch(record_id)


def _held_off(known: StsBranch, now: float) -> StsBranch:
    # RFC 8461 §3.3: not again within five minutes, whoever asks.
    held = replace(
        known,
        record="present",
        record_id=known.failed_id,
        checked_at=now,
        recheck_at=known.retry_at,
    )
    # With an expired body `begin` would ask DNS at each look-up until then.
    return held if known.holds(now) else replace(held, body=None, fetched_at=0.0, expires_at=0.0)


def _recheck_after(branch: StsBranch, timing: Timing) -> float:
    # A policy that lives shorter than `recheck` must be looked at while it can still be renewed.
    return min(timing.recheck, branch.refresh_after(timing.refresh))


def _unanswered(known: StsBranch | None, now: float, why: str) -> StsBranch:
    # RFC 8461 §3.3: an unexpired policy is used when DNS gives no answer.
    failure = Failure("dns", f"TXT {why}")
    if known is not None and known.holds(now):
        return replace(known, recheck_at=now + FETCH_RETRY, failure=failure)
    return _nothing(known, "unknown", now, now + ERROR_HOLD, failure)


def _without_record(
    known: StsBranch | None, now: float, state: RecordState, failure: Failure | None, ttl: int
) -> StsBranch:
    again = now + bounded(ttl, NEGATIVE_MIN, NEGATIVE_MAX)
    if known is not None and known.holds(now):
        # RFC 8461 §3.1, §3.3: a record that went away does not end a policy; else whoever can
        # forge one DNS answer could.
        gone = failure or Failure("record", "gone")
        return replace(known, record=state, checked_at=now, recheck_at=again, failure=gone)
    return _nothing(known, state, now, again, failure)


def _nothing(
    known: StsBranch | None, state: RecordState, now: float, again: float, failure: Failure | None
) -> StsBranch:
    """A branch without a policy. It remembers the fetch that failed: five minutes are five
    minutes, whatever DNS said in between."""
    failed_id, retry_at = (known.failed_id, known.retry_at) if known is not None else ("", 0.0)
    return StsBranch(state, now, again, failure=failure, failed_id=failed_id, retry_at=retry_at)


def on_fetch(
    known: StsBranch | None,
    now: float,
    record_id: str,
    outcome: bytes | Failure,
    timing: Timing,
    chance: float,
) -> Settled:
    """What the fetch for `record_id` leads to: a body as it came, or a failure."""
    if isinstance(outcome, Failure):
        return Settled(_after_failure(known, now, record_id, outcome, timing))
    parsed = policies.parse(outcome)
    if not isinstance(parsed, Policy):
        detail = f"{parsed.why} {parsed.text}".rstrip()
        return Settled(
            _after_failure(known, now, record_id, Failure("syntax", detail, parsed.line), timing)
        )
    branch = StsBranch(
        record="present",
        checked_at=now,
        recheck_at=now,
        record_id=record_id,
        body=outcome,
        fetched_at=now,
        # max_age 0 answers the look-ups that wait for this fetch and no other.
        expires_at=now + max(parsed.max_age, 1),
    )
    recheck_at = now + spread(_recheck_after(branch, timing), chance)
    return Settled(replace(branch, recheck_at=recheck_at), keep=parsed.max_age > 0)


def _after_failure(
    known: StsBranch | None, now: float, record_id: str, failure: Failure, timing: Timing
) -> StsBranch:
    retry = now + FETCH_RETRY
    if known is not None and known.holds(now):
        # RFC 8461 §3.3: a policy that has not expired is applied.
        return replace(
            known,
            record="present",
            record_id=record_id,
            checked_at=now,
            recheck_at=now + min(timing.recheck, FETCH_RETRY),
            failure=failure,
            failed_id=record_id,
            retry_at=retry,
        )
    return StsBranch(
        record="present",
        checked_at=now,
        recheck_at=retry,
        record_id=record_id,
        failure=failure,
        failed_id=record_id,
        retry_at=retry,
    )
