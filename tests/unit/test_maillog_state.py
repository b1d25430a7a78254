"""The mail log between its lines: Postfix's own findings, tlsproxy, MX hosts that were skipped,
lines of many processes, and what is held of them."""

from __future__ import annotations

import pytest

from mtastsd.postfix import maillog
from mtastsd.postfix.maillog import MailLog
from tests.unit.maillog_tools import (
    AT,
    NO_HANDSHAKE,
    NOT_VERIFIED,
    OK,
    OK_B,
    RESUMED,
    VERIFY,
    A,
    B,
    established,
    failure,
    run,
    shown,
    to,
    told,
    unlisted,
    untrusted,
)

EXPIRED = f"server {VERIFY} {A}: certificate has expired"
ISSUER = "certificate-not-trusted X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY"
MISMATCH = "validation-failure mtasts-policy-mx-mismatch"

# ---- TLSRPT lines of Postfix 3.10


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([established(), told(), to()], [OK]),
        ([told(), to()], [OK]),
        ([told(), established(), to()], [OK]),
        ([told(), to(), to(user="b@example.com")], [OK]),
        # a fault that Postfix forgave, and one that it reports although the mail goes out
        ([untrusted(), established(), told(), to()], [OK]),
        ([told(A, "tlsa_invalid"), established(), to()], [failure("tlsa-invalid")]),
        # the failure's line before `established` and behind it, for the last host and for the first
        (
            [untrusted(), told(A, "certificate_expired"), established(), to(A, NOT_VERIFIED)],
            [failure("certificate-expired")],
        ),
        (
            [untrusted(), established(), told(A, "certificate_expired"), to(A, NOT_VERIFIED)],
            [failure("certificate-expired")],
        ),
        (
            [untrusted(), told(A, "certificate_expired"), established(),
             f"8FB4822638D: {NOT_VERIFIED}", established(B), told(B), to(B)],
            [failure("certificate-expired"), OK_B],
        ),
        (
            [f"SSL_connect error to {A}: lost connection", told(A, "validation_failure"), to()],
            [failure("validation-failure")],
        ),
        (
            [told(A, "starttls_not_supported"),
             "8FB4822638D: TLS is required, but was not offered by host a.example.com[192.0.2.1]",
             to("none", "timed out")],
            [failure("starttls-not-supported")],
        ),
        # STARTTLS refused at level may: the mail goes out in plain text
        (
            [told(A, "starttls_not_supported"), to(tls="may:none")],
            [failure("starttls-not-supported")],
        ),
        # one host with a TLSRPT line, one without, one delivery: the line names the next hop
        (
            [established(A), "8FB4822638D: 421", told(B, domain="relay.example.net"), to(B)],
            ["counted relay.example.net success b.example.com[192.0.2.2]",
             "counted relay.example.net success a.example.com[192.0.2.1]"],
        ),
        # two sessions with one host in a row
        ([told(), told(), to()], [OK, OK]),
        # results and reasons
        (
            [told(A, "validation_failure, failure_reason=self-signed_certificate"), to()],
            [failure("validation-failure self-signed_certificate")],
        ),
        (
            [told(A, "validation_failure, failure_reason=a, b=c\x07"), to()],
            [failure("validation-failure a, b=c?")],
        ),
        ([told(A, "unfinished_policY"), to()], [failure("validation-failure")]),
        ([told(A, "sts_webpki_invalid"), to()], [failure("sts-webpki-invalid")]),
        ([told("(NULL)[(NULL)]"), to()], ["counted example.com success []"]),
        ([told(domain="no domain"), to()], []),
        ([told(domain="localhost"), to()], []),
        (["TLSRPT: status=unknown, domain=example.com", to()], []),
        # the domain of the recipients is not that of the session
        ([told(domain="relay.example.net"), to()],
         ["counted relay.example.net success a.example.com[192.0.2.1]"]),
        # a session that Postfix does not report (resumed, or no record when it began)
        ([told(), to(), established(), to(queue_id="ABCDEF12345")], [OK, OK]),
    ],
)  # fmt: skip
def test_what_postfix_reports_itself(lines: list[str], wanted: list[str]) -> None:
    assert run(lines) == wanted
    # with datagrams these say the same, but for the MX host of a success
    assert run(lines, beside=True) == [s for s in run(lines[:-1]) if " success " in s]


# ---- tlsproxy


