"""systemd's journal by way of systemd-python, of the extra `systemd`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mtastsd.server.journal import Batch, Entry, Found, Journal

MAX_BROKEN = 16
"""Entries in a row that can't be read before the journal counts as failed."""


class JournalUnavailable(Exception):
    """The journal can't be read here; the text says what to do."""


def system_journal() -> Callable[[], Journal]:
    """How to open the system's journal. Raises JournalUnavailable."""
    try:
        from systemd import journal
    except ImportError as error:
        raise JournalUnavailable(
            "[collect] journal needs systemd-python: install python3-systemd, or mtastsd[systemd]"
        ) from error

    def opened() -> Journal:
        # Users' own journals hold nothing that would be believed.
        return SystemdJournal(journal.Reader(journal.LOCAL_ONLY | journal.SYSTEM_ONLY), system=True)

    return opened


class SystemdJournal:
    """A `Journal`. `reader` is a `systemd.journal.Reader`, made in the thread it is used in."""

    def __init__(self, reader: Any, *, system: bool = False) -> None:  # noqa: ANN401 (has no types)
        self._reader = reader
        self._system = system
        self._next: Entry | None = None
        reader.converters["__REALTIME_TIMESTAMP"] = _seconds
        reader.add_match("_TRANSPORT=syslog")
        reader.fileno()  # from now on it is told of files that come and go

    def readable(self) -> bool:
        """Whether a file could be opened. The library says nothing of those that could not."""
        found = self._reader.has_persistent_files() or self._reader.has_runtime_files()
        return bool(found) or not self._system

    def seek(self, cursor: str) -> Found:
        """Go behind an entry. If it is gone, the library goes before what comes next."""
        self._next = None
        try:
            self._reader.seek_cursor(cursor)
        except (OSError, ValueError):
            return "no-cursor"
        try:
            entry = self._entry()
        except OSError:  # it is there and can't be read
            return "gone"
        if entry is not None and entry.cursor == cursor:
            return "found"
        self._next = entry
        return "gone"

    def seek_time(self, at: float) -> None:
        """Go before the first entry of a time or after."""
        self._next = None
        self._reader.seek_realtime(float(at))

    def read(self, limit: int) -> Batch:
        """The next entries; also those of files that were rotated away or begun since."""
        self._reader.process()
        entries: list[Entry] = []
        broken = row = 0
        if self._next is not None:
            entries.append(self._next)
            self._next = None
        while len(entries) < limit:
            try:
                entry = self._entry()
            except OSError:
                broken, row = broken + 1, row + 1
                if row == MAX_BROKEN:
                    raise
                continue
            if entry is None:
                return Batch(tuple(entries), True, broken)
            entries.append(entry)
            row = 0
        return Batch(tuple(entries), False, broken)

    def close(self) -> None:
        """Close the journal."""
        self._reader.close()

    def _entry(self) -> Entry | None:
        fields = self._reader.get_next()
        if not fields:
            return None
        return Entry(fields["__CURSOR"], fields["__REALTIME_TIMESTAMP"], fields)


def _seconds(microseconds: int) -> float:
    return microseconds / 1e6
