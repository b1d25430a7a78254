"""Report mails to the MTA: SMTP to its port, or its sendmail program, never through a shell.

"delivered" means that the MTA has taken charge of the mail (RFC 5321 §4.2.5); what it does with it
then, bounces included, is not looked at. Where its yes got lost the mail goes again, under the same
Message-ID.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import aiosmtplib

from mtastsd.ports import Outcome, Sent
from mtastsd.sts.failure import printable

T = TypeVar("T")

MAX_TEXT = 300
"""Characters kept of what the MTA said: its replies and its program's complaints are of one line,
with a queue id or a reason."""

MAX_READ = 4096
"""Octets of a program's output that are read at once, and that are kept."""

PIPE = 65536
"""Octets that a pipe of Linux holds: the most that is read of a program that has ended."""

SENDMAIL_TIMEOUT = 600.0
"""Seconds until a sendmail program is killed. It only has to queue the mail, but may ask filters
about it first, like the MTA behind a final dot."""

KILL_TIMEOUT = 10.0
"""Seconds to wait for a killed program: one that is setuid root can't be killed."""

CANCEL_AGAIN = 0.01
"""Seconds after which what has swallowed a cancellation is cancelled once more."""

ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "LOGNAME", "MAIL_CONFIG", "PATH", "TZ", "USER")
"""Variables that a sendmail program sees. Ours hold passwords (MTASTSD_STORE_URL) and sockets that
are none of its business (NOTIFY_SOCKET)."""


@dataclass(frozen=True, slots=True)
class SmtpTimes:
    """Seconds to wait for the server, RFC 5321 §4.5.3.2: our MTA is there, but it may be busy.

    `greeting` holds for connecting too. `data`: for the answer to the final dot. Whoever gives up
    on that too soon sends the mail twice.
    """

    greeting: float = 300.0
    command: float = 300.0
    data: float = 600.0


class SmtpMailer:
    """`ports.Mailer` over plain SMTP, a connection for each mail.

    Without TLS and without authentication: the server is our own, and takes mail from us by our
    address. `helo`: our name, "" for an address literal.
    """

    def __init__(
        self, host: str, port: int, *, helo: str = "", times: SmtpTimes | None = None
    ) -> None:
        self._host = host
        self._port = port
        self._helo = helo
        self._times = times or SmtpTimes()

    async def send(self, message: bytes, *, sender: str, recipient: str) -> Sent:
        """Hand over `message`, which has CRLF line ends and no octets above 127.

        5xx is "never" where it is about this mail, from MAIL on. Before that it is about the
        server, which will be mended: "later", as all else.
        """
        return await _until_cancelled(self._send(message, sender, recipient))

    async def _send(self, message: bytes, sender: str, recipient: str) -> Sent:
        client = aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            local_hostname="localhost",  # or the library looks for a name in DNS
            start_tls=False,
            timeout=self._times.command,
        )
        try:
            await client.connect(timeout=self._times.greeting)
        except (aiosmtplib.SMTPException, OSError) as error:
            return _failed("connect", error)
        except asyncio.CancelledError:
            if client.transport is not None:
                _transport(client).abort()
            raise
        if client.transport is None:
            return Sent("later", "connect: closed behind the greeting")
        transport = _transport(client)
        try:
            sent = await self._transaction(client, message, sender, recipient)
        except BaseException:
            transport.abort()
            raise
        _leave(transport)
        return sent

    async def _transaction(
        self, client: aiosmtplib.SMTP, message: bytes, sender: str, recipient: str
    ) -> Sent:
        stage = "EHLO"
        try:
            await client.ehlo(hostname=self._helo or _literal(client))
            stage = "MAIL"
            # Who has no room says so before ten megabytes are on their way.
            size = [f"SIZE={len(message)}"] if client.supports_extension("size") else []
            await client.mail(sender, options=size)
            stage = "RCPT"
            await client.rcpt(recipient)
            stage = "DATA"
            reply = await client.data(message, timeout=self._times.data)
        except (aiosmtplib.SMTPException, OSError) as error:
            return _failed(stage, error)
        return Sent("delivered", _line(f"{reply.code} {reply.message}"))


async def _until_cancelled(work: Coroutine[Any, Any, T]) -> T:
    """Await what may swallow a cancellation, as wait_for, and so the library, does before Python
    3.12: it is cancelled until it ends.
    """
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        try:
            await asyncio.wait({task})
        finally:
            while not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=CANCEL_AGAIN)
    return task.result()


def _transport(client: aiosmtplib.SMTP) -> asyncio.Transport:
    # uvloop's is no subclass of asyncio.Transport.
    return cast("asyncio.Transport", client.transport)


def _literal(client: aiosmtplib.SMTP) -> str:
    """The address literal that stands for our name, RFC 5321 §4.1.3."""
    address: str = client.get_transport_info("sockname")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _leave(transport: asyncio.Transport) -> None:
    """Say QUIT and close. The answer would change nothing; to wait for it could lose the yes."""
    # After a time-out the library has closed, which with data unsent lasts as the peer likes.
    if transport.is_closing() or transport.get_write_buffer_size():
        transport.abort()
    else:
        transport.write(b"QUIT\r\n")
        transport.close()


def _failed(stage: str, error: aiosmtplib.SMTPException | OSError) -> Sent:
    match error:
        case aiosmtplib.SMTPResponseException(code=code, message=message):
            about_it = stage in ("MAIL", "RCPT", "DATA") and 500 <= code < 600
            return Sent("never" if about_it else "later", _line(f"{stage}: {code} {message}"))
        case aiosmtplib.SMTPTimeoutError():
            return Sent("later", f"{stage}: timed out")
        case _:
            return Sent("later", _line(f"{stage}: {error}"))


