"""Reports where the datagrams and the log of a real Postfix 3.10 are both read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.reports import (
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
from tests.e2e.world.world import World

pytestmark = pytest.mark.e2e

WANT: dict[str, list[Policy]] = {
    # Told twice, counted once.
    "good.sts.test": [good("sts")],
    "expired.sts.test": [failed("sts", "certificate-expired", "mx.expired.sts.test")],
    "pol404.sts.test": [unfetched("sts-policy-fetch-error", "status")],
    "good.dane.test": [good("tlsa")],
    "plain.sts.test": [good("no-policy-found")],
    # The log alone says which host it was.
    "testing-expired.sts.test": [
        failed(
            "sts",
            "certificate-expired",
            "mx.testing-expired.sts.test",
            "X509_V_ERR_CERT_HAS_EXPIRED",
        ),
    ],
    # The log alone says that there was a host.
    "mxnotlisted.sts.test": [
        failed(
            "sts",
            "validation-failure",
            "mx.mxnotlisted.sts.test",
            "mtasts-policy-mx-mismatch",
        ),
    ],
}


@pytest.fixture(scope="module")
def reporting(world: World, postfixes: dict[str, Postfix], daemon: Daemon) -> Iterator[Reporting]:
    postfix = postfixes["3.10"]
    collect = f'datagrams = true\nlogfile = "{postfix.log}"'
    made = Reporting(world, postfix, "both", ed25519_key(), collect)
    with running(made, instead_of=daemon):
        yield made


@pytest.fixture(scope="module")
def mailed(reporting: Reporting) -> dict[str, Received]:
    probed = ["testing-expired.sts.test"]
    reporting.report_day("both", WANT, probed=probed, mails=len(WANT), counted=WANT)
    return by_domain(map(reporting.read, reporting.mails()))


@pytest.mark.parametrize("domain", WANT)
def test_what_is_reported(domain: str, mailed: dict[str, Received]) -> None:
    assert mailed[domain].said == WANT[domain]


def test_nobody_else_gets_a_report(reporting: Reporting, mailed: dict[str, Received]) -> None:
    assert mailed.keys() == WANT.keys()
    with reporting.stopped():
        assert reporting.listed() == {}, "report mail was counted"
