"""RFC 8461 §3.3 and §5.1: each line a row. Histories are in `test_flow_histories`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mtastsd.answers import Answer, DnsError, NoData, TxtAnswer
from mtastsd.sts import flow
from mtastsd.sts.failure import Failure, Kind
from mtastsd.sts.flow import Ask, Fetch, Settled, StsBranch, Timing, Use, UseAndAsk
from mtastsd.timing import SPREAD

NOW = 1_700_000_000.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
TIMING = Timing(recheck=HOUR, refresh=DAY)


def body(mode: str = "enforce", max_age: float = 7 * DAY, mx: str = "mx.example.com") -> bytes:
    return f"version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: {max_age:.0f}\n".encode()


def txt(*records: str, ttl: int = 300) -> TxtAnswer:
    return Answer(tuple(r.encode() for r in records), ttl, False, "_mta-sts.example.com")


def record(record_id: str) -> TxtAnswer:
    return txt(f"v=STSv1; id={record_id};")


GONE = NoData(False, 600, False)
TIMEOUT = DnsError("timeout")
FETCHED = NOW - 10 * MINUTE

HELD = StsBranch(
    record="present",
    checked_at=FETCHED,
    recheck_at=FETCHED + HOUR,
    record_id="1",
    body=body(),
    fetched_at=FETCHED,
    expires_at=FETCHED + 7 * DAY,
)
"""A policy that holds."""

EXPIRED = replace(HELD, fetched_at=NOW - 7 * DAY, expires_at=NOW)
ABSENT = StsBranch("absent", NOW - MINUTE, NOW + 4 * MINUTE)
FAILED = StsBranch(
    record="present",
    checked_at=NOW - MINUTE,
    recheck_at=NOW + 4 * MINUTE,
    record_id="1",
    failure=Failure("status", "404"),
    failed_id="1",
    retry_at=NOW + 4 * MINUTE,
)
"""A record, and a policy that could not be had a minute ago."""

HELD_FAILED = replace(
    HELD, failure=Failure("status", "404"), failed_id="1", retry_at=NOW + 4 * MINUTE
)
"""A policy that holds and could not be renewed a minute ago."""


@pytest.mark.parametrize(
    ("known", "after", "step"),
    [
        (None, 0.0, Ask()),
        (HELD, 0.0, Use(HELD)),
        (HELD, 50 * MINUTE - 1, Use(HELD)),
        (HELD, 50 * MINUTE, UseAndAsk(HELD)),  # recheck has passed: answered at once all the same
        (HELD, 6 * DAY, UseAndAsk(HELD)),
        (HELD, 7 * DAY, Ask()),
        (EXPIRED, -1.0, Use(EXPIRED)),
        (EXPIRED, 0.0, Ask()),  # at max_age, whatever the recheck time says
        (ABSENT, 0.0, Use(ABSENT)),
        (ABSENT, 4 * MINUTE, Ask()),
        (FAILED, 0.0, Use(FAILED)),
        (FAILED, 4 * MINUTE, Ask()),
        (HELD_FAILED, 0.0, Use(HELD_FAILED)),
    ],
)
def test_begin(known: StsBranch | None, after: float, step: Use | UseAndAsk | Ask) -> None:
    assert flow.begin(known, NOW + after) == step


def ask(
    known: StsBranch | None, answer: TxtAnswer, now: float = NOW, *, force: bool = False
) -> Settled | Fetch:
    return flow.on_record(known, now, answer, TIMING, 0.0, force=force)


NOTHING_KNOWN = [None, EXPIRED, ABSENT, FAILED]


@pytest.mark.parametrize("known", NOTHING_KNOWN)
@pytest.mark.parametrize(
    ("answer", "state", "failure", "again"),
    [
        (GONE, "absent", None, 600.0),
        (NoData(True, 0, False), "absent", None, flow.NEGATIVE_MIN),
        (NoData(True, 86400, False), "absent", None, flow.NEGATIVE_MAX),
        (txt("v=spf1 -all", "v=STSv12; id=1"), "absent", None, 300.0),
        (txt(), "absent", None, 300.0),
        (txt("v=STSv1; id=1", "v=STSv1; id=2"), "invalid", Failure("record", "several"), 300.0),
        (txt("v=STSv1;", ttl=900), "invalid", Failure("record", "no-id"), 900.0),
        (txt("v=STSv1; id=a-b"), "invalid", Failure("record", "bad-id"), 300.0),
        (TIMEOUT, "unknown", Failure("dns", "TXT timeout"), flow.ERROR_HOLD),
        (DnsError("servfail"), "unknown", Failure("dns", "TXT servfail"), flow.ERROR_HOLD),
    ],
)
def test_no_record_and_no_policy(
    known: StsBranch | None,
    answer: TxtAnswer,
    state: str,
    failure: Failure | None,
    again: float,
) -> None:
    """RFC 8461 §3.1: deliver as though the domain had not implemented MTA-STS."""
    step = ask(known, answer)
    assert isinstance(step, Settled)
    assert step.keep
    branch = step.branch
    assert branch.policy(NOW) is None
    assert (branch.record, branch.failure) == (state, failure)
    assert branch.recheck_at == branch.valid_until(NOW) == NOW + again
    assert flow.begin(branch, NOW) == Use(branch)


@pytest.mark.parametrize("known", [HELD, HELD_FAILED])
@pytest.mark.parametrize(
    ("answer", "state", "failure", "again"),
    [
        (GONE, "absent", Failure("record", "gone"), 600.0),
        (txt("v=spf1 -all"), "absent", Failure("record", "gone"), 300.0),
        (txt("v=STSv1; id=1", "v=STSv1; id=2"), "invalid", Failure("record", "several"), 300.0),
        (txt("v=STSv1; id=!"), "invalid", Failure("record", "bad-id"), 300.0),
        (TIMEOUT, "present", Failure("dns", "TXT timeout"), 300.0),
    ],
)
def test_no_record_but_a_policy_that_holds(
    known: StsBranch, answer: TxtAnswer, state: str, failure: Failure, again: float
) -> None:
    """RFC 8461 §3.3: the sender MUST apply the cached policy; and it does not live longer."""
    step = ask(known, answer)
    assert isinstance(step, Settled)
    assert step.keep
    branch = step.branch
    assert (branch.record, branch.failure, branch.recheck_at) == (state, failure, NOW + again)
    assert (branch.body, branch.expires_at) == (known.body, known.expires_at)
    assert (branch.failed_id, branch.retry_at) == (known.failed_id, known.retry_at)
    assert branch.policy(NOW) is not None


@pytest.mark.parametrize(
    ("known", "record_id", "after", "fetched"),
    [
        (None, "1", 0.0, True),
        (ABSENT, "1", 0.0, True),
        (EXPIRED, "1", 0.0, True),  # a dead policy is not revived by its id
        (HELD, "1", 0.0, False),
        (HELD, "2", 0.0, True),
        (HELD, "1", DAY - 10 * MINUTE - 1, False),
        (HELD, "1", DAY - 10 * MINUTE, True),  # daily, though the id is the same
        (FAILED, "1", 0.0, False),
        (FAILED, "1", 4 * MINUTE - 1, False),
        (FAILED, "1", 4 * MINUTE, True),
        (FAILED, "2", 0.0, True),  # five minutes for each id
        (HELD_FAILED, "1", 4 * MINUTE - 1, False),
        (HELD_FAILED, "1", 4 * MINUTE, True),
        (HELD_FAILED, "2", 0.0, True),
        # An id whose fetch failed is not the id of the policy that is held.
        (replace(HELD, record_id="2", failed_id="2", retry_at=NOW), "2", 0.0, True),
        # DNS failed, or said that the record was gone: the policy is what it was.
        (replace(HELD, failure=Failure("dns", "TXT timeout")), "1", 0.0, False),
        (replace(HELD, record="absent", failure=Failure("record", "gone")), "1", 0.0, False),
        # A life shorter than the refresh: by half of it.
        (replace(HELD, expires_at=FETCHED + DAY), "1", 11 * HOUR, False),
        (replace(HELD, expires_at=FETCHED + DAY), "1", 12 * HOUR - 10 * MINUTE, True),
        (replace(HELD, expires_at=FETCHED + 22 * MINUTE), "1", 0.0, False),
        (replace(HELD, expires_at=FETCHED + 20 * MINUTE), "1", 0.0, True),
    ],
)
def test_record(known: StsBranch | None, record_id: str, after: float, fetched: bool) -> None:
    now = NOW + after
    step = ask(known, record(record_id), now)
    assert isinstance(step, Fetch) is fetched
    if isinstance(step, Fetch):
        assert step == Fetch(record_id)
        return
    assert known is not None
    assert step.keep
    assert (step.branch.record, step.branch.record_id) == ("present", record_id)
    assert step.branch.checked_at == now
    assert step.branch.holds(now) is known.holds(now)
    if known.holds(now):
        assert (step.branch.body, step.branch.fetched_at, step.branch.expires_at) == (
            known.body,
            known.fetched_at,
            known.expires_at,
        )


@pytest.mark.parametrize("known", [None, HELD, FAILED, HELD_FAILED, ABSENT])
def test_an_operator_may_fetch_at_any_time(known: StsBranch | None) -> None:
    assert ask(known, record("1"), force=True) == Fetch("1")
    assert isinstance(ask(known, GONE, force=True), Settled)


def test_the_same_id_clears_what_dns_did_wrong_and_sets_the_next_look() -> None:
    known = replace(HELD, record="absent", failure=Failure("record", "gone"))
    step = flow.on_record(known, NOW, record("1"), TIMING, 0.5)
    assert step == Settled(
        replace(HELD, checked_at=NOW, recheck_at=NOW + HOUR * (1 - SPREAD / 2), failure=None)
    )


@pytest.mark.parametrize("known", [FAILED, HELD_FAILED])
def test_within_five_minutes_the_next_look_is_when_they_are_over(known: StsBranch) -> None:
    step = ask(known, record("1"))
    assert isinstance(step, Settled)
    assert step.branch.recheck_at == known.retry_at
    assert step.branch.failure == Failure("status", "404")


def test_an_expired_policy_is_dropped_while_its_fetch_is_held_off() -> None:
    """Else each look-up until then would ask DNS anew, and for nothing."""
    known = replace(HELD_FAILED, expires_at=NOW)
    step = ask(known, record("1"))
    assert isinstance(step, Settled)
    assert step.branch.body is None
    assert flow.begin(step.branch, NOW) == Use(step.branch)
    assert step.branch.valid_until(NOW) == known.retry_at


def test_refresh_moments_are_spread() -> None:
    late = NOW + DAY - 10 * MINUTE - 1
    assert isinstance(flow.on_record(HELD, late, record("1"), TIMING, 0.0), Settled)
    assert flow.on_record(HELD, late, record("1"), TIMING, 0.01) == Fetch("1")
    early = FETCHED + DAY * (1 - SPREAD)
    assert isinstance(flow.on_record(HELD, early, record("1"), TIMING, 0.999), Settled)


def land(
    known: StsBranch | None, outcome: bytes | Failure, record_id: str = "2", chance: float = 0.0
) -> Settled:
    return flow.on_fetch(known, NOW, record_id, outcome, TIMING, chance)


@pytest.mark.parametrize("known", [None, ABSENT, FAILED, EXPIRED, HELD, HELD_FAILED])
@pytest.mark.parametrize("mode", ["enforce", "testing", "none"])
def test_a_good_fetch_replaces_all(known: StsBranch | None, mode: str) -> None:
    """A policy of mode `none` too: RFC 8461 §8.3, it takes effect at once."""
    text = body(mode, 30 * DAY, "new.example.com")
    settled = land(known, text, chance=0.5)
    assert settled == Settled(
        StsBranch(
            record="present",
            checked_at=NOW,
            recheck_at=NOW + HOUR * (1 - SPREAD / 2),
            record_id="2",
            body=text,
            fetched_at=NOW,
            expires_at=NOW + 30 * DAY,
        )
    )
    policy = settled.branch.policy(NOW)
    assert policy is not None
    assert (policy.mode, policy.mx) == (mode, ("new.example.com",))


@pytest.mark.parametrize(
    ("max_age", "life", "recheck"),
    [
        (60, MINUTE, 5 * MINUTE),
        (600, 10 * MINUTE, 5 * MINUTE),
        (3600, HOUR, HOUR / 2),
        (86400, DAY, HOUR),
        (31557600, 31557600.0, HOUR),
        (31557601, 31557600.0, HOUR),
        (9999999999, 31557600.0, HOUR),
    ],
)
def test_life_and_recheck(max_age: int, life: float, recheck: float) -> None:
    branch = land(None, body(max_age=max_age)).branch
    assert (branch.expires_at, branch.recheck_at) == (NOW + life, NOW + recheck)
    assert branch.valid_until(NOW) == NOW + min(life, recheck)
    assert branch.holds(NOW + life - 1)
    assert not branch.holds(NOW + life)
    assert branch.policy(NOW + life) is None


@pytest.mark.parametrize("known", [None, HELD])
def test_max_age_0_answers_this_look_up_and_is_not_kept(known: StsBranch | None) -> None:
    settled = land(known, body(max_age=0, mx="new.example.com"))
    assert not settled.keep
    policy = settled.branch.policy(NOW)
    assert policy is not None
    assert policy.mx == ("new.example.com",)
    assert flow.begin(settled.branch, NOW + 1) == Ask()


FAILURES: list[tuple[bytes | Failure, Kind]] = [
    (Failure("dns", "timeout"), "dns"),
    (Failure("address", "127.0.0.1"), "address"),
    (Failure("connect", "refused"), "connect"),
    (Failure("tls", "certificate has expired"), "tls"),
    (Failure("status", "404"), "status"),
    (Failure("status", "500"), "status"),
    (Failure("redirect", "301"), "redirect"),
    (Failure("type", "text/html"), "type"),
    (Failure("size"), "size"),
    (Failure("timeout"), "timeout"),
    (b"", "syntax"),
    (b"version: STSv1\nmode: enforce\nmx: *\nmax_age: 60\n", "syntax"),
    (b"\xff" * 1000, "syntax"),
]


@pytest.mark.parametrize("known", NOTHING_KNOWN)
@pytest.mark.parametrize(("outcome", "kind"), FAILURES)
def test_a_failed_fetch_and_no_policy(
    known: StsBranch | None, outcome: bytes | Failure, kind: Kind
) -> None:
    """RFC 8461 §3.3: deliver as though the domain had not implemented MTA-STS."""
    settled = land(known, outcome)
    branch = settled.branch
    assert settled.keep
    assert branch.policy(NOW) is None
    assert (branch.record, branch.record_id) == ("present", "2")
    assert branch.failure is not None
    assert branch.failure.kind == kind
    assert (branch.failed_id, branch.retry_at) == ("2", NOW + flow.FETCH_RETRY)
    assert branch.recheck_at == branch.valid_until(NOW) == NOW + flow.FETCH_RETRY


@pytest.mark.parametrize("known", [HELD, HELD_FAILED])
@pytest.mark.parametrize(("outcome", "kind"), FAILURES)
def test_a_failed_fetch_and_a_policy_that_holds(
    known: StsBranch, outcome: bytes | Failure, kind: Kind
) -> None:
    """RFC 8461 §3.3: the sender MUST apply the cached policy, and not beyond its life."""
    settled = land(known, outcome)
    branch = settled.branch
    assert settled.keep
    assert (branch.body, branch.fetched_at) == (known.body, known.fetched_at)
    assert branch.expires_at == known.expires_at
    assert branch.failure is not None
    assert branch.failure.kind == kind
    assert (branch.failed_id, branch.retry_at) == ("2", NOW + flow.FETCH_RETRY)
    assert branch.recheck_at == NOW + flow.FETCH_RETRY


def test_a_syntax_failure_names_line_and_text() -> None:
    settled = land(None, b"version: STSv1\nmode: enforce\nmx: *.com\nmax_age: 60\n")
    assert settled.branch.failure == Failure("syntax", "mx-wildcard mx: *.com", 3)
    assert land(None, b"").branch.failure == Failure("syntax", "missing-version")


def test_stored_text_that_no_longer_parses_is_no_policy() -> None:
    assert replace(HELD, body=b"version: STSv9\n").policy(NOW) is None
