"""DNS: a signed root zone, an unsigned zone below it, and a validating unbound that serves both.

unbound reads the zone files as an authority would have sent them (`auth-zone`), and validates them
from the trust anchor like anything else, so no second name server is needed.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import dns.dnssec
import dns.name
import dns.rdataset
import dns.rdatatype
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec
from dns.dnssectypes import Algorithm

from tests.e2e.world.netns import Namespace
from tests.e2e.world.scenarios import REPORTS_HOST, Mx, Scenario, TlsaKind
from tests.e2e.world.tree import Tree
from tests.e2e.world.waiting import until, until_up

RESOLVER = "127.0.0.53"
WEB = "127.0.2.1"
DEAD = "127.0.2.9"
"""An address at which nobody listens."""

RESOLV_CONF = f"nameserver {RESOLVER}\noptions edns0 trust-ad\n"
"""glibc hides the AD bit from Postfix without trust-ad."""

UNSIGNED = "sts.test."
RELOAD = 10.0
"""Seconds for unbound to read its zones again."""

KSK = 257
"""DNSKEY flags: a zone key that is its entry point."""

UNBOUND_CONF = """
server:
  interface: {resolver}
  access-control: 127.0.0.0/8 allow
  do-daemonize: no
  do-ip6: no
  do-not-query-localhost: no
  chroot: ""
  username: ""
  directory: "/srv"
  pidfile: ""
  use-syslog: no
  logfile: ""
  val-log-level: 2
  module-config: "validator iterator"
  local-zone: "test." nodefault
  trust-anchor-file: "/srv/root.key"
remote-control:
  control-enable: no
auth-zone:
  name: "."
  zonefile: "/srv/root.zone"
  for-downstream: no
auth-zone:
  name: "{unsigned}"
  zonefile: "/srv/unsigned.zone"
  for-downstream: no
