"""A real Postfix delivers to every good receiver and to no faulty one."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.e2e.conftest import Outcomes
from tests.e2e.daemon import Daemon
from tests.e2e.world.postfix import RELEASES, Release
from tests.e2e.world.scenarios import SCENARIOS, Scenario, Want
from tests.e2e.world.world import World

pytestmark = pytest.mark.e2e

releases = pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.version)
scenarios = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.domain)


def test_each_domain_stands_once() -> None:
    """Two scenarios of one domain would answer for each other."""
    assert [n for n, times in Counter(s.domain for s in SCENARIOS).items() if times > 1] == []


@releases
@scenarios
def test_with_the_policy_map(
    release: Release, scenario: Scenario, outcomes: Outcomes, daemon: Daemon
) -> None:
    outcome = outcomes[release.version].get(release.guarded(scenario))
    assert outcome is not None, "not tried"
    key = scenario.nexthop or scenario.recipient_domain
    assert outcome.came_to == release.want(scenario), (
        f"the daemon now says {daemon.reply(key, release.map_name)!r}\n{outcome}"
    )


@releases
@scenarios
def test_without_it(release: Release, scenario: Scenario, outcomes: Outcomes) -> None:
    """What is refused above is refused for the policy, and nothing else protects it."""
    outcome = outcomes[release.version].get(release.bare(scenario))
    want: Want = "refused" if scenario.broken else "sent"
    assert outcome is not None, "not tried"
    assert outcome.came_to == want, str(outcome)


@releases
@scenarios
def test_what_the_receiver_got(
    release: Release, scenario: Scenario, outcomes: Outcomes, world: World
) -> None:
    """The receivers' own word for it: the log of Postfix may say what it likes."""
    assert release.guarded(scenario) in outcomes[release.version]
    over_tls = [mail.tls for mail in world.kept.mails(to=release.guarded(scenario))]
    match release.want(scenario):
        case "refused":
            assert over_tls == []
        case "verified":
            assert over_tls == [True]
        case "sent":
            assert len(over_tls) == 1
