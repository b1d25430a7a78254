"""Handing report mails over by SMTP: to servers good, bad and silent."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import dkim as dkimpy
import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from mtastsd.net.dkim import Signer
from mtastsd.net.submit import SmtpMailer, SmtpTimes
from mtastsd.ports import Outcome, Sent
from tests.io.fakesmtp import FakeSmtp, Peer
from tests.io.fetching import Loop, loop, run

__all__ = ["loop"]

SENDER, RECIPIENT = "tls@reports.example.com", "tls-reports+a=b@example.org"
MESSAGE = b"From: tls@reports.example.com\r\nSubject: x\r\n\r\n.\r\n..dots\r\n a \r\n"

PATIENT = SmtpTimes(60.0, 60.0, 60.0)
HASTY = SmtpTimes(0.1, 0.1, 0.1)


async def send(mailer: SmtpMailer, message: bytes = MESSAGE) -> Sent:
    return await mailer.send(message, sender=SENDER, recipient=RECIPIENT)


# ---- a real server


class Receiver:
    """A handler of aiosmtpd that keeps what it gets."""

    def __init__(self) -> None:
        self.port = 0
        self.helo: str | None = None
        self.options: list[str] = []
        self.got: list[tuple[str | None, list[str], bytes | None]] = []

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.helo, self.options = session.host_name, options
        envelope.mail_from = address
        return "250 2.1.0 Ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.got.append((envelope.mail_from, envelope.rcpt_tos, envelope.original_content))
        return "250 2.0.0 Ok: queued as 4711"


@asynccontextmanager
async def aiosmtpd(host: str = "127.0.0.1", limit: int = 10**8) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    listening = await asyncio.get_running_loop().create_server(
        lambda: SMTP(receiver, data_size_limit=limit), host, 0
    )
    receiver.port = listening.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        listening.close()


@pytest.mark.parametrize(
    ("host", "helo", "said"),
    [
        ("127.0.0.1", "", "[127.0.0.1]"),
        ("::1", "", "[IPv6:::1]"),
        ("127.0.0.1", "relay.example.com", "relay.example.com"),
    ],
)
def test_a_server_takes_it(loop: Loop, host: str, helo: str, said: str) -> None:
    async def main() -> None:
        async with aiosmtpd(host) as receiver:
            mailer = SmtpMailer(host, receiver.port, helo=helo, times=PATIENT)
            for _ in range(2):
                assert await send(mailer) == Sent("delivered", "250 2.0.0 Ok: queued as 4711")
            assert receiver.got == [(SENDER, [RECIPIENT], MESSAGE)] * 2
            assert receiver.helo == said
            assert receiver.options == [f"SIZE={len(MESSAGE)}"]

    run(loop, main())


def test_a_large_one(loop: Loop) -> None:
    async def main() -> None:
        large = MESSAGE + b"x" * 70 + b"\r\n"
        large += b"YWJj" * 18 + b"\r\n" + (b"ZGVm" * 18 + b"\r\n") * 40_000
        async with aiosmtpd() as receiver:
            mailer = SmtpMailer("127.0.0.1", receiver.port, times=PATIENT)
            assert (await send(mailer, large)).outcome == "delivered"
            assert receiver.got == [(SENDER, [RECIPIENT], large)]

    run(loop, main())


def test_too_large_for_the_server(loop: Loop) -> None:
    async def main() -> None:
        async with aiosmtpd(limit=1000) as receiver:
            mailer = SmtpMailer("127.0.0.1", receiver.port, times=PATIENT)
            sent = await send(mailer, MESSAGE + b"x" * 1000)
            assert sent.outcome == "never"
            assert sent.detail.startswith("MAIL: 552 ")
            assert not receiver.got

    run(loop, main())


def test_a_signature_outlives_the_way(loop: Loop) -> None:
    seed = b"nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
    public = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    signer = Signer("reports.example.com", "tls", "ed25519", 256, public, seed)

    async def main() -> None:
        async with aiosmtpd() as receiver:
            await send(SmtpMailer("127.0.0.1", receiver.port), signer.sign(MESSAGE))
        [(_, _, content)] = receiver.got
        assert dkimpy.verify(content, dnsfunc=lambda *_, **__: signer.record, tlsrpt="strict")

    run(loop, main())


# ---- servers with a script

GOOD = {
    "greeting": b"220 mx.example.com ESMTP\r\n",
    "EHLO": b"250-mx.example.com\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
    "MAIL": b"250 2.1.0 Ok\r\n",
    "RCPT": b"250 2.1.5 Ok\r\n",
    "DATA": b"354 go on\r\n",
    ".": b"250 2.0.0 Ok\r\n",
    "QUIT": b"221 2.0.0 Bye\r\n",
}

HANG, DROP = b"hang", b"drop"
"""Instead of a reply: nothing until the client has gone; closing."""


@dataclass
class Server:
    """Answers as `GOOD` has it, but at one stage. `ended` is set when the client has gone."""

    stage: str
    reply: bytes
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, peer: Peer) -> None:
        try:
            await self._serve(peer)
        finally:
            self.ended.set()

    async def _serve(self, peer: Peer) -> None:
        going_on = await self._answer(peer, "greeting")
        while going_on and (command := await peer.command()):
            verb = command.partition(" ")[0]
            going_on = await self._answer(peer, verb) and verb != "QUIT"
            if verb == "DATA" and self._reply("DATA").startswith(b"354"):
                while await peer.command() != "." and peer.talk[-1] != "closed":
                    pass
                going_on = going_on and await self._answer(peer, ".")

    def _reply(self, stage: str) -> bytes:
        return self.reply if stage == self.stage else GOOD[stage]

    async def _answer(self, peer: Peer, stage: str) -> bool:
        reply = self._reply(stage)
        if stage == self.stage:
            self.reached.set()
        if reply == HANG:
            await peer.gone()
        elif reply != DROP:
            await peer.say(reply)
        return reply not in (HANG, DROP)


async def talk(stage: str, reply: bytes, times: SmtpTimes = PATIENT) -> tuple[Sent, list[str]]:
    """What came of it, and what the server had heard when the client was gone."""
    async with FakeSmtp() as world:
        server = Server(stage, reply)
        address = await world.serve(server)
        sent = await send(SmtpMailer(address, world.port, times=times))
        await server.ended.wait()
        return sent, world.talks[0]


CODES: list[tuple[bytes, Outcome]] = [
    (b"421 4.3.0 bye", "later"),
    (b"451 4.7.1 greylisted", "later"),
    (b"452 4.3.1 no room", "later"),
    (b"550 5.1.1 nobody", "never"),
    (b"554 5.7.1 refused", "never"),
    (b"599 odd", "never"),
    (b"399 odd", "later"),
    (b"600 odd", "later"),
]

REPLIES: list[tuple[str, bytes, Outcome, str]] = [
    # before MAIL it is about the server, whatever the code
    ("greeting", b"421 4.3.2 down\r\n", "later", "connect: 421 4.3.2 down"),
    ("greeting", b"554 5.3.2 not now\r\n", "later", "connect: 554 5.3.2 not now"),
    ("greeting", b"SSH-2.0-OpenSSH\r\n", "later", "connect: -1 Malformed SMTP response line"),
    ("EHLO", b"450 4.3.2 slow down\r\n", "later", "EHLO: 450 4.3.2 slow down"),
    ("EHLO", b"502 5.5.1 what?\r\n", "later", "EHLO: 502 5.5.1 what?"),
    ("EHLO", b"421 4.3.2 bye\r\n", "later", "EHLO: 421 4.3.2 bye"),
    *[
        (stage, reply + b"\r\n", outcome, f"{shown}: {reply.decode()}")
        for stage, shown in (("MAIL", "MAIL"), ("RCPT", "RCPT"), ("DATA", "DATA"), (".", "DATA"))
        for reply, outcome in CODES
    ],
    (
        ".",
        b"550-5.7.1 several\r\n550 5.7.1 lines\r\n",
        "never",
        "DATA: 550 5.7.1 several 5.7.1 lines",
    ),
    (".", b"451 \xc3\xa4\x1b[2J\x00\r\n", "later", "DATA: 451 ?"),
    (".", b"250-2.0.0 Ok\r\n250 ID \x01\r\n", "delivered", "250 2.0.0 Ok ID ?"),
    ("RCPT", b"251 will forward\r\n", "delivered", "250 2.0.0 Ok"),
]


@pytest.mark.parametrize(("stage", "reply", "outcome", "detail"), REPLIES)
def test_replies(loop: Loop, stage: str, reply: bytes, outcome: Outcome, detail: str) -> None:
    async def main() -> None:
        sent, heard = await talk(stage, reply)
        assert sent.outcome == outcome
        assert sent.detail.startswith(detail)
        assert sent.detail.isascii()
        assert sent.detail.isprintable()
        if stage != "greeting" and not reply.startswith(b"421"):
            assert heard[-1] == "QUIT"

    run(loop, main())


def test_what_is_said(loop: Loop) -> None:
    async def main() -> None:
        sent, heard = await talk("QUIT", DROP)
        assert sent == Sent("delivered", "250 2.0.0 Ok")
        assert heard == [
            "EHLO [127.0.0.1]",
            f"MAIL FROM:<{SENDER}>",  # neither SMTPUTF8 nor BODY, and no SIZE that nobody asked for
            f"RCPT TO:<{RECIPIENT}>",
            "DATA",
            *["From: tls@reports.example.com", "Subject: x", "", "..", "...dots", " a ", "."],
            "QUIT",
        ]

    run(loop, main())


@pytest.mark.parametrize("stage", GOOD)
def test_hung_up(loop: Loop, stage: str) -> None:
    """After the final dot nobody knows whether the mail was taken: it is sent again."""

    async def main() -> None:
        sent, _ = await talk(stage, DROP)
        assert sent.outcome == ("delivered" if stage == "QUIT" else "later")
        shown = {"greeting": "connect", ".": "DATA", "QUIT": "250 2.0.0 Ok"}
        assert sent.detail.startswith(shown.get(stage, stage))

    run(loop, main())


def test_a_greeting_and_no_more(loop: Loop) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(GOOD["greeting"])

    async def main() -> None:
        async with FakeSmtp() as world:
            mailer = SmtpMailer(await world.serve(script), world.port, times=PATIENT)
            for sent in [await send(mailer) for _ in range(20)]:
                assert sent.outcome == "later"
                assert sent.detail.startswith(("connect: ", "EHLO: "))

    run(loop, main())


def test_silent(loop: Loop) -> None:
    """A server that says no more; the connection does not outlive the try."""

    async def main() -> None:
        stages = list(GOOD)
        said = await asyncio.gather(*[talk(stage, HANG, HASTY) for stage in stages])
        assert {stage: sent for stage, (sent, _) in zip(stages, said, strict=True)} == {
            "greeting": Sent("later", "connect: timed out"),
            "EHLO": Sent("later", "EHLO: timed out"),
            "MAIL": Sent("later", "MAIL: timed out"),
            "RCPT": Sent("later", "RCPT: timed out"),
            "DATA": Sent("later", "DATA: timed out"),
            ".": Sent("later", "DATA: timed out"),
            "QUIT": Sent("delivered", "250 2.0.0 Ok"),
        }

    run(loop, main())


def test_a_server_that_stops_reading(loop: Loop) -> None:
    """What is unsent at the time-out is dropped, not kept until the server wants it."""
    large = MESSAGE + b"x" * 20_000_000
    over = asyncio.Event()
    read: list[int] = []

    async def main() -> None:
        async def script(peer: Peer) -> None:
            for reply in (GOOD["greeting"], GOOD["EHLO"], GOOD["MAIL"], GOOD["RCPT"], GOOD["DATA"]):
                await peer.say(reply)
                if reply != GOOD["DATA"]:
                    await peer.command()
            await over.wait()
            try:
                while data := await peer.receive():
                    read.append(len(data))
            finally:
                ended.set()

        ended = asyncio.Event()
        async with FakeSmtp() as world:
            address = await world.serve(script)
            sent = await send(SmtpMailer(address, world.port, times=HASTY), large)
            assert sent == Sent("later", "DATA: timed out")
            over.set()
            await ended.wait()
        assert sum(read) < len(large)

    run(loop, main())


@pytest.mark.parametrize("stage", [stage for stage in GOOD if stage != "QUIT"])
def test_cancelled(loop: Loop, stage: str) -> None:
    async def main() -> None:
        async with FakeSmtp() as world:
            server = Server(stage, HANG)
            address = await world.serve(server)
            task = asyncio.ensure_future(send(SmtpMailer(address, world.port, times=PATIENT)))
            await server.reached.wait()
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            await server.ended.wait()

    run(loop, main())


def test_nobody_there(loop: Loop) -> None:
    async def main() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
            sent = await send(SmtpMailer("127.0.0.1", port, times=PATIENT))
        assert sent.outcome == "later"
        assert sent.detail.startswith("connect: Error connecting to 127.0.0.1")

    run(loop, main())
