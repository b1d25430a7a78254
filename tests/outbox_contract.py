"""What every `ports.Outbox` must do, as tests: subclass and give the fixtures.

class TestMyOutbox(OutboxContract):
    @pytest.fixture
    async def tallies(self) -> AsyncIterator[TallyStore]: ...

    @pytest.fixture
    def outbox(self, tallies: TallyStore) -> Outbox: ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest

from mtastsd.names import Domain
from mtastsd.ports import Delivery, DeliveryState, Outbox, Report, TallyStore
from mtastsd.tlsrpt.tally import SECONDS, Day, Totals
from tests.tally_contract import DAY, NONE, open_domains, put

NOW = (DAY + 1) * SECONDS + 0.25
HOUR = 3600.0
A, B = Domain("a.example"), Domain("b.example")
MAIL, POST = "mailto:tls@a.example", "https://a.example/v1?x='y'"


def report(domain: Domain = A, day: Day = DAY, **changes: Any) -> Report:
    made = Report(
        f"{day}.{domain}@relay.example", day, domain, b"\x1f\x8b\x00'\xff", "x!y.json.gz", NOW, 5, 2
    )
    return replace(made, **changes)


def delivery(of: Report, destination: str = MAIL, **changes: Any) -> Delivery:
    row = Delivery(of.report_id, destination, "waiting", 0, NOW, NOW + 24 * HOUR)
    return replace(row, **changes)


async def send(outbox: Outbox, made: Report, *destinations: str, **changes: Any) -> list[Delivery]:
    """Settle the domain's day with a report to these."""
    rows = [delivery(made, destination, **changes) for destination in destinations or (MAIL,)]
    assert await outbox.settle(made.day, made.domain, "reported", made, rows)
    return rows


async def ids(outbox: Outbox, **changes: Any) -> list[str]:
    asked: dict[str, Any] = {"day": None, "domain": None, "after": "", "limit": 99, **changes}
    return [found.report_id for found in await outbox.reports(**asked)]


DELIVERIES: Sequence[Delivery] = [
    *(delivery(report(), f"mailto:{s}@a.example", state=s) for s in get_args(DeliveryState)),
    delivery(report(), POST, tries=7, last="RCPT: 550 'no'", done_at=NOW + 0.125),
    delivery(report(), "mailto:x@a.example", next_at=0.0, give_up_at=NOW + 0.5, last="x" * 400),
]


