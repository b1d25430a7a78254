"""The control socket and its commands, over a world of tables."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mtastsd.names import Domain
from mtastsd.server import admin, commands
from mtastsd.server.admin import AdminServer
from mtastsd.server.listen import Bound, bind_unix
from mtastsd.server.lookups import Lookups
from mtastsd.service.control import PAGE, Control
from mtastsd.sts.failure import Failure
from tests.fakeworld import GOOD, World, settle

LIMIT = 10.0


class Controlled(World):
    """The world with a control socket."""

    path: Path

    def start(self) -> None:
        super().start()
        self.control = Control(self.known, self.store, self.sts, self.discovery, self.clock)
        self.lookups = Lookups(self.discovery, self.log, LIMIT)

    async def status(self) -> Mapping[str, object]:
        return {"version": "test"}

    async def raw(self, line: bytes) -> Any:
        """What comes back for a line; None where the server hangs up."""
        async with asyncio.timeout(LIMIT):
            reader, writer = await asyncio.open_unix_connection(str(self.path), limit=1 << 22)
            try:
                writer.write(line)
                answer = await reader.readline()
            except ConnectionError:
                answer = b""
            finally:
                writer.transport.abort()
                await settle()
        return json.loads(answer) if answer else None

    async def ask(self, command: str, **fields: object) -> Any:
        return await self.raw(json.dumps({"command": command, **fields}).encode() + b"\n")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Controlled]:
    async with Controlled() as world:
        world.path = tmp_path / "admin.sock"
        bound = Bound(bind_unix(world.path, 0o600), world.path)
        handlers = commands.handlers(world.control, world.lookups, world.status)
        serving = asyncio.create_task(AdminServer(handlers, world.log).serve(bound.sock))
        world.zone.policy("example.com")
        world.zone.mail("example.com", "mx.example.com")
        world.hosts.bodies["example.com"] = GOOD
        yield world
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        bound.close()


async def test_query_gives_the_reply_that_postfix_gets(world: Controlled) -> None:
    answer = await world.ask("query", key="Example.com.", map="postfix")
    assert answer["result"]["reply"] == "OK secure match=mx.example.com servername=hostname"
    assert (await world.ask("query", key=".com"))["result"]["reply"] == "NOTFOUND "


async def test_list_show_refresh_flush(world: Controlled) -> None:
    assert (await world.ask("policy-list"))["result"] == {"policies": [], "next": ""}
    assert (await world.ask("policy-show", domain="example.com"))["result"] is None
    await world.ask("query", key="example.com")
    [row] = (await world.ask("policy-list"))["result"]["policies"]
    assert (row["domain"], row["mode"], row["id"]) == ("example.com", "enforce", "1")
    shown = (await world.ask("policy-show", domain="example.com"))["result"]
    assert (shown["verdict"], shown["sts"]["mx"]) == ("secure", ["mx.example.com"])
    assert shown["dane"]["finding"] == "unsigned-unread"
    world.hosts.bodies["example.com"] = Failure("status", "503")
    refreshed = (await world.ask("policy-refresh", domain="example.com"))["result"]
    assert (refreshed["failure"], refreshed["mode"]) == ("status: 503", "enforce")
    assert world.hosts.fetched == ["example.com"] * 2
    assert (await world.ask("policy-flush", domain="example.com"))["result"] == {"known": True}
    assert (await world.ask("policy-flush", domain="example.com"))["result"] == {"known": False}


async def test_refresh_is_not_held_back_by_a_failure_just_now(world: Controlled) -> None:
    world.hosts.bodies["example.com"] = Failure("status", "503")
    await world.ask("query", key="example.com")
    world.hosts.bodies["example.com"] = GOOD
    assert (await world.ask("policy-refresh", domain="example.com"))["result"]["mode"] == "enforce"


async def test_list_comes_in_pages(world: Controlled) -> None:
    await world.ask("query", key="example.com")
    [row] = world.store.domains.values()
    for n in range(PAGE + 5):
        domain = Domain(f"d{n:04}.example.net")
        world.store.domains[domain] = type(row)(domain, row.sts, row.used_at)
    first = (await world.ask("policy-list"))["result"]
    assert len(first["policies"]) == PAGE
    second = (await world.ask("policy-list", after=first["next"]))["result"]
    assert (len(second["policies"]), second["next"]) == (6, "")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"hello\n", "no JSON"),
        (b"[1]\n", "no JSON object"),
        (b"{}\n", "no such command"),
        (b'{"command": "shutdown"}\n', "no such command"),
        (b'{"command": "query"}\n', "must be a text"),
        (b'{"command": "query", "key": 7}\n', "must be a text"),
        (b'{"command": "query", "key": "' + b"x" * 11_000 + b'"}\n', "too long"),
        (b'{"command": "policy-flush", "domain": ".com"}\n', "no domain"),
        (b'{"command": "policy-show", "domain": "[192.0.2.1]"}\n', "no next hop"),
    ],
)
async def test_bad_requests_are_told(world: Controlled, line: bytes, error: str) -> None:
    assert error in (await world.raw(line))["error"]


async def test_a_line_without_end_ends_the_connection(world: Controlled) -> None:
    assert await world.raw(b"x" * (2 * admin.MAX_REQUEST)) is None
    assert "result" in await world.ask("status")


async def test_a_store_that_is_away_is_told(world: Controlled) -> None:
    world.store.broken = True
    for command in ("policy-list", "policy-flush"):
        assert "store" in (await world.ask(command, domain="example.com"))["error"]
    assert "result" in await world.ask("query", key="example.com")


async def test_a_bug_is_told_and_ends_nothing(
    world: Controlled, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def boom(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(world.control, "refresh", boom)
    assert "internal" in (await world.ask("policy-refresh", domain="example.com"))["error"]
    assert "result" in await world.ask("status")


async def test_strangers_are_refused(world: Controlled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin.struct, "unpack", lambda *_: (1, 12345, 12345))
    assert await world.ask("status") is None
