"""Would a delivery go through: verdict by host by probe, a table."""

from __future__ import annotations

import hashlib
from itertools import permutations

import pytest

from mtastsd.answers import Tlsa
from mtastsd.dane import HostReading, HostState
from mtastsd.names import Domain
from mtastsd.outlook import Outlook, best, outlook
from mtastsd.probing import ChainCertificate, Probe, Stage, Tls, Trouble
from mtastsd.verdict import Verdict, What

DOMAIN = Domain("example.com")
HOST = Domain("mx.example.com")
NOW = 1_790_000_000.0

LEAF, ISSUER = b"leaf", b"issuer"
CHAIN = (
    ChainCertificate(LEAF, NOW - 10, NOW + 10, True),
    ChainCertificate(ISSUER, NOW - 10, NOW + 10),
)
EE = Tlsa(3, 0, 1, hashlib.sha256(LEAF).digest())
TA = Tlsa(2, 0, 1, hashlib.sha256(ISSUER).digest())
OTHER = Tlsa(3, 0, 1, b"\x01" * 32)


def verdict(what: What, *mx: str) -> Verdict:
    return Verdict(DOMAIN, what, "override", NOW, mx)


def host(state: HostState, *records: Tlsa) -> HostReading:
    return HostReading(HOST, state, 300, records, HOST)


def probe(
    stage: Stage = Stage.DONE,
    trouble: Trouble | None = None,
    *,
    code: int = 0,
    tls: Tls | None = None,
) -> Probe:
    return Probe(HOST, "192.0.2.1", stage, trouble, code=code, tls=tls)


def tls(verify: int = 0, *names: str, whole: bool = True) -> Probe:
    return probe(tls=Tls(verify, chain=CHAIN, names=names or (HOST,), whole=whole))


GOOD = tls()
EXPIRED = tls(10)
NOT_YET = tls(9)
SELF_SIGNED = tls(18)
OTHER_NAME = tls(0, "mx.example.net")
UNSEEN = probe(Stage.HANDSHAKE, "tls", tls=Tls(18))
PLAIN = probe(Stage.EHLO, "no-starttls")
REFUSED = probe(Stage.STARTTLS, "starttls-refused", code=454)
BROKEN = probe(Stage.HANDSHAKE, "tls")
AWAY = probe(Stage.CONNECT, "timeout")
BUSY = probe(Stage.BANNER, "reply", code=421)
CUT = probe(Stage.SECOND_EHLO, "closed", tls=GOOD.tls)

NOTHING = verdict(What.NOTHING)
MAY = verdict(What.MAY)
ENCRYPT = verdict(What.ENCRYPT)
SECURE = verdict(What.SECURE, HOST)
WILD = verdict(What.SECURE, "*.example.com")
ELSEWHERE = verdict(What.SECURE, "mail.example.net", "*.mx.example.com")
UNLISTED = verdict(What.SECURE)
DANE = verdict(What.DANE)
ONLY = verdict(What.DANE_ONLY)

PLAIN_HOST = host(HostState.NO_TLSA)
UNSIGNED = host(HostState.INSECURE)
UNUSABLE = host(HostState.UNUSABLE, Tlsa(1, 1, 1, b"\x01" * 32))
LOST = host(HostState.ERROR)
GONE = host(HostState.UNREACHABLE)
SIGNED = host(HostState.USABLE, EE)
ANCHORED = host(HostState.USABLE, TA)
MISMATCHED = host(HostState.USABLE, OTHER)

CERTIFICATE_REQUIRED = "X509_V_ERR_HOSTNAME_MISMATCH"

