"""`/metrics`, `/healthz` and the status page. Read-only."""

from __future__ import annotations

import contextlib
import html
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from mtastsd.metrics import Metrics

MAX_CONNECTIONS = 64
"""Connections at once: a few scrapers and a person."""

Status = Mapping[str, object]

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>mtastsd</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:46rem;padding:0 1rem}}
table{{border-collapse:collapse;width:100%}}td,th{{text-align:left;padding:.3rem .8rem .3rem 0;
border-bottom:1px solid #ddd;vertical-align:top}}td{{font-variant-numeric:tabular-nums}}
</style></head><body><h1>mtastsd</h1><table>{rows}</table>
<p><a href="/metrics">metrics</a> · <a href="/healthz">health</a></p></body></html>
"""


class HttpServer:
    """Serves on one socket until cancelled."""

    def __init__(
        self,
        metrics: Metrics,
        healthy: Callable[[], Awaitable[str]],
        status: Callable[[], Awaitable[Status]],
        hosts: frozenset[str],
    ) -> None:
        """`healthy` gives "" or what is wrong; `hosts` are the Host names that are ours.

        A page that a browser shows must not answer to a name that somebody pointed at us
        (DNS rebinding); `hosts` empty (a unix socket behind a proxy) takes any.
        """
        self._metrics = metrics
        self._healthy = healthy
        self._status = status
        self._hosts = hosts

    async def serve(self, sock: socket.socket) -> None:
        """Serve for ever."""
        routes = [
            Route("/", self._page),
            Route("/metrics", self._metrics_text),
            Route("/healthz", self._health),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes),
            log_config=None,
            access_log=False,
            lifespan="off",
            loop="none",
            http="h11",
            ws="none",
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=5,
            h11_max_incomplete_event_size=16_384,
            server_header=False,
        )
        server = _Server(config)
        try:
            await server.serve(sockets=[sock])
        finally:
            server.should_exit = server.force_exit = True

    def _foreign(self, request: Request) -> Response | None:
        given = request.headers.get("host", "")
        host = given if given.endswith("]") else given.rpartition(":")[0] or given
        if not self._hosts or host in self._hosts:
            return None
        return PlainTextResponse("this host name is not ours\n", status_code=421)

    async def _page(self, request: Request) -> Response:
        rows = "".join(
            f"<tr><th scope=row>{html.escape(key)}</th><td>{html.escape(str(value))}</td></tr>"
            for key, value in (await self._status()).items()
        )
        return self._foreign(request) or HTMLResponse(PAGE.format(rows=rows))

    async def _metrics_text(self, request: Request) -> Response:
        return self._foreign(request) or Response(
            self._metrics.text(), media_type="text/plain; version=0.0.4"
        )

    async def _health(self, request: Request) -> Response:
        wrong = await self._healthy()
        if wrong:
            return PlainTextResponse(f"{wrong}\n", status_code=503)
        return PlainTextResponse("ok\n")


class _Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        """Signals are the daemon's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the daemon's (newer uvicorn)."""
        yield
