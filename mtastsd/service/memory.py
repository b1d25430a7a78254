"""What is known, in memory and bounded: the least recently used goes first."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

SHARE = 128
"""What part of the limit goes at once where there is no room: the oldest entries of a dict are
found by walking over those that were moved, so that one at a time would walk too often."""


class Memory(Generic[K, V]):
    """A bounded mapping in a plain dict, which keeps the order of insertion: an entry that is used
    is inserted anew. An OrderedDict takes half as much memory again for the same."""

    __slots__ = ("_entries", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """The value, which becomes the most recently used."""
        value = self._entries.pop(key, None)
        if value is not None:
            self._entries[key] = value
        return value

    def put(self, key: K, value: V) -> None:
        self._entries.pop(key, None)
        if len(self._entries) >= self.limit:
            for old in list(islice(self._entries, max(1, self.limit // SHARE))):
                del self._entries[old]
        self._entries[key] = value

    def drop(self, key: K) -> None:
        self._entries.pop(key, None)

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._entries))

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)
