"""What the tests of reports share: a daemon that reports, the end of a day, and reports read."""

from __future__ import annotations

import contextlib
import email
import gzip
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from mtastsd.net.dkim import BadKey, load
from tests.e2e.daemon import Daemon
from tests.e2e.world.kept import Mail
from tests.e2e.world.postfix import Postfix
from tests.e2e.world.scenarios import REPORTS_DOMAIN
from tests.e2e.world.waiting import until
from tests.e2e.world.world import World
from tests.unit.tlsrpt_schema import REPORT, problems

MAILBOX = f"tlsrpt@{REPORTS_DOMAIN}"

PATIENCE = 60.0
"""Seconds for what takes a few."""

SELECTOR = "reports"

CONFIG = """
[collect]
{collect}

[report]
enabled = true
organization = "Sending Org"
contact = "tls@{submitter}"
from = "noreply@{submitter}"
submit = "smtp://{submit}"
delay = "0s"
dkim_domain = "{submitter}"
dkim_selector = "{selector}"
dkim_key = "{key}"
"""

DAY = 86400

NOT_CLOSED = "not closed yet"
"""What `mtastsd report list` says of a domain-day that no report was decided on."""

Json = dict[str, Any]
Key = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

Policy = tuple[str, int, int, list[tuple[str, str, str]]]
"""Type, successful and failed sessions; result type, MX host and reason of each failure."""


def good(kind: str) -> Policy:
    return (kind, 1, 0, [])


def failed(kind: str, result: str, mx: str, reason: str = "") -> Policy:
    return (kind, 0, 1, [(result, mx, reason)])


def unfetched(result: str, reason: str) -> Policy:
    """Sent over TLS; that there is no policy to go by is no failure of the session."""
    return ("sts", 1, 0, [(result, "", reason)])


@dataclass(frozen=True, slots=True)
class Received:
    """A report that has arrived, and the domain that its mail or its file name says."""

    domain: str
    report: Json

    @property
    def said(self) -> list[Policy]:
        """What it comes to."""
        return sorted(map(_said, self.report["policies"]))


