"""The probe against mail servers with one fault each, on both event loops."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
import trustme
import uvloop

from mtastsd.answers import Tlsa
from mtastsd.names import Domain
from mtastsd.net import smtpprobe, smtpwire
from mtastsd.net.certificates import tls_seen
from mtastsd.net.smtpprobe import ProbeSettings, SmtpProber
from mtastsd.probing import Stage, Tls
from mtastsd.tlsa import authenticate, public_key
from mtastsd.tlsrpt.probe import Failed, Judgement, Nothing, Passed, judge
from mtastsd.tlsrpt.session import ResultType
from tests.io.fakehttps import self_signed, server_context
from tests.io.fakesmtp import EHLO, GREETING, FakeSmtp, Peer, Script, mail_server, over_tls

HOST = Domain("mx.example.com")
PATIENT = 20.0
HASTY = 0.2
"""Seconds for a server that keeps us waiting."""

BROKEN_TLS = Failed(ResultType.VALIDATION_FAILURE, "tls-handshake-failure")
NO_STARTTLS = Failed(ResultType.STARTTLS_NOT_SUPPORTED)
WHOLE_TALK = ["EHLO us.example.net", "STARTTLS", "tls", "EHLO us.example.net", "QUIT"]
REFUSED_TALK = ["EHLO us.example.net", "STARTTLS", "tls refused"]

Loop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Loop:
    factory: Loop = request.param
    return factory


def run(loop: Loop, main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await main

    with asyncio.Runner(debug=True, loop_factory=loop) as runner:
        runner.run(bounded())


def prober(world: FakeSmtp, *, limit: float = PATIENT, private: bool = True) -> SmtpProber:
    return SmtpProber(
        ProbeSettings(
            helo="us.example.net",
            allow_private=private,
            ca_file=world.ca_file,
            connect=PATIENT,
            reply=limit,
            whole=PATIENT,
        )
    )


# ---- certificates: the handshake itself is good


def untrusted(_: FakeSmtp) -> ssl.SSLContext:
    return server_context(trustme.CA().issue_cert(HOST))


CERTIFICATES: list[tuple[str, Callable[[FakeSmtp], ssl.SSLContext], int, Judgement]] = [
    ("good", lambda world: world.context(HOST), 0, Passed()),
    ("wildcard", lambda world: world.context("*.example.com"), 0, Passed()),
    (
        "wrong name",
        lambda world: world.context("mx.example.net", "a.mx.example.com"),
        0,
        Failed(ResultType.CERTIFICATE_HOST_MISMATCH, "X509_V_ERR_HOSTNAME_MISMATCH"),
    ),
    (
        "expired",
        lambda world: world.context(HOST, days=-2),
        10,
        Failed(ResultType.CERTIFICATE_EXPIRED, "X509_V_ERR_CERT_HAS_EXPIRED"),
    ),
    (
        "not yet valid",
        lambda world: world.context(HOST, days=400),
        9,
        Failed(ResultType.VALIDATION_FAILURE, "X509_V_ERR_CERT_NOT_YET_VALID"),
    ),
    (
        "self-signed",
        lambda _: self_signed(HOST),
        18,
        Failed(ResultType.CERTIFICATE_NOT_TRUSTED, "X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT"),
    ),
    (
        "untrusted",
        untrusted,
        20,
        Failed(ResultType.CERTIFICATE_NOT_TRUSTED, "X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY"),
    ),
]


@pytest.mark.parametrize(
    ("context", "code", "judged"), [c[1:] for c in CERTIFICATES], ids=[c[0] for c in CERTIFICATES]
)
def test_certificates(
    loop: Loop,
    context: Callable[[FakeSmtp], ssl.SSLContext],
    code: int,
    judged: Judgement,
) -> None:
    async def main() -> None:
        async with FakeSmtp() as world:
            address = await world.serve(mail_server(context(world)))
            found = await prober(world).probe(HOST, address, world.port)
            assert judge(found, HOST) == judged
            assert (found.stage, found.trouble) == (Stage.DONE, None)
            assert (found.host, found.address) == (HOST, address)
            assert found.helo == "mx.example.com"
            assert found.sending_ip.startswith("127.")
            tls = found.tls
            assert tls is not None
            assert tls.verify_code == code
            assert tls.whole
            assert tls.version == "TLSv1.3"
            assert tls.cipher.startswith("TLS_")
            assert tls.names
            assert tls.chain[0].not_before < tls.chain[0].not_after
            # A second connection is made only to see what was refused.
            refused = [[*REFUSED_TALK]] if code else []
            assert world.talks == [*refused, WHOLE_TALK]

    run(loop, main())


async def test_what_is_told_of_a_certificate() -> None:
    async with FakeSmtp() as world:
        address = await world.serve(mail_server(world.context("*.Example.com", HOST, days=30)))
        found = await prober(world).probe(HOST, address, world.port)
        assert found.tls is not None
        assert set(found.tls.names) == {"*.example.com", HOST}
        assert "trustme" in found.tls.issuer
        assert found.tls.issuer.isascii()


async def test_a_chain_with_an_intermediate_is_whole_and_linked() -> None:
    """What DANE-TA(2) needs, even where the web's PKI does not trust it."""
    async with FakeSmtp() as world:
        authority = trustme.CA().create_child_ca()
        address = await world.serve(mail_server(server_context(authority.issue_cert(HOST))))
        found = await prober(world).probe(HOST, address, world.port)
        assert found.tls is not None
        assert found.tls.verify_code != 0
        leaf, issuer = found.tls.chain[:2]
        assert leaf.issued_by_next
        key = public_key(issuer.der)
        assert key is not None
        now = (leaf.not_before + leaf.not_after) / 2
        records = [Tlsa(2, 1, 0, key)]
        assert authenticate(records, found.tls.chain, found.tls.names, [HOST], now) == "ta"


