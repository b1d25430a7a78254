"""A mail server with at most one fault."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from tests.e2e.world.kept import Kept
from tests.e2e.world.scenarios import Smtp

LINE = 4096
"""Octets in a command or a line of mail, more than any sender here uses."""

EXTENSIONS = ("SIZE 20000000", "ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8")

RCPT_REPLIES: dict[Smtp, str] = {
    "rcpt550": "550 5.1.1 no such user",
    "rcpt451": "451 4.3.0 try later",
}


class SmtpServer:
    """What one address answers on one port. Received mail goes to `kept`."""

    def __init__(
        self, host: str, smtp: Smtp, context: Callable[[], ssl.SSLContext], kept: Kept
    ) -> None:
        self._host, self._smtp, self._context, self._kept = host, smtp, context, kept

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from greeting to its end."""
        try:
            await _Session(self._host, self._smtp, self._context, self._kept, reader, writer).run()
        except (OSError, EOFError):
            pass  # clients that go away, and refuse certificates, are what this is for
        finally:
            writer.close()


class _Session:
    def __init__(
        self,
        host: str,
        smtp: Smtp,
        context: Callable[[], ssl.SSLContext],
        kept: Kept,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._host, self._smtp, self._context, self._kept = host, smtp, context, kept
        self._reader, self._writer = reader, writer
        self._envelope: list[str] = []
        self._secured = False

    async def run(self) -> None:
        await self._say(f"220 {self._host} ESMTP")
        while line := (await self._reader.readline()).decode("utf-8", "replace").rstrip("\r\n"):
            verb = line.split(" ")[0].upper()
            if verb == "STARTTLS":
                if not await self._starttls():
                    return
            elif verb == "DATA":
                await self._data()
            else:
                await self._say(*self._reply(verb, line))
            if verb == "QUIT":
                return

    def _reply(self, verb: str, line: str) -> list[str]:
        match verb:
            case "EHLO":
                offered = self._smtp != "plain" and not self._secured
                names = [self._host, *EXTENSIONS, *(["STARTTLS"] if offered else [])]
                return [f"250-{name}" for name in names[:-1]] + [f"250 {names[-1]}"]
            case "MAIL":
                self._envelope = [line]
                return ["250 2.1.0 Ok"]
            case "RCPT":
                self._envelope.append(line)
                return [RCPT_REPLIES.get(self._smtp, "250 2.1.5 Ok")]
            case "HELO" | "RSET" | "NOOP":
                return ["250 2.0.0 Ok"]
            case "QUIT":
                return ["221 2.0.0 Bye"]
            case _:
                return ["502 5.5.2 no such command"]

    async def _starttls(self) -> bool:
        """Whether the connection is still of use."""
        if self._smtp == "tls454":
            await self._say("454 4.7.0 TLS not available")
            return True
        await self._say("220 2.0.0 Ready to start TLS")
        if self._smtp == "garbage":
            self._writer.write(b"this is no TLS record\r\n" * 20)
            await self._writer.drain()
            return False
        if self._smtp == "close":
            return False
        await self._writer.start_tls(self._context())
        self._secured = True
        return True

    async def _data(self) -> None:
        await self._say("354 go")
        lines: list[bytes] = []
        while (line := await self._reader.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        self._kept.mail(self._host, self._envelope, self._secured, b"".join(lines))
        await self._say("250 2.0.0 Ok: kept")

    async def _say(self, *lines: str) -> None:
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode())
        await self._writer.drain()
