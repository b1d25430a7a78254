"""A prober that looks at nothing, what it finds stands in a table; and a domain to examine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from mtastsd.answers import Tlsa
from mtastsd.names import Domain
from mtastsd.postfix import nexthop
from mtastsd.postfix.nexthop import NextHop
from mtastsd.probing import ChainCertificate, Probe, Stage, Tls, Trouble
from mtastsd.service.current import Settings
from mtastsd.service.examine import Examination, Examiner
from mtastsd.sts.failure import Failure
from tests.fakeworld import GOOD, START, ManualClock, PolicyHosts, Zone

DAY = 86400.0
LEAF = b"the certificate"
ISSUER = b"the authority"


def seen(
    *names: str,
    verify: int = 0,
    ends: float = START + 90 * DAY,
    stage: Stage = Stage.DONE,
    trouble: Trouble | None = None,
    detail: str = "",
    code: int = 0,
) -> dict[str, Any]:
    """What a probe finds: a session with a certificate for these names."""
    chain = (ChainCertificate(LEAF, START - DAY, ends, True), ChainCertificate(ISSUER))
    tls = Tls(verify, "TLSv1.3", "TLS_AES_256_GCM_SHA384", chain, names, "Test CA")
    return {"stage": stage, "trouble": trouble, "detail": detail, "code": code, "tls": tls}


def ended(stage: Stage, trouble: Trouble, detail: str = "", code: int = 0) -> dict[str, Any]:
    """What a probe finds that saw no certificate."""
    return {"stage": stage, "trouble": trouble, "detail": detail, "code": code}


UNREACHABLE = ended(Stage.CONNECT, "timeout")


@dataclass
class Probes:
    """`ports.Prober` from tables by SNI name, or by name and address; what is in none can't be
    connected to."""

    hosts: dict[str | tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str, int]] = field(default_factory=list)

    async def probe(self, host: Domain, address: str, port: int) -> Probe:
        return self._find(host, address, port)

    async def certificate(self, host: str, address: str, port: int) -> Probe:
        return self._find(host, address, port)

    def _find(self, host: str, address: str, port: int) -> Probe:
        self.asked.append((host, address, port))
        found = self.hosts.get((host, address)) or self.hosts.get(host, UNREACHABLE)
        helo = host if found["stage"] > Stage.EHLO else ""
        return Probe(host, address, helo=helo, sending_ip="192.0.2.99", **found)


D = "example.com"
MX = "mx.example.com"
EXPIRED = seen(MX, verify=10, ends=START - DAY)
MATCHING = Tlsa(3, 0, 1, hashlib.sha256(LEAF).digest())
MISMATCH = Tlsa(3, 0, 1, b"\x01" * 32)


@dataclass
class World:
    """A domain with one good MX host and no policy, until something is changed."""

    zone: Zone = field(default_factory=Zone)
    policies: PolicyHosts = field(default_factory=PolicyHosts)
    probes: Probes = field(default_factory=Probes)
    settings: Settings = field(default_factory=Settings)
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.zone.mail(D, MX)
        self.zone.host(MX)
        self.probes.hosts[MX] = seen(MX)
        self.zone.host(f"mta-sts.{D}")
        self.probes.hosts[f"mta-sts.{D}"] = seen(f"mta-sts.{D}")

    def policy(self, body: bytes | Failure = GOOD) -> None:
        self.zone.policy(D)
        self.policies.bodies[D] = body

    def dane(self, tlsa: Tlsa = MATCHING) -> None:
        self.zone.mail(D, MX, secure=True)
        self.zone.host(MX, secure=True, tlsa=tlsa)

    async def examine(self, key: str = D, *, probe: bool = True) -> Examination:
        hop = nexthop.parse(key.encode())
        assert isinstance(hop, NextHop)
        examiner = Examiner(
            self.settings,
            resolver=self.zone,
            fetcher=self.policies,
            prober=self.probes if probe else None,
            clock=self.clock,
        )
        return await examiner.examine(hop)