def proxied(*lines: str, pid: int = 9) -> list[str]:
    return [f"tlsproxy[{pid}]|{line}" for line in lines]


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([*proxied("CONNECT to [192.0.2.1]:25", established()), established(), to()], [OK]),
        ([*proxied(established())], []),
        # a fault is taken by one attempt, once
        (
            [*proxied(EXPIRED), established(), to(A, NOT_VERIFIED),
             established(), to(A, NOT_VERIFIED, queue_id="ABCDEF12345")],
            [failure("certificate-expired"), failure("certificate-host-mismatch")],
        ),
        (
            [*proxied(EXPIRED, untrusted()), established(), to(A, NOT_VERIFIED),
             established(), to(A, NOT_VERIFIED, queue_id="ABCDEF12345")],
            [failure("certificate-expired"), failure(ISSUER)],
        ),
        # of another host
        (
            [*proxied(EXPIRED), established(B, "Untrusted"), to(B, NOT_VERIFIED)],
            [failure("certificate-not-trusted", "b.example.com[192.0.2.2]")],
        ),
        # tlsproxy's TLSRPT line counts for the attempt of smtp
        (
            [*proxied(EXPIRED, told(A, "certificate_expired")), established(), to(A, NOT_VERIFIED)],
            [failure("certificate-expired")],
        ),
        (
            [*proxied(told(A, "validation_failure")), to(A, NO_HANDSHAKE)],
            [failure("validation-failure")],
        ),
        (
            [*proxied(told(A, "validation_failure")), f"8FB4822638D: {NO_HANDSHAKE}",
             established(B), to(B)],
            [failure("validation-failure"), OK_B],
        ),
        (
            [f"8FB4822638D: {NO_HANDSHAKE}", established(B), to(B)],
            ["counted example.com failure [] validation-failure tls-handshake-failure", OK_B],
        ),
        # in plain text after a handshake that broke, at level may
        (
            [*proxied(told(A, "validation_failure")), to(A, tls="may:none")],
            [failure("validation-failure")],
        ),
        # the TLSRPT line is for another domain at the same host; then, if it failed, for the next
        # hop of these recipients
        (
            [*proxied(EXPIRED, told(A, "certificate_expired", "example.net")), established(), to()],
            [failure("certificate-expired", domain="example.net"), OK],
        ),
        (
            [*proxied(told(A, "certificate_expired", "example.net")),
             *proxied(told(A, "certificate_expired")), established(), to(A, NOT_VERIFIED),
             f"smtp[2]|{established()}",
             f"smtp[2]|{to(A, NOT_VERIFIED, user='u@example.net')}"],
            [failure("certificate-expired", domain="example.net"), failure("certificate-expired")],
        ),
        (
            [*proxied(told(A, "certificate_expired", "relay.example.net")), established(),
             to(A, NOT_VERIFIED)],
            [failure("certificate-expired", domain="relay.example.net")],
        ),
        # smtp has a TLSRPT line: the fault in tlsproxy is spent
        (
            [*proxied(EXPIRED), established(), told(A, "certificate_expired"), to(A, NOT_VERIFIED),
             established(), to(queue_id="ABCDEF12345")],
            [failure("certificate-expired"), OK],
        ),
        (
            [*proxied(told(A, "certificate_expired", "example.net")), established(),
             told(A, "certificate_expired"), to(A, NOT_VERIFIED)],
            [failure("certificate-expired", domain="example.net"), failure("certificate-expired")],
        ),
        # a resumed session
        (
            [*proxied(EXPIRED), established(), to(A, NOT_VERIFIED), *proxied(RESUMED),
             established(), to(A, NOT_VERIFIED, queue_id="ABCDEF12345")],
            [failure("certificate-expired")] * 2,
        ),
    ],
)  # fmt: skip
def test_tlsproxy(lines: list[str], wanted: list[str]) -> None:
    assert run(lines) == wanted


def test_what_tlsproxy_said_long_ago_is_forgotten() -> None:
    for late, what in ((1.0, "certificate-expired"), (1000.0, "certificate-not-trusted")):
        log = MailLog()
        assert run(proxied(EXPIRED), log=log) == []
        log.feed("postfix/smtp", 1, established(word="Untrusted"), AT + late)
        (session,) = log.feed("postfix/smtp", 1, to(A, NOT_VERIFIED), AT + late)
        assert shown(session) == failure(what)


# ---- resumed sessions


def test_a_resumed_session_has_the_fault_of_the_first() -> None:
    first = [EXPIRED, established(word="Untrusted"), to(A, NOT_VERIFIED)]
    again = [f"smtp[2]|{RESUMED}", f"smtp[2]|{established(word='Untrusted')}",
             f"smtp[2]|{to(A, NOT_VERIFIED, queue_id='ABCDEF12345')}"]  # fmt: skip
    assert run(first + again) == [failure("certificate-expired")] * 2
    # a broken handshake says nothing of the certificate
    broken = [f"smtp[3]|SSL_connect error to {A}: lost connection"]
    assert run(first + broken + again) == [failure("certificate-expired")] * 2


