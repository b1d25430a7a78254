"""The status page, metrics and health on a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping

import pytest

from mtastsd.metrics import Metrics
from mtastsd.server.http import HttpServer
from mtastsd.server.listen import bind_inet

LIMIT = 10.0


class Site:
    """A server whose health can be set."""

    def __init__(self) -> None:
        self.wrong = ""
        self.metrics = Metrics()
        self.metrics.collect_with(lambda: [("secure", "frame", 7)])
        self.sock: socket.socket = bind_inet("127.0.0.1", 0)
        self.port = self.sock.getsockname()[1]
        hosts = frozenset({"localhost", "127.0.0.1"})
        self.server = HttpServer(self.metrics, self.healthy, self.status, hosts)

    async def healthy(self) -> str:
        return self.wrong

    async def status(self) -> Mapping[str, object]:
        return {"version": "1 <script>", "look-ups": 12}

    async def get(self, path: str, host: str = "127.0.0.1", method: str = "GET") -> tuple[int, str]:
        async with asyncio.timeout(LIMIT):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            writer.write(request.encode())
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
            writer.close()
            await writer.wait_closed()
        return int(head.split()[1]), body


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    serving = asyncio.create_task(site.server.serve(site.sock))
    yield site
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    site.sock.close()


async def test_metrics(site: Site) -> None:
    status, body = await site.get("/metrics")
    assert status == 200
    assert 'mtastsd_lookups_total{outcome="secure",source="frame"} 7.0' in body


async def test_health(site: Site) -> None:
    assert await site.get("/healthz") == (200, "ok\n")
    site.wrong = "no answer within 5 s"
    assert await site.get("/healthz") == (503, "no answer within 5 s\n")


async def test_page_escapes_and_knows_its_name(site: Site) -> None:
    status, body = await site.get("/", f"localhost:{site.port}")
    assert status == 200
    assert "1 &lt;script&gt;" in body
    for path in ("/", "/metrics"):
        assert (await site.get(path, "rebound.example.com"))[0] == 421


async def test_read_only(site: Site) -> None:
    assert (await site.get("/metrics", method="POST"))[0] == 405
    assert (await site.get("/nothing"))[0] == 404
