"""The least that a Python socketmap server can do: from a request's frame to a canned reply's.

    floor_hot.py SOCKET KEYFILE

uvloop, one dict of whole frames. No logging, no expiry, no counting: a real server can't reach it.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import cast

import uvloop


def netstring(data: bytes) -> bytes:
    return b"%d:%s," % (len(data), data)


def canned(key: str) -> bytes:
    return netstring(f"OK secure match=mx1.{key}:mx2.{key} servername=hostname".encode())


class Connection(asyncio.Protocol):
    """Answers whole frames; a frame that comes in pieces or is not known ends the connection."""

    __slots__ = ("_frames", "_transport", "_write")

    def __init__(self, frames: dict[bytes, bytes]) -> None:
        self._frames = frames

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._write = self._transport.write

    def data_received(self, data: bytes) -> None:
        reply = self._frames.get(data)
        if reply is not None:
            self._write(reply)
        else:
            self._transport.close()


async def serve(path: str, keys: list[str]) -> None:
    frames = {netstring(f"postfix {key}".encode()): canned(key) for key in keys}
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(1024)
    server = await asyncio.get_running_loop().create_unix_server(
        lambda: Connection(frames), sock=sock
    )
    await server.serve_forever()


if __name__ == "__main__":
    with open(sys.argv[2], encoding="ascii") as file:
        uvloop.run(serve(sys.argv[1], file.read().split()))