TABLE: list[tuple[Verdict, HostReading, Probe | None, Outlook]] = [
    # nothing is asked for
    (NOTHING, PLAIN_HOST, GOOD, Outlook(True, "opportunistic")),
    (NOTHING, PLAIN_HOST, EXPIRED, Outlook(True, "opportunistic")),
    (NOTHING, PLAIN_HOST, UNSEEN, Outlook(True, "opportunistic")),
    (MAY, PLAIN_HOST, PLAIN, Outlook(True, "plaintext")),
    (MAY, PLAIN_HOST, REFUSED, Outlook(True, "plaintext", "smtp-starttls-reply-code-454")),
    (MAY, PLAIN_HOST, BROKEN, Outlook(True, "plaintext", "tls-handshake-failure")),
    (MAY, PLAIN_HOST, AWAY, Outlook(None, "unreachable")),
    (MAY, PLAIN_HOST, None, Outlook(None, "not-probed")),
    (MAY, GONE, None, Outlook(False, "no-address")),
    # encryption
    (ENCRYPT, PLAIN_HOST, SELF_SIGNED, Outlook(True, "encrypted")),
    (ENCRYPT, PLAIN_HOST, PLAIN, Outlook(False, "no-starttls")),
    (ENCRYPT, PLAIN_HOST, REFUSED,
     Outlook(False, "starttls-refused", "smtp-starttls-reply-code-454")),
    (ENCRYPT, PLAIN_HOST, BROKEN, Outlook(False, "handshake", "tls-handshake-failure")),
    (ENCRYPT, PLAIN_HOST, UNSEEN, Outlook(None, "no-certificate")),
    # a policy that enforces
    (SECURE, PLAIN_HOST, GOOD, Outlook(True, "verified")),
    (WILD, PLAIN_HOST, GOOD, Outlook(True, "verified")),
    (ELSEWHERE, PLAIN_HOST, GOOD, Outlook(False, "not-listed")),
    (ELSEWHERE, PLAIN_HOST, None, Outlook(False, "not-listed")),
    (SECURE, PLAIN_HOST, EXPIRED, Outlook(False, "expired", "X509_V_ERR_CERT_HAS_EXPIRED")),
    (SECURE, PLAIN_HOST, NOT_YET, Outlook(False, "not-yet-valid", "X509_V_ERR_CERT_NOT_YET_VALID")),
    (SECURE, PLAIN_HOST, SELF_SIGNED,
     Outlook(False, "untrusted", "X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT")),
    (SECURE, PLAIN_HOST, UNSEEN,
     Outlook(False, "untrusted", "X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT")),
    (SECURE, PLAIN_HOST, OTHER_NAME, Outlook(False, "host-mismatch", CERTIFICATE_REQUIRED)),
    (SECURE, PLAIN_HOST, PLAIN, Outlook(False, "no-starttls")),
    (SECURE, PLAIN_HOST, BROKEN, Outlook(False, "handshake", "tls-handshake-failure")),
    (SECURE, PLAIN_HOST, AWAY, Outlook(None, "unreachable")),
    (SECURE, PLAIN_HOST, BUSY, Outlook(None, "refused")),
    (SECURE, PLAIN_HOST, CUT, Outlook(None, "closed")),
    (SECURE, LOST, GOOD, Outlook(True, "verified")),
    # secure without patterns: Postfix's own nexthop, dot-nexthop
    (UNLISTED, PLAIN_HOST, GOOD, Outlook(True, "verified")),
    (UNLISTED, PLAIN_HOST, tls(0, "example.com"), Outlook(True, "verified")),
    (UNLISTED, PLAIN_HOST, tls(0, "mail.example.com"), Outlook(True, "verified")),
    (UNLISTED, PLAIN_HOST, tls(0, "example.net", "badexample.com"),
     Outlook(False, "host-mismatch", CERTIFICATE_REQUIRED)),
    # DANE
    (DANE, SIGNED, GOOD, Outlook(True, "dane")),
    (ONLY, SIGNED, GOOD, Outlook(True, "dane")),
    (ONLY, SIGNED, SELF_SIGNED, Outlook(True, "dane")),
    (ONLY, SIGNED, EXPIRED, Outlook(True, "dane")),
    (ONLY, SIGNED, OTHER_NAME, Outlook(True, "dane")),
    (ONLY, ANCHORED, SELF_SIGNED, Outlook(True, "dane")),
    (ONLY, ANCHORED, tls(0, "example.com"), Outlook(True, "dane")),
    (ONLY, ANCHORED, OTHER_NAME, Outlook(False, "tlsa-host-mismatch")),
    (ONLY, MISMATCHED, GOOD, Outlook(False, "tlsa-mismatch")),
    (DANE, MISMATCHED, GOOD, Outlook(False, "tlsa-mismatch")),
    (ONLY, SIGNED, PLAIN, Outlook(False, "no-starttls")),
    (ONLY, SIGNED, CUT, Outlook(None, "closed")),
    (ONLY, SIGNED, UNSEEN, Outlook(None, "no-certificate")),
    (ONLY, SIGNED, None, Outlook(None, "not-probed")),
    (ONLY, PLAIN_HOST, GOOD, Outlook(False, "no-tlsa")),
    (ONLY, UNSIGNED, GOOD, Outlook(False, "no-tlsa")),
    (ONLY, UNUSABLE, GOOD, Outlook(False, "tlsa-unusable")),
    (ONLY, LOST, GOOD, Outlook(False, "tlsa-error")),
    (DANE, LOST, GOOD, Outlook(False, "tlsa-error")),
    (DANE, UNUSABLE, SELF_SIGNED, Outlook(True, "encrypted")),
    (DANE, UNUSABLE, PLAIN, Outlook(False, "no-starttls")),
    (DANE, PLAIN_HOST, PLAIN, Outlook(True, "plaintext")),
    (DANE, UNSIGNED, EXPIRED, Outlook(True, "opportunistic")),
    # a Python that shows the leaf only
    (ONLY, host(HostState.USABLE, TA),
     probe(tls=Tls(0, chain=CHAIN[:1], names=(HOST,), whole=False)),
     Outlook(None, "no-certificate")),
    (ONLY, MISMATCHED, probe(tls=Tls(0, chain=CHAIN[:1], names=(HOST,), whole=False)),
     Outlook(False, "tlsa-mismatch")),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "reading", "found", "expected"), TABLE)
def test_outlooks(
    asked: Verdict, reading: HostReading, found: Probe | None, expected: Outlook
) -> None:
    assert outlook(asked, reading, found, NOW) == expected


def test_an_anchor_that_is_over() -> None:
    assert outlook(ONLY, ANCHORED, GOOD, NOW + 10) == Outlook(False, "tlsa-expired")


def test_the_name_under_which_tlsa_was_found_will_do() -> None:
    """RFC 7672 §2.2.2: the MX host is an alias, the records stand at its target."""
    reading = HostReading(HOST, HostState.USABLE, 300, (TA,), "real.example.net")
    assert outlook(ONLY, reading, tls(0, "real.example.net"), NOW) == Outlook(True, "dane")


def test_the_best_of_several_addresses() -> None:
    passing, unknown = Outlook(True, "verified"), Outlook(None, "unreachable")
    failing = Outlook(False, "expired")
    for order in permutations([passing, unknown, failing]):
        assert best(order) == passing
    assert best([unknown, failing]) == failing
    assert best([unknown, Outlook(None, "timeout")]) == unknown
    assert best([failing, Outlook(False, "untrusted")]) == failing
    assert best([]) == Outlook(None, "not-probed")
