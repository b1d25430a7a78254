"""`mtastsd query` and `mtastsd status`: the running daemon, asked."""

from __future__ import annotations

from pathlib import Path

import click

from mtastsd.cli.common import Daemon, config_option, json_option, load, print_json


@click.command()
@click.argument("key")
@click.option(
    "--map",
    "map_name",
    default="postfix",
    show_default=True,
    metavar="NAME",
    help="The socketmap name: postfix, postfix-tlsrpt, QUERY, QUERYwithTLSRPT, sts.",
)
@config_option
@json_option
def query(key: str, map_name: str, config_path: Path | None, as_json: bool) -> None:
    """Ask the running daemon for KEY as Postfix would, and print the reply.

    KEY is a next hop as Postfix writes it: example.com, [host.example.com]:587.
    """
    answer = Daemon(load(config_path)).ask("query", key=key, map=map_name)
    if as_json:
        print_json({"key": key, "map": map_name, **answer})
    else:
        click.echo(answer["reply"])


@click.command()
@config_option
@json_option
def status(config_path: Path | None, as_json: bool) -> None:
    """What the running daemon is doing."""
    answer = Daemon(load(config_path)).ask("status")
    if as_json:
        print_json(answer)
        return
    width = max(map(len, answer))
    for name, value in answer.items():
        click.echo(f"{name:<{width}}  {'-' if value is None else value}")
