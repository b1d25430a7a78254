"""Probes of testing-mode domains' MX hosts: what is asked, how often, and what is left alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

import pytest

from mtastsd.answers import Answer, DnsError
from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.names import Domain
from mtastsd.ports import Finding, StoreUnavailable
from mtastsd.probing import Stage
from mtastsd.service import probes as module
from mtastsd.service.probes import Probes
from mtastsd.tlsrpt.session import PolicyKey, ResultType, Session
from mtastsd.tlsrpt.tally import Day, day_of
from tests.fakeworld import START, ManualClock, Zone, settle
from tests.probes import Probes as Prober
from tests.probes import ended, seen

D = Domain("example.com")
MX = "mx.example.com"
REPORTS = Answer((b"v=TLSRPTv1; rua=mailto:r@example.com",), 300, False, "_smtp._tls")
GOOD = seen(MX)
WRONG_NAME = seen("other.example.net")


class Notes:
    """The part of `ports.TallyStore` that probes use."""

    def __init__(self) -> None:
        self.found: list[tuple[Day, Finding]] = []
        self.broken = False

    async def note(self, day: Day, findings: Sequence[Finding]) -> None:
        if self.broken:
            raise StoreUnavailable("locked")
        self.found += [(day, finding) for finding in findings]


class Setup:
    """Probes at work on tables."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.zone = Zone()
        self.prober = Prober({MX: GOOD})
        self.notes = Notes()
        self.probes = Probes(
            self.notes,  # type: ignore[arg-type]
            resolver=self.zone,
            prober=self.prober,
            exempt=("*.exempt.example",),
            clock=self.clock,
            log=Log(logging.getLogger("mtastsd")),
            metrics=Metrics(),
        )
        self.zone.txts[f"_smtp._tls.{D}"] = REPORTS
        self.zone.mail(D, MX)
        self.zone.host(MX)

    def want(self, domain: str = D, mx: str = "", ip: str = "") -> None:
        key = PolicyKey("sts", Domain(domain))
        self.probes.want(Session(self.clock.now(), Domain(domain), key, True, mx_host=mx, mx_ip=ip))

    async def seconds(self, count: int) -> None:
        for _ in range(count):
            await self.clock.advance(1)

    def results(self) -> list[tuple[str, str, str | None]]:
        return [
            (f.domain, f.mx_host, f.result.value if f.result else None) for _, f in self.notes.found
        ]


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    setup = Setup()
    running = asyncio.ensure_future(setup.probes.run())
    await settle()
    yield setup
    running.cancel()


async def test_the_best_hosts_are_probed_once_a_day(setup: Setup) -> None:
    for _ in range(3):
        setup.want()
        await setup.seconds(5)
    assert setup.results() == [(D, MX, None)]
    assert setup.prober.asked == [(MX, "192.0.2.1", 25)]
    await setup.clock.advance(86_400)
    setup.want()
    await setup.seconds(5)
    assert len(setup.prober.asked) == 2


async def test_a_failure_is_noted_for_its_day(setup: Setup) -> None:
    setup.prober.hosts[MX] = WRONG_NAME
    setup.want()
    await setup.seconds(5)
    [(day, finding)] = setup.notes.found
    assert (day, finding.result) == (day_of(START), ResultType.CERTIFICATE_HOST_MISMATCH)


async def test_the_session_s_own_host_and_address(setup: Setup) -> None:
    setup.prober.hosts["b.example.com"] = seen("b.example.com")
    setup.want(mx="b.example.com", ip="192.0.2.7")
    await setup.seconds(5)
    assert setup.prober.asked == [("b.example.com", "192.0.2.7", 25)]


async def test_only_hosts_of_the_best_preference(setup: Setup) -> None:
    setup.zone.mail(D, MX, "backup.example.com")
    setup.want()
    await setup.seconds(9)
    assert [host for host, _, _ in setup.prober.asked] == [MX]


@pytest.mark.parametrize("answer", [None, DnsError("servfail")])
async def test_nobody_who_wants_no_reports(setup: Setup, answer: DnsError | None) -> None:
    if answer is None:
        del setup.zone.txts[f"_smtp._tls.{D}"]
    else:
        setup.zone.txts[f"_smtp._tls.{D}"] = answer
    setup.want()
    await setup.seconds(5)
    assert setup.prober.asked == []


async def test_hosts_shared_by_many_domains_are_probed_once(setup: Setup) -> None:
    for n in range(5):
        domain = f"d{n}.example.net"
        setup.zone.txts[f"_smtp._tls.{domain}"] = REPORTS
        setup.zone.mail(domain, MX)
        setup.want(domain)
    await setup.seconds(20)
    assert len(setup.prober.asked) == 1
    assert len(setup.notes.found) == 5


async def test_at_most_one_a_second_and_a_thousand_a_day(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_A_DAY", 5)
    for n in range(9):
        domain, host = f"d{n}.example.net", f"mx{n}.example.net"
        setup.zone.txts[f"_smtp._tls.{domain}"] = REPORTS
        setup.zone.mail(domain, host)
        setup.zone.host(host)
        setup.prober.hosts[host] = seen(host)
        setup.want(domain)
    before = len(setup.prober.asked)
    for second in range(1, 30):
        await setup.seconds(1)
        assert len(setup.prober.asked) - before <= second
    assert len(setup.prober.asked) == 5


async def test_a_host_that_refuses_us_is_left_alone_for_a_week(setup: Setup) -> None:
    setup.prober.hosts[MX] = ended(Stage.BANNER, "reply", "554 go away", 554)
    setup.want()
    await setup.seconds(5)
    assert setup.notes.found == []
    for _ in range(6):
        await setup.clock.advance(86_400)
        setup.want()
        await setup.seconds(5)
    assert len(setup.prober.asked) == 1
    await setup.clock.advance(2 * 86_400)
    setup.want()
    await setup.seconds(5)
    assert len(setup.prober.asked) == 2


async def test_exempt_hosts_are_not_probed(setup: Setup) -> None:
    setup.want(mx="a.exempt.example", ip="192.0.2.9")
    await setup.seconds(5)
    assert setup.prober.asked == []


async def test_a_store_that_is_away_gets_it_later(setup: Setup) -> None:
    setup.notes.broken = True
    setup.want()
    await setup.seconds(5)
    setup.notes.broken = False
    await setup.seconds(2)
    assert setup.results() == [(D, MX, None)]


async def test_a_stop_right_after_a_probe_loses_no_finding(setup: Setup) -> None:
    setup.want()
    await setup.seconds(1)
    assert (setup.prober.asked, setup.results()) == ([(MX, "192.0.2.1", 25)], [])
    await setup.probes.flush()
    assert setup.results() == [(D, MX, None)]
