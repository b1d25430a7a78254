"""What commands share: the configuration option, the way to the daemon, exit codes, time."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from mtastsd import config
from mtastsd.config import Settings

EXIT_FINDING = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3

ASK_TIMEOUT = 130.0
"""Seconds to wait for the daemon: longer than it takes for anything."""

MAX_ANSWER = 64 * 1024 * 1024
"""Octets of an answer; a page of 500 policies of the largest size has less."""

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    """`--config FILE`; without it the default file where there is one, else defaults."""
    option = click.option(
        "--config",
        "config_path",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help=f"Configuration file (default: {config.DEFAULT_PATH}, if it is there).",
    )
    return option(function)


def json_option(function: F) -> F:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(function)


def find_config(given: Path | None) -> Path | None:
    """The file to read: the one named, else the default if it exists."""
    return given if given is not None else config.default_path()


def load(given: Path | None) -> Settings:
    """The settings, or the errors on stderr and exit 2."""
    loaded = config.load(find_config(given), os.environ)
    if isinstance(loaded, tuple):
        for error in loaded:
            click.echo(f"mtastsd: {error}", err=True)
        sys.exit(EXIT_USAGE)
    return loaded


def unreachable(where: str, why: str) -> NoReturn:
    """Say that nobody answers, and exit 3."""
    click.echo(
        f"mtastsd: the daemon can't be reached at {where}: {why}\n"
        "Is it running (systemctl status mtastsd), with this configuration, and are you root?",
        err=True,
    )
    sys.exit(EXIT_UNREACHABLE)


class Daemon:
    """The running daemon, asked over its control socket."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.listen.admin.path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(ASK_TIMEOUT)
        try:
            self._sock.connect(self._path)
        except OSError as error:
            unreachable(self._path, error.strerror or str(error))
        self._file = self._sock.makefile("rb")

    def ask(self, command: str, **fields: object) -> Any:  # noqa: ANN401
        """The result of a command; its error on stderr and exit 1."""
        request = json.dumps({"command": command, **fields}).encode() + b"\n"
        try:
            self._sock.sendall(request)
            line = self._file.readline(MAX_ANSWER)
        except OSError as error:
            unreachable(self._path, error.strerror or str(error))
        if not line:
            unreachable(self._path, "it closed the connection; only root and its own user may ask")
        answer: Mapping[str, Any] = json.loads(line)
        if "error" in answer:
            click.echo(f"mtastsd: {answer['error']}", err=True)
            sys.exit(EXIT_FINDING)
        return answer["result"]


def print_json(value: object) -> None:
    """One JSON object, ASCII, indented for people who look at it anyway."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=True, default=str))


def when(moment: object) -> str:
    """A time as people compare it, UTC; "-" for none."""
    if not isinstance(moment, int | float) or not moment:
        return "-"
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def span(seconds: float) -> str:
    """A span in its two largest units: `6d 3h`, `4m 10s`; past ones with a minus."""
    sign = "-" if seconds < 0 else ""
    left = int(abs(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return sign + " ".join(parts[:2])
