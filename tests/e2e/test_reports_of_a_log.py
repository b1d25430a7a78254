"""From the log of a real Postfix 3.7 to the reports in the recipients' mailbox."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.reports import (
    NOT_CLOSED,
    PATIENCE,
    Policy,
    Received,
    Reporting,
    by_domain,
    ed25519_key,
    failed,
    good,
    running,
    unfetched,
)
from tests.e2e.world.postfix import Postfix
from tests.e2e.world.scenarios import REPORTS_DOMAIN
from tests.e2e.world.waiting import until
from tests.e2e.world.world import World

pytestmark = pytest.mark.e2e

WANT: dict[str, list[Policy]] = {
    "good.sts.test": [good("sts")],
    "expired.sts.test": [failed("sts", "certificate-expired", "mx.expired.sts.test")],
    "nostarttls.sts.test": [failed("sts", "starttls-not-supported", "mx.nostarttls.sts.test")],
    "testing.sts.test": [good("sts")],
    "testing-expired.sts.test": [
        failed(
            "sts",
            "certificate-expired",
            "mx.testing-expired.sts.test",
            "X509_V_ERR_CERT_HAS_EXPIRED",
        ),
    ],
    "pol404.sts.test": [unfetched("sts-policy-fetch-error", "status")],
    "plain.sts.test": [good("no-policy-found")],
}

PROBED = ("testing.sts.test", "testing-expired.sts.test")

UNWANTED = "norpt.sts.test"
"""It has no TLS-RPT record; the log tells of it all the same."""


@pytest.fixture(scope="module")
def reporting(world: World, postfixes: dict[str, Postfix], daemon: Daemon) -> Iterator[Reporting]:
    postfix = postfixes["3.7"]
    collect = f'datagrams = false\nlogfile = "{postfix.log}"\nsending_ip = "127.0.0.1"'
    made = Reporting(world, postfix, "log", ed25519_key(), collect)
    with running(made, instead_of=daemon):
        yield made


@pytest.fixture(scope="module")
def first_day(reporting: Reporting) -> int:
    """How many days ago it was; its reports are delivered."""
    domains = {*WANT, UNWANTED}
    return reporting.report_day("log", domains, probed=PROBED, mails=len(WANT), counted=domains)


@pytest.fixture(scope="module")
def mailed(reporting: Reporting, first_day: int) -> dict[str, Received]:
    return by_domain(map(reporting.read, reporting.mails()))


@pytest.mark.parametrize("domain", WANT)
def test_what_is_reported(domain: str, mailed: dict[str, Received]) -> None:
    assert mailed[domain].said == WANT[domain]


def test_nobody_else_gets_a_report(
    reporting: Reporting, first_day: int, mailed: dict[str, Received]
) -> None:
    assert mailed.keys() == WANT.keys()
    assert reporting.listed(first_day)[UNWANTED]["state"] == "no-record"


def test_reports_about_reports_do_not_loop(
    reporting: Reporting, mailed: dict[str, Received]
) -> None:
    """The log tells of each report mail, and the mailbox's own domain wants reports as well."""

    def told() -> bool:
        row = reporting.listed().get(REPORTS_DOMAIN)
        return row is not None and row["sessions"] == len(mailed)

    until("the log read", told, seconds=PATIENCE, log=reporting.daemon.log)
    with reporting.stopped():
        ago = reporting.end_day()
        (own,) = reporting.listed(ago).values()
        assert (own["domain"], own["sessions"]) == (REPORTS_DOMAIN, len(mailed))

    def state() -> object:
        return reporting.listed(ago)[REPORTS_DOMAIN]["state"]

    until("closed", lambda: state() != NOT_CLOSED, seconds=PATIENCE)
    assert state() == "looped"
