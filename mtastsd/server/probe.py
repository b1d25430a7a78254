"""A look-up that we ask ourselves, through a real socket: is anybody answered?"""

from __future__ import annotations

import asyncio
import socket

from mtastsd.postfix import netstring, socketmap

TIMEOUT = 5.0
"""Seconds; a daemon that answers nothing for so long makes mail wait."""

QUESTION = netstring.encode(b"postfix .health")
"""A parent key: answered without DNS or store, by the same path as every other."""

ANSWER = netstring.encode(socketmap.notfound())


async def ask(listening: socket.socket) -> str:
    """Ask at the socket that we listen on; "" or what is wrong."""
    address = listening.getsockname()
    try:
        async with asyncio.timeout(TIMEOUT):
            if listening.family == socket.AF_UNIX:
                reader, writer = await asyncio.open_unix_connection(address)
            else:
                host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])
                reader, writer = await asyncio.open_connection(host, address[1])
            try:
                writer.write(QUESTION)
                answer = await reader.readexactly(len(ANSWER))
            finally:
                writer.transport.abort()
    except TimeoutError:
        return f"no answer within {TIMEOUT:.0f} s"
    except (OSError, EOFError) as error:
        return f"no answer: {error}"
    return "" if answer == ANSWER else "a wrong answer"
