"""`mtastsd policy`: what the running daemon knows of recipient domains."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtastsd.cli.common import (
    EXIT_FINDING,
    Daemon,
    config_option,
    json_option,
    load,
    print_json,
    span,
    when,
)

Row = dict[str, Any]

WIDE = 400
"""Columns of a table that no terminal shows."""


@click.group()
def policy_group() -> None:
    """List, show, refresh and flush the policies that the daemon keeps."""


@policy_group.command("list")
@click.option("--mode", type=click.Choice(["enforce", "testing", "none"]), help="Only these.")
@click.option("--failing", is_flag=True, help="Only domains whose last reading failed.")
@config_option
@json_option
def list_(mode: str | None, failing: bool, config_path: Path | None, as_json: bool) -> None:
    """The domains in the store, in order of name."""
    daemon = Daemon(load(config_path))
    rows = [
        row
        for row in _all(daemon)
        if (mode is None or row["mode"] == mode) and (not failing or row["failure"])
    ]
    if as_json:
        print_json({"policies": rows})
        return
    table = Table("domain", "mode", "id", "fetched", "expires in", "used", "failure", box=None)
    now = time.time()
    for row in rows:
        expires = row["expires_at"]
        table.add_row(
            Text(row["domain"]),
            row["mode"] or "-",
            Text(row["id"] or "-"),
            when(row["fetched_at"]),
            span(expires - now) if expires else "-",
            when(row["used_at"]),
            Text(row["failure"] or ""),
        )
    _console().print(table)
    click.echo(f"{len(rows)} domains")


def _all(daemon: Daemon) -> Iterator[Row]:
    after = ""
    while True:
        page = daemon.ask("policy-list", after=after)
        yield from page["policies"]
        after = page["next"]
        if not after:
            return


def _console() -> Console:
    """As wide as it takes when it goes to a file or a pipe: `grep` wants whole lines."""
    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)


@policy_group.command()
@click.argument("domain")
@config_option
@json_option
def show(domain: str, config_path: Path | None, as_json: bool) -> None:
    """All that is known of DOMAIN (or of a next hop such as [host]:587). Exit 1: nothing is."""
    row = Daemon(load(config_path)).ask("policy-show", domain=domain)
    if as_json:
        print_json(row)
    elif row is None:
        click.echo(f"nothing is known of {domain}")
    else:
        _print_known(row)
    sys.exit(0 if row is not None else EXIT_FINDING)


def _print_known(row: Row) -> None:
    click.echo(f"{row['hop']}: {row['verdict'] or 'due: the next look-up asks first'}")
    if row["why"]:
        click.echo(f"  because        {row['why']}")
    now = row["now"]
    if row["sts"]:
        _print_sts(row["sts"], now)
    if row["dane"]:
        dane = row["dane"]
        click.echo("DANE")
        click.echo(f"  finding        {dane['finding']}{' (kept under errors)' * dane['failing']}")
        click.echo(f"  read           {when(dane['read_at'])}")
        click.echo(f"  asked again    in {span(dane['recheck_at'] - now)}")


def _print_sts(sts: Row, now: float) -> None:
    click.echo("MTA-STS")
    click.echo(f"  record         {sts['record']}{' id=' + sts['id'] if sts['id'] else ''}")
    click.echo(f"  checked        {when(sts['checked_at'])}")
    click.echo(f"  asked again    in {span(sts['recheck_at'] - now)}")
    if sts["mode"]:
        click.echo(f"  fetched        {when(sts['fetched_at'])}")
        click.echo(f"  expires        in {span(sts['expires_at'] - now)}")
        click.echo("  policy")
        for line in sts["lines"]:
            click.echo(f"    {line}")
    if sts["failure"]:
        click.echo(f"  failure        {sts['failure']}")
        if sts["retry_at"]:
            click.echo(f"  fetched again  not before {when(sts['retry_at'])}")


@policy_group.command()
@click.argument("domains", nargs=-1, required=True, metavar="DOMAIN...")
@config_option
@json_option
def refresh(domains: tuple[str, ...], config_path: Path | None, as_json: bool) -> None:
    """Fetch the policy of each DOMAIN now. Exit 1: some could not be had."""
    daemon = Daemon(load(config_path))
    rows = [daemon.ask("policy-refresh", domain=domain) for domain in domains]
    if as_json:
        print_json({"policies": rows})
    for row in [] if as_json else rows:
        why = row.get("error") or row.get("failure")
        outcome = f"failed: {why}" if why else f"{row['mode'] or 'no policy'}"
        click.echo(f"{row['domain']}: {outcome}")
    failed = any(row.get("error") or row.get("failure") for row in rows)
    sys.exit(EXIT_FINDING if failed else 0)


@policy_group.command()
@click.argument("domains", nargs=-1, required=True, metavar="DOMAIN...")
@config_option
def flush(domains: tuple[str, ...], config_path: Path | None) -> None:
    """Forget each DOMAIN, policy and DANE finding. Exit 1: nothing was known of some.

    Until the policy is fetched again, the domain is not protected by it.
    """
    daemon = Daemon(load(config_path))
    unknown = 0
    for domain in domains:
        known = daemon.ask("policy-flush", domain=domain)["known"]
        unknown += not known
        click.echo(f"{domain}: {'forgotten' if known else 'nothing was known'}")
    sys.exit(EXIT_FINDING if unknown else 0)
