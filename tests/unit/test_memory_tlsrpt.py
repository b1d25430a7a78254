"""Tallies and outbox in memory keep their contracts; and what a delivery is counted by."""

from __future__ import annotations

import pytest

from mtastsd.ports import Delivery, DeliveryState, Outbox, StoreUnavailable, TallyStore
from tests.fakes import MemoryOutbox, MemoryTallyStore
from tests.outbox_contract import MAIL, A, OutboxContract, delivery, report, send
from tests.tally_contract import DAY, TallyStoreContract, batch


class TestMemoryTallyStore(TallyStoreContract):
    @pytest.fixture
    def store(self) -> TallyStore:
        return MemoryTallyStore()

    @pytest.fixture
    def outbox(self, store: MemoryTallyStore) -> Outbox:
        return MemoryOutbox(store)


class TestMemoryOutbox(OutboxContract):
    @pytest.fixture
    def tallies(self) -> TallyStore:
        return MemoryTallyStore()

    @pytest.fixture
    def outbox(self, tallies: MemoryTallyStore) -> Outbox:
        return MemoryOutbox(tallies)


async def test_broken_ones_say_so() -> None:
    tallies = MemoryTallyStore()
    outbox = MemoryOutbox(tallies)
    await send(outbox, report())
    tallies.broken = outbox.broken = True
    with pytest.raises(StoreUnavailable):
        await tallies.add(batch(1))
    with pytest.raises(StoreUnavailable):
        await outbox.settle(DAY, A, "nothing", None, ())
    with pytest.raises(StoreUnavailable):
        await outbox.due(0.0, limit=1)
    outbox.broken = False
    assert outbox.by_day(A) == [DAY]
    assert await outbox.deliveries(report().report_id) == [delivery(report())]


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ("", ""),
        ("550 5.1.1 no such user", "550"),
        ("RCPT: 450 4.7.1 later", "450"),
        ("DATA: 554", "554"),
        ("status 404", "404"),
        ("status: 503", "503"),
        ("HTTP 500 Internal", "500"),
        ("EHLO: timed out", "ehlo"),
        ("connect: 127.0.0.1: refused", "connect"),
        ("timeout", "timeout"),
        ("tls: certificate has expired", "tls"),
        ("exit 75 EX_TEMPFAIL", "exit"),
        ("status 40404", "status"),
        ("5500 x", "other"),
        ("55\u0660 x", "other"),
        ("/usr/sbin/sendmail: No such file", "other"),
        ("x" * 17, "other"),
        ("?????", "other"),
    ],
)
def test_the_word_to_count_by(last: str, reason: str) -> None:
    def row(state: DeliveryState) -> Delivery:
        return Delivery("x@relay.example", MAIL, state, 1, 0.0, 0.0, last)

    assert row("waiting").reason == row("failed").reason == reason
    assert row("delivered").reason == row("suppressed").reason == ""
