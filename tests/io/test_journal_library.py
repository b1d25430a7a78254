"""What the stand-in for the journal does is what systemd-python does with real files."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from systemd import journal as library

from mtastsd.server import journalreader
from mtastsd.server.journal import Batch, Entry, Journal
from mtastsd.server.journalreader import JournalUnavailable, SystemdJournal, system_journal
from tests.io.journalfiles import entries, unpacked
from tests.io.journaltools import Disk, RunningJournal, cursor_of
from tests.io.logtools import READ_AT, sample_lines, sessions_of

SAMPLE = list(entries())


class Real:
    """A folder of journal files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        unpacked(folder, "first")

    def open(self) -> Journal:
        return SystemdJournal(library.Reader(path=str(self.folder)))

    def more(self) -> None:
        """A file comes, as when the journal is rotated."""
        unpacked(self.folder, "second")


class Fake:
    """The same on a `Disk`."""

    def __init__(self, folder: Path) -> None:
        self.disk = Disk()
        self._all = [e for e in SAMPLE if e["_TRANSPORT"] == "syslog"]
        self._write([e for e in self._all if e in SAMPLE[: len(SAMPLE) // 2]])

    def _write(self, part: list[Mapping[str, str]]) -> None:
        for entry in part:
            at = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
            self.disk.entries.append(Entry(cursor_of(len(self.disk.entries)), at, entry))

    def open(self) -> Journal:
        return self.disk.open()

    def more(self) -> None:
        self._write(self._all[len(self.disk.entries) :])


@pytest.fixture(params=[Real, Fake])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Real | Fake:
    return request.param(tmp_path)  # type: ignore[no-any-return]


def messages(batch: Batch) -> list[object]:
    return [entry.fields["MESSAGE"] for entry in batch.entries]


WANTED = [e["MESSAGE"] for e in SAMPLE if e["_TRANSPORT"] == "syslog"]
FIRST = len([e for e in SAMPLE[: len(SAMPLE) // 2] if e["_TRANSPORT"] == "syslog"])


def test_reading_to_the_end_and_on(files: Real | Fake) -> None:
    journal = files.open()
    journal.seek_time(0.0)
    one, rest, none = journal.read(1), journal.read(1000), journal.read(10)
    assert messages(one) + messages(rest) == WANTED[:FIRST]
    assert (one.end, rest.end, none) == (False, True, Batch(end=True))
    files.more()
    assert messages(journal.read(1000)) == WANTED[FIRST:]
    journal.close()


def test_going_behind_an_entry(files: Real | Fake) -> None:
    files.more()
    journal = files.open()
    journal.seek_time(0.0)
    batch = journal.read(1000)
    assert len({entry.cursor for entry in batch.entries}) == len(WANTED)
    for n in (0, 7, FIRST - 1, FIRST, len(WANTED) - 1):
        again = files.open()
        assert again.seek(batch.entries[n].cursor) == "found"
        assert messages(again.read(1000)) == WANTED[n + 1 :]
        again.close()
    assert journal.seek(batch.entries[3].cursor) == "found"  # back in the same one
    assert messages(journal.read(2)) == WANTED[4:6]
    journal.close()


def test_going_to_a_time(files: Real | Fake) -> None:
    journal = files.open()
    journal.seek_time(0.0)
    batch = journal.read(1000)
    for n in (0, 10, FIRST - 1):
        journal.seek_time(batch.entries[n].at)
        assert messages(journal.read(1)) == WANTED[n : n + 1]
    journal.seek_time(READ_AT)
    assert journal.read(1) == Batch(end=True)
    journal.close()


def test_what_is_no_cursor(files: Real | Fake) -> None:
    journal = files.open()
    assert journal.seek("x") == "no-cursor"
    assert journal.readable()
    journal.close()


def test_an_entry_that_is_gone(tmp_path: Path) -> None:
    """With its file, as when the journal is vacuumed: the next one is read, not passed over."""
    files = Real(tmp_path)
    files.more()
    journal = files.open()
    journal.seek_time(0.0)
    cursor = journal.read(5).entries[-1].cursor
    journal.close()
    tmp_path.joinpath("first.journal").unlink()
    journal = files.open()
    assert journal.seek(cursor) == "gone"
    assert messages(journal.read(1000)) == WANTED[FIRST:]
    journal.close()


async def test_a_real_journal_from_beginning_to_end(tmp_path: Path) -> None:
    """Killed at each turn, with a file that comes meanwhile; forged entries count nothing."""
    files = Real(tmp_path)
    running = RunningJournal()
    running.open = files.open
    running.kept.cursor = "@1 @1 0"
    running.kept.write_every = 1
    for n in range(3):
        if n == 1:
            files.more()
        running.start()
        await running.read()
        await running.kill()
    assert running.kept.sessions == sessions_of(sample_lines())
    by_syslog = [e for e in SAMPLE if e["_TRANSPORT"] == "syslog"]
    assert running.value("log_lines_total") == len(by_syslog)
    untrusted = len(by_syslog) - 2 * len(sample_lines())
    assert running.value("log_lines_skipped_total", why="untrusted") == untrusted > 50


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def importing(name: str, *rest: object) -> object:
        if name.startswith("systemd"):
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(JournalUnavailable, match=r"mtastsd\[systemd\]"):
        system_journal()


def test_the_system_s_journal_can_be_opened() -> None:
    """Whether or not there is one here."""
    journal = system_journal()()
    assert journal.readable() in (True, False)
    journal.seek_time(0.0)
    assert len(journal.read(3).entries) <= 3
    journal.close()


class Broken:
    """A library whose entries can't be read, from one on."""

    def __init__(self, row: int) -> None:
        self.converters: dict[str, object] = {}
        self._left = row

    def get_next(self) -> dict[str, object]:
        self._left -= 1
        if self._left >= 0:
            raise OSError(74, "Bad message")
        return {}

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def test_many_entries_in_a_row_that_can_t_be_read() -> None:
    few = SystemdJournal(Broken(journalreader.MAX_BROKEN - 1))
    assert few.read(9) == Batch(end=True, broken=journalreader.MAX_BROKEN - 1)
    assert SystemdJournal(Broken(1)).seek("s=0") == "gone"
    with pytest.raises(OSError, match="Bad message"):
        SystemdJournal(Broken(journalreader.MAX_BROKEN)).read(9)
