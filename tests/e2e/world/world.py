"""The world, put together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.world.dns import RESOLV_CONF, Unbound
from tests.e2e.world.kept import Kept
from tests.e2e.world.netns import Namespace, stop
from tests.e2e.world.pki import Pki
from tests.e2e.world.scenarios import REPORTS_HOST, WORLD, Scenario
from tests.e2e.world.tree import Tree
from tests.e2e.world.waiting import until_up


@dataclass(frozen=True, slots=True)
class World:
    """`sockets`: the folder whose sockets each Postfix sees; `kept`: what the receivers got."""

    namespace: Namespace
    folder: Path
    sockets: Path
    pki: Pki
    kept: Kept
    unbound: Unbound

    @contextlib.contextmanager
    def changed(self, *scenarios: Scenario) -> Iterator[None]:
        """In the block DNS has these in the place of the domains' own. The receivers stay."""
        other = {scenario.domain: scenario for scenario in scenarios}
        self.unbound.change(other.get(scenario.domain, scenario) for scenario in WORLD)
        try:
            yield
        finally:
            self.unbound.change(WORLD)


@contextlib.contextmanager
def running(folder: Path, python: str) -> Iterator[World]:
    """The world without a sender, until the end of the block. `python`: the interpreter."""
    sockets = folder / "sockets"
    sockets.mkdir()
    sockets.chmod(0o755)
    pki = Pki(folder / "pki")
    tlsa = {"": pki.trusted.digest()}
    for scenario in WORLD:
        for mx in scenario.mx:
            tlsa[mx.name] = pki.issue(mx.name, mx.cert).digest()
        if scenario.mode:
            pki.issue(f"mta-sts.{scenario.domain}", scenario.policy.cert)
    pki.issue(REPORTS_HOST)
    with contextlib.ExitStack() as stack:
        namespace = Namespace.make()
        stack.callback(namespace.close)
        _resolve_inside(namespace, folder)
        unbound = Unbound(namespace, Tree("trixie"), folder / "dns", tlsa)
        stack.callback(stop, unbound.start(WORLD))
        kept = Kept(folder / "kept")
        log = folder / "receivers.log"
        argv = (python, "-m", "tests.e2e.world.receivers", str(pki.folder), str(folder / "kept"))
        receivers = namespace.start(*argv, log=log)
        stack.callback(stop, receivers)
        until_up("the receivers", receivers, lambda: "ready" in log.read_text(), log=log)
        yield World(namespace, folder, sockets, pki, kept, unbound)


def _resolve_inside(namespace: Namespace, folder: Path) -> None:
    """Whatever runs inside asks the world's resolver."""
    conf = folder / "resolv.conf"
    conf.write_text(RESOLV_CONF)
    namespace.bind(conf, Path("/etc/resolv.conf").resolve())
