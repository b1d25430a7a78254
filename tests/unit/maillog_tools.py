"""Lines as Postfix writes them, and sessions as one line each."""

from __future__ import annotations

from collections.abc import Iterable

from mtastsd.postfix.maillog import MailLog
from mtastsd.tlsrpt.session import PolicyKey, Session

AT = 1764000000.0

A, B = "a.example.com[192.0.2.1]:25", "b.example.com[192.0.2.2]:25"
"""The two MX hosts of example.com."""

SENT = "status=sent (250 2.0.0 Ok: kept)"
NOT_VERIFIED = "Server certificate not verified"
NO_HANDSHAKE = "Cannot start TLS: handshake failure"

OK = "counted example.com success a.example.com[192.0.2.1]"
OK_B = "counted example.com success b.example.com[192.0.2.2]"

VERIFY = "certificate verification failed for"
RESUMED = f"{A}: re-using session with untrusted certificate, look for details earlier in the log"

CIPHER = "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange x25519"


def established(peer: str = A, word: str = "Verified") -> str:
    return f"{word} TLS connection established to {peer}: {CIPHER}"


def untrusted(peer: str = A) -> str:
    return f"{VERIFY} {peer}: untrusted issuer /CN=Nobody"


def told(peer: str = A, failure: str = "", domain: str = "example.com") -> str:
    status = f"failure, domain={domain}" if failure else f"success, domain={domain}"
    rest = f", failure_type={failure}" if failure else ""
    return f"TLSRPT: status={status}, receiving_mx={peer.removesuffix(':25')}{rest}"


def to(
    relay: str = A,
    status: str = SENT,
    *,
    user: str = "user@example.com",
    more: str = "",
    tls: str = "",
    queue_id: str = "8FB4822638D",
) -> str:
    """The line that ends a delivery; `status` may be the reason of a deferred one."""
    if not status.startswith("status="):
        status = f"status=deferred ({status})"
    tls = tls and f", tls={tls}"
    times = "delay=0.08, delays=0.01/0.01/0.05/0"
    return f"{queue_id}: to=<{user}>, relay={relay}{more}, {times}{tls}, dsn=2.0.0, {status}"


def unlisted(host: str = "x.example.com", domain: str = "example.com") -> str:
    return f"warning: MX name '{host}' does not match STS MX pattern for '{domain}'"


def shown(session: Session) -> str:
    """A session as a line of tests/data/maillog.txt."""
    words: list[str] = ["counted" if session.counts else "beside", session.domain]
    words.append("success" if session.success else "failure")
    words.append(f"{session.mx_host}[{session.mx_ip}]")
    for d in session.details:
        assert (d.mx_host, d.mx_ip) == (session.mx_host, session.mx_ip)
        words += [d.result.value, d.reason] if d.reason else [d.result.value]
    assert session.source == "log"
    assert session.policy == PolicyKey("no-policy-found", session.domain)
    return " ".join(words)


def failure(what: str, host: str = "a.example.com[192.0.2.1]", domain: str = "example.com") -> str:
    return f"counted {domain} failure {host} {what}"


def run(lines: Iterable[str], *, beside: bool = False, log: MailLog | None = None) -> list[str]:
    """The sessions of messages: of postfix/smtp[1], or of another program with its name before a
    bar, `tlsproxy|...`, `smtp[2]|...`."""
    log = MailLog(beside_datagrams=beside) if log is None else log
    found: list[str] = []
    for line in lines:
        program, bar, message = line.partition("|")
        name, _, pid = (program if bar else "smtp").partition("[")
        number = int(pid.rstrip("]") or 1)
        found += map(shown, log.feed(f"postfix/{name}", number, message if bar else line, AT))
    return found
