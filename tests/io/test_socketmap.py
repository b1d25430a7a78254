"""The socketmap server on a real socket, over a world of tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mtastsd.names import Domain
from mtastsd.postfix import netstring
from mtastsd.server import probe, socketmap
from mtastsd.server.listen import Bound, ListenError, bind_inet, bind_unix
from mtastsd.server.lookups import Frames, Lookups, Reply
from mtastsd.server.socketmap import MAX_PIPELINED, SocketmapServer
from tests.fakeworld import GOOD, World, settle

SECURE = b"OK secure match=mx.example.com servername=hostname"
LIMIT = 10.0
"""Seconds until a test that hangs is given up."""


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def dial(cls, path: Path) -> Client:
        return cls(*await asyncio.open_unix_connection(str(path)))

    def send(self, *keys: str, map_name: str = "postfix") -> None:
        self.writer.write(b"".join(frame(k, map_name) for k in keys))

    async def receive(self) -> bytes:
        async with asyncio.timeout(LIMIT):
            length = await self.reader.readuntil(b":")
            payload = await self.reader.readexactly(int(length[:-1]) + 1)
        return payload[:-1]

    async def ask(self, key: str, map_name: str = "postfix") -> bytes:
        self.send(key, map_name=map_name)
        return await self.receive()

    async def ended(self) -> bool:
        """Whether the server has closed; nothing more comes."""
        async with asyncio.timeout(LIMIT):
            return await self.reader.read() == b""


def frame(key: str, map_name: str = "postfix") -> bytes:
    return netstring.encode(f"{map_name} {key}".encode())


class Service(World):
    """The world with a socketmap server in front."""

    path: Path
    bound: Bound

    def start(self) -> None:
        super().start()
        self.lookups = Lookups(self.discovery, self.log, LIMIT)
        self.server = SocketmapServer(
            self.lookups, clock=self.clock, log=self.log, metrics=self.metrics, spawn=self._spawn
        )
        clear = self.server.frames.clear
        self.sts.on_change = self.dane.on_change = self.known.on_change = clear


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with Service() as service:
        path = tmp_path / "policy.sock"
        service.path = path
        service.bound = bound = Bound(bind_unix(path, 0o666), path)
        ready = asyncio.Event()
        serving = asyncio.create_task(service.server.serve([bound.sock], ready.set))
        await ready.wait()
        service.zone.policy("example.com")
        service.hosts.bodies["example.com"] = GOOD
        service.zone.mail("example.com", "mx.example.com")
        yield service
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        bound.close()


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    client = await Client.dial(service.path)
    yield client
    client.writer.close()


class TestReplies:
    async def test_the_same_from_discovery_memory_and_frame(
        self, service: Service, client: Client
    ) -> None:
        assert [await client.ask("example.com") for _ in range(3)] == [SECURE] * 3
        counts = {(s, n) for _, s, n in service.server._counts()}
        assert ("discovery", 1) in counts
        assert ("frame", 2) in counts

    async def test_a_frame_lives_as_long_as_its_verdict(
        self, service: Service, client: Client
    ) -> None:
        await client.ask("example.com")
        await service.clock.advance(301)  # the MX answer's TTL
        await client.ask("example.com")
        assert service.lookups.counts["secure", "memory"] == 1

    async def test_a_change_drops_every_frame(self, service: Service, client: Client) -> None:
        await client.ask("example.com")
        service.server.frames.clear()
        assert not service.server.frames.entries
        assert await client.ask("example.com") == SECURE

    async def test_a_flushed_domain_is_asked_for_again(
        self, service: Service, client: Client
    ) -> None:
        await client.ask("example.com")
        await client.ask("example.com")
        service.zone.no_policy("example.com")
        await service.known.forget(Domain("example.com"))
        assert await client.ask("example.com") == b"NOTFOUND "

    @pytest.mark.parametrize(
        "key", ["", ".example.com", "[192.0.2.1]", "localhost", "a..b", "x" * 9000, "\ud800"]
    )
    async def test_what_is_no_domain_costs_nothing(
        self, service: Service, client: Client, key: str
    ) -> None:
        request = netstring.encode(b"postfix " + key.encode("utf-8", "surrogatepass"))
        client.writer.write(request)
        assert await client.receive() == b"NOTFOUND "
        assert service.zone.asked == []
        assert await client.ask("example.com") == SECURE  # the connection stays open

    async def test_a_request_without_a_key(self, client: Client) -> None:
        client.writer.write(netstring.encode(b"postfix"))
        assert await client.receive() == b"NOTFOUND "

    async def test_a_bug_is_no_notfound(
        self, service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def boom(*_: object) -> None:
            raise RuntimeError("boom")

        monkeypatch.setattr(service.discovery, "verdict", boom)
        assert (await client.ask("example.com")).startswith(b"TEMP ")
        monkeypatch.undo()
        assert await client.ask("example.com") == SECURE

    async def test_map_names_keep_apart(self, client: Client) -> None:
        assert await client.ask("example.com", "sts") == b"OK secure match=mx.example.com"
        assert b"policy_type=sts" in await client.ask("example.com", "postfix-tlsrpt")
        assert await client.ask("example.com", "QUERY") == SECURE


class TestOrder:
    async def test_replies_keep_the_order_of_requests(
        self, service: Service, client: Client
    ) -> None:
        await client.ask(".com")
        service.hosts.slow = asyncio.Event()
        client.send("example.com", ".com", "example.com", ".net")
        await settle()
        service.hosts.slow.set()
        got = [await client.receive() for _ in range(4)]
        assert got == [SECURE, b"NOTFOUND ", SECURE, b"NOTFOUND "]

    async def test_one_slow_answer_holds_up_no_other_connection(
        self, service: Service, client: Client
    ) -> None:
        service.hosts.slow = asyncio.Event()
        client.send("example.com")
        other = await Client.dial(service.path)
        assert await other.ask(".com") == b"NOTFOUND "
        other.writer.close()
        service.hosts.slow.set()
        assert await client.receive() == SECURE

    async def test_octet_by_octet(self, client: Client) -> None:
        for octet in frame("example.com") * 2:
            client.writer.write(bytes([octet]))
            await client.writer.drain()
        assert [await client.receive() for _ in range(2)] == [SECURE] * 2

    async def test_a_flood_on_one_connection_is_answered_whole(
        self, service: Service, client: Client
    ) -> None:
        service.hosts.slow = asyncio.Event()
        count = 5 * MAX_PIPELINED
        client.send(*["example.com"] * count)
        await settle()
        service.hosts.slow.set()
        assert [await client.receive() for _ in range(count)] == [SECURE] * count


class TestLimits:
    @pytest.mark.parametrize(
        "octets", [b"hello\n", b"99999999:", b"3:abcd", b"-1:a,", b"01:a,", b"\xff\xfe"]
    )
    async def test_a_broken_netstring_ends_its_own_connection_alone(
        self, service: Service, client: Client, octets: bytes
    ) -> None:
        other = await Client.dial(service.path)
        client.writer.write(frame(".com") + octets)
        assert await client.receive() == b"NOTFOUND "
        assert await client.ended()
        assert await other.ask("example.com") == SECURE
        other.writer.close()
        assert service.value("mtastsd_socketmap_refused_total", why="netstring") == 1

    async def test_too_many_connections(
        self, service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(socketmap, "MAX_CONNECTIONS", 1)
        await client.ask(".com")
        other = await Client.dial(service.path)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await other.ask(".com")
        assert await client.ask(".com") == b"NOTFOUND "

    async def test_silent_connections_are_closed(self, service: Service, client: Client) -> None:
        await client.ask(".com")
        await service.clock.advance(socketmap.IDLE_SWEEP)
        await client.ask(".com")
        await service.clock.advance(socketmap.IDLE_SWEEP)
        await client.ask(".com")
        await service.clock.advance(socketmap.IDLE_SWEEP)
        await service.clock.advance(socketmap.IDLE_SWEEP)
        assert await client.ended()

    async def test_a_client_that_leaves_ends_nothing(
        self, service: Service, client: Client
    ) -> None:
        service.hosts.slow = asyncio.Event()
        client.send("example.com")
        await settle()
        client.writer.transport.abort()
        await settle()
        service.hosts.slow.set()
        other = await Client.dial(service.path)
        assert await other.ask("example.com") == SECURE
        other.writer.close()


class TestFrames:
    def reply(self, size: int = 10, until: float = 1e10) -> Reply:
        return Reply(b"x" * size, until, "secure", "memory")

    def test_bounded_by_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Frames, "LIMIT", 10)
        frames = Frames()
        for n in range(25):
            frames.keep(b"%d" % n, self.reply())
        assert len(frames.entries) == 5

    def test_bounded_by_octets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Frames, "MAX_OCTETS", 1000)
        frames = Frames()
        for n in range(25):
            frames.keep(b"%d" % n, self.reply(100))
        assert len(frames.entries) <= 9

    @pytest.mark.parametrize(("size", "until"), [(10, 0.0), (9000, 1e10)])
    def test_not_kept(self, size: int, until: float) -> None:
        frames = Frames()
        frames.keep(b"a", self.reply(size, until))
        assert not frames.entries


class TestListening:
    def test_a_dead_socket_is_replaced_and_a_live_one_is_not(self, tmp_path: Path) -> None:
        path = tmp_path / "a.sock"
        first = bind_unix(path, 0o600)
        with pytest.raises(ListenError, match="another process"):
            bind_unix(path, 0o600)
        first.close()
        second = Bound(bind_unix(path, 0o640), path)
        assert path.stat().st_mode & 0o777 == 0o640
        second.close()
        assert not path.exists()

    def test_what_is_no_socket_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "precious"
        path.write_text("data")
        with pytest.raises(ListenError, match="no socket"):
            bind_unix(path, 0o600)
        assert path.read_text() == "data"

    def test_a_successor_s_socket_is_not_removed(self, tmp_path: Path) -> None:
        path = tmp_path / "a.sock"
        first = Bound(bind_unix(path, 0o600), path)
        first.sock.close()
        second = Bound(bind_unix(path, 0o600), path)
        first.close()
        assert path.exists()
        second.close()

    def test_errors_name_address_and_cause(self, tmp_path: Path) -> None:
        taken = bind_inet("127.0.0.1", 0)
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=rf"inet:127\.0\.0\.1:{port}: Address already in use"):
            bind_inet("127.0.0.1", port)
        taken.close()
        with pytest.raises(ListenError, match="No such file or directory"):
            bind_unix(tmp_path / "none" / "a.sock", 0o600)
        with pytest.raises(ListenError, match="no group"):
            bind_unix(tmp_path / "a.sock", 0o600, "no-such-group-here")
        with pytest.raises(ListenError, match="too long"):
            bind_unix(tmp_path / ("x" * 108), 0o600)


class TestProbe:
    async def test_answered(self, service: Service) -> None:
        assert await probe.ask(service.bound) == ""

    async def test_nobody_there(self, tmp_path: Path) -> None:
        path = tmp_path / "a.sock"
        bound = Bound(bind_unix(path, 0o600), path)
        bound.close()
        assert (await probe.ask(bound)).startswith("no answer")