"""


def addresses(world: Iterable[Scenario]) -> dict[str, str]:
    """The address of each mail server."""
    given: dict[str, str] = {}
    for mx in (mx for scenario in world for mx in scenario.mx):
        own = f"127.0.1.{len(given) + 1}"
        given.setdefault(mx.name, DEAD if mx.smtp == "down" else own)
    return given


def records(world: Iterable[Scenario], tlsa: Mapping[str, str]) -> Iterator[str]:
    """The world's records as zone file lines; `tlsa` has the digest of each host's key."""
    world = tuple(world)
    address = addresses(world)
    yield from (f"{host}. A {ip}" for host, ip in address.items())
    yield f"{REPORTS_HOST}. A {WEB}"
    for scenario in world:
        yield from _of_domain(scenario)
        for mx in scenario.mx:
            yield from _of_host(scenario, mx, tlsa)


def _of_domain(scenario: Scenario) -> Iterator[str]:
    domain = scenario.domain
    for text in scenario.records:
        yield f'_mta-sts.{domain}. TXT "{text}"'
    for text in scenario.tlsrpt:
        yield f'_smtp._tls.{domain}. TXT "{text}"'
    if scenario.mode and scenario.policy.address != "none":
        yield f"mta-sts.{domain}. A {WEB if scenario.policy.address == 'web' else DEAD}"


def _of_host(scenario: Scenario, mx: Mx, tlsa: Mapping[str, str]) -> Iterator[str]:
    if not scenario.nexthop and not scenario.implicit_mx:
        yield f"{scenario.domain}. MX {mx.preference} {mx.host}."
    if mx.alias_of:
        yield f"{mx.host}. CNAME {mx.alias_of}."
    data: dict[TlsaKind, str] = {
        "good": f"3 1 1 {tlsa[mx.name]}",
        "bogus": f"3 1 1 {tlsa[mx.name]}",
        "ta": f"2 1 1 {tlsa['']}",
        "mismatch": "3 1 1 " + "ab" * 32,
        "unusable": "3 9 9 " + "cd" * 8,
    }
    if mx.tlsa:
        yield f"_{mx.port}._tcp.{mx.name}. TLSA {data[mx.tlsa]}"


def bogus_names(world: Iterable[Scenario]) -> set[dns.name.Name]:
    """The names whose TLSA record gets a broken signature."""
    hosts = (mx for scenario in world for mx in scenario.mx if mx.tlsa == "bogus")
    return {dns.name.from_text(f"_{mx.port}._tcp.{mx.name}.") for mx in hosts}


def zone(origin: str, lines: Iterable[str], delegation: str = "") -> dns.zone.Zone:
    """A zone of the lines, with SOA and NS, before signing."""
    head = [
        "$TTL 60",
        f"{origin} SOA ns.dane.test. hostmaster.dane.test. 1 3600 3600 86400 60",
        f"{origin} NS ns.dane.test.",
        delegation,
    ]
    text = "\n".join([*head, *sorted(set(lines)), ""])
    return dns.zone.from_text(text, origin=origin, relativize=False)


def sign(signed: dns.zone.Zone, bogus: set[dns.name.Name]) -> str:
    """Sign the zone, break the TLSA signatures at `bogus`, return the trust anchor."""
    key = ec.generate_private_key(ec.SECP256R1())
    dnskey = dns.dnssec.make_dnskey(key.public_key(), Algorithm.ECDSAP256SHA256, KSK)
    now = int(time.time())
    dns.dnssec.sign_zone(
        signed, keys=[(key, dnskey)], inception=now - 86400, expiration=now + 30 * 86400
    )
    for name in bogus:
        _break_signatures(signed, name)
    return f"{signed.origin} DNSKEY {dnskey.to_text()}\n"


def _break_signatures(signed: dns.zone.Zone, name: dns.name.Name) -> None:
    good = signed.find_rdataset(name, dns.rdatatype.RRSIG, dns.rdatatype.TLSA)
    broken = [sig.replace(signature=bytes(len(sig.signature))) for sig in good]
    signed.replace_rdataset(name, dns.rdataset.from_rdata_list(good.ttl, broken))


class Unbound:
    """The world's resolver. `tlsa` has the digest of each host's key."""

    def __init__(
        self, namespace: Namespace, tree: Tree, folder: Path, tlsa: Mapping[str, str]
    ) -> None:
        folder.mkdir()
        self._namespace, self._tree, self._folder, self._tlsa = namespace, tree, folder, tlsa
        self._log = folder / "unbound.log"

    def start(self, world: Iterable[Scenario]) -> subprocess.Popen[bytes]:
        """Serve the world's zones."""
        self._write(world)
        conf = UNBOUND_CONF.format(resolver=RESOLVER, unsigned=UNSIGNED)
        (self._folder / "unbound.conf").write_text(conf)
        self._namespace.bind(self._folder, self._tree.path / "srv")
        argv = ("chroot", str(self._tree.path), "unbound", "-d", "-c", "/srv/unbound.conf")
        self._process = self._namespace.start(*argv, log=self._log)
        until_up("unbound", self._process, lambda: self._starts() > 0, log=self._log)
        return self._process

    def change(self, world: Iterable[Scenario]) -> None:
        """Serve other zones from now on, signed with another key; nothing old stays cached."""
        self._write(world)
        before = self._starts()
        self._process.send_signal(signal.SIGHUP)
        until("reload", lambda: self._starts() > before, seconds=RELOAD, log=self._log)

    def _write(self, world: Iterable[Scenario]) -> None:
        world = tuple(world)
        lines = set(records(world, self._tlsa))
        below = {line for line in lines if line.split()[0].endswith("." + UNSIGNED)}
        delegation = f"ns.dane.test. A {DEAD}\n{UNSIGNED} NS ns.dane.test."
        root = zone(".", lines - below, delegation)
        anchor = sign(root, bogus_names(world))
        root.to_file(str(self._folder / "root.zone"))
        zone(UNSIGNED, below).to_file(str(self._folder / "unsigned.zone"))
        (self._folder / "root.key").write_text(anchor)

    def _starts(self) -> int:
        return self._log.read_text().count("start of service")
