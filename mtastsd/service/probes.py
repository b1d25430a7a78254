"""Looks at the MX hosts of testing-mode domains that were mailed today, as enforcement would.

Testing mode lets the mail out whatever it finds, so Postfix sees nothing to report. Who gets probed
asked for it: the domain publishes a testing policy and wants reports. The limits are there so that
nobody can make this relay knock on doors for them.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mtastsd.answers import Answer, DnsError
from mtastsd.dane import Hosts
from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.names import Domain, NotADomain, parse
from mtastsd.ports import Clock, Finding, Prober, Resolver, StoreUnavailable, TallyStore
from mtastsd.postfix.nexthop import SMTP_PORT, NextHop
from mtastsd.service.reading import read_mx, read_txt
from mtastsd.sts.matching import allows
from mtastsd.tlsrpt import record as records
from mtastsd.tlsrpt.probe import Failed, Nothing, judge
from mtastsd.tlsrpt.session import Session
from mtastsd.tlsrpt.tally import Day, day_of

PACE = 1.0
"""Seconds between two probes."""

MAX_A_DAY = 1000
"""Probes a day."""

PAUSE = 7 * 86400.0
"""Seconds for which a host that answered with 4xx or 5xx is left alone."""

MAX_QUEUE = 10_000
"""Domains and hosts that wait to be probed; beyond, they are not asked for today."""

MAX_PAUSED = 10_000
"""Hosts remembered as not wanting us."""

MAX_HOSTS = 4
"""Hosts of the best preference that are probed for one domain."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A domain of a day, and the MX host and address that a session went to ("" for unknown)."""

    day: Day
    domain: Domain
    mx_host: str
    mx_ip: str


class Probes:
    """Takes what is wanted, probes at its own pace, notes findings."""

    def __init__(
        self,
        store: TallyStore,
        *,
        resolver: Resolver,
        prober: Prober,
        exempt: Sequence[str],
        clock: Clock,
        log: Log,
        metrics: Metrics,
    ) -> None:
        """`exempt` are MX hosts and `*.` patterns that are never probed."""
        self.exempt = exempt
        self._store = store
        self._resolver = resolver
        self._prober = prober
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._queue: deque[Wanted] = deque()
        self._seen: set[Wanted] = set()
        self._day = day_of(clock.now())
        self._done: dict[tuple[str, str], Finding | None] = {}
        self._reports: dict[Domain, bool] = {}
        self._paused: OrderedDict[str, float] = OrderedDict()
        self._unsaved: dict[Day, list[Finding]] = {}

    def want(self, session: Session) -> None:
        """Note that a session of a testing-mode domain is to be judged. Cheap: called for each."""
        wanted = Wanted(day_of(session.at), session.domain, session.mx_host, session.mx_ip)
        if wanted not in self._seen and len(self._seen) < MAX_QUEUE:
            self._seen.add(wanted)
            self._queue.append(wanted)

    async def run(self) -> None:
        """Probe what is wanted, for ever."""
        while True:
            await self._clock.sleep(PACE)
            self._turn_day()
            await self.flush()
            if self._queue:
                await self._one(self._queue.popleft())

    def _turn_day(self) -> None:
        today = day_of(self._clock.now())
        if today != self._day:
            self._day = today
            self._done.clear()
            self._reports.clear()
            self._seen = set(self._queue)

    async def _one(self, wanted: Wanted) -> None:
        if not await self._wants_reports(wanted.domain):
            return
        for host, address, preferred in await self._doors(wanted):
            finding = await self._probe(wanted.domain, host, address)
            if finding is not None:
                found = replace(finding, domain=wanted.domain, preferred=preferred)
                self._unsaved.setdefault(wanted.day, []).append(found)

    async def _wants_reports(self, domain: Domain) -> bool:
        known = self._reports.get(domain)
        if known is not None:
            return known
        answer = await read_txt(self._resolver, "_smtp._tls", domain)
        if isinstance(answer, DnsError):
            return False  # the next session of another host asks again
        found = answer.records if isinstance(answer, Answer) else ()
        wants = isinstance(records.select(found), records.Record)
        self._reports[domain] = wants
        return wants

    async def _doors(self, wanted: Wanted) -> Iterable[tuple[Domain, str, bool]]:
        """Hosts, an address of each, and whether it is of the best preference."""
        if wanted.mx_host:
            host = parse(wanted.mx_host)
            hosts: tuple[Domain, ...] = () if isinstance(host, NotADomain) else (host,)
        else:
            hosts = await self._best(wanted.domain)
        doors = []
        for host in hosts[:MAX_HOSTS]:
            address = wanted.mx_ip or await self._address(host)
            if address and not self._left_alone(host):
                doors.append((host, address, True))
        return doors

    async def _best(self, domain: Domain) -> tuple[Domain, ...]:
        hosts, answer = await read_mx(self._resolver, NextHop(domain))
        if not isinstance(hosts, Hosts):
            return ()
        if not isinstance(answer, Answer):
            return hosts.hosts
        best = min(mx.preference for mx in answer.records)
        return tuple(mx.host for mx in answer.records if mx.preference == best and mx.host)

    async def _address(self, host: Domain) -> str:
        answer = await self._resolver.addresses(host, validated=False)
        return answer.records[0] if isinstance(answer, Answer) and answer.records else ""

    def _left_alone(self, host: Domain) -> bool:
        if any(allows(pattern, host) for pattern in self.exempt):
            return True
        return self._clock.now() < self._paused.get(host, 0.0)

    async def _probe(self, domain: Domain, host: Domain, address: str) -> Finding | None:
        """The day's finding for a host and address; None where it says nothing."""
        if (host, address) in self._done:
            return self._done[host, address]
        if len(self._done) >= MAX_A_DAY:
            return None
        if self._done:
            await self._clock.sleep(PACE)
        seen = await self._prober.probe(host, address, SMTP_PORT)
        judged = judge(seen, host)
        match judged:
            case Nothing(why=why):
                finding = None
                if why == "refused":
                    self._pause(host)
            case Failed(result=result, reason=reason):
                finding = Finding(
                    domain, host, address, True, result, reason, seen.sending_ip, seen.helo
                )
            case _:
                finding = Finding(domain, host, address, True, None, "", seen.sending_ip, seen.helo)
        self._done[host, address] = finding
        self._tell(host, address, finding, judged)
        return finding

    def _tell(self, host: Domain, address: str, finding: Finding | None, judged: object) -> None:
        outcome: str = "passed"
        if isinstance(judged, Nothing):
            outcome = judged.why
        elif finding is not None and finding.result is not None:
            outcome = finding.result.value
        self._metrics.probes.labels(outcome).inc()
        self._log.info("probed", mx=host, address=address, outcome=outcome)

    def _pause(self, host: Domain) -> None:
        self._paused[host] = self._clock.now() + PAUSE
        while len(self._paused) > MAX_PAUSED:
            self._paused.popitem(last=False)

    async def flush(self) -> None:
        """Write the findings that wait: at each turn, and at the end."""
        for day, findings in list(self._unsaved.items()):
            try:
                await self._store.note(day, findings)
            except StoreUnavailable:
                return  # told by the collector; offered again at the next turn
            del self._unsaved[day]