def test_what_is_remembered_of_mx_hosts_is_bounded() -> None:
    log = MailLog()
    for n in range(maillog.MAX_FAULTS + 10):
        ip = f"10.0.{n // 256}.{n % 256}"
        log.feed("postfix/tlsproxy", 1, untrusted(f"mx.example.com[{ip}]:25"), AT)
    assert log.held == maillog.MAX_FAULTS + maillog.MAX_NOTES
    assert not run([unlisted()], log=log)


# ---- MX hosts that were not connected to

SKIPPED = f"counted example.com failure x.example.com[] {MISMATCH}"
BESIDE = f"beside example.com failure x.example.com[] {MISMATCH}"
NOBODY = to("none", "server unavailable or unable to receive mail")
DANE_ONLY = "warning: TLS policy lookup for example.com/x.example.com: "


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([unlisted(), NOBODY], [SKIPPED]),
        ([unlisted(), NOBODY, to("none", "server unavailable", user="b@example.com")], [SKIPPED]),
        ([unlisted(), unlisted(), unlisted("X.example.com."), NOBODY], [SKIPPED]),
        ([unlisted(), NOBODY, unlisted(), NOBODY], [SKIPPED, SKIPPED]),
        (
            [unlisted(), unlisted("y.example.com"), NOBODY],
            [SKIPPED, SKIPPED.replace("x.e", "y.e")],
        ),
        ([unlisted("mx"), NOBODY], [f"counted example.com failure [] {MISMATCH}"]),
        ([unlisted(domain=""), NOBODY], []),
        # a session stands for the delivery in the summary, before or behind
        ([unlisted(), established(), to()], [OK, BESIDE]),
        ([unlisted(), told(), to()], [OK, BESIDE]),
        (
            [untrusted(), established(), f"8FB4822638D: {NOT_VERIFIED}", unlisted(),
             to("none", NOT_VERIFIED)],
            [failure(ISSUER), BESIDE],
        ),
        ([unlisted(), to(more=", conn_use=2")], [BESIDE]),
        ([unlisted(), to(B, "host b said: 450 later")], [BESIDE]),
        # the policy domain is the next hop, whoever the recipient is
        (
            [unlisted(domain="relay.example.net"), to("none", "x", user="u@[192.0.2.1]")],
            [f"counted relay.example.net failure x.example.com[] {MISMATCH}"],
        ),
        # DANE alone
        (
            [DANE_ONLY + "TLSA lookup error for x.example.com:25",
             to("none", "TLSA lookup error for x.example.com:25")],
            ["counted example.com failure x.example.com[] dnssec-invalid"],
        ),
        (
            [to("none", "TLSA lookup error for x.example.com:25"),
             to("none", "TLSA lookup error for x.example.com:25", user="b@example.com")],
            ["counted example.com failure x.example.com[] dnssec-invalid"],
        ),
        (
            [DANE_ONLY + "no TLSA records found", to("none", "no TLSA records found")],
            ["counted example.com failure x.example.com[] dane-required"],
        ),
        ([to("none", "no TLSA records found")], ["counted example.com failure [] dane-required"]),
        (
            [DANE_ONLY.replace("lookup", "lookup error") + "non DNSSEC destination", NOBODY],
            ["counted example.com failure x.example.com[] dane-required"],
        ),
        (
            [DANE_ONLY.replace("example.com/", "[example.com]:587/") + "non DNSSEC destination",
             NOBODY],
            ["counted example.com failure x.example.com[] dane-required"],
        ),
        (
            ["TLS policy lookup for [10.0.0.1]/x.example.com: non DNSSEC destination",
             to("none", "x", user="u@example.org")],
            ["counted example.org failure x.example.com[] dane-required"],
        ),
        (
            ["TLS policy lookup for \ud800/x.example.com: non DNSSEC destination", NOBODY],
            ["counted example.com failure x.example.com[] dane-required"],
        ),
        (
            [DANE_ONLY + "TLSA records unusable", NOBODY],
            ["counted example.com failure x.example.com[] tlsa-invalid all-TLSA-records-unusable"],
        ),
        (
            [DANE_ONLY + "no TLSA records found", established(), to()],
            [OK, "beside example.com failure x.example.com[] dane-required"],
        ),
    ],
)  # fmt: skip
def test_skipped_hosts(lines: list[str], wanted: list[str]) -> None:
    assert run(lines) == wanted
    # no datagram tells of them
    skipped = [s for s in wanted if "x.example.com[]" in s or "y.example.com[]" in s or " [] " in s]
    found = run([line for line in lines if not line.startswith("TLSRPT")], beside=True)
    assert found == skipped


