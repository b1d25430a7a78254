"""`mtastsd config check|show`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import click

from mtastsd import config
from mtastsd.cli.common import (
    EXIT_FINDING,
    EXIT_USAGE,
    config_option,
    find_config,
    json_option,
    load,
    print_json,
)
from mtastsd.config import Settings
from mtastsd.config.settings import SECTIONS, Key, keys_of, value_of

DEFAULT = "default"

Rows = list[dict[str, object]]


@click.group("config")
def config_group() -> None:
    """Check and show the configuration."""


@config_group.command("check")
@config_option
def check(config_path: Path | None) -> None:
    """Check the configuration without starting anything.

    Prints "ok", or each error with its file, line and key. Exit 0: good; 1: good, but something in
    it has ended; 2: the daemon does not start with it.
    """
    path = find_config(config_path)
    loaded = config.load(path, os.environ)
    if isinstance(loaded, tuple):
        for error in loaded:  # bare, as editors read it: file:line: text
            click.echo(str(error), err=True)
        sys.exit(EXIT_USAGE)
    warnings = loaded.warnings(time.time())
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(
        "ok" if path else f"ok (there is no {config.DEFAULT_PATH}: defaults and environment)"
    )
    sys.exit(EXIT_FINDING if warnings else 0)


@config_group.command("show")
@config_option
@json_option
def show(config_path: Path | None, as_json: bool) -> None:
    """Show the configuration in force, with the origin of each value.

    The output is a configuration file itself, but a password in store.url is shown as ***.
    """
    settings = load(config_path)
    if as_json:
        print_json(_as_object(settings))
    else:
        click.echo("\n".join(_as_toml(settings)))


def _shown(settings: Settings, key: Key) -> object:
    """A value as a file would have it: a default as the manual writes it, others shortened."""
    return key.kind.show(value_of(settings, key)) if key.path in settings.origins else key.default


def _tables(settings: Settings) -> Mapping[str, Rows]:
    overrides: Rows = [
        {"domain": o.domain, "action": o.action, "mx": o.mx, "until": o.until, "reason": o.reason}
        for o in settings.override
    ]
    suppressed: Rows = [{"to": s.to, "until": s.until} for s in settings.report.suppress]
    tables = {"override": overrides, "report.suppress": suppressed}
    return {
        name: [{key: value for key, value in row.items() if value} for row in rows]
        for name, rows in tables.items()
    }


def _as_object(settings: Settings) -> dict[str, object]:
    found: dict[str, dict[str, object]] = {
        section: {
            key.name: {
                "value": _shown(settings, key),
                "origin": settings.origins.get(key.path, DEFAULT),
            }
            for key in keys_of(section)
        }
        for section in SECTIONS
    }
    rows = {
        name: [{**row, "origin": settings.origins[f"{name}.{i}"]} for i, row in enumerate(table)]
        for name, table in _tables(settings).items()
    }
    found["report"]["suppress"] = rows["report.suppress"]
    return {**found, "override": rows["override"]}


def _as_toml(settings: Settings) -> list[str]:
    lines: list[str] = []
    for section in SECTIONS:
        lines += ["", f"[{section}]"]
        for key in keys_of(section):
            text = f"{key.name} = {_toml(_shown(settings, key))}"
            lines.append(f"{text:<40}  # {settings.origins.get(key.path, DEFAULT)}")
    for name, rows in _tables(settings).items():
        for index, row in enumerate(rows):
            lines += ["", f"{f'[[{name}]]':<40}  # {settings.origins[f'{name}.{index}']}"]
            lines += [f"{key} = {_toml(value)}" for key, value in row.items()]
    return lines[1:]


def _toml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case list() | tuple():
            return f"[{', '.join(_toml(item) for item in value)}]"
        case date():
            return value.isoformat()
        case str():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)
