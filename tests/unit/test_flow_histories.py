"""RFC 8461 §3.3 and §5.1 over days: whole histories, then any history."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd.answers import TxtAnswer
from mtastsd.sts import flow
from mtastsd.sts.failure import Failure
from mtastsd.sts.flow import Fetch, StsBranch, Use
from tests.unit.test_flow import (
    DAY,
    GONE,
    HELD_FAILED,
    HOUR,
    MINUTE,
    NOW,
    TIMEOUT,
    TIMING,
    body,
    record,
    txt,
)

REFUSED = Failure("connect", "refused")


class Relay:
    """A sender that looks one domain up, with what it remembers of it."""

    def __init__(self) -> None:
        self.now = NOW
        self.known: StsBranch | None = None
        self.dns = 0
        self.fetched: list[tuple[float, str]] = []

    def look_up(
        self, answer: TxtAnswer, outcome: bytes | Failure, chance: float = 0.0
    ) -> StsBranch:
        """The branch that answers, after everything asked in the background has landed."""
        step = flow.begin(self.known, self.now)
        if isinstance(step, Use):
            return step.branch
        self.dns += 1
        landed = flow.on_record(self.known, self.now, answer, TIMING, chance)
        if isinstance(landed, Fetch):
            self.fetched.append((self.now, landed.record_id))
            landed = flow.on_fetch(self.known, self.now, landed.record_id, outcome, TIMING, chance)
        self.known = landed.branch if landed.keep else None
        return landed.branch

    def mode(self, answer: TxtAnswer, outcome: bytes | Failure) -> str | None:
        policy = self.look_up(answer, outcome).policy(self.now)
        return None if policy is None else policy.mode

    def every(
        self, step: float, until: float, answer: TxtAnswer, outcome: bytes | Failure
    ) -> set[str | None]:
        """Look-ups at a steady pace; the modes that they met."""
        modes = set()
        while self.now < until:
            modes.add(self.mode(answer, outcome))
            self.now += step
        return modes


def test_five_minutes_between_failed_fetches_of_an_id() -> None:
    relay = Relay()
    assert relay.every(10.0, NOW + HOUR, record("1"), REFUSED) == {None}
    assert [when - NOW for when, _ in relay.fetched] == [300.0 * i for i in range(12)]
    assert relay.dns == 12


def test_dns_trouble_does_not_shorten_the_five_minutes() -> None:
    relay = Relay()
    relay.known = replace(HELD_FAILED, expires_at=NOW)
    assert relay.mode(TIMEOUT, REFUSED) is None
    relay.now += flow.ERROR_HOLD
    assert relay.mode(record("1"), body()) is None
    assert relay.fetched == []
    relay.now = HELD_FAILED.retry_at
    assert relay.mode(record("1"), body()) == "enforce"


def test_a_new_id_is_fetched_although_the_last_one_failed_just_now() -> None:
    relay = Relay()
    relay.known = HELD_FAILED
    relay.now = relay.known.recheck_at
    relay.known = replace(relay.known, retry_at=relay.now + 4 * MINUTE)
    assert relay.mode(record("2"), body("testing")) == "testing"
    assert relay.fetched == [(relay.now, "2")]


def test_refreshed_daily_under_the_same_id() -> None:
    relay = Relay()
    assert relay.every(10 * MINUTE, NOW + 10 * DAY, record("1"), body()) == {"enforce"}
    assert 10 <= len(relay.fetched) <= 11
    assert relay.dns == pytest.approx(240, abs=10)


def test_a_policy_for_a_day_never_lapses() -> None:
    """With a refresh a day after the fetch it would lapse at the very moment."""
    relay = Relay()
    text = body(max_age=DAY)
    assert relay.every(10 * MINUTE, NOW + 3 * DAY, record("1"), text) == {"enforce"}
    gaps = [b[0] - a[0] for a, b in zip(relay.fetched, relay.fetched[1:], strict=False)]
    assert max(gaps) <= 13 * HOUR


def test_the_same_id_does_not_lengthen_life() -> None:
    """Who holds DNS alone cannot keep a dead policy alive: HTTPS must say it again."""
    relay = Relay()
    relay.look_up(record("1"), body(max_age=2 * DAY))
    assert relay.every(HOUR, NOW + 2 * DAY, record("1"), REFUSED) == {"enforce"}
    assert relay.mode(record("1"), REFUSED) is None


def test_a_changed_file_is_seen_within_a_day_without_a_new_id() -> None:
    relay = Relay()
    relay.look_up(record("1"), body())
    changed = body(mx="new.example.com")
    relay.every(HOUR, NOW + DAY + HOUR, record("1"), changed)
    assert relay.known is not None
    assert relay.known.body == changed


def test_a_new_id_is_seen_within_recheck() -> None:
    relay = Relay()
    relay.look_up(record("1"), body(max_age=30 * DAY))
    relay.now += HOUR
    assert relay.mode(record("2"), body("none")) == "none"


def test_none_is_honoured_at_once_and_may_be_forgotten() -> None:
    relay = Relay()
    relay.look_up(record("1"), body())
    relay.now += HOUR
    assert relay.mode(record("2"), body("none", max_age=DAY)) == "none"
    relay.now += HOUR
    assert relay.mode(GONE, REFUSED) == "none"
    relay.now += DAY
    assert relay.mode(GONE, REFUSED) is None


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (GONE, REFUSED),
        (TIMEOUT, REFUSED),
        (txt("v=STSv1; id=1", "v=STSv1; id=2"), REFUSED),
        (record("1"), REFUSED),
        (record("666"), Failure("tls", "self-signed certificate")),
        (record("666"), b"<html>"),
    ],
)
def test_an_attacker_without_the_policy_host_ends_no_policy(
    answer: TxtAnswer, outcome: bytes | Failure
) -> None:
    relay = Relay()
    relay.look_up(record("1"), body(max_age=7 * DAY))
    relay.now += HOUR
    assert relay.every(HOUR, NOW + 7 * DAY, answer, outcome) == {"enforce"}
    assert relay.mode(answer, outcome) is None  # ... and none outlives max_age
    # What came back is taken at the next look.
    relay.now += HOUR
    assert relay.mode(record("1"), body()) == "enforce"


def test_a_dns_outage_causes_no_fetches() -> None:
    relay = Relay()
    relay.look_up(record("1"), body())
    relay.now += HOUR
    assert relay.every(MINUTE, NOW + 3 * HOUR, TIMEOUT, body()) == {"enforce"}
    assert relay.every(MINUTE, NOW + 6 * HOUR, record("1"), body()) == {"enforce"}
    assert len(relay.fetched) == 1
    assert relay.known is not None
    assert relay.known.failure is None


def test_a_failed_refresh_is_tried_again_after_five_minutes() -> None:
    relay = Relay()
    relay.look_up(record("1"), body())
    relay.now += HOUR
    assert relay.mode(record("2"), REFUSED) == "enforce"
    relay.now += 5 * MINUTE
    assert relay.mode(record("2"), body("testing")) == "testing"
    assert relay.known is not None
    assert relay.known.failure is None


# Any history.

ANSWERS = st.sampled_from(
    [GONE, TIMEOUT, txt("v=STSv1; id=-"), record("1"), record("2"), record("3")]
)
OUTCOMES = st.sampled_from(
    [REFUSED, b"junk", body(max_age=0), body(max_age=300), body("testing", DAY), body("none")]
)


@dataclass(frozen=True)
class Moment:
    wait: float
    answer: TxtAnswer
    outcome: bytes | Failure
    chance: float


MOMENTS = st.builds(
    Moment,
    st.sampled_from([0.0, 1.0, 59.0, 60.0, 299.0, 300.0, 1800.0, HOUR, DAY, 8 * DAY]),
    ANSWERS,
    OUTCOMES,
    st.floats(min_value=0, max_value=1, exclude_max=True),
)


@given(st.lists(MOMENTS, max_size=25))
def test_any_history(history: list[Moment]) -> None:
    relay = Relay()
    failed: tuple[float, str] | None = None  # the fetch that failed last, if none landed since
    for moment in history:
        relay.now += moment.wait
        before, count = relay.known, len(relay.fetched)
        branch = relay.look_up(moment.answer, moment.outcome, moment.chance)
        fetched = relay.fetched[count:]
        landed = False
        for when, record_id in fetched:
            if failed is not None and failed[1] == record_id:
                assert when - failed[0] >= flow.FETCH_RETRY
            landed = branch.failed_id != record_id
            failed = None if landed else (when, record_id)
        if before is not None and before.holds(relay.now) and not landed:
            # Nothing but a policy ends a policy, and nothing but a fetch moves its end.
            assert (branch.body, branch.expires_at) == (before.body, before.expires_at)
        if not landed and (before is None or not before.holds(relay.now)):
            assert branch.policy(relay.now) is None
        # What was settled answers the next look-up without a question, unless it is not kept.
        if relay.known is not None:
            assert flow.begin(branch, relay.now) == Use(branch)
            assert branch.valid_until(relay.now) > relay.now
