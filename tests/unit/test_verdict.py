"""The design's reply table: what holds for a next hop, and why, row by row."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Literal

import pytest

from mtastsd.dane import DaneBranch, Finding
from mtastsd.names import Domain
from mtastsd.sts.failure import Failure
from mtastsd.sts.flow import RecordState, StsBranch
from mtastsd.sts.policy import Mode
from mtastsd.verdict import Action, Minimum, Override, Rules, What, Why, decide

D = Domain("example.com")
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()
MX = ("mail.example.com", "*.example.net")
CHECKED, RECHECK, EXPIRES, DANE_UNTIL = NOW - 600, NOW + 3000, NOW + 80_000, NOW + 2000
PLAIN = Rules()

Pending = Literal["", "pending", "busy"]


def body(mode: Mode, mx: tuple[str, ...] = MX) -> bytes:
    lines = ["version: STSv1", f"mode: {mode}", *(f"mx: {m}" for m in mx), "max_age: 86400"]
    return "".join(line + "\r\n" for line in lines).encode()


def sts(
    mode: Mode | None,
    *,
    record: RecordState = "present",
    expires: float = EXPIRES,
    failure: Failure | None = None,
) -> StsBranch:
    """The MTA-STS side: with a policy of that mode, or with a record alone."""
    return StsBranch(
        record=record,
        checked_at=CHECKED,
        recheck_at=RECHECK,
        record_id="1",
        body=body(mode) if mode is not None else None,
        fetched_at=CHECKED,
        expires_at=expires if mode is not None else 0.0,
        failure=failure,
    )


def dane(finding: Finding) -> DaneBranch:
    return DaneBranch(finding, CHECKED, DANE_UNTIL, DANE_UNTIL)


ENFORCE, TESTING, NONE = sts("enforce"), sts("testing"), sts("none")
NO_RECORD = sts(None, record="absent")
F = Finding

Row = tuple[str, StsBranch | None, Finding | None, What, Why]

ROWS: list[Row] = [
    # MX RRset signed
    ("all hosts usable", NO_RECORD, F.ALL, What.DANE_ONLY, "dane"),
    ("all hosts usable, STS enforces", ENFORCE, F.ALL, What.DANE_ONLY, "dane"),
    ("all hosts usable, STS not known", None, F.ALL, What.DANE_ONLY, "dane"),
    ("some hosts usable", NO_RECORD, F.SOME, What.DANE, "dane-partial"),
    ("some hosts usable, STS tests", TESTING, F.SOME, What.DANE, "dane-partial"),
    ("some hosts usable, STS none", NONE, F.SOME, What.DANE, "dane-partial"),
    ("nothing usable", NO_RECORD, F.UNUSABLE, What.DANE, "dane-partial"),
    ("nothing usable, STS tests", TESTING, F.UNUSABLE, What.DANE, "dane-partial"),
    ("no TLSA, STS enforces", ENFORCE, F.NONE, What.SECURE, "sts-enforce"),
    # MX RRset unsigned
    ("unsigned MX, a host has TLSA", NO_RECORD, F.UNSIGNED, What.DANE, "dane-unsigned-mx"),
    ("the same, STS tests", TESTING, F.UNSIGNED, What.DANE, "dane-unsigned-mx"),
    ("unsigned MX, hosts not read", ENFORCE, F.UNSIGNED_UNREAD, What.SECURE, "sts-enforce"),
    ("the same, policy gone since", NO_RECORD, F.UNSIGNED_UNREAD, What.NOTHING, "no-policy"),
    # DNS errors everywhere, and no finding that is kept
    ("errors on all", NO_RECORD, F.ERROR, What.DANE, "dane-error"),
    (
        "errors on all, STS unknown too",
        sts(None, record="unknown"),
        F.ERROR,
        What.DANE,
        "dane-error",
    ),
    # null MX
    ("null MX", NO_RECORD, F.NULL_MX, What.NOTHING, "null-mx"),
    ("null MX, signed, STS enforces", ENFORCE, F.NULL_MX, What.NOTHING, "null-mx"),
    ("null MX, unsigned", NO_RECORD, F.NULL_MX_UNSIGNED, What.NOTHING, "null-mx"),
    ("null MX, unsigned, STS tests", TESTING, F.NULL_MX_UNSIGNED, What.NOTHING, "null-mx"),
    # MTA-STS alone
    ("STS enforces", ENFORCE, F.NONE, What.SECURE, "sts-enforce"),
    ("STS enforces, DANE off or not known", ENFORCE, None, What.SECURE, "sts-enforce"),
    ("STS tests", TESTING, F.NONE, What.NOTHING, "sts-testing"),
    ("STS none", NONE, F.NONE, What.NOTHING, "sts-none"),
    ("no record", NO_RECORD, F.NONE, What.NOTHING, "no-policy"),
    ("record invalid", sts(None, record="invalid"), F.NONE, What.NOTHING, "sts-invalid"),
    ("record there, no policy to be had", sts(None), F.NONE, What.NOTHING, "sts-failed"),
    ("TXT can't be had", sts(None, record="unknown"), F.NONE, What.NOTHING, "dns-error"),
    ("nothing known at all", None, None, What.NOTHING, "no-policy"),
    # an unexpired policy survives whatever happens to its record and its host
    (
        "fetch failed, policy kept",
        sts("enforce", failure=Failure("timeout")),
        F.NONE,
        What.SECURE,
        "sts-enforce",
    ),
    (
        "record gone, policy kept",
        sts("enforce", record="absent"),
        F.NONE,
        What.SECURE,
        "sts-enforce",
    ),
    (
        "DNS down, policy kept",
        sts("enforce", record="unknown"),
        F.ERROR,
        What.SECURE,
        "sts-enforce",
    ),
    ("policy expired", sts("enforce", expires=NOW), F.NONE, What.NOTHING, "sts-failed"),
]

# Each is the attacker's move against a domain that enforces MTA-STS; he controls the network
# between us and DNS, not the web PKI and no signed zone. None may lead to less than verification.
ATTACKS: list[tuple[str, StsBranch, Finding, What]] = [
    ("forge an MX with TLSA of his own", ENFORCE, F.UNSIGNED, What.SECURE),
    ("forge an MX whose hosts are never read", ENFORCE, F.UNSIGNED_UNREAD, What.SECURE),
    ("forge a null MX", ENFORCE, F.NULL_MX_UNSIGNED, What.SECURE),
    ("forge that the domain has no MX or does not exist", ENFORCE, F.NONE, What.SECURE),
    ("drop all answers of the MX hosts", ENFORCE, F.ERROR, What.SECURE),
    ("leave only the host whose TLSA can't be used", ENFORCE, F.UNUSABLE, What.SECURE),
    # with `OK dane` he would answer for the host that has no TLSA records
    ("answer for the host without TLSA", ENFORCE, F.SOME, What.DANE_ONLY),
    ("forge away the TXT record", sts("enforce", record="absent"), F.NONE, What.SECURE),
    ("forge a broken TXT record", sts("enforce", record="invalid"), F.NONE, What.SECURE),
    ("drop TXT and MX answers", sts("enforce", record="unknown"), F.ERROR, What.SECURE),
]


@pytest.mark.parametrize(
    ("branch", "finding", "what", "why"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS]
)
def test_reply_table(
    branch: StsBranch | None, finding: Finding | None, what: What, why: Why
) -> None:
    verdict = decide(D, branch, dane(finding) if finding else None, None, PLAIN, NOW)
    assert (verdict.what, verdict.why) == (what, why)
    assert verdict.domain == D
    assert verdict.mx == (MX if what is What.SECURE else ())


@pytest.mark.parametrize(
    ("branch", "finding", "what"),
    [r[1:] for r in ATTACKS],
    ids=[f"ATTACK: {r[0]}" for r in ATTACKS],
)
@pytest.mark.parametrize("pending", ["", "pending", "busy"])
def test_attacks_on_a_domain_that_enforces(
    branch: StsBranch, finding: Finding, what: What, pending: Pending
) -> None:
    verdict = decide(D, branch, dane(finding), None, PLAIN, NOW, pending=pending)
    assert verdict.what is what
    assert verdict.enforced


@pytest.mark.parametrize("finding", list(Finding))
def test_mta_sts_never_overrides_dane(finding: Finding) -> None:
    """RFC 8461 §2. What DANE alone would demand is never answered with less."""
    alone = decide(D, NO_RECORD, dane(finding), None, PLAIN, NOW)
    both = decide(D, ENFORCE, dane(finding), None, PLAIN, NOW)
    if alone.what is What.DANE_ONLY:
        assert both.what is What.DANE_ONLY
    if alone.what is What.DANE:
        assert both.what in {What.DANE_ONLY, What.SECURE}


@pytest.mark.parametrize("finding", [f for f in Finding if f is not F.NULL_MX])
@pytest.mark.parametrize("branch", [ENFORCE, TESTING], ids=["enforce", "testing"])
def test_testing_counts_as_enforce_where_the_site_says_so(
    finding: Finding, branch: StsBranch
) -> None:
    rules = Rules(testing="enforce")
    enforced = decide(D, ENFORCE, dane(finding), None, PLAIN, NOW)
    verdict = decide(D, branch, dane(finding), None, rules, NOW)
    assert verdict.what is enforced.what
    assert verdict.mx == enforced.mx
    assert verdict.enforced
    if verdict.what is What.SECURE:
        assert verdict.why == ("sts-enforce" if branch is ENFORCE else "sts-testing-enforced")


@pytest.mark.parametrize(
    ("branch", "mode", "enforced"),
    [(ENFORCE, "enforce", True), (TESTING, "testing", False), (NONE, "none", False)],
)
def test_the_policy_goes_along_whatever_the_verdict(
    branch: StsBranch, mode: str, enforced: bool
) -> None:
    verdict = decide(D, branch, dane(F.ALL), None, PLAIN, NOW)
    assert verdict.policy is not None
    assert verdict.policy.mode == mode
    assert verdict.enforced is enforced


def test_an_expired_policy_does_not_go_along() -> None:
    verdict = decide(D, sts("enforce", expires=NOW), dane(F.ALL), None, PLAIN, NOW)
    assert verdict.policy is None
    assert not verdict.enforced


# -- how long it holds


@pytest.mark.parametrize(
    ("branch", "found", "until"),
    [
        (ENFORCE, dane(F.NONE), DANE_UNTIL),
        (ENFORCE, None, RECHECK),
        (sts("enforce", expires=NOW + 5), None, NOW + 5),
        (NO_RECORD, None, RECHECK),
        (None, dane(F.ALL), DANE_UNTIL),
        (None, None, 0.0),
    ],
)
def test_it_holds_until_the_first_thing_it_rests_on_may_change(
    branch: StsBranch | None, found: DaneBranch | None, until: float
) -> None:
    assert decide(D, branch, found, None, PLAIN, NOW).valid_until == until


@pytest.mark.parametrize("pending", ["pending", "busy"])
def test_what_is_pending_says_so_and_is_not_kept(pending: Pending) -> None:
    def at(branch: StsBranch | None, finding: Finding | None) -> tuple[What, Why, float]:
        found = dane(finding) if finding else None
        verdict = decide(D, branch, found, None, PLAIN, NOW, pending=pending)
        return verdict.what, verdict.why, verdict.valid_until

    assert at(None, None) == (What.NOTHING, pending, 0.0)
    assert at(None, F.NONE) == (What.NOTHING, pending, 0.0)
    assert at(None, F.NULL_MX_UNSIGNED) == (What.NOTHING, pending, 0.0)
    assert at(ENFORCE, None) == (What.SECURE, "sts-enforce", 0.0)
    assert at(None, F.ALL) == (What.DANE_ONLY, "dane", 0.0)
    assert at(None, F.UNSIGNED) == (What.DANE, "dane-unsigned-mx", 0.0)


# -- a site whose own level is above `dane`


@pytest.mark.parametrize(
    ("minimum", "branch", "finding", "what"),
    [
        ("encrypt", NO_RECORD, F.ALL, What.DANE_ONLY),
        ("encrypt", NO_RECORD, F.SOME, What.DANE_ONLY),
        ("encrypt", NO_RECORD, F.UNUSABLE, What.ENCRYPT),
        ("encrypt", NO_RECORD, F.UNSIGNED, What.ENCRYPT),
        ("encrypt", NO_RECORD, F.ERROR, What.ENCRYPT),
        ("encrypt", NO_RECORD, F.NONE, What.NOTHING),  # the site's own level holds
        ("encrypt", ENFORCE, F.NONE, What.SECURE),
        ("encrypt", ENFORCE, F.UNSIGNED, What.SECURE),
        ("secure", NO_RECORD, F.ALL, What.DANE_ONLY),
        ("secure", NO_RECORD, F.SOME, What.DANE_ONLY),
        ("secure", NO_RECORD, F.UNUSABLE, What.SECURE),
        ("secure", NO_RECORD, F.UNSIGNED, What.SECURE),
        ("secure", NO_RECORD, F.ERROR, What.SECURE),
        ("secure", NO_RECORD, F.NONE, What.NOTHING),
        ("secure", ENFORCE, F.NONE, What.SECURE),
    ],
)
def test_minimum(minimum: Minimum, branch: StsBranch, finding: Finding, what: What) -> None:
    verdict = decide(D, branch, dane(finding), None, Rules(minimum=minimum), NOW)
    without = decide(D, branch, dane(finding), None, PLAIN, NOW)
    assert verdict.what is what
    assert verdict.why == (without.why if without.what is what else "minimum")
    # patterns only where a policy enforces; else Postfix matches as the site's own level does
    assert verdict.mx == (MX if branch is ENFORCE and what is What.SECURE else ())


# -- overrides

OWN = ("mx.provider.example",)


@pytest.mark.parametrize(
    ("action", "own", "branch", "finding", "what", "mx"),
    [
        ("off", (), ENFORCE, F.ALL, What.NOTHING, ()),
        ("may", (), ENFORCE, F.ALL, What.MAY, ()),
        ("encrypt", (), ENFORCE, F.ALL, What.ENCRYPT, ()),
        ("secure", OWN, ENFORCE, F.ALL, What.SECURE, OWN),
        ("secure", OWN, NO_RECORD, F.NONE, What.SECURE, OWN),
        ("secure", (), ENFORCE, F.NULL_MX, What.SECURE, MX),
        ("secure", (), TESTING, F.NONE, What.SECURE, MX),
        ("secure", (), NO_RECORD, F.NONE, What.SECURE, ()),
    ],
)
def test_override(
    action: Action,
    own: tuple[str, ...],
    branch: StsBranch,
    finding: Finding,
    what: What,
    mx: tuple[str, ...],
) -> None:
    override = Override(D, action, own, reason="ticket 4711")
    for minimum in ("", "secure"):  # an operator's word for one domain beats the site's own
        verdict = decide(D, branch, dane(finding), override, Rules(minimum=minimum), NOW)
        assert (verdict.what, verdict.why, verdict.mx) == (what, "override", mx)
        assert verdict.reason == "ticket 4711"
        assert verdict.valid_until == DANE_UNTIL


@pytest.mark.parametrize(
    ("at", "holds"),
    [
        (datetime(2026, 12, 31, 0, 0, 0, tzinfo=UTC), True),
        (datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), True),
        (datetime(2027, 1, 1, 0, 0, 0, tzinfo=UTC), False),
    ],
)
def test_until_is_inclusive_and_utc(at: datetime, holds: bool) -> None:
    override = Override(D, "may", until=date(2026, 12, 31))
    verdict = decide(D, NO_RECORD, None, override, PLAIN, at.timestamp())
    assert (verdict.why == "override") is holds


@pytest.mark.parametrize("day", [date(2028, 2, 28), date(2028, 2, 29), date(2027, 2, 28)])
def test_an_override_ends_where_the_next_day_begins(day: date) -> None:
    ends = Override(D, "off", until=day).ends_at()
    assert ends % 86400 == 0
    assert datetime.fromtimestamp(ends - 1, UTC).date() == day


def test_a_verdict_does_not_outlive_the_override() -> None:
    today = datetime.fromtimestamp(NOW, UTC).date()
    override = Override(D, "may", until=today)
    late = override.ends_at() - 10
    branch = StsBranch("absent", late, late + 3000)
    assert decide(D, branch, None, override, PLAIN, late).valid_until == late + 10
    assert decide(D, branch, None, override, PLAIN, late, pending="pending").valid_until == 0.0


@pytest.mark.parametrize("until", [None, date.max])
def test_an_override_without_an_end(until: date | None) -> None:
    override = Override(D, "may", until=until)
    assert override.ends_at() == float("inf")
    assert decide(D, NO_RECORD, None, override, PLAIN, NOW).valid_until == RECHECK


# -- what people read


@pytest.mark.parametrize(
    ("branch", "found", "detail"),
    [
        (None, None, ""),
        (ENFORCE, None, ""),
        (None, dane(F.UNSIGNED), "dane=unsigned"),
        (sts(None, failure=Failure("status", "404")), dane(F.NONE), "dane=none status: 404"),
    ],
)
def test_detail(branch: StsBranch | None, found: DaneBranch | None, detail: str) -> None:
    assert decide(D, branch, found, None, PLAIN, NOW).detail == detail
