"""`mtastsd postfix`: the main.cf lines for the Postfix that is installed."""

from __future__ import annotations

import os
import stat
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from mtastsd.addresses import UnixAddress
from mtastsd.cli import postconf
from mtastsd.cli.common import EXIT_FINDING, config_option, load
from mtastsd.config import Settings
from mtastsd.postfix.maincf import ASKED, CA_FILES, Installed, Recipe, Site, recipe

WIDTH = 78
"""Columns of a comment."""

WITHOUT = (
    ("Postfix 3.10 and later", Installed({"mail_version": "3.10"})),
    ("Postfix 3.4 to 3.9", Installed({"mail_version": "3.4"})),
)
"""What is printed where there is no Postfix to ask."""


@click.command()
@click.option("--apply", is_flag=True, help="Set these lines, and no others, by postconf -e.")
@config_option
def postfix(apply: bool, config_path: Path | None) -> None:
    """Print the main.cf lines for the Postfix that is installed here.

    What is printed is main.cf itself, warnings as comments in it. --apply sets the lines; Postfix
    takes them after `postfix reload`. Exit 1: they could not be set.
    """
    site = _site(load(config_path))
    installed = _installed()
    if installed is None:
        _print_without(site, apply=apply)
        return
    made = recipe(installed, site)
    version = installed.value("mail_version")
    chroot = "chrooted" if installed.chrooted else "not chrooted"
    _print(f"Postfix {version}, smtp(8) {chroot}", made)
    if apply:
        _apply(made)
    else:
        click.echo("# then: postfix reload")


def _installed() -> Installed | None:
    values = postconf.values(ASKED)
    return Installed(values, postconf.chroot()) if values.get("mail_version") else None


def _site(settings: Settings) -> Site:
    listeners = settings.listen.socketmap
    report, collect = settings.report, settings.collect
    datagrams = settings.listen.tlsrpt if collect.datagrams else None
    usable = [a for a in listeners if not isinstance(a, UnixAddress) or _searchable(Path(a.path))]
    return Site(
        usable or listeners,
        settings.listen.socketmap_mode,
        settings.policy.dane,
        settings.policy.minimum,
        _authorities(),
        report.from_ if report.enabled else "",
        datagrams.path if datagrams is not None else "",
        collect.journal or bool(collect.logfile),
    )


def _searchable(socket: Path) -> bool:
    """Whether the user postfix can get to a socket: a home folder is mostly closed to others.

    Folders that are not there yet will be made by those who know.
    """
    for folder in socket.parents:
        try:
            if not folder.stat().st_mode & stat.S_IXOTH:
                return False
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


def _authorities() -> str:
    """The system's list of authorities, "" where there is none to read."""
    return next((path for path in CA_FILES if os.access(path, os.R_OK)), "")


def _print_without(site: Site, *, apply: bool) -> None:
    if apply:
        click.echo("mtastsd: there is no Postfix here: postconf can't be run", err=True)
        sys.exit(EXIT_FINDING)
    click.echo("# There is no Postfix here (no postconf in the path). For others:")
    for title, assumed in WITHOUT:
        click.echo()
        _print(title, recipe(assumed, site))


def _print(title: str, made: Recipe) -> None:
    click.echo(f"# {title}")
    for line in made.lines():
        click.echo(line)
    for warning in made.warnings:
        for line in _comment(warning):
            click.echo(line)


def _comment(warning: str) -> Iterator[str]:
    yield from textwrap.wrap(
        warning,
        WIDTH,
        initial_indent="# warning: ",
        subsequent_indent="#   ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _apply(made: Recipe) -> None:
    done = postconf.run("-e", *made.lines())
    if done is None or done.returncode:
        why = done.stderr.strip("\n") if done is not None else "postconf can't be run"
        click.echo(f"mtastsd: nothing was set: {why}", err=True)
        sys.exit(EXIT_FINDING)
    click.echo("# set; now: postfix reload")
