"""Receivers of reports: a DNS server by which every domain wants them, and an MTA that takes them.

    python receivers.py ADDRESS

Ports 53 and 25 of that address. `_smtp._tls.D` has `rua=mailto:reports@D`; any other question has
no answer. The MTA says yes to everything and keeps nothing.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from typing import cast

import uvloop

TXT = 16
OWNER = b"\x05_smtp\x04_tls"
TTL = 3600


class Names(asyncio.DatagramProtocol):
    """Answers over UDP."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # uvloop's is none

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        end = data.index(b"\0", 12) + 5
        question = data[12:end]
        answer = b""
        if question.startswith(OWNER) and question[-3] == TXT:
            domain = _text(question[len(OWNER) : -5])
            text = b"v=TLSRPTv1; rua=mailto:reports@" + domain
            length = len(text)
            answer = struct.pack("!HHHIHB", 0xC00C, TXT, 1, TTL, length + 1, length) + text
        head = data[:2] + struct.pack("!HHHHH", 0x8180, 1, bool(answer), 0, 0)
        self._transport.sendto(head + question + answer, addr)


def _text(wire: bytes) -> bytes:
    labels = []
    while wire:
        labels.append(wire[1 : 1 + wire[0]])
        wire = wire[1 + wire[0] :]
    return b".".join(labels)


class Mail(asyncio.Protocol):
    """Enough of SMTP."""

    _transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._read = b""
        self._mail = False
        self._transport.write(b"220 mx.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._read += data
        while True:
            line, ended, rest = self._read.partition(b"\r\n.\r\n" if self._mail else b"\r\n")
            if not ended:
                return
            self._read = rest
            self._say(line[:4].upper())

    def _say(self, verb: bytes) -> None:
        if self._mail:
            self._mail = False
            self._transport.write(b"250 2.0.0 taken\r\n")
        elif verb == b"DATA":
            self._mail = True
            self._transport.write(b"354 go on\r\n")
        elif verb == b"QUIT":
            self._transport.write(b"221 2.0.0 bye\r\n")
            self._transport.close()
        else:
            self._transport.write(b"250 2.0.0 ok\r\n")


async def serve(address: str) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Names, local_addr=(address, 53))
    await loop.create_server(Mail, address, 25)
    print("up", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
