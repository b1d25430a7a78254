"""The daemon: builds adapters and services, joins them, runs them in one TaskGroup, stops them.

This is the only module that sees adapters and services together.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mtastsd import __version__, config
from mtastsd.collecting import Collecting
from mtastsd.config import Settings
from mtastsd.listeners import Listeners
from mtastsd.log import Log, set_level
from mtastsd.metrics import Metrics
from mtastsd.net.dns import DnsResolver
from mtastsd.net.https import HttpsPolicyFetcher
from mtastsd.ports import Clock, Outbox, PolicyStore, StoreUnavailable, TallyStore
from mtastsd.reportchild import Child
from mtastsd.server import commands, probe
from mtastsd.server.admin import AdminServer
from mtastsd.server.http import HttpServer
from mtastsd.server.lookups import Lookups
from mtastsd.server.socketmap import SocketmapServer
from mtastsd.service.branches import DaneBranches, StsBranches
from mtastsd.service.control import Control
from mtastsd.service.current import Current
from mtastsd.service.discovery import Discovery
from mtastsd.service.flights import Spawn
from mtastsd.service.known import Known
from mtastsd.service.refresh import Refresher
from mtastsd.store.errors import StoreError
from mtastsd.store.sqlite import SqliteStore
from mtastsd.systemd import Systemd
from mtastsd.wiring import dns_settings, fetch_settings, rule_settings

STATUS_EVERY = 30.0
"""Seconds between two status texts for systemd."""

STOP_FLUSH = 0.5
"""Seconds that the last write may take at a stop."""


@dataclass(frozen=True, slots=True)
class Stores:
    """One store, as its three users see it. `policies.close` closes it."""

    policies: PolicyStore
    tallies: TallyStore
    outbox: Outbox


CYCLES_AFTER = 5000
"""Objects that were made and are still there before Python looks for cycles among them: a discovery
leaves some fifty, and the look takes 2 ms. Its own number is 700."""


class _Stop(Exception):
    """Ends the TaskGroup with all that runs in it."""


class Daemon:
    """One run, from the first socket to the last write."""

    def __init__(
        self,
        settings: Settings,
        reload: Callable[[], Settings | tuple[config.ConfigError, ...]],
        *,
        clock: Clock,
        log: Log,
        systemd: Systemd,
        config_path: Path | None = None,
    ) -> None:
        """`reload` reads the configuration again; `config_path` is for the reporting process."""
        self._settings = settings
        self._reload_config = reload
        self._clock = clock
        self._log = log
        self._systemd = systemd
        self._stop = asyncio.Event()
        self._started = clock.monotonic()
        self._metrics = Metrics()
        self._reporting = Child(config_path, clock=clock, log=log)

    async def run(self, stores: Stores, listeners: Listeners) -> None:
        """Serve until SIGTERM or SIGINT; store and sockets are closed at the end."""
        self._listeners = listeners
        try:
            async with asyncio.TaskGroup() as group:
                self._build(stores, group.create_task)
                self._start(group)
                await self._stop.wait()
                raise _Stop
        except* _Stop:
            pass
        finally:
            await self._close(stores.policies)

    def _build(self, stores: Stores, spawn: Spawn) -> None:
        self._outbox = stores.outbox
        store = stores.policies
        settings, clock, log, metrics = self._settings, self._clock, self._log, self._metrics
        self._resolver = DnsResolver(dns_settings(settings), clock, log)
        self._fetcher = HttpsPolicyFetcher(fetch_settings(settings), self._resolver, clock)
        self._current = Current(rule_settings(settings))
        self._known = Known(
            store, clock=clock, log=log, metrics=metrics, memory=settings.cache.memory
        )
        self._sts = StsBranches(
            self._current,
            self._known,
            resolver=self._resolver,
            fetcher=self._fetcher,
            clock=clock,
            log=log,
            metrics=metrics,
            spawn=spawn,
        )
        self._dane = DaneBranches(
            self._current,
            self._known,
            self._sts,
            resolver=self._resolver,
            clock=clock,
            log=log,
            metrics=metrics,
            spawn=spawn,
        )
        self._discovery = Discovery(
            self._current,
            self._known,
            self._sts,
            self._dane,
            clock=clock,
            log=log,
            metrics=metrics,
        )
        self._refresher = Refresher(
            self._current, store, self._sts, clock=clock, log=log, metrics=metrics
        )
        self._control = Control(self._known, store, self._sts, self._discovery, clock)
        self._lookups = Lookups(self._discovery, log, settings.fetch.deadline)
        self._socketmap = SocketmapServer(
            self._lookups, clock=clock, log=log, metrics=metrics, spawn=spawn
        )
        clear = self._socketmap.frames.clear
        self._sts.on_change = self._dane.on_change = self._known.on_change = clear
        self._collecting = Collecting(
            settings,
            stores.tallies,
            self._discovery,
            self._resolver,
            held=self._listeners.tlsrpt,
            clock=clock,
            log=log,
            metrics=metrics,
        )
        self._lookups.answered = self._collecting.answered
        metrics.validating.set_function(lambda: int(self._resolver.validates()))

    def _start(self, group: asyncio.TaskGroup) -> None:
        settings, listeners = self._settings, self._listeners
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        group.create_task(self._resolver.run())
        group.create_task(self._known.run(settings.cache.forget_unused))
        group.create_task(self._refresher.run(settings.cache.refresh_if_used))
        admin = AdminServer(commands.handlers(self._control, self._lookups, self.status), self._log)
        group.create_task(admin.serve(listeners.admin.sock))
        if listeners.http is not None:
            hosts = listeners.http_hosts
            http = HttpServer(self._metrics, self.healthy, self.status, hosts)
            group.create_task(http.serve(listeners.http.sock))
        group.create_task(
            self._socketmap.serve([bound.sock for bound in listeners.socketmap], self._ready)
        )
        group.create_task(self._report_status())
        self._collecting.start(group)
        group.create_task(self._reporting.run(lambda: self._settings.report.enabled))
        if self._systemd.watchdog is not None:
            group.create_task(self._feed_watchdog(self._systemd.watchdog))

    def _ready(self) -> None:
        calm_collector()
        where = " ".join(self._listeners.names)
        self._log.info("ready", version=__version__, listening=where, pid=os.getpid())
        self._systemd.ready(f"answering on {where}")

    async def _close(self, store: PolicyStore) -> None:
        self._systemd.stopping()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_FLUSH):
                await self._known.flush()
                await self._collecting.flush()
        self._collecting.close()
        await self._resolver.close()
        await store.close()
        self._listeners.close()
        self._log.info("stopped")

    # ---- while it runs

    def reload(self) -> None:
        """SIGHUP: read the configuration again; keep the old one when the new one is bad."""
        self._systemd.reloading(self._clock.monotonic())
        fresh = self._reload_config()
        if isinstance(fresh, tuple):
            for error in fresh:
                self._log.error("config-bad", error=str(error))
            self._log.error("reload-refused", kept="the old configuration")
        else:
            changes = config.changed(self._settings, fresh)
            self._apply(fresh)
            self._log.info(
                "reloaded",
                changed=",".join(changes.live),
                needs_restart=",".join(changes.restart),
            )
        self._systemd.ready("reloaded")

    def _apply(self, settings: Settings) -> None:
        self._settings = settings
        self._current.settings = rule_settings(settings)
        self._lookups.deadline = settings.fetch.deadline
        self._resolver.configure(dns_settings(settings))
        self._fetcher.configure(fetch_settings(settings))
        self._socketmap.frames.clear()
        self._collecting.configure(settings)
        self._reporting.restart()
        set_level(settings.log.level)

    async def healthy(self) -> str:
        """Ask ourselves, through the socket that Postfix uses; "" or what is wrong."""
        return await probe.ask(self._listeners.socketmap[0])

    async def status(self) -> Mapping[str, object]:
        """What the status page, `mtastsd status` and systemd show."""
        frames = sum(n for _, _, n in self._socketmap.frames.counts())
        lookups = frames + sum(self._lookups.counts.values())
        servers = self._resolver.servers()
        return {
            "version": __version__,
            "uptime_seconds": int(self._clock.monotonic() - self._started),
            "look-ups": lookups,
            "connections": len(self._socketmap.connections),
            "domains stored": await self._control.stored(),
            "dnssec": "validating" if self._resolver.validates() else "no validating resolver",
            "resolvers": ", ".join(s.address + (" (AD)" if s.validates else "") for s in servers),
            "listening": ", ".join(self._listeners.names),
            "store": str(self._settings.store.url),
        }

    async def _report_status(self) -> None:
        while True:
            await self._clock.sleep(STATUS_EVERY)
            now = await self.status()
            await self._count_reports()
            self._systemd.status(
                f"{now['look-ups']} look-ups, {now['domains stored']} domains, {now['dnssec']}"
            )

    async def _count_reports(self) -> None:
        """The outbox belongs to another process: what it does is read from the store."""
        with contextlib.suppress(StoreUnavailable):
            for name, count in (await self._outbox.counts()).items():
                kind, _, rest = name.partition("-")
                if kind == "settled":
                    self._metrics.days_closed.labels(rest).set(count)
                elif not rest:
                    self._metrics.deliveries.labels(kind).set(count)
                elif kind == "failed":
                    self._metrics.deliveries_failed.labels(rest).set(count)
            waiting, since = await self._outbox.waiting_since()
            age = self._clock.now() - since if waiting else 0.0
            self._metrics.oldest_waiting.set(max(0.0, age))

    async def _feed_watchdog(self, within: float) -> None:
        """Only a daemon that answers look-ups is alive."""
        while True:
            wrong = await self.healthy()
            if wrong:
                self._log.error("watchdog-not-fed", reason=wrong)
            else:
                self._systemd.alive()
            await self._clock.sleep(within / 3)


async def open_store(settings: Settings, clock: Clock, log: Log) -> Stores:
    """The store that `store.url` names. Raises StoreError."""
    match settings.store.url:
        case config.SqliteStore(path=path):
            store = await SqliteStore.open(Path(path), clock.now, log)
            return Stores(store, store.tallies, store.outbox)
        case config.PostgresStore():
            raise StoreError("postgresql is not supported yet; use sqlite:////path/to/file")


def calm_collector() -> None:
    """Have Python look for cycles seldom, and never among what the start made.

    With its own settings it takes 5 % of a discovery, in pauses of up to 50 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(CYCLES_AFTER, *gc.get_threshold()[1:])


def raise_file_limit() -> None:
    """Take as many file descriptors as we may: each connection and each fetch is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def serve(
    settings: Settings,
    reload: Callable[[], Settings | tuple[config.ConfigError, ...]],
    *,
    clock: Clock,
    log: Log,
    systemd: Systemd,
    config_path: Path | None = None,
) -> None:
    """Open the store, bind the sockets, run. Raises StoreError and ListenError at the start."""
    raise_file_limit()
    daemon = Daemon(
        settings, reload, clock=clock, log=log, systemd=systemd, config_path=config_path
    )
    stores = await open_store(settings, clock, log)
    try:
        listeners = Listeners.open(settings.listen, systemd.sockets(), log)
    except BaseException:
        await stores.policies.close()
        raise
    await daemon.run(stores, listeners)
