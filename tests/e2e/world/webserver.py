"""The web server of all policy hosts, each with its fault, and the sink of report posts."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from tests.e2e.world.kept import Kept
from tests.e2e.world.scenarios import REPORTS_HOST, Scenario

POLICY_PATH = "/.well-known/mta-sts.txt"
SLOW_STEP = 1.0
"""Seconds between two octets of a slow policy."""


@dataclass(frozen=True, slots=True)
class Request:
    """`path` includes the query; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def host(self) -> str:
        return self.headers.get("host", "").split(":")[0]


@dataclass(frozen=True, slots=True)
class Response:
    status: str
    body: bytes = b""
    content_type: str = "text/plain"
    location: str = ""
    slow: bool = False

    def head(self) -> bytes:
        lines = [
            f"HTTP/1.1 {self.status}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            *([f"Location: {self.location}"] if self.location else []),
            "Connection: close",
        ]
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


class WebServer:
    """HTTPS for every name of the world; the certificate is chosen by the name asked for."""

    def __init__(
        self, world: Mapping[str, Scenario], contexts: Mapping[str, ssl.SSLContext], kept: Kept
    ) -> None:
        self._world, self._contexts, self._kept = world, contexts, kept

    def context(self) -> ssl.SSLContext:
        """For the listener; a client without SNI gets the certificate of another name."""
        default = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

        def choose(tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
            if (chosen := self._contexts.get(name or "")) is None:
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            tls.context = chosen
            return None

        default.sni_callback = choose
        return default

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request."""
        try:
            response = self._answer(await _read(reader))
            writer.write(response.head())
            async for part in _parts(response):
                writer.write(part)
                await writer.drain()
        except (OSError, EOFError):
            pass  # a client that had enough
        finally:
            writer.close()

    def _answer(self, request: Request) -> Response:
        self._kept.event("https", host=request.host, request=f"{request.method} {request.path}")
        if request.method == "POST" and request.host == REPORTS_HOST:
            self._kept.post(request.path, request.headers, request.body)
            return Response("201 Created")
        scenario = self._world.get(request.host.removeprefix("mta-sts."))
        if scenario is None or not scenario.mode or request.path != POLICY_PATH:
            return Response("404 Not Found", b"nothing here\n")
        return policy(scenario)


def policy(scenario: Scenario) -> Response:
    """The answer of a policy host, with its fault."""
    good = scenario.policy_text()
    text = {
        "syntax": "version: STSv1\r\nthis is no policy\r\n\x01\r\n",
        "empty": "",
        "lf": good.replace("\r\n", "\n"),
        "nomx": "".join(x for x in good.splitlines(keepends=True) if not x.startswith("mx:")),
        "hugemaxage": good.replace("max_age: 86400", "max_age: 9999999999"),
        "longmaxage": good.replace("max_age: 86400", "max_age: 99999999999"),
        "extra": good + "x-new_field: some Value, with: colons\r\n",
        "big": good + "x-pad: " + "a" * 200_000 + "\r\n",
    }.get(scenario.policy.answer, good)
    match scenario.policy.answer:
        case "404":
            return Response("404 Not Found", b"no policy here\n")
        case "500":
            return Response("500 Internal Server Error", b"sorry\n")
        case "redirect":
            target = f"https://mta-sts.good.sts.test{POLICY_PATH}"
            return Response("301 Moved Permanently", location=target)
        case "html":
            return Response("200 OK", text.encode(), content_type="text/html")
        case "slow":
            return Response("200 OK", text.encode(), slow=True)
        case _:
            return Response("200 OK", text.encode())


async def _read(reader: asyncio.StreamReader) -> Request:
    method, path, _ = (await reader.readuntil(b"\r\n")).decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while (line := (await reader.readuntil(b"\r\n")).decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body)


async def _parts(response: Response) -> AsyncIterator[bytes]:
    if not response.slow:
        yield response.body
        return
    for at in range(len(response.body)):
        await asyncio.sleep(SLOW_STEP)
        yield response.body[at : at + 1]
