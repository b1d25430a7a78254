"""From deliveries of a real Postfix 3.10 to the reports in the recipients' mailbox."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.reports import (
    PATIENCE,
    Policy,
    Received,
    Reporting,
    by_domain,
    day,
    failed,
    good,
    rsa_key,
    running,
    unfetched,
)
from tests.e2e.world.postfix import Postfix
from tests.e2e.world.waiting import until
from tests.e2e.world.world import World

pytestmark = pytest.mark.e2e


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
    # DANE alone answers at first contact; once the policy is there too a look-up finds both. (The
    # other map name, or Postfix would get the reply that was kept.)
    assert daemon.reply("both.dane.test", "postfix") == "OK dane-only"
    daemon.wait_for_log("policy-fetched domain=both.dane.test")
    domains = {*BY_MAIL, *BY_POST, UNWANTED}
    counted = {*BY_MAIL, *BY_POST}
    return reporting.report_day(
        "first", domains, probed=PROBED, mails=len(BY_MAIL), counted=counted
    )


@pytest.fixture(scope="module")
def mailed(reporting: Reporting, first_day: int) -> dict[str, Received]:
    return by_domain(map(reporting.read, reporting.mails()))


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


def test_report_mail_makes_no_report(reporting: Reporting, mailed: dict[str, Received]) -> None:
    """Although the mailbox's own domain wants reports: Postfix 3.10 leaves report mail out."""
    reporting.deliver("second", ["good.sts.test"])
    with reporting.stopped():
        assert reporting.listed().keys() == {"good.sts.test"}
        reporting.end_day()


def test_sigkill_between_deliveries(reporting: Reporting) -> None:
    """What was written up to a second before the kill is there, once."""
    reporting.deliver("before", ["good.dane.test"])
    until("written", lambda: "good.dane.test" in reporting.listed(), seconds=PATIENCE)
    reporting.daemon.kill()
    reporting.daemon.start()
    reporting.deliver("after", ["good.dane.test", "expired.sts.test"])
    with reporting.stopped():
        listed = reporting.listed()
        reporting.end_day()
    counts = {domain: (row["sessions"], row["failures"]) for domain, row in listed.items()}
    assert (counts["good.dane.test"], counts["expired.sts.test"]) == ((2, 0), (1, 1))


def test_sigkill_in_the_middle_of_the_outbox(reporting: Reporting) -> None:
    """Each report arrives, and none under two ids."""
    daemon = reporting.daemon
    reporting.deliver("killed", OUTBOX)
    with reporting.stopped():
        ago = reporting.end_day()
        reporting.configure(reporting.postfix.release.slow)
    ident = f"{day(ago):%Y%m%d}."
    daemon.wait_for_log(f"report-delivered report={ident}")
    os.kill(daemon.child("report work"), signal.SIGKILL)
    states = [row["deliveries"][0]["state"] for row in reporting.listed(ago).values()]
    assert set(states) == {"waiting", "delivered"}, "not in the middle"
    with reporting.stopped():
        pass  # it starts such a child again, but takes its time

    def arrived() -> list[Received]:
        read = map(reporting.read, reporting.mails())
        return [one for one in read if one.report["report-id"].startswith(ident)]

    reporting.wait_until_reported(ago)
    until("mails", lambda: len(arrived()) >= len(OUTBOX), seconds=PATIENCE)
    assert {one.domain for one in arrived()} == set(OUTBOX)
    assert len({one.report["report-id"] for one in arrived()}) == len(OUTBOX)
