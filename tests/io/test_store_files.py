"""The SQLite file: made, found corrupt, refused, brought up to date."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mtastsd.names import Domain
from mtastsd.ports import StoreUnavailable
from mtastsd.store import errors, files
from mtastsd.store.sqlite import SqliteStore
from tests.io.store_tools import (
    content,
    events,
    files_beside,
    held,
    open_at,
    opened,
    said_by_child,
    sql,
    write,
)
from tests.store_contract import (
    FULL,
    NOW,
    domain_in,
    hop,
    known,
    names,
)

STAMP = "20251009T085320"  # NOW in UTC


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "mtastsd.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(path) as store:
        yield store


# --- made ---


async def test_a_new_file_is_the_users_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        async with opened(path) as store:
            await store.save([FULL], [])
            modes = {name: _mode(path.parent / name) for name in files_beside(path)}
    finally:
        os.umask(before)
    assert modes == {"mtastsd.db": 0o600, "mtastsd.db-shm": 0o600, "mtastsd.db-wal": 0o600}
    assert _mode(path.parent) == 0o700


async def test_a_folder_and_file_that_are_there_keep_their_modes(path: Path) -> None:
    write(path, b"")
    os.chmod(path.parent, 0o750)
    os.chmod(path, 0o640)
    async with opened(path):
        pass
    assert (_mode(path.parent), _mode(path)) == (0o750, 0o640)


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def test_only_the_last_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "no" / "such" / "x.db"
    with pytest.raises(errors.StoreError, match=rf"{path}: No such file or directory"):
        await open_at(path)


@pytest.mark.parametrize("name", ["a b.db", "q?mode=memory#x.db", "50%25.db", "ü.db", "'.db"])
async def test_a_path_is_taken_literally(tmp_path: Path, name: str) -> None:
    async with opened(tmp_path / name) as store:
        await store.save([FULL], [])
    assert files_beside(tmp_path / name) == [name]


async def test_all_is_there_after_a_restart(path: Path) -> None:
    async with opened(path) as store:
        await store.save([FULL, known("a.example")], [hop("[a.example]:587")])
    assert files_beside(path) == ["mtastsd.db"]  # the log was worked in
    async with opened(path) as store:
        assert [row async for row in store.scan()] == [known("a.example"), FULL]
        assert (await store.load(Domain("a.example"), "[a.example]:587"))[1] == hop(
            "[a.example]:587"
        )


async def test_an_empty_file_is_a_new_one(path: Path) -> None:
    write(path, b"")
    async with opened(path) as store:
        await store.save([FULL], [])
    assert files_beside(path) == ["mtastsd.db"]


async def test_the_file_says_what_it_is(path: Path) -> None:
    async with opened(path):
        pass
    assert sql(path, "PRAGMA application_id") == [(files.APPLICATION_ID,)]
    assert sql(path, "PRAGMA user_version") == [(2,)]
    assert sql(path, "PRAGMA journal_mode") == [("wal",)]
    assert sql(path, "SELECT * FROM schema_step") == [(1, "policies", NOW), (2, "tlsrpt", NOW)]


async def test_operators_can_read_it(path: Path) -> None:
    async with opened(path) as store:
        await store.save([FULL], [hop("[full.example]:587")])
    assert sql(path, "SELECT domain, failure_kind, failure_line FROM policy_domain") == [
        ("full.example", "syntax", 3)
    ]
    assert sql(path, "SELECT domain, finding FROM next_hop") == [("full.example", "all")]


# --- corrupt ---


def garbage(path: Path) -> None:
    path.write_bytes(b"\x00garbage" * 4096)
    path.with_name(path.name + "-wal").write_bytes(b"old log")


def text(path: Path) -> None:
    path.write_text("not a database\n" * 100)


def cut_off(path: Path) -> None:
    os.truncate(path, 4096)


def overwritten(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(b"SQLite format 3\x00" + b"\xff" * (size - 16))


@pytest.mark.parametrize("harm", [garbage, text, cut_off, overwritten])
async def test_a_corrupt_file_is_set_aside(
    path: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    await _with_rows(path)
    harm(path)
    harmed = content(path)
    async with opened(path) as store:
        assert await store.count() == 0
        await store.save([FULL], [])
        assert await domain_in(store, FULL.domain) == FULL
    aside = path.with_name(f"mtastsd.db.corrupt-{STAMP}")
    assert content(aside) == harmed
    (event,) = events(caplog, "store-set-aside")
    assert (event["path"], event["aside"]) == (str(path), str(aside))
    assert files_beside(path) == ["mtastsd.db", aside.name]


def test_the_log_is_set_aside_with_its_file(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        write(Path(f"{path}{suffix}"), suffix.encode())
    aside = files.set_aside(path, NOW)
    assert files_beside(path) == [aside.name, f"{aside.name}-shm", f"{aside.name}-wal"]
    assert content(Path(f"{aside}-wal")) == b"-wal"


async def test_none_set_aside_takes_the_place_of_another(path: Path) -> None:
    for octets in (b"one" * 400, b"two" * 400, b"three" * 400):
        write(path, octets)
        async with opened(path):
            pass
    name = f"mtastsd.db.corrupt-{STAMP}"
    assert files_beside(path) == ["mtastsd.db", name, f"{name}-2", f"{name}-3"]
    assert content(path.with_name(f"{name}-3")) == b"three" * 400


async def test_of_a_link_the_target_is_set_aside(tmp_path: Path) -> None:
    link, target = tmp_path / "link.db", tmp_path / "target.db"
    write(target, b"garbage" * 400)
    link.symlink_to(target)
    async with opened(link) as store:
        await store.save([FULL], [])
    assert files_beside(link) == ["link.db", "target.db", f"target.db.corrupt-{STAMP}"]
    assert link.is_symlink()


async def _with_rows(path: Path) -> None:
    """A file far larger than the page cache, all of it behind the log."""
    async with opened(path) as store:
        rows = [known(f"d{i}.example", body=b"x" * 16384) for i in range(200)]
        await store.save(rows, [hop(row.domain) for row in rows])


async def _load(store: SqliteStore) -> None:
    await store.load(Domain("d100.example"), "d100.example")


async def _scan(store: SqliteStore) -> None:
    await names(store)


async def _save(store: SqliteStore) -> None:
    await store.save([known("d100.example")], [])


async def _delete(store: SqliteStore) -> None:
    await store.delete(Domain("d100.example"))


@pytest.mark.parametrize("use", [_load, _scan, _save, _delete])
async def test_a_file_that_goes_corrupt_in_use_is_set_aside(
    path: Path, use: Callable[[SqliteStore], Any], caplog: pytest.LogCaptureFixture
) -> None:
    await _with_rows(path)
    async with opened(path) as store:
        await domain_in(store, "d0.example")  # all lanes have it open
        await store.count()
        assert said_by_child("damage", path) == []
        with pytest.raises(StoreUnavailable):
            await use(store)
        # The writer's turn: whatever waits behind it finds the new file.
        await store.save([FULL], [hop("full.example")])
        assert await store.load(FULL.domain, "full.example") == (FULL, hop("full.example"))
        assert await names(store) == ["full.example"]
    assert len(events(caplog, "store-set-aside")) == 1
    assert files_beside(path)[:2] == ["mtastsd.db", f"mtastsd.db.corrupt-{STAMP}"]
    async with opened(path) as store:
        assert await names(store) == ["full.example"]
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]


async def test_many_that_meet_the_corruption_set_it_aside_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await _with_rows(path)
    async with opened(path) as store:
        await store.count()
        said_by_child("damage", path)
        uses = [use(store) for use in (_load, _scan, _save, _delete) for _ in range(20)]
        results = await asyncio.gather(*uses, return_exceptions=True)
        # Some came after the new file was begun.
        assert {type(result) for result in results} <= {StoreUnavailable, type(None)}
        await store.save([FULL], [])
        assert await domain_in(store, FULL.domain) == FULL
    assert len(events(caplog, "store-set-aside")) == 1


async def test_nobody_opens_a_file_that_is_being_set_aside(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[BaseException | None] = []
    await _with_rows(path)
    async with opened(path) as store:
        loop, set_aside = asyncio.get_running_loop(), files.set_aside

        def meanwhile(path: Path, now: float) -> Path:
            load = asyncio.run_coroutine_threadsafe(_load(store), loop)
            asked.append(load.exception(30))
            return set_aside(path, now)

        monkeypatch.setattr(files, "set_aside", meanwhile)
        said_by_child("damage", path)
        with pytest.raises(StoreUnavailable):
            await _save(store)
        await store.save([FULL], [])
        assert await domain_in(store, FULL.domain) == FULL
    (error,) = asked
    assert isinstance(error, StoreUnavailable)
    assert str(error) == f"{path}: is being set aside"


async def test_a_file_that_cannot_be_set_aside_stays(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_from: str, _to: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    await _with_rows(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refuse)
        async with opened(path) as store:
            said_by_child("damage", path)
            for use in (_load, _save):
                with pytest.raises(StoreUnavailable):
                    await use(store)
        assert events(caplog, "store-failed")
        text(path)
        with pytest.raises(errors.StoreError, match=r"can't be renamed: Operation not permitted"):
            await open_at(path)
    assert files_beside(path)[0] == "mtastsd.db"
    assert events(caplog, "store-set-aside") == []


# --- refused ---


async def test_a_newer_schema_stops_the_start(path: Path) -> None:
    async with opened(path) as store:
        await store.save([FULL], [])
    sql(path, "PRAGMA user_version = 7")
    before = content(path)
    with pytest.raises(errors.StoreTooNew, match=rf"{path}: has schema version 7.* knows 2"):
        await open_at(path)
    assert content(path) == before
    assert files_beside(path) == ["mtastsd.db"]


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE t (x)", "PRAGMA application_id = 99", "PRAGMA user_version = 1"]
)
async def test_a_database_of_another_program_is_left_alone(path: Path, statement: str) -> None:
    path.parent.mkdir()
    sql(path, statement, "PRAGMA user_version")
    before = content(path)
    with pytest.raises(errors.StoreForeign, match=f"{path}: a database of another program"):
        await open_at(path)
    assert content(path) == before
    assert files_beside(path) == ["mtastsd.db"]


@pytest.mark.parametrize("mode", ["write", "exclusive"])
async def test_a_lock_stops_the_start(path: Path, mode: str) -> None:
    async with opened(path) as store:
        await store.save([FULL], [])
    with (
        held(path, mode),
        pytest.raises(errors.StoreLocked, match=f"{path}: another process holds it"),
    ):
        await open_at(path, write_wait=0.05)
    async with opened(path) as store:
        assert await names(store) == ["full.example"]


async def test_some_that_begin_one_file_together(path: Path) -> None:
    path.parent.mkdir()
    results = await asyncio.gather(*(open_at(path) for _ in range(8)), return_exceptions=True)
    stores = [result for result in results if isinstance(result, SqliteStore)]
    # SQLite does not wait when two want to turn the log on: one may be told that it is locked.
    rest = [result for result in results if not isinstance(result, SqliteStore)]
    assert all(isinstance(result, errors.StoreLocked) for result in rest)
    for number, store in enumerate(stores):
        await store.save([known(f"d{number}.example")], [])
    assert await stores[0].count() == len(stores)
    for store in stores:
        await store.close()


async def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(errors.StoreForbidden, match=f"{tmp_path}: "):
        await open_at(tmp_path)
    path = tmp_path / "file" / "x.db"
    path.parent.touch()
    with pytest.raises(errors.StoreError, match=f"{path}: Not a directory"):
        await open_at(path)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users can reach: what pytest makes they can't."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("what", ["file", "folder", "read-only"])
async def test_a_permission_stops_the_start(shared: Path, what: str) -> None:
    path = shared / "state" / "mtastsd.db"
    async with opened(path) as store:
        await store.save([FULL], [])
    path.parent.chmod(0o777 if what != "folder" else 0o755)
    path.chmod({"file": 0o200, "folder": 0o666, "read-only": 0o444}[what])
    if os.geteuid() != 0:
        path.parent.chmod(0o755 if what != "folder" else 0o555)
        path.chmod({"file": 0o000, "folder": 0o600, "read-only": 0o400}[what])
    (said,) = said_by_child("forbidden", path)
    assert said.startswith(f"StoreForbidden {path}: can't be opened by user id ")
    path.parent.chmod(0o755)
    path.chmod(0o600)
    async with opened(path) as store:
        assert await names(store) == ["full.example"]
