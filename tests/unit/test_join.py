"""A session and the verdict answered for it, to what is counted: the design's table by rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mtastsd.answers import DnsError
from mtastsd.dane import DaneBranch
from mtastsd.dane import Finding as Dane
from mtastsd.names import Domain
from mtastsd.sts import flow
from mtastsd.sts.failure import Failure
from mtastsd.sts.flow import RecordState, StsBranch
from mtastsd.sts.policy import Mode
from mtastsd.tlsrpt import session as sessions
from mtastsd.tlsrpt.join import join
from mtastsd.tlsrpt.reasons import settle
from mtastsd.tlsrpt.session import Detail, PolicyKey, PolicyType, ResultType, Session
from mtastsd.tlsrpt.tally import UNKNOWN, Counted
from mtastsd.verdict import Action, Override, Rules, Verdict, decide

D = Domain("example.com")
NOW = 1_780_000_000.0
R = ResultType

MX = ("mail.example.com", "*.example.net")


def lines(mode: Mode, mx: tuple[str, ...] = MX) -> tuple[str, ...]:
    return ("version: STSv1", f"mode: {mode}", *(f"mx: {m}" for m in mx), "max_age: 86400")


def branch(
    mode: Mode | None, failure: Failure | None = None, record: RecordState = "present"
) -> StsBranch:
    body = None if mode is None else "".join(f"{line}\n" for line in lines(mode)).encode()
    return StsBranch(
        record=record,
        checked_at=NOW,
        recheck_at=NOW + 3600,
        record_id="1",
        body=body,
        fetched_at=NOW,
        expires_at=NOW + 86400 if body else 0.0,
        failure=failure,
    )


def verdict(
    sts: StsBranch | None,
    dane: Dane | None = None,
    override: Override | None = None,
    rules: Rules | None = None,
) -> Verdict:
    found = None if dane is None else DaneBranch(dane, NOW, NOW + 60, NOW + 60)
    return decide(D, sts, found, override, rules or Rules(), NOW)


def override(action: Action, mx: tuple[str, ...] = ()) -> Override:
    return Override(D, action, mx)


STS_ENFORCE = PolicyKey("sts", D, lines("enforce"), MX)
STS_TESTING = PolicyKey("sts", D, lines("testing"), MX)
STS_BARE = PolicyKey("sts", D)
NOTHING = PolicyKey("no-policy-found", D)
HOST = Domain("mx.example.com")
TLSA = PolicyKey("tlsa", HOST, ("3 1 1 AB",))

ENFORCE, TESTING = verdict(branch("enforce")), verdict(branch("testing"))
FETCH = verdict(branch(None, Failure("timeout", "after 60 s")))

EXPIRED = Detail(R.CERTIFICATE_EXPIRED, "192.0.2.1", HOST, "198.51.100.7", HOST)
HANDSHAKE = replace(EXPIRED, result=R.VALIDATION_FAILURE, reason="tls-handshake-failure")
MISMATCH = Detail(
    R.VALIDATION_FAILURE, "", "mx.example.org", "198.51.100.9", "", "mtasts-policy-mx-mismatch"
)


def said(policy: PolicyKey = NOTHING, *details: Detail, success: bool | None = None) -> Session:
    """A datagram."""
    return Session(NOW, D, policy, not details if success is None else success, details)


def logged(
    host: str = "", ip: str = "", *details: Detail, policy: PolicyKey = NOTHING, counts: bool = True
) -> Session:
    return Session(NOW, D, policy, not details, details, host, ip, "log", counts)


GOOD_MX, BAD_MX = ("a.example.net", "198.51.100.7"), ("mx.example.org", "198.51.100.9")

Row = tuple[str, Session, Verdict | None, tuple[Counted, ...]]

ONE_SOURCE: list[Row] = [
    # Postfix said tlsa or sts
    ("tlsa", said(TLSA), None, (Counted(TLSA, 1),)),
    ("tlsa failed", said(TLSA, EXPIRED), None, (Counted(TLSA, 0, 1, (EXPIRED,)),)),
    ("tlsa, enforce beside", said(TLSA), ENFORCE, (Counted(TLSA, 1), Counted(STS_ENFORCE))),
    ("tlsa, testing beside", said(TLSA), TESTING, (Counted(TLSA, 1), Counted(STS_TESTING))),
    ("tlsa, none beside", said(TLSA), verdict(branch("none")), (Counted(TLSA, 1),)),
    ("tlsa, fetch failed", said(TLSA), FETCH, (Counted(TLSA, 1),)),
    (
        "tlsa failed, enforce beside",
        said(TLSA, EXPIRED),
        ENFORCE,
        (Counted(TLSA, 0, 1, (EXPIRED,)), Counted(STS_ENFORCE)),
    ),
    ("sts", said(STS_ENFORCE), ENFORCE, (Counted(STS_ENFORCE, 1),)),
    ("sts, whatever answered", said(STS_ENFORCE), None, (Counted(STS_ENFORCE, 1),)),
    ("sts, now testing", said(STS_ENFORCE), TESTING, (Counted(STS_ENFORCE, 1),)),
    (
        "sts, DANE beside is not listed",
        said(STS_ENFORCE, EXPIRED),
        verdict(branch("enforce"), Dane.UNSIGNED),
        (Counted(STS_ENFORCE, 0, 1, (EXPIRED,)),),
    ),
    ("sts without strings", said(STS_BARE), ENFORCE, (Counted(STS_ENFORCE, 1),)),
    ("sts without strings or ours", said(STS_BARE), None, (Counted(STS_BARE, 1),)),
    (
        "recovered: both a success and a detail",
        said(STS_ENFORCE, EXPIRED, success=True),
        ENFORCE,
        (Counted(STS_ENFORCE, 1, 0, (EXPIRED,)),),
    ),
    ("failed and said no more", said(TLSA, success=False), None, (Counted(TLSA, 0, 1),)),
    # enforce, without attributes
    ("enforce", said(), ENFORCE, (Counted(STS_ENFORCE, 1),)),
    ("enforce failed", said(NOTHING, EXPIRED), ENFORCE, (Counted(STS_ENFORCE, 0, 1, (EXPIRED,)),)),
    ("enforce, from a log", logged(*GOOD_MX), ENFORCE, (Counted(STS_ENFORCE, 1),)),
    (
        "a testing policy that is enforced here",
        said(),
        verdict(branch("testing"), rules=Rules(testing="enforce")),
        (Counted(STS_TESTING, 1),),
    ),
    (
        "secure by override, with the policy's hosts",
        said(),
        verdict(branch("enforce"), override=override("secure")),
        (Counted(STS_ENFORCE, 1),),
    ),
    (
        "secure by override, with others",
        said(),
        verdict(branch("enforce"), override=override("secure", ("x.example",))),
        (Counted(NOTHING, 1),),
    ),
    (
        "off by override",
        said(),
        verdict(branch("enforce"), override=override("off")),
        (Counted(NOTHING, 1),),
    ),
    (
        "may by override",
        said(),
        verdict(branch("testing"), override=override("may")),
        (Counted(NOTHING, 1),),
    ),
    # testing
    ("testing", said(), TESTING, (Counted(STS_TESTING, unjudged=(UNKNOWN,)),)),
    (
        "testing, MX known",
        logged(*GOOD_MX),
        TESTING,
        (Counted(STS_TESTING, unjudged=(UNKNOWN, GOOD_MX)),),
    ),
    (
        "testing, failed all the same",
        said(NOTHING, HANDSHAKE),
        TESTING,
        (Counted(STS_TESTING, 0, 1, (HANDSHAKE,)),),
    ),
    (
        "testing, recovered",
        said(NOTHING, HANDSHAKE, success=True),
        TESTING,
        (Counted(STS_TESTING, details=(HANDSHAKE,), unjudged=(UNKNOWN,)),),
    ),
    (
        "testing beside partial DANE, a host without TLSA",
        said(),
        verdict(branch("testing"), Dane.SOME),
        (Counted(STS_TESTING, unjudged=(UNKNOWN,)),),
    ),
    # a record, and no policy to be had
    (
        "fetch",
        said(),
        FETCH,
        (Counted(STS_BARE, 1, 0, (Detail(R.STS_POLICY_FETCH_ERROR, reason="timeout"),)),),
    ),
    (
        "fetch, and the session failed",
        said(NOTHING, HANDSHAKE),
        FETCH,
        (Counted(STS_BARE, 0, 1, (HANDSHAKE, Detail(R.STS_POLICY_FETCH_ERROR, reason="timeout"))),),
    ),
    (
        "webpki",
        said(),
        verdict(branch(None, Failure("tls", "certificate has expired"))),
        (Counted(STS_BARE, 1, 0, (Detail(R.STS_WEBPKI_INVALID, reason="tls"),)),),
    ),
    (
        "policy invalid",
        said(),
        verdict(branch(None, Failure("syntax", "bad-mode mode: Enforce", 2))),
        (Counted(STS_BARE, 1, 0, (Detail(R.STS_POLICY_INVALID, reason="bad-mode"),)),),
    ),
    (
        "policy invalid, without a word",
        said(),
        verdict(branch(None, Failure("syntax"))),
        (Counted(STS_BARE, 1, 0, (Detail(R.STS_POLICY_INVALID, reason="syntax"),)),),
    ),
    (
        "record invalid",
        said(),
        verdict(branch(None, Failure("record", "several"), "invalid")),
        (Counted(STS_BARE, 1, 0, (Detail(R.STS_POLICY_INVALID, reason="several"),)),),
    ),
    (
        "fetch, beside DANE that found nothing on this host",
        said(),
        verdict(branch(None, Failure("status", "404")), Dane.SOME),
        (Counted(STS_BARE, 1, 0, (Detail(R.STS_POLICY_FETCH_ERROR, reason="status"),)),),
    ),
    (
        "fetch, and off by override",
        said(),
        verdict(branch(None, Failure("status", "404")), override=override("off")),
        (Counted(NOTHING, 1),),
    ),
    (
        "the policy host's address, as against the record's look-up below",
        said(),
        verdict(branch(None, Failure("dns", "A timeout"))),
        (Counted(STS_BARE, 1, 0, (Detail(R.STS_POLICY_FETCH_ERROR, reason="dns"),)),),
    ),
    # nothing
    ("nothing answered", said(), None, (Counted(NOTHING, 1),)),
    ("nothing, failed", said(NOTHING, HANDSHAKE), None, (Counted(NOTHING, 0, 1, (HANDSHAKE,)),)),
    ("no record", said(), verdict(branch(None, record="absent")), (Counted(NOTHING, 1),)),
    (
        "first contact",
        said(),
        decide(D, None, None, None, Rules(), NOW, pending="pending"),
        (Counted(NOTHING, 1),),
    ),
    ("mode none", said(), verdict(branch("none")), (Counted(NOTHING, 1),)),
    (
        "dane-only, and Postfix found no TLSA",
        said(),
        verdict(branch("enforce"), Dane.ALL),
        (Counted(NOTHING, 1),),
    ),
    (
        "policy domain not named",
        said(PolicyKey("no-policy-found", Domain(""))),
        None,
        (Counted(NOTHING, 1),),
    ),
    (
        "no-policy-found with strings",
        said(replace(NOTHING, strings=("x",), mx=("y",))),
        None,
        (Counted(NOTHING, 1),),
    ),
    # DANE, from a log
    (
        "dane-only",
        logged(HOST, "198.51.100.7"),
        verdict(branch("enforce"), Dane.ALL),
        (Counted(PolicyKey("tlsa", HOST), 1), Counted(STS_ENFORCE)),
    ),
    (
        "dane-only, no MX named",
        logged("", "", EXPIRED),
        verdict(None, Dane.ALL),
        (Counted(PolicyKey("tlsa", D), 0, 1, (EXPIRED,)),),
    ),
    (
        "unusable records at dane",
        logged(HOST, "", Detail(R.TLSA_INVALID)),
        verdict(None, Dane.UNUSABLE),
        (Counted(PolicyKey("tlsa", HOST), 0, 1, (Detail(R.TLSA_INVALID),)),),
    ),
    ("opportunistic DANE", logged(HOST), verdict(None, Dane.SOME), (Counted(NOTHING, 1),)),
    # an MX host that no pattern lists
    (
        "no session followed",
        logged(*BAD_MX, MISMATCH),
        ENFORCE,
        (Counted(STS_ENFORCE, 0, 1, (MISMATCH,)),),
    ),
    (
        "a session followed",
        logged(*BAD_MX, MISMATCH, counts=False),
        ENFORCE,
        (Counted(STS_ENFORCE, 0, 0, (MISMATCH,)),),
    ),
    (
        "of a policy that is gone by now",
        logged(*BAD_MX, MISMATCH, counts=False),
        FETCH,
        (Counted(STS_BARE, 0, 0, (MISMATCH,)),),
    ),
]


@pytest.mark.parametrize(
    ("given", "answered", "counted"), [r[1:] for r in ONE_SOURCE], ids=[r[0] for r in ONE_SOURCE]
)
def test_with_one_source(
    given: Session, answered: Verdict | None, counted: tuple[Counted, ...]
) -> None:
    assert join(given, answered, both=False) == counted


@pytest.mark.parametrize(
    ("given", "answered"), [r[1:3] for r in ONE_SOURCE], ids=[r[0] for r in ONE_SOURCE]
)
def test_a_session_stands_in_one_summary(given: Session, answered: Verdict | None) -> None:
    counted = join(given, answered, both=False)
    assert in_summaries(counted) == int(given.counts)
    assert len({c.key for c in counted}) == len(counted)


# -- both sources


def in_summaries(*told: tuple[Counted, ...]) -> int:
    return sum(
        c.successes + c.failures + c.unjudged.count(UNKNOWN) for counted in told for c in counted
    )


VERDICTS = {
    "nothing": None,
    "enforce": ENFORCE,
    "testing": TESTING,
    "fetch failed": FETCH,
    "dane-only": verdict(None, Dane.ALL),
    "dane-only beside testing": verdict(branch("testing"), Dane.ALL),
    "dane beside testing": verdict(branch("testing"), Dane.SOME),
    "off": verdict(branch("testing"), override=override("off")),
}


@pytest.mark.parametrize("policy", [NOTHING, TLSA, STS_ENFORCE], ids=lambda k: str(k.type))
@pytest.mark.parametrize("then", VERDICTS.values(), ids=list(VERDICTS))
@pytest.mark.parametrize("before", VERDICTS.values(), ids=list(VERDICTS))
@pytest.mark.parametrize("details", [(), (EXPIRED,)], ids=["success", "failure"])
def test_told_twice_and_counted_once(
    policy: PolicyKey, before: Verdict | None, then: Verdict | None, details: tuple[Detail, ...]
) -> None:
    """Whatever Postfix said, and whatever the verdict was when each of the two was read."""
    by_datagram = join(said(policy, *details), before, both=True)
    by_log = join(logged(*GOOD_MX, *details), then, both=True)
    assert in_summaries(by_datagram) == 1
    assert in_summaries(by_log) == 0
    assert not any(c.details for c in by_log)


def test_the_log_saw_the_host_in_testing_mode() -> None:
    assert join(said(), TESTING, both=True) == (Counted(STS_TESTING, unjudged=(UNKNOWN,)),)
    log = logged(*GOOD_MX)
    assert join(log, TESTING, both=True) == (Counted(STS_TESTING, unjudged=(GOOD_MX,)),)
    assert join(logged(), TESTING, both=True) == ()


def test_failures_in_testing_mode_come_with_their_datagram() -> None:
    counted = (Counted(STS_TESTING, 0, 1, (HANDSHAKE,)),)
    assert join(said(NOTHING, HANDSHAKE), TESTING, both=True) == counted
    assert join(logged(*GOOD_MX, HANDSHAKE), TESTING, both=True) == ()


NO_STARTTLS = Detail(R.STARTTLS_NOT_SUPPORTED, mx_host=GOOD_MX[0], mx_ip=GOOD_MX[1])


@pytest.mark.parametrize(
    ("given", "answered", "counted"),
    [
        (
            logged(*BAD_MX, MISMATCH),
            ENFORCE,
            Counted(STS_ENFORCE, 0, 1, (MISMATCH,)),
        ),
        (
            logged(*BAD_MX, MISMATCH, counts=False),
            ENFORCE,
            Counted(STS_ENFORCE, 0, 0, (MISMATCH,)),
        ),
        (
            logged(HOST, "", Detail(R.DANE_REQUIRED)),
            verdict(None, Dane.ALL),
            Counted(PolicyKey("tlsa", HOST), 0, 1, (Detail(R.DANE_REQUIRED),)),
        ),
        (
            logged(HOST, "", Detail(R.DNSSEC_INVALID)),
            None,
            Counted(NOTHING, 0, 1, (Detail(R.DNSSEC_INVALID),)),
        ),
        (
            replace(logged(*GOOD_MX, NO_STARTTLS), log_only=True),
            TESTING,
            Counted(STS_TESTING, 0, 1, (NO_STARTTLS,)),
        ),
        (
            replace(logged(*GOOD_MX), log_only=True),
            TESTING,
            Counted(STS_TESTING, unjudged=(UNKNOWN, GOOD_MX)),
        ),
    ],
)
def test_what_the_log_alone_tells(
    given: Session, answered: Verdict | None, counted: Counted
) -> None:
    assert join(given, answered, both=True)[0] == counted


def test_details_that_count_for_no_session_stay_details_in_testing() -> None:
    given = replace(said(NOTHING, HANDSHAKE, success=True), counts=False)
    assert join(given, TESTING, both=False) == (Counted(STS_TESTING, details=(HANDSHAKE,)),)


def test_a_record_that_could_not_be_looked_up_is_no_failed_policy() -> None:
    """Held against the flow itself, whose failure says which look-up it was."""
    answer = DnsError("timeout")
    step = flow.on_record(None, NOW, answer, flow.Timing(), 0.0)
    assert isinstance(step, flow.Settled)
    assert step.branch.failure is not None
    for dane in (None, Dane.SOME, Dane.UNSIGNED):
        answered = verdict(step.branch, dane)
        assert join(said(), answered, both=False) == (Counted(NOTHING, 1),)


# -- keys


@pytest.mark.parametrize(
    ("strings", "normal"),
    [
        (("3 1 1 AB", "2 1 1 CD"), ("2 1 1 CD", "3 1 1 AB")),
        (("3 1 1 ab", "3 1 1 AB"), ("3 1 1 AB",)),
        (("3  1 1  AB CD ",), ("3 1 1 ABCD",)),
        (("3 1 1", "x"), ("3 1 1", "x")),
        (("3 1 1 xyz",), ("3 1 1 xyz",)),
        ((), ()),
        (("3 1 1 " + " " * 20_000 + "z",), ("3 1 1 " + " " * 20_000 + "z",)),
    ],
)
def test_equal_tlsa_sets_are_one_policy(strings: tuple[str, ...], normal: tuple[str, ...]) -> None:
    (counted,) = join(said(PolicyKey("tlsa", HOST, strings)), None, both=False)
    assert counted.key == PolicyKey("tlsa", HOST, normal)


@pytest.mark.parametrize("policy_type", ["sts", "tlsa", "no-policy-found"])
def test_a_policy_domain_that_is_not_named_is_the_recipients(policy_type: PolicyType) -> None:
    (counted,) = join(said(PolicyKey(policy_type, Domain(""))), None, both=False)
    assert counted.key == PolicyKey(policy_type, D)


def test_long_policies_are_bounded() -> None:
    many = tuple(f"mx{n}.example.com" for n in range(1000))
    body = "".join(f"{line}\n" for line in lines("enforce", many)).encode()
    (counted,) = join(said(), verdict(replace(branch("enforce"), body=body)), both=False)
    assert counted.key.mx == many[: sessions.MAX_STRINGS]
    assert counted.key.strings == lines("enforce", many)[: sessions.MAX_STRINGS]


def test_wide_policies_are_bounded() -> None:
    texts = ["x" * 1000] * 40
    assert sessions.bounded(texts) == ("x" * 1000,) * (sessions.MAX_STRINGS_SIZE // 1000)
    assert sessions.bounded(["x" * sessions.MAX_STRINGS_SIZE]) != ()
    assert sessions.bounded(["x" * (sessions.MAX_STRINGS_SIZE + 1), "y"]) == ()


# -- results and reasons

X = "X509_V_ERR_"


@pytest.mark.parametrize(
    ("result", "reason", "settled", "word"),
    [
        (
            R.VALIDATION_FAILURE,
            "self-signed_certificate",
            R.CERTIFICATE_NOT_TRUSTED,
            X + "DEPTH_ZERO_SELF_SIGNED_CERT",
        ),
        (
            R.VALIDATION_FAILURE,
            "self_signed_certificate",
            R.CERTIFICATE_NOT_TRUSTED,
            X + "DEPTH_ZERO_SELF_SIGNED_CERT",
        ),
        (
            R.VALIDATION_FAILURE,
            "self-signed_certificate_in_certificate_chain",
            R.CERTIFICATE_NOT_TRUSTED,
            X + "SELF_SIGNED_CERT_IN_CHAIN",
        ),
        (
            R.VALIDATION_FAILURE,
            "unable_to_get_local_issuer_certificate",
            R.CERTIFICATE_NOT_TRUSTED,
            X + "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
        ),
        (
            R.VALIDATION_FAILURE,
            "certificate_is_not_yet_valid",
            R.VALIDATION_FAILURE,
            X + "CERT_NOT_YET_VALID",
        ),
        (
            R.VALIDATION_FAILURE,
            "certificate_has_expired",
            R.CERTIFICATE_EXPIRED,
            X + "CERT_HAS_EXPIRED",
        ),
        (
            R.VALIDATION_FAILURE,
            "proxy_path_length_constraint_exceeded",
            R.VALIDATION_FAILURE,
            X + "PROXY_PATH_LENGTH_EXCEEDED",
        ),
        (
            R.VALIDATION_FAILURE,
            X + "INVALID_PURPOSE",
            R.CERTIFICATE_NOT_TRUSTED,
            X + "INVALID_PURPOSE",
        ),
        (
            R.CERTIFICATE_HOST_MISMATCH,
            "certificate_has_expired",
            R.CERTIFICATE_HOST_MISMATCH,
            X + "CERT_HAS_EXPIRED",
        ),
        (
            R.VALIDATION_FAILURE,
            "tls-handshake-failure",
            R.VALIDATION_FAILURE,
            "tls-handshake-failure",
        ),
        (R.VALIDATION_FAILURE, "libtlsrpt-code-999", R.VALIDATION_FAILURE, "libtlsrpt-code-999"),
        (R.VALIDATION_FAILURE, "some_new_text", R.VALIDATION_FAILURE, "some_new_text"),
        (
            R.STARTTLS_NOT_SUPPORTED,
            "smtp-starttls-reply-code-454",
            R.STARTTLS_NOT_SUPPORTED,
            "smtp-starttls-reply-code-454",
        ),
        (R.CERTIFICATE_NOT_TRUSTED, "", R.CERTIFICATE_NOT_TRUSTED, ""),
    ],
)
def test_reasons(result: ResultType, reason: str, settled: ResultType, word: str) -> None:
    given = replace(EXPIRED, result=result, reason=reason)
    wanted = replace(EXPIRED, result=settled, reason=word)
    assert settle(given) == wanted
    assert settle(wanted) == wanted
    (counted,) = join(said(STS_ENFORCE, given), None, both=False)
    assert counted.details == (wanted,)


def test_one_detail_twice_is_one_session() -> None:
    (counted,) = join(said(STS_ENFORCE, EXPIRED, EXPIRED), None, both=False)
    assert counted == Counted(STS_ENFORCE, 0, 1, (EXPIRED,))