def test_beside_datagrams_only_what_they_never_carry() -> None:
    lines = [untrusted(), established(), f"8FB4822638D: {NOT_VERIFIED}", established(B), told(B)]
    assert run([*lines, to(B)], beside=True) == [OK_B]
    assert run([to(tls="may")], beside=True) == []
    assert run([to(tls="dane:encrypt")], beside=True) == []
    assert run([to(tls="may:none")], beside=True) == [failure("starttls-not-supported")]
    assert run([*proxied(told(A, "validation_failure")), to(tls="may:none")], beside=True) == []
    assert run([to(A, NO_HANDSHAKE)], beside=True) == []


# ---- processes and deliveries


@pytest.mark.parametrize(
    ("program", "read"),
    [
        ("postfix/smtp", True),
        ("postfix-out/smtp", True),
        ("postfix/relay/smtp", True),
        ("mail/out/slow/smtp", True),
        ("postfix/lmtp", False),
        ("postfix/smtpd", False),
        ("postfix/local", False),
        ("postfix/virtual", False),
        ("postfix/smtp/lmtp", False),
        ("smtp", False),
        ("/smtp", False),
        ("", False),
    ],
)
def test_programs(program: str, read: bool) -> None:
    log = MailLog()
    log.feed(program, 1, established(), AT)
    assert [shown(s) for s in log.feed(program, 1, to(), AT)] == ([OK] if read else [])


def test_processes_are_told_apart_by_relay_program_and_id() -> None:
    log = MailLog()
    log.feed("postfix/smtp", 1, established(), AT)
    assert not log.feed("postfix/smtp", 2, to(), AT)
    assert not log.feed("postfix-out/smtp", 1, to(), AT)
    assert not log.feed("postfix/smtp", 1, to(), AT, "relay2")
    assert [shown(s) for s in log.feed("postfix/smtp", 1, to(), AT)] == [OK]
    # what tlsproxy says is for any smtp of its relay
    log.feed("postfix/tlsproxy", 9, EXPIRED, AT, "relay1")
    for relay, what in (("relay2", "certificate-not-trusted"), ("relay1", "certificate-expired")):
        log.feed("postfix-out/smtp", 3, established(word="Untrusted"), AT, relay)
        (session,) = log.feed("postfix-out/smtp", 3, to(A, NOT_VERIFIED), AT, relay)
        assert shown(session) == failure(what)


def test_lines_left_over_from_a_delivery_whose_end_is_missing() -> None:
    other = "8BBBBBBBBBBBzY: host a.example.com[192.0.2.1] said: 421"
    assert run([established(A), established(B), to(B)]) == [OK_B]
    assert run([established(A), other, established(B), to(B)]) == [OK_B]
    assert run([established(A), to("none", "timed out")]) == []


def test_the_same_delivery_and_a_later_try() -> None:
    deferred = to(A, "TLS is required, but was not offered by host a.example.com[192.0.2.1]")
    log = MailLog()
    counts = [len(log.feed("postfix/smtp", 1, deferred, AT + t)) for t in (0, 50, 100, 400, 401)]
    assert counts == [1, 0, 0, 1, 0]


@pytest.mark.parametrize(
    "line",
    [
        # who wrote the reply, or the address, wishes to be taken for another
        to(A, "host said: 450 >, relay=b.example.com[192.0.2.2]:25"),
        to(user="a@example.com>, relay=b.example.com[192.0.2.2]:25, delay=0, delays=0/0/0/0,"
           " dsn=2.0.0, status=sent (250"),
        to().replace("dsn=2.0.0", "dsn=x"),
        "8FB4822638D: to=<user@example.com>",
        to()[:60],
    ],
)  # fmt: skip
def test_lines_that_can_be_read_in_two_ways_are_not_read(line: str) -> None:
    assert run([established(), line]) == []


def test_texts_of_remotes_do_not_pass_for_lines() -> None:
    issuer = f"{untrusted()}: to=<u@example.org>, relay=x, TLSRPT: status=success"
    assert run([issuer, established(), to(A, NOT_VERIFIED)]) == [failure(ISSUER)]
    reply = f"host a said: 450 Server certificate not verified, {NO_HANDSHAKE}"
    assert run([established(), to(A, reply)]) == [OK]
    assert run([established(), f"8FB4822638D: {reply}", established(B), to(B)]) == [OK, OK_B]
    assert run([established(), to(A, f"status=sent (250 {NO_HANDSHAKE})")]) == [OK]
    assert run([established(), to(A, f"status=sent ({NOT_VERIFIED})")]) == [OK]
