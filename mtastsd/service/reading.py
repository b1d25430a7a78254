"""The walks through DNS and HTTPS whose steps are rules: one for MTA-STS, one for DANE.

Discovery takes them with what it knows; `mtastsd check` takes them with nothing known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from mtastsd import dane
from mtastsd.answers import Answer, DnsError, MxAnswer, NoData, TlsaAnswer, TxtAnswer
from mtastsd.dane import HostReading, Hosts, HostState, NoHosts
from mtastsd.names import MAX_NAME, Domain, child
from mtastsd.ports import Clock, Fetched, FetchOutcome, PolicyFetcher, Resolver
from mtastsd.postfix.nexthop import NextHop
from mtastsd.sts import flow
from mtastsd.sts.flow import Fetch, Settled, StsBranch, Timing


@dataclass(frozen=True, slots=True)
class StsReading:
    """What came of the MTA-STS walk: each answer as it came, and the branch after it."""

    settled: Settled
    record: TxtAnswer
    fetch: FetchOutcome | None


async def read_txt(resolver: Resolver, label: str, domain: Domain) -> TxtAnswer:
    """The TXT records at `label.domain`; a name too long to exist has none."""
    name = child(label, domain)
    return NoData(False, 0, False) if len(name) > MAX_NAME else await resolver.txt(name)


async def read_sts(
    domain: Domain,
    known: StsBranch | None,
    *,
    resolver: Resolver,
    fetcher: PolicyFetcher,
    clock: Clock,
    timing: Timing,
    force: bool = False,
) -> StsReading:
    """TXT, and HTTPS where the rules ask for it (RFC 8461 §3). Takes as long as the fetch may."""
    record = await read_txt(resolver, "_mta-sts", domain)
    step = flow.on_record(known, clock.now(), record, timing, clock.random(), force=force)
    if not isinstance(step, Fetch):
        return StsReading(step, record, None)
    outcome = await fetcher.fetch(domain)
    got = outcome.body if isinstance(outcome, Fetched) else outcome
    settled = flow.on_fetch(known, clock.now(), step.record_id, got, timing, clock.random())
    return StsReading(settled, record, outcome)


async def read_mx(resolver: Resolver, hop: NextHop) -> tuple[Hosts | NoHosts, MxAnswer | None]:
    """The hosts behind a next hop, and the MX answer; a bracketed hop asks no MX."""
    if hop.bracketed:
        # The name stands in the operator's own configuration: no DNS answer chose it.
        return Hosts((hop.domain,), secure=True, ttl=int(dane.TTL_MAX)), None
    answer = await resolver.mx(hop.domain)
    return dane.mx_hosts(hop.domain, answer), answer


async def read_hosts(resolver: Resolver, hosts: Sequence[Domain], port: int) -> list[HostReading]:
    """All hosts at once, in the order given; at most `dane.MAX_HOSTS` of them."""
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(read_host(resolver, host, port)) for host in hosts[: dane.MAX_HOSTS]
        ]
    return [task.result() for task in tasks]


async def read_host(resolver: Resolver, host: Domain, port: int) -> HostReading:
    """One MX host: its address, and TLSA where the address is signed (RFC 7672 §2.2.2).

    Zones that are unsigned often break on TLSA questions; asking there could only do harm.
    """
    address = await resolver.some_addresses(host, validated=True)
    match address:
        case DnsError(why=why):
            return HostReading(host, HostState.ERROR, why=why)
        case NoData(ttl=ttl):
            return HostReading(host, HostState.UNREACHABLE, ttl)
        case Answer():
            bases = await _tlsa_bases(resolver, host, address)
    if not bases:
        return HostReading(host, HostState.INSECURE, address.ttl)
    return await _read_tlsa(resolver, host, bases, port, address.ttl)


async def _tlsa_bases(resolver: Resolver, host: Domain, address: Answer[str]) -> tuple[str, ...]:
    """RFC 7672 §2.2.2, §2.2.3: the names under which TLSA is looked for, first match wins."""
    if address.secure:
        return (address.name, host) if address.aliased else (host,)
    if address.aliased and await resolver.secure_alias(host):
        return (host,)
    return ()


async def _read_tlsa(
    resolver: Resolver, host: Domain, bases: tuple[str, ...], port: int, ttl: int
) -> HostReading:
    for base in bases:
        name = f"_{port}._tcp.{base}"
        answer: TlsaAnswer = (
            NoData(False, ttl, True) if len(name) > MAX_NAME else await resolver.tlsa(name)
        )
        ttl = ttl if isinstance(answer, DnsError) else min(ttl, answer.ttl)
        match answer:
            case DnsError(why=why):
                return HostReading(host, HostState.ERROR, ttl, base=base, why=why)
            case Answer(records=found, secure=True):
                good = any(dane.usable(record) for record in found)
                state = HostState.USABLE if good else HostState.UNUSABLE
                return HostReading(host, state, ttl, found, base)
            case _:
                continue  # no records, or unsigned ones, which count as none
    return HostReading(host, HostState.NO_TLSA, ttl, base=bases[-1])
