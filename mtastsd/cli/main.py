"""`mtastsd`: the command group. Each command's module is read when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType

import click

from mtastsd import __version__

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "serve": ("mtastsd.cli.serve", "serve"),
        "query": ("mtastsd.cli.query", "query"),
        "check": ("mtastsd.cli.check", "check"),
        "policy": ("mtastsd.cli.policy", "policy_group"),
        "report": ("mtastsd.cli.report", "report_group"),
        "status": ("mtastsd.cli.query", "status"),
        "config": ("mtastsd.cli.config", "config_group"),
        "postfix": ("mtastsd.cli.postfix", "postfix"),
    }
)


class LazyGroup(click.Group):
    """Knows its commands by name; `mtastsd query` need not read what `check` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        where = COMMANDS.get(cmd_name)
        if where is None:
            return None
        command = getattr(importlib.import_module(where[0]), where[1])
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mtastsd")
def main() -> None:
    """MTA-STS, DANE and TLS-RPT for a Postfix relay that sends.

    Exit status: 0 good, 1 a finding, 2 usage or configuration, 3 the daemon can't be reached.
    """
