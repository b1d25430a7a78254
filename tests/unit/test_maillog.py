"""The mail log: real lines replayed, and a table for each line that tells of TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtastsd.names import Domain
from mtastsd.postfix.maillog import MailLog
from mtastsd.postfix.syslog import LogLine, parse_line
from mtastsd.tlsrpt.session import Detail, PolicyKey, ResultType, Session
from tests.unit.maillog_tools import (
    AT,
    CIPHER,
    NO_HANDSHAKE,
    NOT_VERIFIED,
    OK,
    OK_B,
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

READ_AT = 1764003600.0  # an hour after the samples

Block = tuple[str, list[LogLine], list[str]]


def blocks() -> list[Block]:
    """The deliveries of tests/data/maillog.txt: title, lines, and the sessions they are."""
    found: list[Block] = []
    for line in Path(__file__).parents[1].joinpath("data/maillog.txt").read_text().splitlines():
        if line.startswith("## "):
            found.append((line[3:], [], []))
        elif line.startswith("=> "):
            found[-1][2].append(line[3:])
        elif found and line:
            parsed = parse_line(line, READ_AT)
            assert parsed is not None, line
            found[-1][1].append(parsed)
    return found


BLOCKS = blocks()


def fed(log: MailLog, lines: list[LogLine]) -> list[str]:
    return [shown(s) for x in lines for s in log.feed(x.program, x.pid, x.message, x.at)]


@pytest.mark.parametrize(("title", "lines", "wanted"), BLOCKS, ids=[b[0] for b in BLOCKS])
def test_real_lines(title: str, lines: list[LogLine], wanted: list[str]) -> None:
    assert fed(MailLog(), lines) == wanted


def test_all_real_lines_in_one_go() -> None:
    lines = [line for _, lines, _ in BLOCKS for line in lines]
    assert fed(MailLog(), lines) == [session for _, _, wanted in BLOCKS for session in wanted]


def test_real_lines_beside_datagrams() -> None:
    """Successes of TLSRPT lines and MX hosts that no pattern lists: nothing that is counted twice,
    and nothing of Postfix 3.7, which sends no datagrams."""
    lines = [line for _, lines, _ in BLOCKS for line in lines]
    found = fed(MailLog(beside_datagrams=True), lines)
    told = [x for x in lines if "TLSRPT: status=success" in x.message]
    assert sum(" success " in session for session in found) == len(told) > 10
    assert [session for session in found if " failure " in session] == [
        "counted mxnotlisted.sts.test failure mx.mxnotlisted.sts.test[]"
        " validation-failure mtasts-policy-mx-mismatch"
    ]


def test_a_session_of_the_log() -> None:
    domain = Domain("example.com")
    log = MailLog()
    log.feed("postfix/smtp", 1, untrusted(), AT)
    log.feed("postfix/smtp", 1, established(word="Untrusted"), AT + 1)
    assert log.feed("postfix/smtp", 1, to(A, NOT_VERIFIED), AT + 2) == (
        Session(
            at=AT + 2,
            domain=domain,
            policy=PolicyKey("no-policy-found", domain),
            success=False,
            details=(
                Detail(
                    ResultType.CERTIFICATE_NOT_TRUSTED,
                    mx_host="a.example.com",
                    mx_ip="192.0.2.1",
                    reason="X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
                ),
            ),
            mx_host="a.example.com",
            mx_ip="192.0.2.1",
            source="log",
        ),
    )


# ---- successes


@pytest.mark.parametrize("word", ["Anonymous", "Untrusted", "Trusted", "Verified"])
def test_what_was_sent_was_good_enough_for_its_level(word: str) -> None:
    assert run([established(word=word), to()]) == [OK]


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        # plain text, where nothing says that there was no STARTTLS
        ([to()], []),
        ([to(more=", conn_use=2")], []),
        # a reused connection is no session
        ([f"Verified TLS connection reused to {A}: {CIPHER}", to(more=", conn_use=2")], []),
        ([established(), to(), to(more=", conn_use=2", queue_id="4BBBBBBBBBz1")], [OK]),
        # mail that waits for another reason had its TLS session all the same
        ([established(), to(A, "host a.example.com[192.0.2.1] said: 450 busy")], [OK]),
        ([established(), to(A, "lost connection with a.example.com[192.0.2.1]")], [OK]),
        ([established(), to(A, "status=bounced (host said: 550 no)")], [OK]),
        # recipients of one delivery
        ([established(), to(), to(user="other@example.com")], [OK]),
        ([established(), to(A, "450 later"), to(user="b@example.com")], [OK]),
        ([established(), to(), established(), to(queue_id="ABCDEF12345")], [OK, OK]),
        # a line with the queue id in between
        ([established(), "8FB4822638D: host a.example.com[192.0.2.1] said: 450", to()], [OK]),
        ([established(), "8FB4822638D: breaking line > 990 bytes with <CR><LF>SPACE", to()], [OK]),
        # several MX hosts
        (
            [established(A), "8FB4822638D: host a said: 421 no", established(B), to(B)],
            [OK, OK_B],
        ),
        ([f"connect to {A}: Connection refused", established(B), to(B)], [OK_B]),
        ([established(A), "8FB4822638D: host a said: 421 no", to("none", "timed out")], [OK]),
        # names in other forms
        ([established(), to(user="User@EXAMPLE.com.")], [OK]),
        ([established(), to(user='"a> b"@example.com')], [OK]),
        ([established(), to(user="u@example.com>, orig_to=<x")], [OK]),
        (
            [established(), to(user="u@b\u00fccher.example")],
            ["counted xn--bcher-kva.example success a.example.com[192.0.2.1]"],
        ),
        (
            [established("MX.Example.com[2001:DB8::1]:25"), to("MX.Example.com[2001:DB8::1]:25")],
            ["counted example.com success mx.example.com[2001:db8::1]"],
        ),
        # recipients that have no policy domain
        ([established(), to(user="user@[192.0.2.1]")], []),
        ([established(), to(user="user@localhost")], []),
        ([established(), to(user="user")], []),
        ([established(), to(user="")], []),
        # what is no MX host: literals, filters, sockets
        ([established("192.0.2.1[192.0.2.1]:25"), to("192.0.2.1[192.0.2.1]:25")], []),
        ([established("mx[192.0.2.1]:25"), to("mx[192.0.2.1]:25")], []),
        ([established("a.b[fe80::1%2]:25"), to("a.b[fe80::1%2]:25")], []),
        ([to("127.0.0.1[127.0.0.1]:10024")], []),
        ([to("localhost[private/filter]")], []),
    ],
)  # fmt: skip
def test_successes(lines: list[str], wanted: list[str]) -> None:
    assert run(lines) == wanted


@pytest.mark.parametrize(
    ("tls", "wanted"),
    [
        ("may", [OK]),
        ("encrypt", [OK]),
        ("dane", [OK]),
        ("secure", [OK]),
        ("secure/requiretls:nocertmatch", [OK]),
        ("dane:encrypt", [failure("tlsa-invalid all-TLSA-records-unusable")]),
        ("half-dane:encrypt", [failure("tlsa-invalid all-TLSA-records-unusable")]),
        ("may:none", [failure("starttls-not-supported")]),
        ("may:none/requiretls:nostarttls", [failure("starttls-not-supported")]),
        ("none", []),
        ("unknown", []),
        ("unknown?", []),
        ("may?", []),
        ("!secure", []),
        ("", []),
    ],
)
def test_levels_of_postfix_3_11(tls: str, wanted: list[str]) -> None:
    """Without lines of TLS, which need smtp_tls_loglevel; with them these are what counts."""
    assert run([to(tls=tls)]) == wanted
    assert run([to(tls=tls), to(tls=tls, user="b@example.com")]) == wanted
    assert run([to(tls=tls, more=", conn_use=2")]) == []
    assert run([to("none", "timed out", tls=tls)]) == []
    assert run([established(), to(tls=tls)]) == [OK]
    assert run([told(), to(tls=tls)]) == [OK]


def test_what_no_datagram_tells_of() -> None:
    """A session without STARTTLS at an opportunistic level, an MX host that was skipped."""
    log = MailLog()
    (session,) = log.feed("postfix/smtp", 1, to(tls="may:none"), AT)
    assert session.log_only
    (session,) = log.feed("postfix/smtp", 2, to(tls="may"), AT)
    assert not session.log_only
    (session,) = log.feed("postfix/smtp", 3, to("none", "TLSA records unusable"), AT)
    assert session.log_only
    log.feed("postfix/smtp", 4, established(), AT)
    log.feed("postfix/smtp", 4, unlisted(), AT)
    session, skipped = log.feed("postfix/smtp", 4, to(), AT)
    assert (session.log_only, skipped.log_only) == (False, True)


# ---- failures

H = "a.example.com[192.0.2.1]"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (f"{VERIFY} {A}: not trusted by local or TLSA policy",
         "certificate-not-trusted X509_V_ERR_CERT_UNTRUSTED"),
        (f"{VERIFY} {A}: self-signed certificate",
         "certificate-not-trusted X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT"),
        (f"{VERIFY} {A}: untrusted issuer /CN=x: num=62:hostname mismatch",
         "certificate-not-trusted X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY"),
        (f"{VERIFY} {A}: untrusted issuer <unknown>",
         "certificate-not-trusted X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY"),
        (f"server {VERIFY} {A}: certificate not yet valid",
         "validation-failure X509_V_ERR_CERT_NOT_YET_VALID"),
        (f"CA {VERIFY} {A}: certificate not yet valid",
         "validation-failure X509_V_ERR_CERT_NOT_YET_VALID"),
        (f"server {VERIFY} {A}: certificate has expired", "certificate-expired"),
        (f"CA {VERIFY} {A}: certificate has expired",
         "certificate-expired ca-certificate-expired"),
        (f"{VERIFY} {A}: not designated for use as a CA certificate",
         "certificate-not-trusted X509_V_ERR_INVALID_PURPOSE"),
        (f"{VERIFY} {A}: not designated for use as a server certificate",
         "certificate-not-trusted X509_V_ERR_INVALID_PURPOSE"),
        (f"{VERIFY} {A}: certificate chain longer than limit(9)",
         "certificate-not-trusted X509_V_ERR_CERT_CHAIN_TOO_LONG"),
        (f"server {VERIFY} {A}: num=62:hostname mismatch",
         "certificate-host-mismatch X509_V_ERR_HOSTNAME_MISMATCH"),
        (f"server {VERIFY} {A}: num=62:Hostname mismatch",
         "certificate-host-mismatch X509_V_ERR_HOSTNAME_MISMATCH"),
        (f"CA {VERIFY} {A}: num=68:CA signature digest algorithm too weak",
         "certificate-not-trusted X509_V_ERR_CA_MD_TOO_WEAK"),
        (f"server {VERIFY} {A}: num=65:no matching DANE TLSA records",
         "certificate-not-trusted X509_V_ERR_DANE_NO_MATCH"),
        (f"server {VERIFY} {A}: num=999:something new\x00",
         "certificate-not-trusted something_new?"),
        (f"{VERIFY} {A}: external policy failure (validation-failure)", "certificate-not-trusted"),
        (f"warning: {A}: all TLSA records unusable", "tlsa-invalid all-TLSA-records-unusable"),
        (f"{A}: re-using session with untrusted certificate, look for details earlier in the log",
         "certificate-not-trusted"),
        (f"{A}: re-using session with untrusted peer credential, look for details earlier",
         "certificate-not-trusted"),
    ],
)  # fmt: skip
def test_what_was_wrong_with_a_certificate(line: str, wanted: str) -> None:
    assert run([line, established(word="Untrusted"), to(A, NOT_VERIFIED)]) == [failure(wanted)]
    # the same of a host that was given up for the next one
    lines = [line, established(word="Untrusted"), f"8FB4822638D: {NOT_VERIFIED}"]
    assert run([*lines, established(B), to(B)]) == [failure(wanted), OK_B]
    # tlsproxy says what, smtp only that
    lines = [f"tlsproxy[9]|{line}", f"tlsproxy[9]|{established(word='Untrusted')}"]
    assert run([*lines, established(word="Untrusted"), to(A, NOT_VERIFIED)]) == [failure(wanted)]


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        # no line says what was wrong
        ([established(word="Trusted"), to(A, NOT_VERIFIED)], ["certificate-host-mismatch"]),
        ([established(word="Verified"), to(A, NOT_VERIFIED)], ["certificate-host-mismatch"]),
        ([established(word="Untrusted"), to(A, NOT_VERIFIED)], ["certificate-not-trusted"]),
        ([established(word="Anonymous"), to(A, NOT_VERIFIED)], ["certificate-not-trusted"]),
        ([to(A, NOT_VERIFIED)], ["certificate-not-trusted"]),
        (
            [established(word="Trusted"), to(A, "Server certificate not trusted")],
            ["certificate-not-trusted"],
        ),
        (
            [established(), to(A, "Sender requested REQUIRETLS, but no matching server certificate"
                                  " was found. The last attempted server was a.example.com")],
            ["certificate-host-mismatch"],
        ),
        # several recipients, one session
        (
            [untrusted(), established(word="Untrusted"), to(A, NOT_VERIFIED),
             to(A, NOT_VERIFIED, user="other@example.com")],
            ["certificate-not-trusted X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY"],
        ),
        # the first fault is nearest to the cause
        (
            [untrusted(), f"server {VERIFY} {A}: num=62:hostname mismatch", established(),
             to(A, NOT_VERIFIED)],
            ["certificate-not-trusted X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY"],
        ),
        # STARTTLS
        ([to(A, f"TLS is required, but was not offered by host {H}")], ["starttls-not-supported"]),
        (
            [to(A, f"TLS is required, but was not offered by host {H}"),
             to(A, f"TLS is required, but was not offered by host {H}", user="b@example.com")],
            ["starttls-not-supported"],
        ),
        (
            [to(A, f"TLS is required, but host {H} refused to start TLS: 454 4.7.0 not now")],
            ["starttls-not-supported smtp-starttls-reply-code-454"],
        ),
        (
            [to(A, f"TLS is required, but host {H} refused to start TLS: no")],
            ["starttls-not-supported"],
        ),
        (
            [to(A, f"Sender requested REQUIRETLS, but TLS service was not offered by host {H}")],
            ["starttls-not-supported"],
        ),
        # the handshake
        (
            [f"SSL_connect error to {A}: lost connection", to(A, NO_HANDSHAKE)],
            ["validation-failure tls-handshake-failure"],
        ),
        (
            [f"SSL_connect error to {A}: -1",
             "warning: TLS library problem: error:0A000102:SSL routines::unsupported protocol:"
             "../ssl/statem/statem_lib.c:1986:",
             "warning: TLS library problem: error:0A0000C7:SSL routines::later:x.c:1:",
             to(A, NO_HANDSHAKE)],
            ["validation-failure unsupported_protocol"],
        ),
        (
            [f"SSL_connect error to {A}: -1",
             "warning: TLS library problem: error:14094410:SSL routines:ssl3_read_bytes:"
             "sslv3 alert handshake failure:ssl/record/rec_layer_s3.c:1544:SSL alert number 40:",
             to(A, NO_HANDSHAKE)],
            ["validation-failure sslv3_alert_handshake_failure"],
        ),
        (
            [f"SSL_connect error to {A}: -1", "warning: TLS library problem: error:nonsense",
             to(A, NO_HANDSHAKE)],
            ["validation-failure tls-handshake-failure"],
        ),
        # at level may the mail goes out in plain text; the session failed, as Postfix reports it
        (
            [f"SSL_connect error to {A}: Connection reset by peer", to(A)],
            ["validation-failure tls-handshake-failure"],
        ),
        (
            [f"SSL_connect error to {A}: Connection reset by peer", to(A, tls="may:none")],
            ["validation-failure tls-handshake-failure"],
        ),
        ([to(A, NO_HANDSHAKE)], ["validation-failure tls-handshake-failure"]),
        # DANE falls back to encryption: a failure, although the mail goes out
        (
            [f"warning: {A}: all TLSA records unusable, fallback to unauthenticated TLS",
             established(word="Untrusted"), to(A)],
            ["tlsa-invalid all-TLSA-records-unusable"],
        ),
        (
            [f"tlsproxy|warning: {A}: all TLSA records unusable, fallback to unauthenticated TLS",
             established(word="Untrusted"), to(A)],
            ["tlsa-invalid all-TLSA-records-unusable"],
        ),
    ],
)  # fmt: skip
def test_failures(lines: list[str], wanted: list[str]) -> None:
    assert run(lines) == [failure(what) for what in wanted]


def test_a_fault_that_postfix_did_not_mind() -> None:
    """With `untrusted` in smtp_tls_loglevel faults are logged at level may too."""
    assert run([untrusted(), established(word="Untrusted"), to()]) == [
        f"{OK} certificate-not-trusted X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY"
    ]


@pytest.mark.parametrize(
    ("given_up", "what"),
    [
        (f"TLS is required, but was not offered by host {H}", "starttls-not-supported"),
        (
            f"TLS is required, but host {H} refused to start TLS: 454 no",
            "starttls-not-supported smtp-starttls-reply-code-454",
        ),
    ],
)
def test_hosts_given_up_without_a_line_of_tls(given_up: str, what: str) -> None:
    lines = [f"8FB4822638D: {given_up}"]
    other = failure(what, "b.example.com[192.0.2.2]")
    assert run([*lines, established(B), to(B)]) == [failure(what), OK_B]
    assert run([*lines, to("none", "connect to b.example.com: timed out")]) == [failure(what)]
    assert run([*lines, to("none", given_up)]) == [failure(what)]
    # both hosts fail in the same way, one session each
    at_b = given_up.replace(H, "b.example.com[192.0.2.2]")
    assert run([*lines, to(B, at_b)]) == [failure(what), other]
    # what is left over of a delivery whose end is missing is not to blame, and not counted
    assert run([established(B), *lines, established(B), to(B)]) == [failure(what), OK_B]


def test_a_certificate_given_up_of_which_there_is_no_line() -> None:
    """A start in the middle of a delivery."""
    assert run([f"8FB4822638D: {NOT_VERIFIED}", established(B), to(B)]) == [OK_B]


def test_a_reason_that_is_that_of_a_host_given_up_before() -> None:
    lines = [untrusted(), established(word="Untrusted"), f"8FB4822638D: {NOT_VERIFIED}"]
    what = "certificate-not-trusted X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY"
    assert run([*lines, to("none", NOT_VERIFIED)]) == [failure(what)]
    assert run([to("none", NOT_VERIFIED)]) == [
        "counted example.com failure [] certificate-not-trusted"
    ]


@pytest.mark.parametrize(
    "relay", ["127.0.0.1[127.0.0.1]:10025", "mailhost[192.0.2.9]:25", "filter[private/x]"]
)
@pytest.mark.parametrize(
    "reason", [NOT_VERIFIED, NO_HANDSHAKE, "TLS is required, but was not offered by host {}"]
)
def test_failures_to_what_is_no_mx_host(relay: str, reason: str) -> None:
    reason = reason.format(relay.rpartition(":")[0])
    assert run([to(relay, reason)]) == []
    if reason != NO_HANDSHAKE:  # of which tlsproxy may have said which host it was
        assert run([f"8FB4822638D: {reason}", to("none", "timed out")]) == []


@pytest.mark.parametrize(
    "line",
    [
        "warning: TLS policy lookup for example.com/a.b: client TLS configuration problem",
        "warning: smtp_tls_policy_maps, next-hop destination \"x\": invalid attribute name: \"y\"",
        f"warning: {A}: Invalid TLS protocol list \"x\": aborting TLS session",
        "TLS library problem: error:0A000102:SSL routines::unsupported protocol:x.c:1:",
        "warning: dnssec_probe 'ns:.' received a response that is not DNSSEC validated",
        "fatal: no SASL authentication mechanisms",
        "statistics: max connection count 1",
    ],
)  # fmt: skip
def test_local_faults_are_not_reported(line: str) -> None:
    assert run([line, to("none", "client TLS configuration problem")]) == []
    assert run([line, to(A, "TLS is required, but our TLS engine is unavailable")]) == []
    assert run([line, established(), to()]) == [OK]
