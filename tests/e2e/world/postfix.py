"""A sending Postfix as Debian ships it, smtp(8) in its own chroot and all."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.world.dns import RESOLV_CONF
from tests.e2e.world.outcomes import Outcome, outcomes
from tests.e2e.world.scenarios import WORLD, Scenario, Want
from tests.e2e.world.tree import Tree
from tests.e2e.world.waiting import WorldError, until, until_up
from tests.e2e.world.world import World

SOCKETS = Path("/run/mtastsd")
"""Where the daemon's sockets are seen from inside smtp(8)'s chroot."""

SLOW_PORT = 2525
"""Where mail is taken like anywhere else, but each takes a second."""

PRIVATE = ("etc", "var/log", "var/lib/postfix", "var/spool/postfix")
"""Folders of the tree that a run has copies of."""

BARE = "bare"
"""A transport without any policy map."""

MAIN_CF = """
compatibility_level = 3.6
myhostname = sender.sts.test
mydestination =
local_recipient_maps =
mynetworks = 127.0.0.0/8
inet_protocols = ipv4
inet_interfaces = 127.0.0.1
maillog_file = /var/log/mail.log
transport_maps = texthash:/etc/postfix/transport
smtp_dns_support_level = dnssec
smtp_host_lookup = dns
smtp_tls_CAfile = /etc/postfix/world-ca.pem
smtp_tls_loglevel = 1
smtp_tls_session_cache_database =
smtp_connection_cache_on_demand = no
smtp_connect_timeout = 5s
smtp_helo_timeout = 10s
smtp_starttls_timeout = 10s
"""


@dataclass(frozen=True, slots=True)
class Release:
    """A Postfix and how it is set up: the map name that fits it, the site's own TLS level.

    The levels differ on purpose: at `dane` Postfix would do some of the daemon's work itself.
    `listen`: where it takes mail by SMTP.
    """

    version: str
    suite: str
    map_name: str
    level: str
    listen: str

    @property
    def tlsrpt(self) -> bool:
        """Whether it tells of deliveries by libtlsrpt."""
        return self.map_name == "postfix-tlsrpt"

    @property
    def slow(self) -> str:
        """Where it takes mail slowly."""
        return f"{self.listen.rpartition(':')[0]}:{SLOW_PORT}"

    def guarded(self, scenario: Scenario) -> str:
        """The recipient whose mail goes out under the policy map."""
        return f"{self.suite}@{scenario.recipient_domain}"

    def bare(self, scenario: Scenario) -> str:
        """The one whose mail goes out without, at level `may`."""
        return f"{self.suite}-{BARE}@{scenario.recipient_domain}"

    def recipients(self, scenario: Scenario) -> tuple[str, str]:
        return self.guarded(scenario), self.bare(scenario)

    def want(self, scenario: Scenario) -> Want:
        """What the scenario leads to with this Postfix."""
        if self.map_name == "postfix" and scenario.want_plain:
            return scenario.want_plain
        return scenario.want


RELEASES = (
    Release("3.7", "bookworm", "postfix", "may", "127.0.0.7:25"),
    Release("3.10", "trixie", "postfix-tlsrpt", "dane", "127.0.0.1:25"),
)


class Postfix:
    """One release. It can be started once in a world."""

    def __init__(self, world: World, release: Release) -> None:
        self.release = release
        self._world, self._namespace = world, world.namespace
        self._folder = world.folder / release.suite
        self._tree = Tree(release.suite).path
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self._folder / "var/log/mail.log"

    def start(self, settings: Mapping[str, str] | None = None) -> None:
        """Start it; `settings` are added to main.cf."""
        self._mount()
        self._configure(settings or {})
        # The shell, first process of a namespace, takes all others with it when it is killed.
        # master(8) would lose the signal of its parent's death as it changes its user.
        alone = ("unshare", "--pid", "--fork", "--kill-child", "sh", "-c", '"$@"; exit', "sh")
        argv = (*alone, *self._chroot("postfix", "start-fg"))
        out = self._folder / "postfix.out"
        self._process = self._namespace.start(*argv, log=out)
        until_up(f"Postfix {self.release.version}", self._process, self._started, log=self.log)

    def send(self, recipients: Iterable[str], text: str = "hello") -> None:
        """One message for all of them."""
        message = f"Subject: a test\n\n{text}\n"
        self._namespace.run(*self._chroot("sendmail", "-i", "-f", "<>", *recipients), text=message)

    def wait(self, recipients: Iterable[str], seconds: float) -> dict[str, Outcome]:
        """The outcomes, when all of them are there or the time is over."""
        wanted = set(recipients)
        with contextlib.suppress(WorldError):  # the test of each recipient says what is missing
            until("delivery", lambda: wanted <= self.outcomes().keys(), seconds=seconds)
        return self.outcomes()

    def outcomes(self) -> dict[str, Outcome]:
        return outcomes(self.log.read_text(errors="replace").splitlines())

    def stop(self) -> None:
        """Kill it; a run's queue is of no use to anybody."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _started(self) -> bool:
        return self.log.exists() and "daemon started" in self.log.read_text(errors="replace")

    def _chroot(self, *argv: str) -> tuple[str, ...]:
        return ("chroot", str(self._tree), *argv)

    def _mount(self) -> None:
        """Give the tree a /dev, and copies of what Postfix writes to."""
        run = self._namespace.run
        for name in PRIVATE:
            copy = self._folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            run("cp", "-a", str(self._tree / name), str(copy))
            self._namespace.bind(copy, self._tree / name)
        run("mount", "--rbind", "/dev", str(self._tree / "dev"))
        seen = self._folder / "var/spool/postfix" / SOCKETS.relative_to("/")
        seen.mkdir(parents=True)
        self._namespace.bind(self._world.sockets, self._tree / "var/spool/postfix/run/mtastsd")

    def _configure(self, settings: Mapping[str, str]) -> None:
        etc = self._folder / "etc"
        maps = f"socketmap:unix:{SOCKETS}/policy.sock:{self.release.map_name}"
        main = {
            "smtp_tls_security_level": self.release.level,
            "smtp_tls_policy_maps": maps,
            **self._results(),
            **settings,
        }
        lines = "".join(f"{name} = {value}\n" for name, value in main.items())
        (etc / "postfix/main.cf").write_text(MAIN_CF + lines)
        (etc / "postfix/transport").write_text("".join(_transports(self.release)))
        (etc / "postfix/world-ca.pem").write_bytes(self._world.pki.ca_file.read_bytes())
        (etc / "resolv.conf").unlink(missing_ok=True)
        (etc / "resolv.conf").write_text(RESOLV_CONF)
        chroot = self._folder / "var/spool/postfix/etc"
        chroot.mkdir(exist_ok=True)
        for name in ("resolv.conf", "services"):
            (chroot / name).write_bytes((etc / name).read_bytes())
        self._services()

    def _results(self) -> dict[str, str]:
        """Settings that make it tell the daemon what came of each delivery."""
        if not self.release.tlsrpt:
            return {}
        # The path is relative to the queue folder, which is smtp(8)'s root.
        name = f"{SOCKETS}/tlsrpt.sock".removeprefix("/")
        return {"smtp_tlsrpt_enable": "yes", "smtp_tlsrpt_socket_name": name}

    def _services(self) -> None:
        listen, run = self.release.listen, self._namespace.run
        run(*self._chroot("postconf", "-M#", "smtp/inet"))
        run(*self._chroot("postconf", "-M", f"{listen}/inet={listen} inet n - y - - smtpd"))
        slow = self.release.slow
        smtpd = f"{slow} inet n - y - - smtpd -o smtpd_end_of_data_restrictions=sleep,1"
        run(*self._chroot("postconf", "-M", f"{slow}/inet={smtpd}"))
        bare = f"{BARE} unix - - y - - smtp -o smtp_tls_policy_maps= -o smtp_tls_security_level=may"
        run(*self._chroot("postconf", "-M", f"{BARE}/unix={bare}"))


def _transports(release: Release) -> Iterable[str]:
    for scenario in WORLD:
        yield f"{release.bare(scenario)} {BARE}:{scenario.nexthop}\n"
        if scenario.nexthop:
            yield f"{scenario.recipient_domain} smtp:{scenario.nexthop}\n"
