"""The in-memory store keeps the contract, so that tests on it say something of the real one."""

from __future__ import annotations

import pytest

from mtastsd.names import Domain
from mtastsd.ports import PolicyStore, StoreUnavailable
from tests.fakes import MemoryStore
from tests.store_contract import PolicyStoreContract


class TestMemoryStore(PolicyStoreContract):
    @pytest.fixture
    def store(self) -> PolicyStore:
        return MemoryStore()


async def test_a_broken_one_says_so() -> None:
    store = MemoryStore()
    store.broken = True
    with pytest.raises(StoreUnavailable):
        await store.load(Domain("a.example"), "a.example")
    with pytest.raises(StoreUnavailable):
        await store.save([], [])