def _line(text: str) -> str:
    """Made fit for a detail; the lines of a reply are joined."""
    return printable(" ".join(text[: 4 * MAX_TEXT].split("\n")), MAX_TEXT)


# ---- the program


EXITS: dict[int, tuple[str, Outcome]] = {
    0: ("EX_OK", "delivered"),
    64: ("EX_USAGE", "later"),  # a program that doesn't know `--`: another one may be set
    65: ("EX_DATAERR", "never"),
    67: ("EX_NOUSER", "never"),
    68: ("EX_NOHOST", "never"),
    69: ("EX_UNAVAILABLE", "later"),  # Postfix's word for a refusal, but also for "not running"
    70: ("EX_SOFTWARE", "later"),
    71: ("EX_OSERR", "later"),
    72: ("EX_OSFILE", "later"),
    73: ("EX_CANTCREAT", "later"),
    74: ("EX_IOERR", "later"),
    75: ("EX_TEMPFAIL", "later"),
    76: ("EX_PROTOCOL", "later"),
    77: ("EX_NOPERM", "later"),
    78: ("EX_CONFIG", "later"),
}
"""What sysexits.h calls an exit status, and what it is to us. "never" is only what is about the
mail; what is about this host will be mended. An unknown status, or a signal, is "later"."""


class SendmailMailer:
    """`ports.Mailer` by a program with sendmail's command line."""

    def __init__(self, path: str, *, timeout: float = SENDMAIL_TIMEOUT) -> None:
        self._path = path
        self._timeout = timeout

    async def send(self, message: bytes, *, sender: str, recipient: str) -> Sent:
        """Feed `message`, which has CRLF line ends, to the program.

        One that is still there at the time-out is killed with all that it has started, and waited
        for, so that it can't send what will be sent again. The same holds on cancellation.
        """
        # -i: a line with a dot ends nothing. No -t, which would take recipients from the header.
        arguments = ["-i", "-f", sender, "--", recipient]
        with _Output() as output:
            child, cancelled = await _to_its_end(self._start(arguments, message, output))
            if isinstance(child, OSError):
                if cancelled:
                    raise asyncio.CancelledError
                return Sent("later", _line(f"{self._path}: {child.strerror}"))
            code = await self._wait(child, cancelled)
            text = output.text()
        if code is None:
            how = "can't be killed" if child.returncode is None else "killed"
            return Sent("later", _line(f"{how} after {self._timeout:g} s{text}"))
        name, outcome = EXITS.get(code, ("", "later"))
        how = f"signal {-code}" if code < 0 else f"exit {code} {name}".rstrip()
        return Sent(outcome, _line(how + text))

    async def _start(
        self, arguments: Sequence[str], message: bytes, output: _Output
    ) -> asyncio.subprocess.Process | OSError:
        stdin = _in_memory(message.replace(b"\r\n", b"\n"))
        try:
            return await asyncio.create_subprocess_exec(
                self._path,
                *arguments,
                stdin=stdin,
                stdout=output.writer,
                stderr=output.writer,
                start_new_session=True,
                cwd="/",
                env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            )
        except OSError as error:
            return error
        finally:
            os.close(stdin)

    async def _wait(self, child: asyncio.subprocess.Process, cancelled: bool) -> int | None:
        """The exit status, None where the time was up."""
        try:
            if cancelled:
                raise asyncio.CancelledError
            async with asyncio.timeout(self._timeout) as deadline:
                return await child.wait()
        except TimeoutError:
            if not deadline.expired():
                raise
            return None
        finally:
            if child.returncode is None:
                await _kill(child)


def _in_memory(data: bytes) -> int:
    """A file to read `data` from. Unlike a pipe it need not be fed, and may be left unread."""
    file = os.memfd_create("report", os.MFD_CLOEXEC)
    with os.fdopen(file, "wb", closefd=False) as opened:
        opened.write(data)
    os.lseek(file, 0, os.SEEK_SET)
    return file


async def _to_its_end(work: Coroutine[Any, Any, T]) -> tuple[T, bool]:
    """What comes of something short that must not be cut off, and whether we are to be cancelled.

    Starting a program is such: cut off, it leaves one behind that nobody knows.
    """
    cancelled = False
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                cancelled = True
    return task.result(), cancelled


async def _kill(child: asyncio.subprocess.Process) -> None:
    """End it and all of its session that did not leave its process group."""
    # It may have just ended, or run as somebody else.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(KILL_TIMEOUT):
            await child.wait()


class _Output:
    """A pipe that a program complains into. Its first octets are kept, the others read and dropped,
    so that the program does not wait for us; neither do we for it, or for what it leaves behind.
    """

    def __init__(self) -> None:
        self._kept = b""
        self._loop = asyncio.get_running_loop()
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._loop.add_reader(self._reader, self._read)

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        os.close(self.writer)

    def text(self) -> str:
        """What came, after a colon; empty for nothing. Takes what is still in the pipe."""
        for _ in range(PIPE // MAX_READ):
            if not self._read():
                break
        text = self._kept.decode("latin-1").strip(" \t\r\n")
        return f": {text}" if text else ""

    def _read(self) -> bool:
        try:
            data = os.read(self._reader, MAX_READ)
        except BlockingIOError:
            return False
        self._kept += data[: MAX_READ - len(self._kept)]
        return True