@pytest.mark.parametrize("private", [True, False])
async def test_without_the_private_call_the_leaf_alone_is_seen(
    monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    class Old:
        """An SSLObject of a Python that shows no chain."""

        def __init__(self, real: ssl.SSLObject) -> None:
            self.cipher, self.version, self.getpeercert = (
                real.cipher,
                real.version,
                real.getpeercert,
            )

    def seen(tls: Any) -> Tls:
        return tls_seen(tls if private else Old(tls))  # type: ignore[arg-type]

    monkeypatch.setattr("mtastsd.net.smtpprobe.tls_seen", seen)
    async with FakeSmtp() as world:
        authority = world.ca.create_child_ca()
        address = await world.serve(mail_server(server_context(authority.issue_cert(HOST))))
        found = await prober(world).probe(HOST, address, world.port)
        assert found.tls is not None
        assert found.tls.names == (HOST,)
        assert (found.tls.whole, len(found.tls.chain)) == (private, 2 if private else 1)


# ---- what goes wrong before, at and after the handshake


def scripted(*steps: bytes | None) -> Script:
    """Say each step, or hear something where it is None; then wait for the client to go."""

    async def script(peer: Peer) -> None:
        for step in steps:
            if step is None:
                await peer.receive()
            else:
                await peer.say(step)
        await peer.gone()

    return script


async def drip(peer: Peer) -> None:
    """A reply that never ends, an octet at a time."""
    await peer.say(b"220 ")
    while True:
        await peer.say(b"x")
        await asyncio.sleep(0.02)


async def endless_lines(peer: Peer) -> None:
    while True:
        await peer.say(b"220-and more\r\n" * 100)


async def endless_line(peer: Peer) -> None:
    while True:
        await peer.say(b"220 " + b"x" * 4000)


def alert_after_handshake(context: ssl.SSLContext) -> Script:
    """TLS 1.3 where the server wants a client certificate: its alert comes after its handshake."""
    context.verify_mode = ssl.CERT_REQUIRED

    return mail_server(context)


@dataclass(frozen=True)
class Case:
    name: str
    script: Callable[[FakeSmtp], Script]
    stage: Stage
    trouble: str
    judged: Judgement
    detail: str = ""
    code: int = 0
    limit: float = PATIENT


def plain(script: Script) -> Callable[[FakeSmtp], Script]:
    return lambda _: script


CASES = [
    Case("no banner, closed", plain(mail_server(greeting=b"")), Stage.BANNER, "timeout",
         Nothing("timeout"), limit=HASTY),
    Case("554 banner", plain(mail_server(greeting=b"554 5.7.1 no\x1b[0m thanks\r\n")), Stage.BANNER,
         "reply", Nothing("refused"), "554 5.7.1 no?[0m thanks", 554),
    Case("421 banner", plain(mail_server(greeting=b"421-busy\r\n421 later\r\n")), Stage.BANNER,
         "reply", Nothing("refused"), "421 busy", 421),
    Case("no SMTP", plain(scripted(b"SSH-2.0-OpenSSH\r\n")), Stage.BANNER, "protocol",
         Nothing("protocol"), "a line that is no SMTP reply"),
    Case("endless lines", plain(endless_lines), Stage.BANNER, "protocol", Nothing("protocol"),
         f"a reply of more than {smtpwire.MAX_LINES} lines"),
    Case("endless line", plain(endless_line), Stage.BANNER, "protocol", Nothing("protocol"),
         f"a line of more than {smtpwire.MAX_LINE} octets"),
    Case("drip", plain(drip), Stage.BANNER, "timeout", Nothing("timeout"), limit=HASTY),
    Case("closed at EHLO", plain(mail_server(ehlo=b"")), Stage.EHLO, "closed", Nothing("closed")),
    Case("EHLO refused", plain(mail_server(ehlo=b"550 5.7.1 not you\r\n")), Stage.EHLO, "reply",
         Nothing("refused"), "550 5.7.1 not you", 550),
    Case("no STARTTLS", plain(mail_server(ehlo=b"250-mx.example.com\r\n250 SIZE\r\n")), Stage.EHLO,
         "no-starttls", NO_STARTTLS),
    Case("STARTTLS is only the name", plain(mail_server(ehlo=b"250 STARTTLS\r\n")), Stage.EHLO,
         "no-starttls", NO_STARTTLS),
    Case("STARTTLS hidden", plain(mail_server(ehlo=b"250-mx\r\n250 XXXXXXXA\r\n")), Stage.EHLO,
         "no-starttls", NO_STARTTLS),
    Case("454", plain(mail_server(starttls=b"454 4.7.0 not now\r\n")), Stage.STARTTLS,
         "starttls-refused",
         Failed(ResultType.STARTTLS_NOT_SUPPORTED, "smtp-starttls-reply-code-454"),
         "454 4.7.0 not now", 454),
    Case("closed at STARTTLS", plain(mail_server(starttls=b"")), Stage.STARTTLS, "closed",
         Nothing("closed")),
    Case("closed after 220", plain(mail_server()), Stage.HANDSHAKE, "closed", BROKEN_TLS),
    Case("injected", plain(scripted(GREETING, None, EHLO, None, b"220 go\r\n250 SIZE\r\n")),
         Stage.HANDSHAKE, "tls", BROKEN_TLS, "data between the reply and the handshake"),
    Case("garbage for TLS", plain(scripted(GREETING, None, EHLO, None, b"220 go\r\n", None,
         b"no TLS here\r\n" * 9)), Stage.HANDSHAKE, "tls", BROKEN_TLS, "not-tls"),
    Case("stalled handshake", plain(scripted(GREETING, None, EHLO, None, b"220 go\r\n")),
         Stage.HANDSHAKE, "timeout", Nothing("timeout"), limit=HASTY),
    Case("TLS 1.1 only", lambda world: mail_server(server_context(world.leaf(HOST), tls11=True)),
         Stage.HANDSHAKE, "tls", BROKEN_TLS, "protocol-version"),
    Case("client certificate", lambda world: alert_after_handshake(world.context(HOST)),
         Stage.SECOND_EHLO, "tls", BROKEN_TLS, "handshake tlsv13-alert-certificate-required"),
    Case("closed within TLS", lambda world: mail_server(world.context(HOST), within=b""),
         Stage.SECOND_EHLO, "closed", Nothing("closed")),
    Case("refused within TLS",
         lambda world: mail_server(world.context(HOST), within=b"451 4.3.0 out of order\r\n"),
         Stage.SECOND_EHLO, "reply", Nothing("refused"), "451 4.3.0 out of order", 451),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_faults(loop: Loop, case: Case) -> None:
    async def main() -> None:
        async with FakeSmtp() as world:
            address = await world.serve(case.script(world))
            found = await prober(world, limit=case.limit).probe(HOST, address, world.port)
            assert (found.stage, found.trouble) == (case.stage, case.trouble)
            assert (found.detail, found.code) == (case.detail, case.code)
            assert judge(found, HOST) == case.judged

    run(loop, main())


@pytest.mark.parametrize(
    ("script", "last"),
    [
        (mail_server(greeting=b"554 no\r\n"), "QUIT"),
        (mail_server(ehlo=b"250 mx\r\n"), "QUIT"),
        (mail_server(starttls=b"454 no\r\n"), "QUIT"),
    ],
)
async def test_goodbye_is_said_wherever_it_ends(script: Script, last: str) -> None:
    async with FakeSmtp() as world:
        address = await world.serve(script)
        await prober(world).probe(HOST, address, world.port)
        assert world.talks[0][-1] == last


async def test_a_second_connection_that_fails_leaves_what_the_first_found() -> None:
    async with FakeSmtp() as world:
        context, count = self_signed(HOST), 0

        async def once(peer: Peer) -> None:
            nonlocal count
            count += 1
            await mail_server(context if count == 1 else None)(peer)

        address = await world.serve(once)
        found = await prober(world).probe(HOST, address, world.port)
        assert count == 2
        assert found.tls is not None
        assert (found.tls.verify_code, found.tls.chain) == (18, ())
        assert (found.stage, found.trouble) == (Stage.HANDSHAKE, "tls")
        assert found.detail.startswith("self")
        assert judge(found, HOST) == Failed(
            ResultType.CERTIFICATE_NOT_TRUSTED, "X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT"
        )


async def test_the_whole_has_a_limit_that_no_stage_reaches() -> None:
    async with FakeSmtp() as world:
        address = await world.serve(mail_server(greeting=b""))
        hasty = SmtpProber(ProbeSettings(allow_private=True, whole=HASTY))
        found = await hasty.probe(HOST, address, world.port)
        assert (found.stage, found.trouble) == (Stage.BANNER, "timeout")


async def test_cancelling_a_probe_is_no_time_out() -> None:
    async with FakeSmtp() as world:
        address = await world.serve(mail_server(greeting=b""))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(HASTY):
                await prober(world).probe(HOST, address, world.port)


async def test_octets_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where each line and each reply is within its own limit."""
    monkeypatch.setattr(smtpwire, "MAX_OCTETS", 10_000)
    long = b"".join(b"250-%s\r\n" % (b"x" * 1000) for _ in range(50)) + b"250 end\r\n"
    async with FakeSmtp() as world:
        address = await world.serve(mail_server(world.context(HOST), within=long))
        found = await prober(world).probe(HOST, address, world.port)
        assert (found.stage, found.trouble) == (Stage.SECOND_EHLO, "protocol")
        assert found.detail == "more than 10000 octets"
        assert judge(found, HOST) == Nothing("protocol")


async def test_an_address_is_judged_before_it_is_connected_to() -> None:
    async with FakeSmtp() as world:
        address = await world.serve(mail_server(world.context(HOST)))
        found = await prober(world, private=False).probe(HOST, address, world.port)
        assert (found.stage, found.trouble, found.detail) == (Stage.CONNECT, "address", "loopback")
        assert judge(found, HOST) == Nothing("address")
        assert world.talks == []


async def test_nobody_listens(loop: Loop) -> None:
    async with FakeSmtp() as world:
        await world.serve(mail_server())
        found = await prober(world).probe(HOST, "127.0.9.9", world.port)
        assert (found.stage, found.trouble) == (Stage.CONNECT, "connect")
        assert found.detail == "connection-refused"
        assert judge(found, HOST) == Nothing("unreachable")


async def test_our_name_is_an_address_literal_where_none_is_known() -> None:
    async with FakeSmtp() as world:
        address = await world.serve(mail_server(world.context(HOST)))
        settings = ProbeSettings(allow_private=True, ca_file=world.ca_file, source="127.0.0.9")
        found = await SmtpProber(settings).probe(HOST, address, world.port)
        assert found.sending_ip == "127.0.0.9"
        assert world.talks[0][0] == "EHLO [127.0.0.9]"


async def test_a_source_that_is_not_ours_is_no_connection() -> None:
    async with FakeSmtp() as world:
        address = await world.serve(mail_server(world.context(HOST)))
        settings = ProbeSettings(allow_private=True, source="192.0.2.1")
        found = await SmtpProber(settings).probe(HOST, address, world.port)
        assert (found.stage, found.trouble) == (Stage.CONNECT, "connect")


async def test_a_certificate_is_looked_at_without_smtp() -> None:
    async with FakeSmtp() as world:
        good = await world.serve(over_tls(world.context(HOST), wait))
        bad = await world.serve(over_tls(world.context("mx.example.net", days=-1), wait))
        found = await prober(world).certificate(HOST, good, world.port)
        assert judge(found, HOST) == Passed()
        found = await prober(world).certificate(HOST, bad, world.port)
        assert (found.stage, found.trouble) == (Stage.DONE, None)
        assert found.tls is not None
        assert (found.tls.verify_code, found.tls.names) == (10, ("mx.example.net",))


async def wait(peer: Peer) -> None:
    await peer.gone()


async def test_tls_comes_first_on_the_port_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeSmtp() as world:
        address = await world.serve(over_tls(world.context(HOST), mail_server()))
        monkeypatch.setattr(smtpprobe, "WRAPPED", world.port)
        found = await prober(world).probe(HOST, address, world.port)
        assert judge(found, HOST) == Passed()
        assert found.helo == "mx.example.com"
        assert world.talks == [["tls", "EHLO us.example.net", "QUIT"]]
