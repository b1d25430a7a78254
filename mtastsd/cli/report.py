"""`mtastsd report`: what was added up, what was reported, and a reader for anybody's reports.

The commands that look at our own reports open the store beside the daemon; nothing here waits for
it or makes it wait.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from rich.progress import track
from rich.table import Table
from rich.text import Text

from mtastsd import log, names, reporting
from mtastsd.cli.common import EXIT_FINDING, EXIT_USAGE, config_option, json_option, load, when
from mtastsd.cli.common import print_json as put
from mtastsd.cli.reporttext import console, totals
from mtastsd.cli.reporttext import show as show_report
from mtastsd.clock import SystemClock
from mtastsd.config import Settings
from mtastsd.daemon import Stores, open_store
from mtastsd.names import Domain, NotADomain
from mtastsd.ports import Delivery, StoreUnavailable
from mtastsd.reporting import Press
from mtastsd.service.reporter import date_of
from mtastsd.store.errors import StoreError
from mtastsd.tlsrpt import message, report
from mtastsd.tlsrpt.judge import judge_all
from mtastsd.tlsrpt.report import BadReport, Report
from mtastsd.tlsrpt.tally import Day, DomainTally, day_of

T = TypeVar("T")

PAGE = 500
"""Rows taken from the store at a time."""

MAX_FILE_NAME = 255
"""Octets of a file's name on Linux."""

MAX_MAIL = 64 * 1024 * 1024
"""Octets of a file that is read: more than a mail of any MTA."""


class DayParam(click.ParamType[Day]):
    """`2026-11-24`, `today` or `yesterday`, UTC."""

    name = "day"

    def convert(self, value: Any, param: Any, ctx: Any) -> Day:  # noqa: ANN401
        if isinstance(value, int):
            return Day(value)
        today = day_of(time.time())
        if value in ("today", "yesterday"):
            return Day(today - (value == "yesterday"))
        try:
            return Day(date.fromisoformat(value).toordinal() - date(1970, 1, 1).toordinal())
        except ValueError:
            self.fail("a day is 2026-11-24, today or yesterday (UTC)", param, ctx)


def day_option(default: str) -> Callable[[Any], Any]:
    """`--day D`."""
    return click.option("--day", type=DayParam(), default=default, show_default=True)


@click.group()
def report_group() -> None:
    """TLS reports: today's tally, what was sent, and reports of others."""


def with_store(settings: Settings, work: Callable[[Stores], Awaitable[T]]) -> T:
    """Run `work` on the store; exit 1 with a clear word where that can't be."""

    async def run() -> T:
        log.setup("error", "text", under_systemd=False)
        stores = await open_store(settings, SystemClock(), log.Log())
        try:
            return await work(stores)
        finally:
            await stores.policies.close()

    try:
        return asyncio.run(run())
    except (StoreError, StoreUnavailable) as error:
        click.echo(f"mtastsd: {error}", err=True)
        sys.exit(EXIT_FINDING)


async def domains_of(stores: Stores, day: Day) -> list[tuple[Domain, str]]:
    """The domains of a day, each with what became of it, "" where nothing has yet."""
    found: list[tuple[Domain, str]] = []
    after = ""
    while page := await stores.tallies.waiting(day, after=after, limit=PAGE):
        found += [(domain, "") for domain in page]
        after = page[-1]
    after = ""
    while settled := await stores.outbox.settled(day, after=after, limit=PAGE):
        found += settled
        after = settled[-1][0]
    return sorted(found)


async def tally_of(stores: Stores, day: Day, domain: Domain) -> DomainTally:
    """A domain's day as it would be reported now."""
    findings = await stores.tallies.findings(day, domain)
    return judge_all(await stores.tallies.tally(day, domain), findings)


