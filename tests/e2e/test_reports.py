"""From deliveries of a real Postfix 3.10 to the reports in the recipients' mailbox."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.reports import (
    Policy,
    Received,
    Reporting,
    by_domain,
    rsa_key,
    running,
)
from tests.e2e.world.postfix import Postfix
from tests.e2e.world.world import World

pytestmark = pytest.mark.e2e


def good(kind: str) -> Policy:
    return (kind, 1, 0, [])


def failed(kind: str, result: str, mx: str, reason: str = "") -> Policy:
    return (kind, 0, 1, [(result, mx, reason)])


def unfetched(result: str, reason: str) -> Policy:
    """Sent over TLS; that there is no policy to go by is no failure of the session."""
    return ("sts", 1, 0, [(result, "", reason)])


NOT_TRUSTED = "certificate-not-trusted"
EXPIRED = "certificate-expired"

BY_MAIL: dict[str, list[Policy]] = {
    "good.sts.test": [good("sts")],
    "rptboth.sts.test": [good("sts")],
    "expired.sts.test": [failed("sts", EXPIRED, "mx.expired.sts.test")],
    "wrongname.sts.test": [
        failed("sts", "certificate-host-mismatch", "mx.wrongname.sts.test"),
    ],
    "untrusted.sts.test": [
        failed("sts", NOT_TRUSTED, "mx.untrusted.sts.test", "X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN"),
    ],
    "nostarttls.sts.test": [
        failed("sts", "starttls-not-supported", "mx.nostarttls.sts.test"),
    ],
    "testing.sts.test": [good("sts")],
    # The mail went out; a probe found what enforcement would have.
    "testing-expired.sts.test": [
        failed("sts", EXPIRED, "mx.testing-expired.sts.test", "X509_V_ERR_CERT_HAS_EXPIRED"),
    ],
    "pol404.sts.test": [unfetched("sts-policy-fetch-error", "status")],
    "polexpired.sts.test": [unfetched("sts-webpki-invalid", "tls")],
    "polsyntax.sts.test": [unfetched("sts-policy-invalid", "syntax")],
    "good.dane.test": [good("tlsa")],
    "mismatch.dane.test": [failed("tlsa", NOT_TRUSTED, "mx.mismatch.dane.test")],
    "both.dane.test": [("sts", 0, 0, []), good("tlsa")],
    "plain.sts.test": [good("no-policy-found")],
}
BY_POST: dict[str, list[Policy]] = {
    "rpthttps.sts.test": [good("sts")],
    "rptboth.sts.test": [good("sts")],
}
UNWANTED = "norpt.sts.test"
"""It has no TLS-RPT record."""

PROBED = ("testing.sts.test", "testing-expired.sts.test")

OUTBOX = [domain for domain in BY_MAIL if domain not in (*PROBED, "rptboth.sts.test")]
"""Domains whose reports are mailed to one mailbox."""


@pytest.fixture(scope="module")
def reporting(world: World, postfixes: dict[str, Postfix], daemon: Daemon) -> Iterator[Reporting]:
    made = Reporting(world, postfixes["3.10"], "datagrams", rsa_key(), "datagrams = true")
    with running(made, instead_of=daemon):
        yield made


@pytest.fixture(scope="module")
def first_day(reporting: Reporting) -> int:
    """How many days ago it was; its reports are delivered."""
    daemon = reporting.daemon
    # DANE alone answers at first contact; with the policy fetched the second tells of both.
    assert daemon.reply("both.dane.test", "postfix-tlsrpt") == "OK dane-only"
    daemon.wait_for_log("policy-fetched domain=both.dane.test")
    reporting.deliver("first", {*BY_MAIL, *BY_POST, UNWANTED})
    for domain in PROBED:
        daemon.wait_for_log(f"probed mx=mx.{domain}")
    assert daemon.stop() == 0
    ago = reporting.end_day()
    daemon.start()
    reporting.wait_until_reported(ago, {*BY_MAIL, *BY_POST})
    return ago


@pytest.fixture(scope="module")
def mailed(reporting: Reporting, first_day: int) -> dict[str, Received]:
    return by_domain(map(reporting.read, reporting.wait_for_mails(len(BY_MAIL))))


@pytest.mark.parametrize("domain", BY_MAIL)
def test_what_is_reported_by_mail(domain: str, mailed: dict[str, Received]) -> None:
    assert mailed[domain].said == BY_MAIL[domain]


def test_nobody_else_gets_a_report(mailed: dict[str, Received]) -> None:
    assert mailed.keys() == BY_MAIL.keys()


def test_what_is_posted(reporting: Reporting, first_day: int) -> None:
    posted = by_domain(reporting.posted())
    assert {domain: one.said for domain, one in posted.items()} == BY_POST


def test_reports_are_read_by_the_program_too(
    reporting: Reporting, mailed: dict[str, Received], tmp_path: Path
) -> None:
    for number, mail in enumerate(reporting.mails()):
        (tmp_path / f"{number}.eml").write_bytes(reporting.world.kept.body(mail))
    told = reporting.daemon.program("report", "read", str(tmp_path))
    assert all(domain in told for domain in mailed), told
