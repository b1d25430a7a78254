"""What a real Postfix does while the daemon is away, and after it came back."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.world.outcomes import Outcome
from tests.e2e.world.postfix import Postfix
from tests.e2e.world.scenarios import SCENARIOS, PolicyHost
from tests.e2e.world.world import World

pytestmark = pytest.mark.e2e

PATIENCE = 30.0
"""Seconds for a delivery."""

BY_DOMAIN = {scenario.domain: scenario for scenario in SCENARIOS}
GOOD, EXPIRED = BY_DOMAIN["good.sts.test"], BY_DOMAIN["expired.sts.test"]


def deliver(postfixes: dict[str, Postfix], *recipients: str) -> dict[str, list[Outcome]]:
    """Send one message with each Postfix; the outcomes by version."""
    for postfix in postfixes.values():
        postfix.send(recipients)
    came = {version: p.wait(recipients, PATIENCE) for version, p in postfixes.items()}
    return {version: [outcome[r] for r in recipients] for version, outcome in came.items()}


def test_mail_waits_for_a_daemon_that_is_away(
    postfixes: dict[str, Postfix], daemon: Daemon
) -> None:
    assert daemon.stop() == 0
    try:
        for away in deliver(postfixes, f"away@{GOOD.domain}").values():
            assert [outcome.status for outcome in away] == ["deferred"]
    finally:
        daemon.start()
    for back in deliver(postfixes, f"back@{GOOD.domain}").values():
        assert [outcome.came_to for outcome in back] == ["verified"]


def test_policies_outlive_the_daemon_and_their_host(
    world: World, postfixes: dict[str, Postfix], daemon: Daemon
) -> None:
    """Killed after the first look-up; then the attacker blocks record and policy host."""
    for scenario in (GOOD, EXPIRED):
        assert daemon.reply(scenario.domain).startswith("OK secure ")
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGKILL)
    daemon.process.wait()
    blocked = (replace(s, txt=(), policy=PolicyHost(address="dead")) for s in (GOOD, EXPIRED))
    with world.changed(*blocked):
        daemon.start()
        outcomes = deliver(postfixes, f"kept@{GOOD.domain}", f"kept@{EXPIRED.domain}")
    for good, expired in outcomes.values():
        assert (good.came_to, expired.came_to) == ("verified", "refused")