class Reporting:
    """A daemon with a name and a key of its own, which reports what one Postfix does."""

    def __init__(self, world: World, postfix: Postfix, name: str, key: Key, collect: str) -> None:
        """`collect`: lines of that section."""
        self.world, self.postfix, self.submitter = world, postfix, f"{name}.test"
        self.daemon = Daemon(world, world.folder / name)
        self._key = _written(self.daemon.folder / "dkim.pem", key)
        self._collect = collect
        self._next = 9
        self.configure(postfix.release.listen)

    def configure(self, submit: str) -> None:
        """Write the configuration; `submit`: where report mails are handed over."""
        self.daemon.configure(
            CONFIG.format(
                collect=self._collect,
                submitter=self.submitter,
                submit=submit,
                selector=SELECTOR,
                key=self._key,
            )
        )

    def deliver(self, local_part: str, domains: Iterable[str]) -> None:
        """A mail to each domain, tried once."""
        to = [f"{local_part}@{domain}" for domain in domains]
        self.postfix.send(to)
        assert set(to) <= self.postfix.wait(to, PATIENCE).keys()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The daemon is down in the block, in good order."""
        assert self.daemon.stop() == 0
        try:
            yield
        finally:
            self.daemon.start()

    def end_day(self) -> int:
        """Put what belongs to today on an earlier day; how many days ago. The daemon must be down.

        It goes by the real clock, and that of the machine belongs to others too. Each day that
        ends is nearer than the one before, so that no two are the same.
        """
        ago, self._next = self._next, self._next - 1
        assert ago > 0
        with contextlib.closing(sqlite3.connect(self.daemon.folder / "mtastsd.db")) as database:
            tables = database.execute(
                "SELECT t.name FROM pragma_table_list t JOIN pragma_table_info(t.name) c"
                " WHERE t.schema = 'main' AND c.name = 'day'"
            ).fetchall()
            assert len(tables) >= 6, tables
            for (table,) in tables:
                move = f"UPDATE {table} SET day = day - ? WHERE day >= ?"
                database.execute(move, (ago, int(time.time() // DAY)))
            database.commit()
        return ago

    def report_day(
        self,
        local_part: str,
        domains: Iterable[str],
        *,
        probed: Iterable[str],
        mails: int,
        counted: Iterable[str] = (),
    ) -> int:
        """A mail to each domain, the end of the day, and all of its reports delivered, so many by
        mail; how many days ago it then was. `probed`: domains whose MX host is looked at;
        `counted`: domains with a session, which a log may tell of late."""
        self.deliver(local_part, domains)
        for domain in probed:
            self.daemon.wait_for_log(f"probed mx=mx.{domain}")
        wanted = set(counted)
        if wanted:
            until(
                "sessions", lambda: wanted <= self.listed().keys(), seconds=PATIENCE,
                log=self.daemon.log,
            )  # fmt: skip
        with self.stopped():
            ago = self.end_day()
        self.wait_for_mails(mails)
        self.wait_until_reported(ago)
        return ago

    def listed(self, days_ago: int = 0) -> dict[str, Json]:
        """`mtastsd report list` of a day, by domain."""
        found = self.daemon.tell("report", "list", "--json", "--day", day(days_ago).isoformat())
        return {row["domain"]: row for row in json.loads(found)["domains"]}

    def wait_until_reported(self, days_ago: int) -> None:
        """Until that day is closed and every report of it delivered."""

        def done() -> bool:
            rows = self.listed(days_ago).values()
            states = {d["state"] for row in rows for d in row["deliveries"]}
            return all(row["state"] != NOT_CLOSED for row in rows) and states == {"delivered"}

        until("reports delivered", done, seconds=PATIENCE, log=self.daemon.log)

    def mails(self) -> list[Mail]:
        """The report mails of this daemon that have arrived, in order."""
        field = f"\r\nTLS-Report-Submitter: {self.submitter}\r\n".encode()
        kept = self.world.kept
        return [mail for mail in kept.mails(to=MAILBOX) if field in kept.body(mail)]

    def wait_for_mails(self, count: int) -> list[Mail]:
        """As soon as so many have arrived."""
        until("mails", lambda: len(self.mails()) >= count, seconds=PATIENCE, log=self.postfix.log)
        return self.mails()

    def read(self, mail: Mail) -> Received:
        """A report mail, which must be without fault and signed in our name."""
        octets = self.world.kept.body(mail)
        signer = load(str(self._key), self.submitter, SELECTOR)
        assert not isinstance(signer, BadKey)
        record = {f"{SELECTOR}._domainkey.{self.submitter}.".encode(): signer.record.encode()}
        verifier = dkim.DKIM(octets, tlsrpt="strict")
        assert verifier.verify(dnsfunc=lambda name, timeout=5: record.get(name))
        return parsed(octets)

    def posted(self) -> list[Received]:
        """The reports of this daemon that the web server got."""
        kept = self.world.kept
        found = []
        for post in kept.posts():
            if post.headers.get("content-type") == "application/tlsrpt+gzip":
                report = unpacked(kept.body(post))
                if report["report-id"].endswith(f"@{self.submitter}"):
                    found.append(Received(report["policies"][0]["policy"]["policy-domain"], report))
        return found


@contextlib.contextmanager
def running(reporting: Reporting, instead_of: Daemon) -> Iterator[Reporting]:
    """It runs in the place of another daemon until the end of the block."""
    assert instead_of.stop() == 0
    try:
        reporting.daemon.start()
        try:
            yield reporting
        finally:
            reporting.daemon.stop()
    finally:
        instead_of.start()


def day(days_ago: int) -> date:
    """The date then, UTC."""
    return date.fromordinal(date(1970, 1, 1).toordinal() + int(time.time() // DAY) - days_ago)


def _said(entry: Json) -> Policy:
    summary = entry["summary"]
    failures = [
        (
            detail["result-type"],
            detail.get("receiving-mx-hostname", ""),
            detail.get("failure-reason-code", ""),
        )
        for detail in entry["failure-details"]
        for _ in range(detail["failed-session-count"])
    ]
    return (
        entry["policy"]["policy-type"],
        summary["total-successful-session-count"],
        summary["total-failure-session-count"],
        sorted(failures),
    )


def parsed(octets: bytes) -> Received:
    """Read a report mail as strictly as can be: any defect fails, of its form or its report's."""
    mail = email.message_from_bytes(octets, policy=policy.SMTP.clone(raise_on_defect=True))
    assert isinstance(mail, EmailMessage)
    assert mail.get_content_type() == "multipart/report"
    assert mail.get_param("report-type") == "tlsrpt"
    text, attached = mail.iter_parts()
    assert isinstance(attached, EmailMessage)
    assert text.get_content_type() == "text/plain"
    assert attached.get_content_type() == "application/tlsrpt+gzip"
    report = unpacked(attached.get_content())
    domain, submitter = str(mail["TLS-Report-Domain"]), mail["TLS-Report-Submitter"]
    assert mail["TLS-Required"] == "No"
    subject = f"Report Domain: {domain} Submitter: {submitter} Report-ID: <{report['report-id']}>"
    assert mail["Subject"] == subject
    assert mail["Message-ID"] == f"<{report['report-id']}>"
    assert str(attached.get_filename()).startswith(f"{submitter}!{domain}!")
    return Received(domain, report)


def unpacked(octets: bytes) -> Json:
    """The JSON, which must be what RFC 8460 §4.4 says."""
    report: Json = json.loads(gzip.decompress(octets))
    assert list(problems(REPORT, report)) == []
    return report


def by_domain(received: Iterable[Received]) -> dict[str, Received]:
    """One report a domain; two of one fail."""
    found: dict[str, Received] = {}
    for one in received:
        assert found.setdefault(one.domain, one) is one, one.domain
    return found


def rsa_key() -> Key:
    return rsa.generate_private_key(65537, 2048)


def ed25519_key() -> Key:
    return ed25519.Ed25519PrivateKey.generate()


def _written(path: Path, key: Key) -> Path:
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(*form, serialization.NoEncryption()))
    path.chmod(0o600)
    return path
