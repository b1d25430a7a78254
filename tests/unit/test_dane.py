"""RFC 7672 as tables: from answers to a finding, and what a finding outlives."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd.answers import Answer, DnsError, DnsWhy, Mx, MxAnswer, NoData, Tlsa
from mtastsd.dane import (
    ERROR_RETRY,
    KEEP_UNDER_ERRORS,
    MAX_HOSTS,
    TTL_MAX,
    TTL_MIN,
    WEAK,
    DaneBranch,
    Finding,
    HostReading,
    Hosts,
    HostState,
    NoHosts,
    find,
    mx_hosts,
    settle,
    usable,
)
from mtastsd.names import Domain

D = Domain("example.com")
A, B, C = Domain("a.example.com"), Domain("b.example.com"), Domain("c.example.com")
NOW = 1_700_000_000.0


def mx(*records: Mx, secure: bool = True) -> Answer[Mx]:
    return Answer(records, ttl=300, secure=secure, name=D)


NULL = Mx(0, None, null=True)
NO_HOST = Mx(5, None)  # a target that is no host name

MX_ROWS: list[tuple[str, MxAnswer, Hosts | NoHosts]] = [
    ("one", mx(Mx(10, A)), Hosts((A,), True, 300)),
    ("unsigned", mx(Mx(10, A), secure=False), Hosts((A,), False, 300)),
    (
        "by preference, equals as they came",
        mx(Mx(20, C), Mx(10, B), Mx(10, A)),
        Hosts((B, A, C), True, 300),
    ),
    ("listed twice", mx(Mx(20, A), Mx(10, A), Mx(15, B)), Hosts((A, B), True, 300)),
    ("a target that is no host's", mx(NO_HOST, Mx(10, A)), Hosts((A,), True, 300)),
    ("no target that is a host's", mx(NO_HOST), NoHosts(Finding.NONE, 300)),
    ("null MX", mx(NULL), NoHosts(Finding.NULL_MX, 300)),
    ("null MX, unsigned", mx(NULL, secure=False), NoHosts(Finding.NULL_MX_UNSIGNED, 300)),
    ("null MX beside a host counts for nothing", mx(NULL, Mx(10, A)), Hosts((A,), True, 300)),
    ("no MX: its own", NoData(True, 60, True), Hosts((D,), True, 60, implicit=True)),
    ("no MX, unsigned", NoData(True, 60, False), Hosts((D,), False, 60, implicit=True)),
    ("no such name", NoData(False, 60, True), NoHosts(Finding.NONE, 60)),
]


@pytest.mark.parametrize(("answer", "hosts"), [r[1:] for r in MX_ROWS], ids=[r[0] for r in MX_ROWS])
def test_mx(answer: MxAnswer, hosts: Hosts | NoHosts) -> None:
    assert mx_hosts(D, answer) == hosts


@pytest.mark.parametrize("why", DnsWhy.__args__)  # type: ignore[attr-defined]
def test_no_mx_answer_is_an_error_whatever_the_reason(why: DnsWhy) -> None:
    assert mx_hosts(D, DnsError(why)) == NoHosts(Finding.ERROR)


def test_of_very_many_hosts_the_preferred_ones_are_read() -> None:
    many = [Mx(9999 - i, Domain(f"h{i}.example.com")) for i in range(5000)]
    hosts = mx_hosts(D, mx(*many))
    assert isinstance(hosts, Hosts)
    assert len(hosts.hosts) == MAX_HOSTS
    assert hosts.hosts[0] == "h4999.example.com"


SHA256, SHA512 = bytes(32), bytes(64)


@pytest.mark.parametrize(
    ("record", "good"),
    [
        (Tlsa(3, 1, 1, SHA256), True),
        (Tlsa(3, 0, 1, SHA256), True),
        (Tlsa(3, 1, 2, SHA512), True),
        (Tlsa(3, 1, 0, b"\x30"), True),
        (Tlsa(2, 0, 1, SHA256), True),
        (Tlsa(2, 1, 2, SHA512), True),
        (Tlsa(2, 0, 0, b"\x30"), True),
        (Tlsa(0, 1, 1, SHA256), False),  # PKIX-TA
        (Tlsa(1, 1, 1, SHA256), False),  # PKIX-EE
        (Tlsa(4, 1, 1, SHA256), False),
        (Tlsa(255, 1, 1, SHA256), False),  # PrivCert
        (Tlsa(3, 2, 1, SHA256), False),
        (Tlsa(3, 255, 1, SHA256), False),
        (Tlsa(3, 1, 3, SHA256), False),
        (Tlsa(3, 1, 255, SHA256), False),
        (Tlsa(3, 1, 1, SHA256[1:]), False),
        (Tlsa(3, 1, 1, SHA512), False),
        (Tlsa(3, 1, 2, SHA256), False),
        (Tlsa(3, 1, 0, b""), False),
        (Tlsa(3, 1, 1, b""), False),
    ],
)
def test_usable(record: Tlsa, good: bool) -> None:
    assert usable(record) is good


S = HostState
SIGNED: list[tuple[str, list[HostState], Finding]] = [
    ("one host, usable", [S.USABLE], Finding.ALL),
    ("two hosts, both usable", [S.USABLE, S.USABLE], Finding.ALL),
    ("a host without an address is no host to reach", [S.USABLE, S.UNREACHABLE], Finding.ALL),
    ("usable and none", [S.USABLE, S.NO_TLSA], Finding.SOME),
    ("usable and unsigned address", [S.USABLE, S.INSECURE], Finding.SOME),
    ("usable and unusable", [S.USABLE, S.UNUSABLE], Finding.SOME),
    ("unusable", [S.UNUSABLE], Finding.UNUSABLE),
    ("unusable and none", [S.UNUSABLE, S.NO_TLSA], Finding.UNUSABLE),
    ("unusable and unsigned address", [S.UNUSABLE, S.INSECURE], Finding.UNUSABLE),
    ("unusable and unreachable", [S.UNUSABLE, S.UNREACHABLE], Finding.UNUSABLE),
    ("none", [S.NO_TLSA], Finding.NONE),
    ("unsigned address", [S.INSECURE], Finding.NONE),
    ("none, unsigned address, unreachable", [S.NO_TLSA, S.INSECURE, S.UNREACHABLE], Finding.NONE),
    ("no host reachable", [S.UNREACHABLE, S.UNREACHABLE], Finding.NONE),
    ("no host at all", [], Finding.NONE),
    ("ATTACK: drop all answers", [S.ERROR, S.ERROR], Finding.ERROR),
    ("ATTACK: drop all answers, one host down", [S.ERROR, S.UNREACHABLE], Finding.ERROR),
    # The attacker wants a domain out of DANE and can make single look-ups fail.
    ("ATTACK: drop one host's answers, others usable", [S.USABLE, S.ERROR], Finding.ALL),
    ("ATTACK: the same, a third has none", [S.USABLE, S.ERROR, S.NO_TLSA], Finding.SOME),
    ("ATTACK: drop the only host's with TLSA, rest has none", [S.ERROR, S.NO_TLSA], Finding.ERROR),
    ("ATTACK: the same, rest has an unsigned address", [S.ERROR, S.INSECURE], Finding.ERROR),
    ("ATTACK: drop the usable one's, rest is unusable", [S.ERROR, S.UNUSABLE], Finding.ERROR),
    (
        "ATTACK: the same, rest unusable, none and down",
        [S.ERROR, S.UNUSABLE, S.NO_TLSA, S.UNREACHABLE],
        Finding.ERROR,
    ),
]
UNSIGNED: list[tuple[str, list[HostState], Finding]] = [
    # The attacker forges the MX RRset so that it names a host of his own with TLSA records that
    # match his own certificate; it must never become stronger than what the domain published.
    ("ATTACK: forge MX to a host with usable TLSA", [S.USABLE], Finding.UNSIGNED),
    ("ATTACK: forge MX to a host with unusable TLSA", [S.UNUSABLE], Finding.UNSIGNED),
    ("ATTACK: forge an MX beside the real one", [S.USABLE, S.NO_TLSA], Finding.UNSIGNED),
    ("ATTACK: forge MX to a host without TLSA", [S.NO_TLSA], Finding.NONE),
    ("ATTACK: forge MX to a host whose DNS fails", [S.ERROR], Finding.ERROR),
    ("ATTACK: forge MX to no address", [S.UNREACHABLE], Finding.NONE),
    ("a provider's host with TLSA, one DNS error", [S.USABLE, S.ERROR], Finding.UNSIGNED),
    ("no TLSA, one DNS error", [S.NO_TLSA, S.ERROR], Finding.NONE),
    ("unsigned addresses", [S.INSECURE], Finding.NONE),
]


def readings(states: list[HostState]) -> list[HostReading]:
    return [HostReading(Domain(f"h{i}.example.com"), s, 300) for i, s in enumerate(states)]


def hosts(states: list[HostState], *, secure: bool) -> Hosts:
    return Hosts(tuple(r.host for r in readings(states)), secure, 300)


@pytest.mark.parametrize(("states", "finding"), [r[1:] for r in SIGNED], ids=[r[0] for r in SIGNED])
def test_signed_mx(states: list[HostState], finding: Finding) -> None:
    for order in itertools.permutations(states):
        assert find(hosts(states, secure=True), readings(list(order))) is finding


@pytest.mark.parametrize(
    ("states", "finding"), [r[1:] for r in UNSIGNED], ids=[r[0] for r in UNSIGNED]
)
def test_unsigned_mx(states: list[HostState], finding: Finding) -> None:
    for order in itertools.permutations(states):
        assert find(hosts(states, secure=False), readings(list(order))) is finding


STATES = st.lists(st.sampled_from(list(HostState)), min_size=1, max_size=6)


@given(STATES)
def test_nothing_unsigned_is_a_finding_that_outranks_mta_sts(states: list[HostState]) -> None:
    found = find(hosts(states, secure=False), readings(states))
    assert found in {Finding.UNSIGNED, Finding.NONE, Finding.ERROR}


RANK = {Finding.NONE: 0, Finding.UNUSABLE: 1, Finding.SOME: 2, Finding.ALL: 3}


@given(STATES, st.data())
def test_dropping_answers_never_weakens_what_is_known(
    states: list[HostState], data: st.DataObject
) -> None:
    dropped = [
        S.ERROR if data.draw(st.booleans(), label=f"drop {i}") else s for i, s in enumerate(states)
    ]
    before = settle(None, NOW, find(hosts(states, secure=True), readings(states)), 300)
    attacked = find(hosts(states, secure=True), readings(dropped))
    after = settle(before, NOW + 3600, attacked, 300)
    if before.finding is not Finding.ERROR:
        assert RANK[after.finding] >= RANK[before.finding]


HOUR, DAY = 3600.0, 86400.0
ALL = DaneBranch(Finding.ALL, NOW, NOW + HOUR, NOW + HOUR)


@pytest.mark.parametrize(
    ("ttl", "kept"),
    [(0, TTL_MIN), (59, TTL_MIN), (60, 60), (3600, 3600), (DAY, DAY), (7 * DAY, TTL_MAX)],
)
def test_a_finding_lives_as_long_as_its_answers_within_bounds(ttl: float, kept: float) -> None:
    assert settle(None, NOW, Finding.SOME, ttl) == DaneBranch(
        Finding.SOME, NOW, NOW + kept, NOW + kept
    )


@pytest.mark.parametrize("finding", [f for f in Finding if f is not Finding.ERROR])
def test_a_reading_replaces_what_was_known(finding: Finding) -> None:
    assert settle(ALL, NOW + HOUR, finding, 300).finding is finding
    assert not settle(ALL, NOW + HOUR, finding, 300).failing


def test_errors_with_nothing_known() -> None:
    again = NOW + ERROR_RETRY
    assert settle(None, NOW, Finding.ERROR, 300) == DaneBranch(
        Finding.ERROR, NOW, again, again, failing=True
    )


@pytest.mark.parametrize(
    ("after", "finding"),
    [
        (0, Finding.ALL),
        (HOUR, Finding.ALL),
        (HOUR + KEEP_UNDER_ERRORS - 1, Finding.ALL),
        (HOUR + KEEP_UNDER_ERRORS, Finding.ERROR),
    ],
)
def test_attack_make_dns_fail_until_the_finding_is_forgotten(
    after: float, finding: Finding
) -> None:
    now = NOW + after
    branch = settle(ALL, now, Finding.ERROR, 300)
    assert branch.finding is finding
    assert branch.failing
    assert branch.recheck_at == now + ERROR_RETRY


def test_attack_errors_every_minute_do_not_lengthen_a_findings_life() -> None:
    branch, now = ALL, NOW
    while branch.finding is Finding.ALL:
        assert branch.expires_at == ALL.expires_at
        assert branch.read_at == ALL.read_at
        now = branch.recheck_at
        branch = settle(branch, now, Finding.ERROR, 300)
    assert now - ERROR_RETRY < ALL.expires_at + KEEP_UNDER_ERRORS <= now


def test_a_finding_that_was_an_error_is_not_kept() -> None:
    error = replace(ALL, finding=Finding.ERROR, failing=True)
    assert settle(error, NOW + 60, Finding.ERROR, 300).read_at == NOW + 60


def test_the_weak_findings_are_those_that_protect_nothing() -> None:
    assert set(Finding) - WEAK == {Finding.ALL, Finding.SOME, Finding.UNUSABLE}
