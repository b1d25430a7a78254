"""A look-up that we ask ourselves, through a real socket: is anybody answered?"""

from __future__ import annotations

import asyncio

from mtastsd.postfix import netstring, socketmap
from mtastsd.server.listen import Bound

TIMEOUT = 5.0
"""Seconds; a daemon that answers nothing for so long makes mail wait."""

QUESTION = netstring.encode(b"postfix .health")
"""A parent key: answered without DNS or store, by the same path as every other."""

ANSWER = netstring.encode(socketmap.notfound())


async def ask(listening: Bound) -> str:
    """Ask at a socket that we listen on; "" or what is wrong."""
    try:
        async with asyncio.timeout(TIMEOUT):
            match listening.address:
                case str(path):
                    reader, writer = await asyncio.open_unix_connection(path)
                case (host, port):
                    reader, writer = await asyncio.open_connection(_reachable(host), port)
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


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
