"""One world for all tests with a real Postfix.

Without root they are skipped, with MTASTSD_E2E=optional also without the Debian trees. Under CI
neither is an excuse.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.world import netns
from tests.e2e.world import world as worlds
from tests.e2e.world.outcomes import Outcome
from tests.e2e.world.postfix import RELEASES, Postfix
from tests.e2e.world.scenarios import SCENARIOS
from tests.e2e.world.tree import SETUP, Tree
from tests.e2e.world.world import World

DELIVERY = 100.0
"""Seconds for everything to be tried once. It takes 10; Postfix waits up to 100 for a reply."""

Outcomes = dict[str, dict[str, Outcome]]
"""By Postfix version and recipient."""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    _require_means()
    with worlds.running(tmp_path_factory.mktemp("world"), sys.executable) as world:
        yield world


@pytest.fixture(scope="session")
def daemon(world: World) -> Iterator[Daemon]:
    """The one daemon, answering. A test that needs another configuration makes its own."""
    daemon = Daemon(world, world.folder / "daemon")
    daemon.start()
    yield daemon
    assert daemon.stop() == 0


@pytest.fixture(scope="session")
def postfixes(world: World, daemon: Daemon) -> Iterator[dict[str, Postfix]]:
    """Each release, started, by version."""
    made = {release.version: Postfix(world, release) for release in RELEASES}
    try:
        for postfix in made.values():
            postfix.start()
        yield made
    finally:
        for postfix in made.values():
            postfix.stop()


@pytest.fixture(scope="session")
def outcomes(postfixes: dict[str, Postfix]) -> Outcomes:
    """What became of one mail to each scenario, with the policy map and without."""
    recipients = {
        version: [address for s in SCENARIOS for address in postfix.release.recipients(s)]
        for version, postfix in postfixes.items()
    }
    for version, postfix in postfixes.items():
        postfix.send(recipients[version])
    return {
        version: postfix.wait(recipients[version], DELIVERY)
        for version, postfix in postfixes.items()
    }


def _require_means() -> None:
    """Skip, or end the run, where there can be no world."""
    root = os.geteuid() == 0
    why = _obstacle() if root else "needs root"
    if not why:
        return
    excused = not root or os.environ.get("MTASTSD_E2E") == "optional"
    if excused and not os.environ.get("CI"):
        pytest.skip(f"no real Postfix: {why}")
    pytest.exit(f"no real Postfix: {why}", returncode=1)


def _obstacle() -> str:
    absent = [release.suite for release in RELEASES if not Tree(release.suite).ready]
    if absent:
        return f"no tree of Debian {' and '.join(absent)}; {SETUP} builds them"
    return netns.obstacle()