class OutboxContract:
    """Run against an empty `outbox`, and the `tallies` beside it."""

    async def test_nothing_is_there_at_first(self, outbox: Outbox) -> None:
        assert await outbox.due(NOW, limit=9) == []
        assert await outbox.report("x") is None
        assert await outbox.deliveries("x") == []
        assert await ids(outbox) == []
        assert await outbox.settled(DAY, after="", limit=9) == []
        assert await outbox.mailed_to(DAY, A) == 0
        assert await outbox.destination_load(DAY, MAIL) == (0, 0)
        assert await outbox.waiting_since() == (0, 0.0)
        assert await outbox.forget_reports(before=NOW) == 0
        assert not any((await outbox.counts()).values())

    # --- settling

    async def test_a_day_is_settled_with_a_report(
        self, tallies: TallyStore, outbox: Outbox
    ) -> None:
        for domain in (A, B):
            await put(tallies, DAY, domain, {NONE: Totals(5)})
        made = report()
        rows = await send(outbox, made, MAIL, POST)
        assert await open_domains(tallies) == [B]
        assert await outbox.settled(DAY, after="", limit=9) == [(A, "reported")]
        assert await outbox.report(made.report_id) == made
        assert await outbox.deliveries(made.report_id) == rows
        assert await tallies.tally(DAY, A) == {NONE: Totals(5)}

    async def test_a_day_is_settled_without_one(self, tallies: TallyStore, outbox: Outbox) -> None:
        await put(tallies, DAY, A, {NONE: Totals(5)})
        assert await outbox.settle(DAY, A, "no-record", None, ()) is True
        assert await outbox.settled(DAY, after="", limit=9) == [(A, "no-record")]
        assert await open_domains(tallies) == []
        assert await ids(outbox) == []

    async def test_a_day_that_is_closed_twice_makes_no_second_report(self, outbox: Outbox) -> None:
        first, second = report(), report(report_id="other@relay.example")
        await send(outbox, first)
        again = outbox.settle(DAY, A, "suppressed", second, [delivery(second)])
        assert await again is False
        assert await outbox.settle(DAY, A, "reported", first, [delivery(first, POST)]) is False
        assert await outbox.settled(DAY, after="", limit=9) == [(A, "reported")]
        assert await ids(outbox) == [first.report_id]
        assert await outbox.deliveries(first.report_id) == [delivery(first)]
        assert await outbox.destination_load(DAY, MAIL) == (1, len(first.body))

    async def test_closed_by_two_at_once(self, outbox: Outbox) -> None:
        made = report()
        closings = [outbox.settle(DAY, A, "reported", made, [delivery(made)]) for _ in range(9)]
        assert sorted(await asyncio.gather(*closings)) == [False] * 8 + [True]
        assert await outbox.deliveries(made.report_id) == [delivery(made)]

    async def test_a_report_whose_id_is_there_is_not_made_again(
        self, tallies: TallyStore, outbox: Outbox
    ) -> None:
        made = report()
        await send(outbox, made)
        assert await tallies.forget_days(before=Day(DAY + 1)) == 1
        await put(tallies, DAY, A, {NONE: Totals(1)})  # a month late
        assert await open_domains(tallies) == [A]
        later = replace(made, body=b"other", created_at=NOW + HOUR)
        assert await outbox.settle(DAY, A, "reported", later, [delivery(later, POST)]) is False
        assert await open_domains(tallies) == []
        assert await outbox.report(made.report_id) == made
        assert await outbox.deliveries(made.report_id) == [delivery(made)]

    async def test_a_destination_that_is_named_twice_gets_one(self, outbox: Outbox) -> None:
        made = report()
        rows = [delivery(made, POST), delivery(made, MAIL), delivery(made, POST, tries=3)]
        await outbox.settle(DAY, A, "reported", made, rows)
        assert await outbox.deliveries(made.report_id) == rows[:2]
        assert await outbox.destination_load(DAY, POST) == (1, len(made.body))

    async def test_settled_in_order_by_pages(self, tallies: TallyStore, outbox: Outbox) -> None:
        ordered = [Domain(f"{name}.example") for name in ("a-b", "a", "a0", "b", "xn--a-7ga")]
        for domain in reversed(ordered):
            await outbox.settle(DAY, domain, f"why-{domain}", None, ())
        await put(tallies, DAY, Domain("aa.example"), {NONE: Totals(1)})
        await outbox.settle(Day(DAY + 1), A, "nothing", None, ())
        pairs = [(domain, f"why-{domain}") for domain in ordered]
        assert await outbox.settled(DAY, after="", limit=9) == pairs
        assert await outbox.settled(DAY, after="", limit=2) == pairs[:2]
        assert await outbox.settled(DAY, after=ordered[1], limit=2) == pairs[2:4]
        assert await outbox.settled(DAY, after="", limit=0) == []

    # --- deliveries

    async def test_deliveries_come_back_as_they_were(self, outbox: Outbox) -> None:
        await outbox.settle(DAY, A, "reported", report(), DELIVERIES)
        assert await outbox.deliveries(report().report_id) == DELIVERIES

    @pytest.mark.parametrize("row", DELIVERIES, ids=lambda row: row.destination)
    async def test_what_is_updated_comes_back_as_it_is(self, outbox: Outbox, row: Delivery) -> None:
        await send(outbox, report(), row.destination, "mailto:other@a.example")
        for _ in range(2):
            await outbox.update(row)
            other = delivery(report(), "mailto:other@a.example")
            assert await outbox.deliveries(row.report_id) == [row, other]

    async def test_an_update_of_nothing(self, outbox: Outbox) -> None:
        await send(outbox, report())
        await outbox.update(delivery(report(), POST))
        await outbox.update(delivery(report(B)))
        assert await outbox.deliveries(report().report_id) == [delivery(report())]
        assert await outbox.deliveries(report(B).report_id) == []

    async def test_due_by_the_time_of_their_next_try(self, outbox: Outbox) -> None:
        late, soon = report(B, created_at=NOW + 9), report()
        await send(outbox, late, MAIL, POST)
        await send(outbox, soon, MAIL, POST)
        await outbox.update(delivery(late, next_at=NOW - 5))
        await outbox.update(delivery(soon, next_at=NOW + 5))
        order = [delivery(late, next_at=NOW - 5), delivery(soon, POST), delivery(late, POST)]
        assert await outbox.due(NOW, limit=9) == order
        assert await outbox.due(NOW, limit=2) == order[:2]
        assert await outbox.due(NOW, limit=0) == []
        assert await outbox.due(NOW - 5, limit=9) == order[:1]
        assert await outbox.due(NOW - 5.125, limit=9) == []
        assert len(await outbox.due(NOW + 5, limit=9)) == 4

    async def test_only_those_that_wait_are_due(self, outbox: Outbox) -> None:
        await outbox.settle(DAY, A, "reported", report(), DELIVERIES)
        due = await outbox.due(NOW + HOUR, limit=99)
        assert {row.destination for row in due} == {
            row.destination for row in DELIVERIES if row.state == "waiting"
        }
        for row in due:
            await outbox.update(replace(row, state="delivered", done_at=NOW))
        assert await outbox.due(NOW + HOUR, limit=99) == []
        await outbox.update(due[0])  # sent again by hand
        assert await outbox.due(NOW + HOUR, limit=99) == [due[0]]

    async def test_how_many_wait_since_when(self, outbox: Outbox) -> None:
        old, new = report(), report(B, created_at=NOW + 5)
        await send(outbox, new, MAIL)
        await send(outbox, old, MAIL, POST)
        assert await outbox.waiting_since() == (3, NOW)
        for destination in (MAIL, POST):
            await outbox.update(delivery(old, destination, state="failed"))
        assert await outbox.waiting_since() == (1, NOW + 5)
        await outbox.update(delivery(new, state="delivered"))
        assert await outbox.waiting_since() == (0, 0.0)

    # --- reports

    @pytest.mark.parametrize("body", [b"", b"\x00" * 99, bytes(range(256)) * 4000])
    async def test_the_octets_are_kept(self, outbox: Outbox, body: bytes) -> None:
        made = report(body=body, sessions=2**40, failures=2**40, file_name="a!b'\".json.gz")
        await send(outbox, made)
        assert await outbox.report(made.report_id) == made
        asked = await outbox.reports(day=DAY, domain=A, after="", limit=1)
        assert list(asked) == [made]

    async def test_reports_in_order_of_id(self, outbox: Outbox) -> None:
        days = [Day(DAY + n) for n in range(3)]
        for day in reversed(days):
            for domain in (B, A):
                await send(outbox, report(domain, day))
        every = [report(domain, day).report_id for day in days for domain in (A, B)]
        assert await ids(outbox) == every
        assert await ids(outbox, limit=2) == every[:2]
        assert await ids(outbox, after=every[1], limit=3) == every[2:5]
        assert await ids(outbox, day=days[1]) == every[2:4]
        assert await ids(outbox, day=days[1], after=every[2]) == every[3:4]
        assert await ids(outbox, domain=B) == every[1::2]
        assert await ids(outbox, domain=B, after=every[1], limit=1) == every[3:4]
        assert await ids(outbox, day=days[2], domain=A) == every[4:5]
        assert await ids(outbox, day=days[2], domain=A, after=every[4]) == []
        assert await ids(outbox, day=Day(DAY + 9)) == []
        assert await ids(outbox, domain=Domain("c.example")) == []

    # --- what limits them

    async def test_report_mails_are_added_up(self, outbox: Outbox) -> None:
        for count in (1, 1, 3):
            await outbox.mailed(DAY, A, count)
        await outbox.mailed(DAY, B, 7)
        await outbox.mailed(Day(DAY + 1), A, 9)
        found = [await outbox.mailed_to(*at) for at in ((DAY, A), (DAY, B), (Day(DAY + 1), A))]
        assert found == [5, 7, 9]
        assert await outbox.mailed_to(Day(DAY + 1), B) == 0

    async def test_the_load_of_a_destination(self, outbox: Outbox) -> None:
        for number in range(3):
            domain = Domain(f"d{number}.example")
            rows = await send(outbox, report(domain, body=b"x" * (number + 1)), MAIL, POST)
            # Trying again, failing or arriving makes it neither more nor less.
            await outbox.update(replace(rows[0], state="failed", tries=3))
        suppressed = report(B)
        await send(outbox, suppressed, MAIL, state="suppressed")
        await send(outbox, report(A, Day(DAY + 1), body=b"x" * 9))
        assert await outbox.destination_load(DAY, MAIL) == (3, 6)
        assert await outbox.destination_load(DAY, POST) == (3, 6)
        assert await outbox.destination_load(Day(DAY + 1), MAIL) == (1, 9)
        assert await outbox.destination_load(Day(DAY + 1), POST) == (0, 0)

    # --- what metrics ask

    async def test_counts(self, tallies: TallyStore, outbox: Outbox) -> None:
        async def counts() -> dict[str, int]:
            return {name: n for name, n in (await outbox.counts()).items() if n}

        await put(tallies, DAY, A, {NONE: Totals(1)})
        assert await counts() == {}
        made = report()
        rows = await send(outbox, made, MAIL, POST, "mailto:b@a.example", "mailto:c@a.example")
        await outbox.settle(DAY, B, "no-record", None, ())
        await outbox.settle(Day(DAY + 1), B, "no-record", None, ())
        settled = {"settled-reported": 1, "settled-no-record": 2}
        assert await counts() == {"waiting": 4, **settled}
        for last in ("451 busy", "RCPT: 550 no"):
            for row in rows[:2]:
                await outbox.update(replace(row, tries=1, last=last))
        assert await counts() == {"waiting": 4, "waiting-550": 2, **settled}
        await outbox.update(replace(rows[0], state="failed", last="550 no"))
        await outbox.update(replace(rows[1], state="failed", last="connect: refused"))
        await outbox.update(replace(rows[2], state="delivered", last="250 ok"))
        await outbox.update(replace(rows[3], state="suppressed", last="on the list"))
        ended = {"failed": 2, "failed-550": 1, "failed-connect": 1, "delivered": 1, "suppressed": 1}
        assert await counts() == {**ended, **settled}
        await outbox.update(rows[0])
        assert (await counts())["waiting"] == (await counts())["failed"] == 1
        await tallies.forget_days(before=Day(DAY + 1))
        await outbox.forget_reports(before=NOW + 1)
        assert await counts() == {"settled-no-record": 1}

    # --- forgetting

    async def test_old_reports_are_forgotten_with_all_that_is_theirs(
        self, tallies: TallyStore, outbox: Outbox
    ) -> None:
        old, edge = report(created_at=NOW - 1), report(B)
        await put(tallies, DAY, A, {NONE: Totals(1)})
        for made in (old, edge):
            await send(outbox, made, MAIL, POST)
            await outbox.mailed(made.day, made.domain, 1)
        next_day = Day(DAY + 1)
        await send(outbox, report(A, next_day))
        await outbox.mailed(next_day, A, 1)
        assert await outbox.forget_reports(before=NOW) == 1
        assert await outbox.forget_reports(before=NOW) == 0
        assert await ids(outbox) == [edge.report_id, report(A, next_day).report_id]
        assert await outbox.deliveries(old.report_id) == []
        assert await outbox.waiting_since() == (3, NOW)
        assert await outbox.mailed_to(DAY, B) == 0
        assert await outbox.mailed_to(next_day, A) == 1
        assert await outbox.destination_load(DAY, MAIL) == (0, 0)
        assert await outbox.destination_load(next_day, MAIL) == (1, len(edge.body))
        # The day itself goes with the tallies.
        assert await outbox.settled(DAY, after="", limit=9) == [(A, "reported"), (B, "reported")]
