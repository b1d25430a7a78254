"""Builds what collects delivery results, and runs it in the daemon's TaskGroup.

Collecting serves reports; it must never stop look-ups. So what can't be had here is told and left
out, where the daemon itself would not start.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
from pathlib import Path
from typing import Any

from mtastsd import names
from mtastsd.config import Settings
from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.names import NotADomain
from mtastsd.net.smtpprobe import ProbeSettings, SmtpProber
from mtastsd.ports import Clock, Resolver, StoreUnavailable, TallyStore
from mtastsd.postfix.maillog import MailLog
from mtastsd.postfix.nexthop import NextHop
from mtastsd.server import journal, logfile
from mtastsd.server.datagram import DatagramSource
from mtastsd.server.journal import JournalSource
from mtastsd.server.journalreader import JournalUnavailable, system_journal
from mtastsd.server.listen import Bound, ListenError, bind_unix
from mtastsd.server.logfile import LogFileSource
from mtastsd.service.collector import Collector
from mtastsd.service.discovery import Discovery
from mtastsd.service.probes import Probes
from mtastsd.verdict import Verdict

POSTCONF_TIMEOUT = 5.0
"""Seconds for Postfix to say its own name."""

CURSOR_RETRY = 5.0
"""Seconds before a store that is away is asked again where the log was read up to."""

SOURCE = "local"
"""The name of this relay in a store of its own."""


class Collecting:
    """Collector, probes and the sources that the configuration turns on."""

    def __init__(
        self,
        settings: Settings,
        tallies: TallyStore,
        discovery: Discovery,
        resolver: Resolver,
        *,
        held: socket.socket | None,
        clock: Clock,
        log: Log,
        metrics: Metrics,
    ) -> None:
        """`held` is the datagram socket that systemd passed, if any."""
        self._settings = settings
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._tallies = tallies
        collect = settings.collect
        self._datagrams = self._datagram_socket(held)
        logs = collect.journal or bool(collect.logfile)
        self.collector = Collector(
            tallies,
            discovery.remembered,
            source=SOURCE,
            sending_ip=collect.sending_ip,
            both=logs and self._datagrams is not None,
            clock=clock,
            log=log,
            metrics=metrics,
        )
        self._probes = Probes(
            tallies,
            resolver=resolver,
            prober=SmtpProber(probe_settings(settings)),
            exempt=collect.probe_exempt,
            clock=clock,
            log=log,
            metrics=metrics,
        )
        if collect.probe and settings.report.enabled:
            self.collector.on_unjudged = self._probes.want

    def _datagram_socket(self, held: socket.socket | None) -> Bound | None:
        listen = self._settings.listen
        if not self._settings.collect.datagrams:
            return None
        if held is not None:
            return Bound(held)
        if listen.tlsrpt is None:
            return None
        path = Path(listen.tlsrpt.path)
        for group in (listen.tlsrpt_group, ""):
            try:
                sock = bind_unix(path, listen.tlsrpt_mode, group, kind=socket.SOCK_DGRAM)
            except ListenError as error:
                # Without the group Postfix can't write; on a machine without Postfix nobody does.
                self._log.error("tlsrpt-socket", error=str(error))
                if not group:
                    break
            else:
                return Bound(sock, path)
        return None

    def answered(self, hop: NextHop, verdict: Verdict) -> None:
        """A look-up was answered."""
        self.collector.answered(verdict)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Run all of it."""
        group.create_task(self.collector.run())
        group.create_task(self._probes.run())
        if self._datagrams is not None:
            source = DatagramSource(
                self._datagrams.sock,
                self.collector.take,
                clock=self._clock,
                log=self._log,
                metrics=self._metrics,
            )
            group.create_task(source.run())
        if self._settings.collect.journal or self._settings.collect.logfile:
            group.create_task(self._read_log())

    async def _read_log(self) -> None:
        """The journal, or the file, from where the last run stopped."""
        collect = self._settings.collect
        maillog = MailLog(beside_datagrams=self._datagrams is not None)
        take, at = self.collector.take, self.collector.at
        common: dict[str, Any] = {"clock": self._clock, "log": self._log, "metrics": self._metrics}
        if collect.logfile:
            path = Path(collect.logfile)
            cursor = await self._cursor(logfile.reader_name(path))
            await LogFileSource(path, maillog, take, at, cursor=cursor, **common).run()
            return
        try:
            opened = system_journal()
        except JournalUnavailable as error:
            self._log.error("journal-failed", error=str(error))
            return
        cursor = await self._cursor(journal.NAME)
        trust = journal.postfix_trust()
        source = JournalSource(opened, maillog, take, at, cursor=cursor, trust=trust, **common)
        await source.run()

    async def _cursor(self, name: str) -> str:
        while True:
            try:
                return await self._tallies.cursor(name)
            except StoreUnavailable as error:
                self._log.error("store-unavailable", doing="cursor", reason=str(error))
                await self._clock.sleep(CURSOR_RETRY)

    def configure(self, settings: Settings) -> None:
        """After a reload."""
        self._probes.exempt = settings.collect.probe_exempt
        self.collector.sending_ip = settings.collect.sending_ip
        wanted = settings.collect.probe and settings.report.enabled
        self.collector.on_unjudged = self._probes.want if wanted else _ignore

    async def flush(self) -> None:
        """Write what was added up."""
        await self.collector.flush()
        await self._probes.flush()

    def close(self) -> None:
        """Close the socket."""
        if self._datagrams is not None:
            self._datagrams.close()


def _ignore(_: object) -> None:
    """Probing is off."""


def probe_settings(settings: Settings) -> ProbeSettings:
    """How to probe: as Postfix would connect."""
    return ProbeSettings(
        helo=own_name(),
        source=settings.collect.sending_ip,
        allow_private=settings.fetch.allow_private_addresses,
        ca_file=settings.fetch.ca_file,
    )


def own_name() -> str:
    """Postfix's own name, which a probe shows too; this machine's where no Postfix says one."""
    try:
        told = subprocess.run(
            ["postconf", "-h", "myhostname"],  # noqa: S607 wherever the system has it
            capture_output=True,
            text=True,
            timeout=POSTCONF_TIMEOUT,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        told = ""
    name = names.parse(told.strip() or socket.gethostname())
    return "" if isinstance(name, NotADomain) else name
