"""Reports in a process of their own, niced: `mtastsd report work`, kept running by the daemon.

Building and signing take whole milliseconds each; look-ups must never wait for them. The two
processes share the store and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mtastsd.config import SendmailSubmit, Settings, SmtpSubmit, SqliteStore
from mtastsd.log import Log
from mtastsd.names import Domain
from mtastsd.net import dkim
from mtastsd.net.dkim import Signer
from mtastsd.net.dns import DnsResolver
from mtastsd.net.post import HttpsPoster, PostSettings
from mtastsd.net.submit import SendmailMailer, SmtpMailer
from mtastsd.ports import Clock, Mailer, Outbox, Report, TallyStore
from mtastsd.service.outbox import Deliverer
from mtastsd.service.reporter import Reporter, ReportRules, Suppression
from mtastsd.tlsrpt import message, report
from mtastsd.tlsrpt.record import Mailto
from mtastsd.tlsrpt.report import Identity
from mtastsd.tlsrpt.tally import Day, DomainTally
from mtastsd.wiring import dns_settings

NICE = 10
"""How much this process gives way: whatever else the machine does comes first."""


@dataclass(frozen=True, slots=True)
class Press:
    """Makes reports and the mails around them, in the configured identity."""

    identity: Identity
    sender: str
    max_bytes: int
    signer: Signer | None

    @classmethod
    def of(cls, settings: Settings, signer: Signer | None) -> Press:
        section = settings.report
        identity = Identity(section.organization, section.contact)
        return cls(identity, section.from_, section.max_bytes, signer)

    def build(self, day: Day, domain: Domain, tally: DomainTally, now: float) -> Report:
        """The report of a judged tally. The id follows from day and domain: built twice, it is the
        same report."""
        unique = hashlib.blake2b(domain.encode("ascii"), digest_size=8).hexdigest()
        ident = report.report_id(day, unique, self.identity.submitter)
        made, body = report.pack(
            report.build(self.identity, day, domain, tally, ident), self.max_bytes
        )
        name = report.file_name(made, day, domain)
        sessions = made.successes + made.failures
        return Report(ident, day, domain, body, name, now, sessions, made.failures)

    def compose(self, stored: Report, to: Mailto) -> bytes:
        """The mail, signed where there is a key; the same octets for the same report."""
        made = report.decode(stored.body)
        assert isinstance(made, report.Report)
        mail = message.compose(
            made,
            stored.body,
            domain=stored.domain,
            sender=self.sender,
            to=to,
            file_name=stored.file_name,
            at=stored.created_at,
        )
        return self.signer.sign(mail) if self.signer is not None else mail


def signer_of(settings: Settings) -> Signer | dkim.BadKey | None:
    """The DKIM key, None where none is configured."""
    section = settings.report
    if not section.dkim_key:
        return None
    return dkim.load(section.dkim_key, section.dkim_domain, section.dkim_selector)


def mailer_of(settings: Settings) -> Mailer:
    """What `report.submit` names."""
    match settings.report.submit:
        case SmtpSubmit(server=server):
            return SmtpMailer(server.host, server.port)
        case SendmailSubmit(path=path):
            return SendmailMailer(path)


def rules_of(settings: Settings) -> ReportRules:
    """`[report]` as the services take it."""
    section = settings.report
    suppress = [Suppression(entry.to, _end_of(entry.until)) for entry in section.suppress]
    return ReportRules(
        section.delay,
        section.retry,
        section.keep,
        section.max_per_destination,
        section.max_bytes,
        tuple(suppress),
    )


def _end_of(until: object) -> float:
    """The end of an inclusive day, UTC; infinity for none."""
    from datetime import date

    if not isinstance(until, date):
        return float("inf")
    day = datetime(until.year, until.month, until.day, tzinfo=UTC)
    with contextlib.suppress(OverflowError):
        return (day + timedelta(days=1)).timestamp()
    return float("inf")


async def work(
    settings: Settings, tallies: TallyStore, outbox: Outbox, *, clock: Clock, log: Log
) -> str:
    """Close days and deliver reports until SIGTERM; "" or why it can't be done."""
    signer = signer_of(settings)
    if isinstance(signer, dkim.BadKey):
        # RFC 8460 §3: receivers ignore reports that are not signed. None is better than those.
        return f"report.dkim_key: {signer}"
    if signer is None:
        log.warning("reports-unsigned", note="receivers must ignore report mails without DKIM")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if stat.S_ISFIFO(os.fstat(0).st_mode) or stat.S_ISSOCK(os.fstat(0).st_mode):
        loop.add_reader(0, stop.set)  # the daemon writes nothing: what can be read is its end
    for warning in signer.warnings if signer is not None else ():
        log.warning("dkim-key", warning=warning)
    resolver = DnsResolver(dns_settings(settings), clock, log)
    press = Press.of(settings, signer)
    reporter = Reporter(
        tallies,
        outbox,
        rules_of(settings),
        press.build,
        resolver=resolver,
        clock=clock,
        log=log,
    )
    deliverer = Deliverer(
        outbox,
        press.compose,
        sender=settings.report.from_,
        retry=settings.report.retry,
        mailer=mailer_of(settings),
        poster=HttpsPoster(post_settings(settings), resolver, clock),
        clock=clock,
        log=log,
    )
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(resolver.run())
            group.create_task(reporter.run())
            group.create_task(deliverer.run())
            await stop.wait()
            raise _Stop
    except* _Stop:
        pass
    finally:
        await resolver.close()
    return ""


class _Stop(Exception):
    """Ends the TaskGroup with all that runs in it."""


def post_settings(settings: Settings) -> PostSettings:
    """How reports are posted."""
    return PostSettings(
        untrusted=settings.report.https_untrusted,
        allow_private_addresses=settings.fetch.allow_private_addresses,
        ca_file=settings.fetch.ca_file,
    )


@contextlib.contextmanager
def only_one(settings: Settings) -> Iterator[bool]:
    """Whether no other process reports from this store; held until the end.

    Two that deliver from one outbox would send reports twice.
    """
    match settings.store.url:
        case SqliteStore(path=path):
            place = Path(f"{path}.reporting")
        case _:
            yield True
            return
    with place.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