@report_group.command("list")
@day_option("today")
@config_option
@json_option
def list_(day: Day, config_path: Path | None, as_json: bool) -> None:
    """The domains that were mailed on a day, and what became of their reports."""

    async def work(stores: Stores) -> list[dict[str, Any]]:
        rows = []
        for domain, why in await domains_of(stores, day):
            tally = await tally_of(stores, day, domain)
            row: dict[str, Any] = {
                "domain": domain,
                "sessions": sum(t.sessions for t in tally.values()),
                "failures": sum(t.failures for t in tally.values()),
                "state": why or "not closed yet",
                "deliveries": [],
            }
            for stored in await stores.outbox.reports(day=day, domain=domain, after="", limit=9):
                row["report"] = stored.report_id
                row["deliveries"] += [
                    msgspec.to_builtins(d) for d in await stores.outbox.deliveries(stored.report_id)
                ]
            rows.append(row)
        return rows

    rows = with_store(load(config_path), work)
    if as_json:
        put({"day": date_of(day), "domains": rows})
        return
    table = Table("domain", "sessions", "failed", "state", "deliveries", box=None)
    for row in rows:
        table.add_row(
            Text(row["domain"]),
            str(row["sessions"]),
            str(row["failures"]),
            row["state"],
            Text("; ".join(_delivery(d) for d in row["deliveries"])),
        )
    console().print(table)
    click.echo(f"{date_of(day)}: {len(rows)} domains")


def _delivery(row: dict[str, Any]) -> str:
    tries = f" after {row['tries']} tries" if row["tries"] > 1 else ""
    said = f" ({row['last']})" if row["last"] and row["state"] != "delivered" else ""
    return f"{row['destination']} {row['state']}{tries}{said}"


@report_group.command()
@click.argument("domain")
@day_option("today")
@config_option
@json_option
def show(domain: str, day: Day, config_path: Path | None, as_json: bool) -> None:
    """DOMAIN's report of a day: as it was sent, or as it would be sent now."""
    settings = load(config_path)
    wanted = _domain(domain)

    async def work(stores: Stores) -> tuple[Report | BadReport | None, Sequence[Delivery]]:
        for stored in await stores.outbox.reports(day=day, domain=wanted, after="", limit=1):
            return report.decode(stored.body), await stores.outbox.deliveries(stored.report_id)
        tally = await tally_of(stores, day, wanted)
        if not tally:
            return None, ()
        made = Press.of(settings, None).build(day, wanted, tally, time.time())
        return report.decode(made.body), ()

    found, deliveries = with_store(settings, work)
    if not isinstance(found, Report):
        click.echo(f"nothing is known of {wanted} on {date_of(day)}", err=True)
        sys.exit(EXIT_FINDING)
    if as_json:
        put({"report": msgspec.to_builtins(found), "deliveries": msgspec.to_builtins(deliveries)})
        return
    show_report(found, console())
    for delivery in deliveries:
        click.echo(f"\n{_delivery(msgspec.to_builtins(delivery))}, next {when(delivery.next_at)}")
    if not deliveries:
        click.echo("\nnot sent: this is what would be reported now")


def _domain(text: str) -> Domain:
    domain = names.parse(text)
    if isinstance(domain, NotADomain):
        raise click.BadParameter(f"{text!r} is no domain ({domain.why})")
    return domain


@report_group.command()
@day_option("yesterday")
@click.option("--domain", help="Only this one.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for the reports; made if it is not there.",
)
@config_option
def build(day: Day, domain: str | None, output: Path, config_path: Path | None) -> None:
    """Write a day's reports to a folder, and send nothing."""
    settings = load(config_path)
    if not settings.report.organization or not settings.report.contact:
        click.echo("mtastsd: report.organization and report.contact must be set", err=True)
        sys.exit(EXIT_USAGE)
    press = Press.of(settings, None)
    output.mkdir(parents=True, exist_ok=True)

    async def work(stores: Stores) -> int:
        wanted = [_domain(domain)] if domain else [d for d, _ in await domains_of(stores, day)]
        written = 0
        for name in track(wanted, "building", disable=not sys.stderr.isatty()):
            tally = await tally_of(stores, day, name)
            if any(totals.sessions or totals.details for totals in tally.values()):
                made = press.build(day, name, tally, time.time())
                (output / _short(made.file_name)).write_bytes(made.body)
                written += 1
        return written

    written = with_store(settings, work)
    click.echo(f"{written} reports of {date_of(day)} in {output}")
    sys.exit(0 if written else EXIT_FINDING)


