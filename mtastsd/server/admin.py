"""The control socket: one JSON object a line in, one a line out.

A unix socket of mode 0600, and the kernel's word on who is at the other end: root and the daemon's
own user may ask. It is never the mail socket: whoever may ask for policies may not flush them.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mtastsd.log import Log

MAX_REQUEST = 65_536
"""Octets of a request line."""

REQUEST_TIMEOUT = 120.0
"""Seconds for a request to be carried out; a forced fetch takes up to `fetch.timeout`."""

IDLE_TIMEOUT = 60.0
"""Seconds that a client may be silent."""

MAX_CLIENTS = 32
"""Clients at once."""

Request = dict[str, Any]
Handler = Callable[[Request], Awaitable[object]]


class BadRequest(Exception):
    """What the client asked for can't be done as asked; the message is for a person."""


class AdminServer:
    """Answers with what the handlers give. Each is named by the request's `command`."""

    def __init__(self, handlers: Mapping[str, Handler], log: Log) -> None:
        self._handlers = handlers
        self._log = log
        self._clients: set[asyncio.StreamWriter] = set()

    async def serve(self, sock: socket.socket) -> None:
        """Serve for ever."""
        server = await asyncio.start_unix_server(self._client, sock=sock, limit=MAX_REQUEST)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            for writer in list(self._clients):
                writer.transport.abort()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            if len(self._clients) <= MAX_CLIENTS and self._may_ask(writer):
                await self._talk(reader, writer)
        except (OSError, TimeoutError, ValueError):
            pass  # the client went away, fell silent, or sent a line past the limit
        finally:
            self._clients.discard(writer)
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(IDLE_TIMEOUT):
                line = await reader.readline()
            if not line:
                return
            answer = await self._answer(line)
            writer.write(json.dumps(answer, ensure_ascii=True).encode("ascii") + b"\n")
            async with asyncio.timeout(IDLE_TIMEOUT):
                await writer.drain()

    async def _answer(self, line: bytes) -> dict[str, object]:
        try:
            request = json.loads(line)
        except ValueError:
            return {"error": "no JSON"}
        if not isinstance(request, dict):
            return {"error": "no JSON object"}
        handler = self._handlers.get(str(request.get("command")))
        if handler is None:
            return {"error": f"no such command: {str(request.get('command'))[:40]!r}"}
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                return {"result": await handler(request)}
        except BadRequest as error:
            return {"error": str(error)}
        except TimeoutError:
            return {"error": "it took too long"}
        except Exception as bug:
            self._log.error("bug", exc=bug, command=str(request.get("command")))
            return {"error": "internal error; see the log"}

    def _may_ask(self, writer: asyncio.StreamWriter) -> bool:
        sock = writer.get_extra_info("socket")
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", raw)
        if uid in (0, os.geteuid()):
            return True
        self._log.warning("admin-refused", uid=uid)
        return False
