"""Discovery against a world of tables: what is asked, what is answered, and when."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from mtastsd.answers import Answer, DnsError, Mx, NoData
from mtastsd.names import Domain
from mtastsd.postfix.nexthop import NextHop
from mtastsd.service.branches import MAX_FLIGHTS
from mtastsd.service.current import Settings
from mtastsd.service.discovery import Answered
from mtastsd.sts.failure import Failure
from mtastsd.verdict import Override, Rules, What
from tests.fakeworld import GOOD, NONE, START, TESTING, UNUSABLE, USABLE, World, settle

D = Domain("example.com")
HOP = NextHop(D)
LONG = 30.0
"""A deadline that no test reaches: nothing in a world of tables takes time by itself."""
NOW = 0.0
"""A deadline that has passed already."""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        world.zone.mail(D, "mx.example.com")
        world.zone.host("mx.example.com")
        yield world


async def ask(world: World, hop: NextHop = HOP, deadline: float = LONG) -> Answered:
    found = world.discovery.at_once(hop)
    return found or await world.discovery.verdict(hop, deadline)


async def what(world: World, hop: NextHop = HOP, deadline: float = LONG) -> What:
    return (await ask(world, hop, deadline)).verdict.what


def publish(world: World, body: bytes | Failure = GOOD, record_id: str = "1") -> None:
    world.zone.policy(D, record_id)
    world.hosts.bodies[D] = body


class TestFirstContact:
    async def test_policy_is_found_and_stored(self, world: World) -> None:
        publish(world)
        found = await ask(world)
        assert found.verdict.what is What.SECURE
        assert found.verdict.mx == ("mx.example.com",)
        assert found.source == "discovery"
        assert world.store.domains[D].sts.body == GOOD

    @pytest.mark.parametrize(
        ("body", "why"),
        [
            (TESTING, "sts-testing"),
            (NONE, "sts-none"),
            (Failure("status", "404"), "sts-failed"),
            (b"no policy at all", "sts-failed"),
        ],
    )
    async def test_what_does_not_enforce(
        self, world: World, body: bytes | Failure, why: str
    ) -> None:
        publish(world, body)
        verdict = (await ask(world)).verdict
        assert (verdict.what, verdict.why) == (What.NOTHING, why)

    async def test_no_question_that_the_answer_does_not_need(self, world: World) -> None:
        publish(world)
        await ask(world)
        assert sorted(world.zone.asked) == ["MX example.com", "TXT _mta-sts.example.com"]

    async def test_no_policy_reads_the_hosts_of_an_unsigned_mx(self, world: World) -> None:
        await ask(world)
        assert "A mx.example.com" in world.zone.asked
        assert not any(q.startswith("TLSA") for q in world.zone.asked)

    async def test_nothing_known_is_not_stored(self, world: World) -> None:
        await ask(world)
        assert not world.store.domains
        assert not world.store.hops

    async def test_max_age_0_answers_once_and_replaces_what_was_there(self, world: World) -> None:
        publish(world)
        await ask(world)
        publish(world, GOOD.replace(b"604800", b"0"), "2")
        await world.clock.advance(3601)
        await ask(world)
        await settle()
        assert world.store.domains[D].sts.body is None
        assert await what(world) is What.SECURE  # fetched for this look-up
        world.hosts.bodies[D] = Failure("connect", "refused")
        assert await what(world) is What.NOTHING


class TestOneFlight:
    async def test_200_askers_make_one_fetch(self, world: World) -> None:
        publish(world)
        world.hosts.slow = asyncio.Event()
        asking = [asyncio.ensure_future(ask(world)) for _ in range(200)]
        await settle()
        world.hosts.slow.set()
        found = await asyncio.gather(*asking)
        assert {a.verdict.what for a in found} == {What.SECURE}
        assert world.hosts.fetched == [D]
        assert world.zone.asked.count("TXT _mta-sts.example.com") == 1

    async def test_an_asker_that_goes_away_does_not_end_it(self, world: World) -> None:
        publish(world)
        world.hosts.slow = asyncio.Event()
        asking = asyncio.ensure_future(ask(world))
        await settle()
        asking.cancel()
        await settle()
        world.hosts.slow.set()
        await settle()
        assert world.store.domains[D].sts.body == GOOD

    async def test_a_bug_in_one_flight_hurts_no_other(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        publish(world)
        world.hosts.bug = RuntimeError("boom")
        with caplog.at_level(logging.ERROR, "mtastsd"):
            verdict = (await ask(world)).verdict
        assert (verdict.what, verdict.valid_until) == (What.NOTHING, 0.0)
        assert [r.getMessage() for r in caplog.records] == ["bug"]
        world.hosts.bug = None
        assert await what(world) is What.SECURE

    async def test_too_many_at_once_are_answered_with_what_is_known(self, world: World) -> None:
        world.zone.mute = asyncio.Event()
        for n in range(MAX_FLIGHTS):
            assert world.sts.ask(Domain(f"d{n}.example.net")) is not None
        found = await ask(world)
        assert (found.source, found.verdict.what) == ("busy", What.NOTHING)
        assert found.verdict.valid_until == 0.0
        assert world.value("mtastsd_busy_answers_total") == 1


class TestDeadline:
    async def test_answered_with_nothing_and_fetched_behind(self, world: World) -> None:
        publish(world)
        world.hosts.slow = asyncio.Event()
        found = await ask(world, deadline=NOW)
        assert (found.source, found.verdict.what) == ("deadline", What.NOTHING)
        assert found.verdict.valid_until == 0.0
        world.hosts.slow.set()
        await settle()
        assert await what(world) is What.SECURE
        assert world.value("mtastsd_deadline_answers_total") == 1

    async def test_dane_that_decides_waits_for_no_policy_host(self, world: World) -> None:
        publish(world)
        world.hosts.slow = asyncio.Event()
        world.zone.mail(D, "mx.example.com", secure=True)
        world.zone.host("mx.example.com", secure=True, tlsa=USABLE)
        assert await what(world) is What.DANE_ONLY

    async def test_a_mute_resolver_costs_the_deadline_and_no_more(self, world: World) -> None:
        world.zone.mute = asyncio.Event()
        assert (await ask(world, deadline=NOW)).source == "deadline"

    async def test_a_store_that_hangs_costs_the_deadline_and_no_more(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def hang(*_: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(world.store, "load", hang)
        assert (await ask(world, deadline=NOW)).verdict.what is What.NOTHING


class TestKnown:
    async def test_answered_from_memory_without_a_question(self, world: World) -> None:
        publish(world)
        await ask(world)
        world.zone.asked.clear()
        found = await ask(world)
        assert (found.source, found.verdict.what) == ("memory", What.SECURE)
        assert world.zone.asked == []

    async def test_answered_from_the_store_after_a_restart(self, world: World) -> None:
        publish(world)
        await ask(world)
        world.start()
        world.zone.mute = asyncio.Event()
        found = await world.discovery.verdict(HOP, NOW)
        assert found.verdict.what is What.SECURE

    async def test_new_id_is_noticed_after_recheck(self, world: World) -> None:
        publish(world)
        await ask(world)
        publish(world, NONE, "2")
        assert await what(world) is What.SECURE
        await world.clock.advance(3601)
        assert await what(world) is What.SECURE  # at once, with what is known
        await settle()
        assert await what(world) is What.NOTHING
        assert world.changes

    async def test_same_id_is_not_fetched_again_within_the_day(self, world: World) -> None:
        publish(world)
        await ask(world)
        expires = world.store.domains[D].sts.expires_at
        for _ in range(5):
            await world.clock.advance(3601)
            await ask(world)
            await settle()
        assert world.hosts.fetched == [D]
        assert world.store.domains[D].sts.expires_at == expires

    @pytest.mark.parametrize(
        "fault",
        [Failure("status", "500"), Failure("tls", "expired"), Failure("timeout"), b"garbage"],
    )
    async def test_a_failed_refresh_keeps_the_policy(
        self, world: World, fault: bytes | Failure
    ) -> None:
        publish(world)
        await ask(world)
        publish(world, fault, "2")
        await world.clock.advance(86_400)
        await ask(world)
        await settle()
        assert await what(world) is What.SECURE
        assert len(world.hosts.fetched) == 2
        for _ in range(4):  # not again within five minutes
            await world.clock.advance(60)
            await ask(world)
            await settle()
        assert len(world.hosts.fetched) == 2

    @pytest.mark.parametrize("attack", ["record-gone", "servfail"])
    async def test_dns_alone_does_not_end_a_policy(self, world: World, attack: str) -> None:
        publish(world)
        await ask(world)
        if attack == "record-gone":
            world.zone.no_policy(D)
        else:
            world.zone.broken(D)
        for _ in range(6):
            await world.clock.advance(86_400)
            await ask(world)
            await settle()
            assert await what(world) is What.SECURE
        await world.clock.advance(86_401)
        assert await what(world) is What.NOTHING  # max_age, counted from the only fetch

    async def test_an_expired_policy_is_first_contact_again(self, world: World) -> None:
        publish(world)
        await ask(world)
        await world.clock.advance(604_801)
        found = await ask(world)
        assert (found.source, found.verdict.what) == ("discovery", What.SECURE)

    async def test_a_full_disk_stops_no_look_up_and_loses_no_policy(self, world: World) -> None:
        publish(world)
        world.store.broken = True
        assert await what(world) is What.SECURE
        assert world.store.domains == {}
        world.store.broken = False
        await world.known.flush()
        assert world.store.domains[D].sts.body == GOOD

    async def test_no_look_up_waits_for_a_write(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        locked = asyncio.Event()

        async def wait(*_: object) -> None:
            await locked.wait()

        monkeypatch.setattr(world.store, "save", wait)
        publish(world)
        found = await ask(world)
        assert (found.source, found.verdict.what) == ("discovery", What.SECURE)
        assert not locked.is_set()
        monkeypatch.undo()
        await world.known.flush()  # as at a stop: what is still on its way is written
        assert world.store.domains[D].sts.body == GOOD
        locked.set()

    async def test_memory_is_bounded(self) -> None:
        async with World(memory=10) as world:
            for n in range(100):
                await ask(world, NextHop(Domain(f"d{n}.example.net")))
            assert world.value("mtastsd_memory_entries", what="policies") == 10


class TestDane:
    async def test_attack_forged_unsigned_mx_does_not_beat_enforce(self, world: World) -> None:
        publish(world)
        world.zone.mail(D, "evil.example.net", secure=False)
        world.zone.host("evil.example.net", secure=True, tlsa=USABLE)
        assert await what(world) is What.SECURE

    async def test_unsigned_mx_without_policy_is_opportunistic(self, world: World) -> None:
        world.zone.mail(D, "mx.example.net", secure=False)
        world.zone.host("mx.example.net", secure=True, tlsa=USABLE)
        assert await what(world) is What.DANE

    async def test_policy_goes_away_then_the_hosts_are_read(self, world: World) -> None:
        publish(world)
        world.zone.host("mx.example.com", secure=True, tlsa=USABLE)
        assert await what(world) is What.SECURE
        publish(world, NONE, "2")
        await world.clock.advance(3601)
        await ask(world)
        await settle()
        assert await what(world) is What.DANE

    async def test_attack_dropped_tlsa_answers_keep_the_finding(self, world: World) -> None:
        world.zone.mail(D, "mx.example.com", secure=True)
        world.zone.host("mx.example.com", secure=True, tlsa=USABLE)
        assert await what(world) is What.DANE_ONLY
        world.zone.tlsas["_25._tcp.mx.example.com"] = DnsError("timeout")
        for _ in range(6):
            await world.clock.advance(86_400)
            assert await what(world) is What.DANE_ONLY
            await settle()
        world.start()  # and a restart does not forget it
        assert await what(world) is What.DANE_ONLY
        await world.clock.advance(2 * 86_400)
        await ask(world)
        await settle()
        assert await what(world) is What.DANE

    async def test_losing_validation_keeps_the_finding(self, world: World) -> None:
        world.zone.mail(D, "mx.example.com", secure=True)
        world.zone.host("mx.example.com", secure=True, tlsa=USABLE)
        await ask(world)
        world.zone.validating = False
        world.zone.mail(D, "mx.example.com", secure=False)
        await world.clock.advance(600)
        await ask(world)
        await settle()
        assert await what(world) is What.DANE_ONLY

    async def test_without_a_validating_resolver_there_is_no_dane(self, world: World) -> None:
        world.zone.validating = False
        world.zone.host("mx.example.com", secure=True, tlsa=USABLE)
        assert await what(world) is What.NOTHING
        assert not any(q.startswith("A ") for q in world.zone.asked)

    async def test_one_bad_host_stops_no_domain(self, world: World) -> None:
        world.zone.mail(D, "a.example.com", "b.example.com", secure=True)
        world.zone.host("a.example.com", secure=True, tlsa=USABLE)
        world.zone.hosts["b.example.com"] = DnsError("servfail")
        assert await what(world) is What.DANE_ONLY

    async def test_partial_tlsa_with_enforce_is_never_weaker_than_either(
        self, world: World
    ) -> None:
        publish(world)
        world.zone.mail(D, "a.example.com", "b.example.com", secure=True)
        world.zone.host("a.example.com", secure=True, tlsa=USABLE)
        world.zone.host("b.example.com", secure=True)
        assert await what(world) is What.DANE_ONLY

    async def test_unusable_with_and_without_policy(self, world: World) -> None:
        world.zone.mail(D, "mx.example.com", secure=True)
        world.zone.host("mx.example.com", secure=True, tlsa=UNUSABLE)
        assert await what(world) is What.DANE
        other = NextHop(Domain("example.org"))
        world.zone.policy("example.org")
        world.hosts.bodies["example.org"] = GOOD
        world.zone.mail("example.org", "mx.example.com", secure=True)
        assert await what(world, other) is What.SECURE

    async def test_null_mx(self, world: World) -> None:
        world.zone.mxs[D] = Answer((Mx(0, None, null=True),), 300, True, D)
        assert (await ask(world)).verdict.why == "null-mx"

    async def test_no_mx_is_its_own_host(self, world: World) -> None:
        world.zone.mxs[D] = NoData(True, 300, True)
        world.zone.host(D, secure=True, tlsa=USABLE)
        assert await what(world) is What.DANE_ONLY

    async def test_bracketed_hop_asks_no_mx_and_its_own_port(self, world: World) -> None:
        hop = NextHop(Domain("smtp.example.com"), bracketed=True, port=587)
        world.zone.host("smtp.example.com", secure=True)
        name = "_587._tcp.smtp.example.com"
        world.zone.tlsas[name] = Answer((USABLE,), 300, True, name)
        assert await what(world, hop) is What.DANE_ONLY
        assert not any(q.startswith("MX") for q in world.zone.asked)
        assert await what(world, NextHop(Domain("smtp.example.com"))) is What.NOTHING

    async def test_aliased_host_of_an_unsigned_target(self, world: World) -> None:
        world.zone.mail(D, "mx.example.com", secure=True)
        world.zone.hosts["mx.example.com"] = Answer(
            ("192.0.2.1",), 300, False, "real.example.net", aliased=True
        )
        world.zone.aliases.add("mx.example.com")
        name = "_25._tcp.mx.example.com"
        world.zone.tlsas[name] = Answer((USABLE,), 300, True, name)
        assert await what(world) is What.DANE_ONLY

    async def test_aliased_host_prefers_the_target_s_records(self, world: World) -> None:
        world.zone.mail(D, "mx.example.com", secure=True)
        world.zone.hosts["mx.example.com"] = Answer(
            ("192.0.2.1",), 300, True, "real.example.net", aliased=True
        )
        for host, record in (("real.example.net", USABLE), ("mx.example.com", UNUSABLE)):
            world.zone.tlsas[f"_25._tcp.{host}"] = Answer((record,), 300, True, host)
        assert await what(world) is What.DANE_ONLY

    async def test_dane_off_asks_no_mx(self) -> None:
        async with World(Settings(rules=Rules(dane=False))) as world:
            publish(world)
            assert await what(world) is What.SECURE
            assert world.zone.asked == ["TXT _mta-sts.example.com"]


class TestReload:
    async def test_override_holds_from_the_reload_on(self, world: World) -> None:
        publish(world)
        assert await what(world) is What.SECURE
        world.current.settings = Settings(overrides={D: Override(D, "off", reason="ticket 1")})
        verdict = (await ask(world)).verdict
        assert (verdict.what, verdict.reason) == (What.NOTHING, "ticket 1")

    async def test_testing_enforce(self, world: World) -> None:
        publish(world, TESTING)
        world.current.settings = Settings(rules=Rules(testing="enforce"))
        assert await what(world) is What.SECURE


class TestKeeping:
    async def test_use_is_written_at_intervals(self, world: World) -> None:
        publish(world)
        await ask(world)
        await world.clock.advance(500)
        await ask(world)
        await world.known.flush()
        assert world.store.domains[D].used_at == START + 500

    async def test_forgotten_when_nobody_mails_it(self, world: World) -> None:
        publish(world)
        await ask(world)
        sweeping = asyncio.ensure_future(world.known.run(forget_unused=180 * 86_400))
        await settle()
        for _ in range(181):
            await world.clock.advance(86_400)
        assert world.store.domains == {}
        sweeping.cancel()

    async def test_a_clock_that_jumps_drops_no_policy(self, world: World) -> None:
        publish(world)
        await ask(world)
        await world.known.flush()
        sweeping = asyncio.ensure_future(world.known.run(forget_unused=180 * 86_400))
        await settle()
        world.clock.jump(400 * 86_400)
        await world.clock.advance(61)
        assert D in world.store.domains
        sweeping.cancel()

    async def test_a_clock_set_back_rechecks_at_once(self, world: World) -> None:
        publish(world)
        await ask(world)
        world.clock.jump(-30 * 86_400)
        world.zone.asked.clear()
        assert await what(world) is What.SECURE
        await settle()
        assert "TXT _mta-sts.example.com" in world.zone.asked

    async def test_flush_of_a_domain_forgets_policy_and_hops(self, world: World) -> None:
        publish(world)
        world.zone.mail(D, "mx.example.com", secure=True)
        world.zone.host("mx.example.com", secure=True, tlsa=USABLE)
        await ask(world)
        assert await world.known.forget(D)
        assert not world.store.domains
        assert not world.store.hops
        assert world.discovery.at_once(HOP) is None
        assert not await world.known.forget(D)


class TestRefresh:
    async def test_daily_even_with_the_same_id(self, world: World) -> None:
        publish(world)
        await ask(world)
        rounds = asyncio.ensure_future(world.refresher.run(30 * 86_400))
        await settle()
        for _ in range(24):
            await world.clock.advance(3600)
        assert world.hosts.fetched == [D, D]
        assert world.store.domains[D].sts.expires_at > START + 86_400 * 7
        rounds.cancel()

    async def test_not_for_domains_that_nobody_mails(self, world: World) -> None:
        publish(world, GOOD.replace(b"604800", b"31557600"))
        await ask(world)
        rounds = asyncio.ensure_future(world.refresher.run(30 * 86_400))
        await settle()
        for _ in range(60):
            await world.clock.advance(86_400)
        assert len(world.hosts.fetched) in (30, 31)
        rounds.cancel()

    async def test_failing_refresh_warns_before_the_end(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        publish(world)
        await ask(world)
        world.hosts.bodies[D] = Failure("connect", "refused")
        with caplog.at_level(logging.WARNING, "mtastsd"):
            rounds = asyncio.ensure_future(world.refresher.run(30 * 86_400))
            await settle()
            for _ in range(13):
                await world.clock.advance(43_200)
        events = [r.getMessage() for r in caplog.records]
        assert events.count("policy-failed") == 1
        assert events.count("policy-expires") == 1
        assert await what(world) is What.SECURE
        rounds.cancel()

    async def test_a_store_that_is_away_ends_no_round(self, world: World) -> None:
        world.store.broken = True
        await world.refresher.round(30 * 86_400)