def _short(name: str) -> str:
    """A name that a file system takes: two long domains pass its 255 octets."""
    if len(name) <= MAX_FILE_NAME:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    return f"{name[:100]}!{digest}.json.gz"


@report_group.command()
@click.argument("domain")
@day_option("yesterday")
@config_option
def send(domain: str, day: Day, config_path: Path | None) -> None:
    """Send DOMAIN's report of a day again, to every destination, the same octets.

    The daemon takes it up within seconds, where reporting is on.
    """
    wanted, settings = _domain(domain), load(config_path)

    async def work(stores: Stores) -> list[str]:
        now = time.time()
        sent = []
        for stored in await stores.outbox.reports(day=day, domain=wanted, after="", limit=9):
            for delivery in await stores.outbox.deliveries(stored.report_id):
                again = replace(
                    delivery,
                    state="waiting",
                    tries=0,
                    next_at=now,
                    give_up_at=now + settings.report.retry,
                    done_at=0.0,
                )
                await stores.outbox.update(again)
                sent.append(delivery.destination)
        return sent

    sent = with_store(settings, work)
    for destination in sent:
        click.echo(f"waiting: {destination}")
    if not sent:
        click.echo(f"no report of {wanted} on {date_of(day)} is kept", err=True)
        sys.exit(EXIT_FINDING)


@report_group.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)
@json_option
def read(files: tuple[Path, ...], as_json: bool) -> None:
    """Show anybody's TLS reports: .json, .json.gz or .eml, or folders of them.

    One file is shown whole; of several, totals and failures. Exit 1: some could not be read.
    """
    good: list[tuple[str, Report]] = []
    bad: list[tuple[str, str]] = []
    paths = list(_files(files))
    for path in track(paths, "reading", disable=len(paths) < PAGE or not sys.stderr.isatty()):
        found = _read(path)
        if isinstance(found, Report):
            good.append((str(path), found))
        else:
            bad.append((str(path), found))
    if as_json:
        put({"reports": [msgspec.to_builtins(r) for _, r in good], "unreadable": dict(bad)})
    elif len(good) == 1:
        show_report(good[0][1], console())
    elif good:
        totals(good, console())
    for name, why in [] if as_json else bad:
        click.echo(f"{name}: {why}", err=True)
    sys.exit(EXIT_FINDING if bad or not good else 0)


def _files(given: Sequence[Path]) -> Iterator[Path]:
    for path in given:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.is_file())
        else:
            yield path


def _read(path: Path) -> Report | str:
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_MAIL + 1)
    except OSError as error:
        return error.strerror or str(error)
    if len(octets) > MAX_MAIL:
        return "too large"
    if not octets.startswith((b"\x1f\x8b", b"{", b"\xef\xbb\xbf{", b" ", b"\n", b"\r")):
        extracted = message.extract(octets)
        if extracted is None:
            return "no report in it"
        octets = extracted
    found = report.decode(octets)
    return found if isinstance(found, Report) else f"no report: {found.why}"


@report_group.command(hidden=True)
@config_option
def work(config_path: Path | None) -> None:
    """Close days and deliver reports until SIGTERM. The daemon keeps this running."""
    settings = load(config_path)
    under_systemd = bool(os.environ.get("JOURNAL_STREAM"))
    log.setup(settings.log.level, settings.log.format, under_systemd=under_systemd)
    os.nice(reporting.NICE)

    async def run() -> str:
        clock, events = SystemClock(), log.Log()
        stores = await open_store(settings, clock, events)
        try:
            return await reporting.work(
                settings, stores.tallies, stores.outbox, clock=clock, log=events
            )
        finally:
            await stores.policies.close()

    try:
        with reporting.only_one(settings) as alone:
            wrong = asyncio.run(run()) if alone else "another process reports from this store"
    except (StoreError, OSError) as error:
        wrong = str(error)
    if wrong:
        log.Log().error("reporting-impossible", reason=wrong)
        sys.exit(EXIT_USAGE)
