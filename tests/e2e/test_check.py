"""`mtastsd check` foretells what a real Postfix does with each scenario."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.world.scenarios import SCENARIOS, Scenario, Want
from tests.e2e.world.world import World

pytestmark = pytest.mark.e2e

AT_ONCE = 4
"""Processes; each is a second of Python and no more."""

CONFIG = """
[dns]
dnssec = "on"  # no root is signed here, so that nothing proves itself before the first answer

[fetch]
allow_private_addresses = true
timeout = "5s"
"""

BEHIND_MAIL = {"rcpt550.sts.test", "rcpt451.sts.test"}
"""Faults that show only after MAIL, which a probe never says."""

Found = dict[str, Any]


@pytest.fixture(scope="session")
def found(world: World) -> dict[str, tuple[int, Found]]:
    """Exit status and object for each scenario, by domain."""
    config = world.folder / "check.toml"
    config.write_text(CONFIG)

    def check(scenario: Scenario) -> tuple[int, Found]:
        key = scenario.nexthop or scenario.recipient_domain
        program = str(Path(sys.executable).parent / "mtastsd")
        argv = (program, "check", "--json", "--config", str(config), key)
        done = subprocess.run(
            world.namespace.inside(argv),
            env={**os.environ, "SSL_CERT_FILE": str(world.pki.ca_file)},
            capture_output=True,
            check=False,
        )
        assert done.stderr == b"", done.stderr.decode()
        return done.returncode, json.loads(done.stdout)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip((s.domain for s in SCENARIOS), pool.map(check, SCENARIOS), strict=True))


def foretold(found: Found) -> Want:
    """What becomes of the first host, by preference, that takes the mail."""
    outlooks = [host["outlook"] for host in found["mx"]]
    passing = next((outlook["why"] for outlook in outlooks if outlook["passes"]), None)
    if passing is None:
        return "refused"
    return "verified" if passing in ("verified", "dane") else "sent"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.domain)
def test_what_it_foretells(scenario: Scenario, found: dict[str, tuple[int, Found]]) -> None:
    status, said = found[scenario.domain]
    want: Want = "verified" if scenario.domain in BEHIND_MAIL else scenario.want
    assert foretold(said) == want, json.dumps(said, indent=1)
    assert status == (1 if said["findings"] else 0)
    if want == "refused":
        assert said["findings"], said
