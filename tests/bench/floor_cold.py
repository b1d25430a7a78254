"""The least that a Python discovery can do: one TXT question and one HTTPS GET for each domain.

    floor_cold.py KEYFILE [--dns-only]

uvloop, one TLS context, no HTTP library, a datagram put together by hand; nothing is checked but
the certificate, nothing kept, nothing told. Prints one line of JSON. SSL_CERT_FILE is heeded.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import ssl
import struct
import sys
import time
from collections.abc import Iterator

import uvloop

WORKERS = 64
TIMEOUT = 10.0
GET = (
    b"GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: mta-sts.%s\r\n"
    b"User-Agent: floor\r\nConnection: close\r\n\r\n"
)


class OneAnswer(asyncio.DatagramProtocol):
    """Hands over the first datagram."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.answer.done():
            self.answer.set_result(data)


def question(domain: bytes) -> bytes:
    labels = (b"_mta-sts." + domain).split(b".")
    name = b"".join(bytes((len(label),)) + label for label in labels)
    ident = int.from_bytes(os.urandom(2), "big")
    return struct.pack("!HHHHHH", ident, 0x100, 1, 0, 0, 0) + name + b"\0\0\x10\0\x01"


async def txt(domain: bytes) -> None:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        OneAnswer, remote_addr=("127.0.0.1", 53)
    )
    try:
        transport.sendto(question(domain))
        await asyncio.wait_for(protocol.answer, TIMEOUT)
    finally:
        transport.close()


async def get(domain: bytes, context: ssl.SSLContext) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", 443, ssl=context, server_hostname=f"mta-sts.{domain.decode()}"
    )
    writer.write(GET % domain)
    response = await reader.read(65536)
    writer.close()
    if not response.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"{domain!r}: {response[:80]!r}")


async def work(domains: Iterator[bytes], context: ssl.SSLContext, dns_only: bool) -> None:
    for domain in domains:
        await txt(domain)
        if not dns_only:
            await get(domain, context)


async def all_of(domains: list[bytes], dns_only: bool) -> None:
    context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE"))
    left = iter(domains)
    async with asyncio.TaskGroup() as group:
        for _ in range(WORKERS):
            group.create_task(work(left, context, dns_only))


def main() -> None:
    with open(sys.argv[1], "rb") as file:
        domains = file.read().split()
    start = time.perf_counter()
    uvloop.run(all_of(domains, "--dns-only" in sys.argv[2:]))
    wall = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    print(json.dumps({"requests": len(domains), "wall_s": wall, "cpu_s": cpu}))


if __name__ == "__main__":
    main()
