"""Closing days and delivering reports, on stores in memory and tables for the world."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from mtastsd.answers import Answer, DnsError
from mtastsd.log import Log
from mtastsd.names import Domain
from mtastsd.ports import Delivery, Finding, Report, Sent, StoreUnavailable, TallyBatch
from mtastsd.service import outbox as deliverer_module
from mtastsd.service import reporter
from mtastsd.service.outbox import Deliverer
from mtastsd.service.reporter import Reporter, ReportRules, Suppression, due_at
from mtastsd.tlsrpt.record import Mailto
from mtastsd.tlsrpt.session import Detail, PolicyKey, ResultType
from mtastsd.tlsrpt.tally import Day, DomainTally, Totals, day_of
from tests.fakes import MemoryOutbox, MemoryTallyStore
from tests.fakeworld import START, ManualClock, Zone

D = Domain("example.com")
DAY = day_of(START)
HOUR = 3600.0
NOTHING: Mapping[Detail, int] = {}


def rules(**changes: object) -> ReportRules:
    base = ReportRules(4 * HOUR, 24 * HOUR, 30 * 86_400, 100, 10_000_000)
    return ReportRules(**{**{k: getattr(base, k) for k in base.__slots__}, **changes})  # type: ignore[arg-type]


@dataclass
class Wire:
    """`ports.Mailer` and `ports.Poster`: what was sent, and what is answered."""

    says: list[Sent] = field(default_factory=list)
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    bug: Exception | None = None

    def _answer(self, to: str, octets: bytes) -> Sent:
        if self.bug is not None:
            raise self.bug
        self.sent.append((to, octets))
        return self.says.pop(0) if self.says else Sent("delivered", "250 ok")

    async def send(self, message: bytes, *, sender: str, recipient: str) -> Sent:
        return self._answer(recipient, message)

    async def post(self, url: str, body: bytes, *, media_type: str) -> Sent:
        return self._answer(url, body)


class Setup:
    """Reporter and deliverer."""

    def __init__(self, settings: ReportRules | None = None) -> None:
        self.clock = ManualClock()
        self.zone = Zone()
        self.tallies = MemoryTallyStore()
        self.outbox = MemoryOutbox(self.tallies)
        self.wire = Wire()
        self.built: list[DomainTally] = []
        self.sequence = 0
        log = Log(logging.getLogger("mtastsd"))
        self.reporter = Reporter(
            self.tallies,
            self.outbox,
            settings or rules(),
            self.build,
            resolver=self.zone,
            clock=self.clock,
            log=log,
        )
        self.deliverer = Deliverer(
            self.outbox,
            lambda report, to: report.body + to.address.encode(),
            sender="tlsrpt@relay.example",
            retry=24 * HOUR,
            mailer=self.wire,
            poster=self.wire,
            clock=self.clock,
            log=log,
        )
        self.record(D, "mailto:r@example.com")

    def record(self, domain: str, *rua: str) -> None:
        text = f"v=TLSRPTv1; rua={','.join(rua)}".encode()
        name = f"_smtp._tls.{domain}"
        self.zone.txts[name] = Answer((text,), 300, False, name)

    def build(self, day: Day, domain: Domain, tally: DomainTally, now: float) -> Report:
        self.built.append(tally)
        ident = f"{day}.{domain}@relay.example"
        total = sum(t.sessions for t in tally.values())
        failed = sum(t.failures for t in tally.values())
        return Report(ident, day, domain, b"body", "file", now, total, failed)

    async def mail(self, domain: Domain = D, *, sessions: int = 5, day: Day = DAY) -> None:
        self.sequence += 1
        totals = {PolicyKey("no-policy-found", domain): Totals(sessions)}
        batch = TallyBatch("test", self.sequence, {(day, domain): totals}, {})
        await self.tallies.add(batch)

    async def over(self) -> None:
        """The day is over, and all that is due is closed."""
        self.clock.wall = (DAY + 1) * 86_400 + 4 * HOUR
        await self.reporter.round()

    async def why(self, domain: Domain = D) -> str | None:
        return dict(await self.outbox.settled(DAY, after="", limit=99)).get(domain)

    async def deliveries(self, domain: Domain = D) -> list[Delivery]:
        return list(await self.outbox.deliveries(f"{DAY}.{domain}@relay.example"))


@pytest.fixture
def setup() -> Setup:
    return Setup()


class TestClosing:
    async def test_a_day_that_is_not_over_is_left_alone(self, setup: Setup) -> None:
        await setup.mail()
        setup.clock.wall = (DAY + 1) * 86_400 - 1
        await setup.reporter.round()
        assert await setup.why() is None

    async def test_one_report_whatever_is_done_twice(self, setup: Setup) -> None:
        await setup.mail()
        await setup.over()
        await setup.over()
        assert await setup.reporter.settle(DAY, D) == "reported"
        assert await setup.why() == "reported"
        assert len(await setup.deliveries()) == 1

    async def test_a_store_that_goes_away_in_the_middle_of_a_day_is_told_as_such(
        self, setup: Setup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reporter, "PAGE", 1)
        other, waiting = Domain("example.net"), setup.tallies.waiting

        async def once(day: Day, *, after: str, limit: int) -> Sequence[Domain]:
            if after:
                raise StoreUnavailable("the disk is full")
            return await waiting(day, after=after, limit=limit)

        await setup.mail()
        await setup.mail(other)
        with monkeypatch.context() as patch:
            patch.setattr(setup.tallies, "waiting", once)
            with pytest.raises(StoreUnavailable):  # not in a group: `run` would not know it
                await setup.over()
        assert (await setup.why(), await setup.why(other)) == ("reported", None)
        await setup.over()
        assert await setup.why(other) is not None

    async def test_a_large_report_is_built_too(
        self, setup: Setup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reporter, "LARGE", 0)
        await setup.mail()
        await setup.over()
        assert await setup.why() == "reported"

    async def test_spread_over_the_delay(self, setup: Setup) -> None:
        names = [Domain(f"d{n}.example.net") for n in range(100)]
        for name in names:
            await setup.mail(name)
        end = (DAY + 1) * 86_400
        due = sorted(due_at(DAY, name, 4 * HOUR) for name in names)
        assert end <= due[0] < end + HOUR < end + 3 * HOUR < due[-1] < end + 4 * HOUR
        setup.clock.wall = end + 2 * HOUR
        await setup.reporter.round()
        closed = await setup.outbox.settled(DAY, after="", limit=999)
        assert len(closed) == sum(at <= setup.clock.wall for at in due)

    async def test_an_outage_over_days_loses_no_day(self, setup: Setup) -> None:
        for ago in range(5):
            await setup.mail(day=Day(DAY - ago))
        await setup.over()
        assert sorted(setup.outbox.by_day(D)) == [Day(DAY - ago) for ago in (4, 3, 2, 1, 0)]

    @pytest.mark.parametrize(
        ("record", "why"),
        [
            (None, "no-record"),
            (
                (b"v=TLSRPTv1; rua=mailto:a@example.com", b"v=TLSRPTv1; rua=mailto:b@example.com"),
                "bad-record",
            ),
            ((b"v=TLSRPTv1; rua=ftp://example.com/",), "no-destination"),
        ],
    )
    async def test_who_wants_none(
        self, setup: Setup, record: tuple[bytes, ...] | None, why: str
    ) -> None:
        name = f"_smtp._tls.{D}"
        if record is None:
            del setup.zone.txts[name]
        else:
            setup.zone.txts[name] = Answer(record, 300, False, name)
        await setup.mail()
        await setup.over()
        assert await setup.why() == why

    async def test_one_unusable_uri_does_not_hurt_the_others(self, setup: Setup) -> None:
        setup.record(D, "mailto:a@", "https://report.example.com/x", "mailto:b@example.com")
        await setup.mail()
        await setup.over()
        found = [delivery.destination for delivery in await setup.deliveries()]
        assert found == ["https://report.example.com/x", "mailto:b@example.com"]

    async def test_dns_that_fails_is_asked_again_and_in_the_end_given_up(
        self, setup: Setup
    ) -> None:
        good = setup.zone.txts[f"_smtp._tls.{D}"]
        setup.zone.txts[f"_smtp._tls.{D}"] = DnsError("servfail")
        await setup.mail()
        await setup.over()
        assert await setup.why() is None
        asked = len(setup.zone.asked)
        await setup.reporter.round()
        assert len(setup.zone.asked) == asked  # not at every look
        setup.clock.wall += HOUR
        setup.zone.txts[f"_smtp._tls.{D}"] = good
        await setup.reporter.round()
        assert await setup.why() == "reported"
        late = Setup()
        late.zone.txts[f"_smtp._tls.{D}"] = DnsError("servfail")
        await late.mail()
        late.clock.wall = (DAY + 1) * 86_400 + 30 * HOUR
        await late.reporter.round()
        assert await late.why() == "dns-error"

    async def test_reports_about_report_mail_don_t_loop(self, setup: Setup) -> None:
        await setup.mail(sessions=2)
        await setup.outbox.mailed(DAY, D, 2)
        await setup.over()
        assert await setup.why() == "looped"

    async def test_own_report_mail_alters_no_count(self, setup: Setup) -> None:
        await setup.mail(sessions=3)
        await setup.outbox.mailed(DAY, D, 2)
        await setup.over()
        assert await setup.why() == "reported"
        assert sum(t.sessions for t in setup.built[0].values()) == 3

    @pytest.mark.parametrize("to", ["example.com", "r@example.com", "mailto:r@example.com"])
    async def test_the_suppress_list(self, to: str) -> None:
        end = (DAY + 1) * 86_400 + 5 * HOUR
        setup = Setup(rules(suppress=(Suppression(to, end),)))
        await setup.mail()
        await setup.over()
        states = [delivery.state for delivery in await setup.deliveries()]
        assert (await setup.why(), states) in [("suppressed", []), ("reported", ["suppressed"])]
        ended = Setup(rules(suppress=(Suppression(to, 1.0),)))
        await ended.mail()
        await ended.over()
        assert [delivery.state for delivery in await ended.deliveries()] == ["waiting"]

    async def test_one_mailbox_for_a_thousand_domains_is_no_flood(self) -> None:
        setup = Setup(rules(max_per_destination=3))
        for n in range(9):
            domain = Domain(f"d{n}.example.net")
            setup.record(domain, "mailto:victim@example.org")
            await setup.mail(domain)
        await setup.over()
        found = [d for n in range(9) for d in await setup.deliveries(Domain(f"d{n}.example.net"))]
        assert sorted(d.state for d in found).count("waiting") == 3
        assert len(found) == 9

    async def test_testing_mode_is_judged_by_what_probes_found(self, setup: Setup) -> None:
        key = PolicyKey("sts", D, ("mode: testing",), ("mx.example.com",))
        totals = Totals(unjudged={("", ""): 4})
        await setup.tallies.add(TallyBatch("test", 1, {(DAY, D): {key: totals}}, {}))
        wrong = ResultType.CERTIFICATE_EXPIRED
        found = Finding(D, "mx.example.com", "192.0.2.1", True, wrong)
        await setup.tallies.note(DAY, [found])
        await setup.over()
        [judged] = setup.built[0].values()
        assert (judged.successes, judged.failures) == (0, 4)

    async def test_a_bug_in_one_domain_holds_up_no_other(
        self, setup: Setup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = Domain("other.example")
        setup.record(other, "mailto:r@other.example")
        good = setup.build

        def build(day: Day, domain: Domain, tally: DomainTally, now: float) -> Report:
            if domain == D:
                raise RuntimeError("boom")
            return good(day, domain, tally, now)

        monkeypatch.setattr(setup.reporter, "_build", build)
        await setup.mail()
        await setup.mail(other)
        await setup.over()
        assert (await setup.why(), await setup.why(other)) == (None, "reported")


class TestDelivering:
    async def test_each_destination_its_own_row(self, setup: Setup) -> None:
        setup.record(D, "mailto:r@example.com", "https://report.example.com/x")
        await setup.mail()
        await setup.over()
        setup.wire.says = [Sent("delivered", "250"), Sent("later", "503")]
        await setup.deliverer.round()
        states = {d.destination: d.state for d in await setup.deliveries()}
        assert sorted(states.values()) == ["delivered", "waiting"]

    async def test_the_same_octets_each_time_until_somebody_says_yes(self, setup: Setup) -> None:
        await setup.mail()
        await setup.over()
        setup.wire.says = [Sent("later", "451 busy")] * 3
        for _ in range(12):
            await setup.deliverer.round()
            setup.clock.wall += HOUR
        assert len(setup.wire.sent) == 4
        assert len(set(setup.wire.sent)) == 1
        [delivery] = await setup.deliveries()
        assert (delivery.state, delivery.tries) == ("delivered", 4)

    async def test_given_up_after_retry_and_not_before(self, setup: Setup) -> None:
        await setup.mail()
        await setup.over()
        setup.wire.says = [Sent("later", "451 busy")] * 1000
        hours = 0
        while (await setup.deliveries())[0].state == "waiting":
            await setup.deliverer.round()
            setup.clock.wall += HOUR / 4
            hours += 1
        assert 20 * 4 <= hours <= 25 * 4
        assert 6 <= len(setup.wire.sent) <= 20

    async def test_a_no_is_a_no(self, setup: Setup) -> None:
        await setup.mail()
        await setup.over()
        setup.wire.says = [Sent("never", "550 no such\r\nuser")]
        await setup.deliverer.round()
        [delivery] = await setup.deliveries()
        assert (delivery.state, delivery.last) == ("failed", "550 no such??user")

    async def test_mail_that_was_handed_over_is_noted_for_the_loop_guard(
        self, setup: Setup
    ) -> None:
        await setup.mail()
        await setup.over()
        await setup.deliverer.round()
        assert await setup.outbox.mailed_to(day_of(setup.clock.now()), D) == 1

    async def test_a_bug_puts_off_its_own_delivery_alone(self, setup: Setup) -> None:
        await setup.mail()
        await setup.over()
        setup.wire.bug = RuntimeError("boom")
        await setup.deliverer.round()
        [delivery] = await setup.deliveries()
        assert (delivery.state, delivery.last) == ("waiting", "bug: internal error")

    async def test_mail_composed_for_the_address(self, setup: Setup) -> None:
        await setup.mail()
        await setup.over()
        await setup.deliverer.round()
        assert setup.wire.sent == [("r@example.com", b"bodyr@example.com")]
        assert Mailto("r@example.com").address in setup.wire.sent[0][0]

    async def test_batches(self, setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deliverer_module, "BATCH", 2)
        for n in range(5):
            domain = Domain(f"d{n}.example.net")
            setup.record(domain, f"mailto:r@{domain}")
            await setup.mail(domain)
        await setup.over()
        assert [await setup.deliverer.round() for _ in range(4)] == [2, 2, 1, 0]
