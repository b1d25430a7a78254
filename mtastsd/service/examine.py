"""One live reading of a next hop with nothing known: all that `mtastsd check` shows.

The daemon asks no more than what decides; this asks for everything, and looks at each MX host as a
delivery would. What it leads to is decided by the same rules.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mtastsd import dane
from mtastsd.answers import AddressAnswer, Answer, MxAnswer, TxtAnswer
from mtastsd.dane import HostReading, Hosts, HostState, NoHosts
from mtastsd.names import MAX_NAME, Domain, child
from mtastsd.outlook import Outlook, best, outlook
from mtastsd.ports import Clock, Fetched, PolicyFetcher, Prober, Resolver
from mtastsd.postfix import reply, socketmap
from mtastsd.postfix.nexthop import NextHop
from mtastsd.probing import Probe
from mtastsd.service import reading
from mtastsd.service.current import Settings
from mtastsd.service.reading import StsReading
from mtastsd.sts import policy as policies
from mtastsd.sts import record as sts_records
from mtastsd.sts.failure import Failure
from mtastsd.sts.matching import allows
from mtastsd.sts.policy import Policy, PolicyError
from mtastsd.tlsrpt import record as tlsrpt_records
from mtastsd.verdict import Override, Verdict, What, decide

MAX_PROBED_HOSTS = 8
"""MX hosts that are probed, by preference: enough to see a farm's faults, few enough to be polite.
All are probed at once, so that the whole takes no longer than one probe may."""

MAX_ADDRESSES = 2
"""Addresses of one host that are probed, one of each family where there are both."""

HTTPS_PORT = 443

MAPS = ("postfix", "postfix-tlsrpt")
"""The map names whose replies are shown."""

StsSelected = sts_records.Record | sts_records.NoRecord | sts_records.BadRecord
TlsRptSelected = tlsrpt_records.Record | tlsrpt_records.NoRecord | tlsrpt_records.BadRecord


@dataclass(frozen=True, slots=True)
class StsSide:
    """MTA-STS. `selected` is None where DNS gave no answer; `problems` is every fault of a policy
    file that came; `certificate` is the policy host's, where it could be looked at; `seconds` is
    how long record and fetch took."""

    reading: StsReading
    selected: StsSelected | None
    policy: Policy | None
    failure: Failure | None
    problems: tuple[PolicyError, ...]
    certificate: Probe | None
    seconds: float


@dataclass(frozen=True, slots=True)
class MxHost:
    """One MX host. `preference` is None where no MX record names it (implicit MX, brackets).

    `pattern` is the one of the policy that lists the host, None for none. `seen` are the probes,
    each with its outlook under the verdict; `outlook` is the host's. `enforced`: the outlook if a
    policy in mode testing were enforced, None elsewhere.
    """

    host: Domain
    preference: int | None
    addresses: AddressAnswer
    reading: HostReading
    pattern: str | None
    seen: tuple[tuple[Probe, Outlook], ...]
    outlook: Outlook
    enforced: Outlook | None


@dataclass(frozen=True, slots=True)
class TlsRptSide:
    """The TLS-RPT record; `selected` is None where DNS gave no answer."""

    record: TxtAnswer
    selected: TlsRptSelected | None


@dataclass(frozen=True, slots=True)
class Examination:
    """A next hop as it is at `now`. `mx` is the MX answer, None where none was asked for.

    `validates`: a resolver here validates. `probed` false: nobody looked at the hosts. `override`
    is what the configuration says of the domain, ended or not. `replies` are the exact texts by
    map name.
    """

    hop: NextHop
    now: float
    settings: Settings
    validates: bool
    probed: bool
    sts: StsSide
    mx: MxAnswer | None
    hosts: Hosts | NoHosts
    finding: dane.Finding
    mx_hosts: tuple[MxHost, ...]
    tls_rpt: TlsRptSide
    override: Override | None
    verdict: Verdict
    replies: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _MxSide:
    answer: MxAnswer | None
    hosts: Hosts | NoHosts
    readings: Sequence[HostReading]
    addresses: Sequence[AddressAnswer]


class Examiner:
    """Examines next hops. `prober` None: mail and policy hosts are not looked at."""

    def __init__(
        self,
        settings: Settings,
        *,
        resolver: Resolver,
        fetcher: PolicyFetcher,
        prober: Prober | None,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._fetcher = fetcher
        self._prober = prober
        self._clock = clock

    async def examine(self, hop: NextHop) -> Examination:
        """Takes as long as the slowest of the policy fetch and a probe."""
        async with asyncio.TaskGroup() as group:
            sts_task = group.create_task(self._sts(hop.domain))
            mx_task = group.create_task(self._mx(hop))
            tls_rpt_task = group.create_task(self._tls_rpt(hop.domain))
            mx = await mx_task
            seen = await self._probes(hop, mx)
        sts = sts_task.result()
        now = sts.reading.settled.branch.checked_at
        finding, ttl = self._finding(mx)
        branch = dane.settle(None, now, finding, ttl) if self._settings.rules.dane else None
        override = self._settings.overrides.get(hop.domain)
        verdict = decide(
            hop.domain, sts.reading.settled.branch, branch, override, self._settings.rules, now
        )
        return Examination(
            hop,
            now,
            self._settings,
            self._resolver.validates(),
            self._prober is not None,
            sts,
            mx.answer,
            mx.hosts,
            finding,
            _mx_hosts(mx, seen, sts.policy, verdict, now),
            tls_rpt_task.result(),
            override,
            verdict,
            {name: _reply(verdict, name) for name in MAPS},
        )

    # -- MTA-STS

    async def _sts(self, domain: Domain) -> StsSide:
        started = self._clock.monotonic()
        found = await reading.read_sts(
            domain,
            None,
            resolver=self._resolver,
            fetcher=self._fetcher,
            clock=self._clock,
            timing=self._settings.timing,
        )
        seconds = self._clock.monotonic() - started
        branch, body = found.settled.branch, found.fetch
        return StsSide(
            found,
            sts_records.select(found.record.records) if isinstance(found.record, Answer) else None,
            branch.policy(branch.checked_at),
            branch.failure,
            policies.problems(body.body) if isinstance(body, Fetched) else (),
            await self._certificate(domain) if _was_reached(found) else None,
            seconds,
        )

    async def _certificate(self, domain: Domain) -> Probe | None:
        name = child("mta-sts", domain)
        if self._prober is None or len(name) > MAX_NAME:
            return None
        found = await self._resolver.addresses(name, validated=False)
        addresses = _to_probe(found)
        if not addresses:
            return None
        # The last is the IPv4 address where there is one: more machines have no IPv6.
        return await self._prober.certificate(name, addresses[-1], HTTPS_PORT)

    async def _tls_rpt(self, domain: Domain) -> TlsRptSide:
        record = await reading.read_txt(self._resolver, "_smtp._tls", domain)
        if isinstance(record, Answer):
            return TlsRptSide(record, tlsrpt_records.select(record.records))
        return TlsRptSide(record, None)

    # -- MX and DANE

    async def _mx(self, hop: NextHop) -> _MxSide:
        hosts, answer = await reading.read_mx(self._resolver, hop)
        if isinstance(hosts, NoHosts):
            return _MxSide(answer, hosts, (), ())
        async with asyncio.TaskGroup() as group:
            readings = group.create_task(reading.read_hosts(self._resolver, hosts.hosts, hop.port))
            # Once more without DNSSEC: where nothing validates the readings have no address.
            addresses = [
                group.create_task(self._resolver.addresses(host, validated=False))
                for host in hosts.hosts
            ]
        return _MxSide(answer, hosts, readings.result(), [task.result() for task in addresses])

    def _finding(self, mx: _MxSide) -> tuple[dane.Finding, float]:
        if not self._resolver.validates():
            return dane.Finding.NONE, dane.TTL_MIN
        if isinstance(mx.hosts, NoHosts):
            return mx.hosts.finding, mx.hosts.ttl
        heard = [r.ttl for r in mx.readings if r.state is not HostState.ERROR]
        return dane.find(mx.hosts, mx.readings), min([mx.hosts.ttl, *heard])

    async def _probes(self, hop: NextHop, mx: _MxSide) -> Sequence[Sequence[Probe]]:
        """The probes of each host, in the order of the hosts."""
        prober = self._prober
        if prober is None:
            return [[] for _ in mx.readings]
        async with asyncio.TaskGroup() as group:
            tasks = [
                [
                    group.create_task(prober.probe(_sni(r), address, hop.port))
                    for address in _to_probe(found)
                ]
                for r, found in list(zip(mx.readings, mx.addresses, strict=True))[:MAX_PROBED_HOSTS]
            ]
        seen: list[list[Probe]] = [[task.result() for task in of_host] for of_host in tasks]
        return seen + [[] for _ in mx.readings[MAX_PROBED_HOSTS:]]


def _was_reached(found: StsReading) -> bool:
    """Whether the policy host was there to show a certificate."""
    if isinstance(found.fetch, Failure):
        return found.fetch.kind not in ("dns", "address", "connect", "timeout")
    return found.fetch is not None


def _sni(of: HostReading) -> Domain:
    """RFC 7672 §8.1: with DANE the TLSA base domain is asked for, else the MX host."""
    return Domain(of.base) if of.state is HostState.USABLE and of.base else of.host


def _to_probe(found: AddressAnswer) -> list[str]:
    """One address of each family, IPv6 first."""
    if not isinstance(found, Answer):
        return []
    six = [a for a in found.records if ":" in a]
    four = [a for a in found.records if ":" not in a]
    return (six[:1] + four[:1] if six and four else six + four)[:MAX_ADDRESSES]


def _mx_hosts(
    mx: _MxSide,
    seen: Sequence[Sequence[Probe]],
    policy: Policy | None,
    verdict: Verdict,
    now: float,
) -> tuple[MxHost, ...]:
    preferences: dict[Domain, int] = {}
    for record in mx.answer.records if isinstance(mx.answer, Answer) else ():
        if record.host is not None:
            known = preferences.get(record.host, record.preference)
            preferences[record.host] = min(known, record.preference)
    testing = policy is not None and policy.mode == "testing" and not verdict.enforced
    enforcing = replace(verdict, what=What.SECURE, mx=policy.mx) if testing and policy else None
    return tuple(
        _mx_host(r, preferences.get(r.host), addresses, probes, policy, verdict, enforcing, now)
        for r, addresses, probes in zip(mx.readings, mx.addresses, seen, strict=True)
    )


def _mx_host(
    of: HostReading,
    preference: int | None,
    addresses: AddressAnswer,
    probes: Sequence[Probe],
    policy: Policy | None,
    verdict: Verdict,
    enforcing: Verdict | None,
    now: float,
) -> MxHost:
    patterns = policy.mx if policy is not None else ()
    outlooks = [outlook(verdict, of, probe, now) for probe in probes]
    tried: Sequence[Probe | None] = probes or [None]
    return MxHost(
        of.host,
        preference,
        addresses,
        of,
        next((p for p in patterns if allows(p, of.host)), None),
        tuple(zip(probes, outlooks, strict=True)),
        best(outlook(verdict, of, probe, now) for probe in tried),
        best(outlook(enforcing, of, probe, now) for probe in tried) if enforcing else None,
    )


def _reply(verdict: Verdict, name: str) -> str:
    text = reply.render(verdict, reply.style(name))
    payload = socketmap.notfound() if text is None else socketmap.ok(text)
    return payload.decode("utf-8", "replace")
