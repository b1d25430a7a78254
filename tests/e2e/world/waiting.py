"""Waiting for what other processes do."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

POLL = 0.05
"""Seconds between two looks."""

START = 30.0
"""Seconds for a process to come up."""


class WorldError(Exception):
    """A part of the world does not do what it must; the text says which and shows its log."""


def until(what: str, test: Callable[[], bool], *, seconds: float, log: Path | None = None) -> None:
    """Return as soon as `test` holds; after `seconds`, WorldError with the end of `log`."""
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            raise WorldError(f"{what}: not within {seconds:g} s{tail(log)}")
        time.sleep(POLL)


def until_up(
    what: str, process: subprocess.Popen[bytes], test: Callable[[], bool], *, log: Path
) -> None:
    """Return as soon as `test` holds; else kill the process, WorldError says how far it came."""

    def up() -> bool:
        if process.poll() is not None:
            raise WorldError(f"{what}: ended with {process.returncode}{tail(log)}")
        return test()

    try:
        until(what, up, seconds=START, log=log)
    except WorldError:
        process.kill()
        process.wait()
        raise


def tail(log: Path | None, lines: int = 15) -> str:
    """The end of a log, indented, for an error message."""
    if log is None or not log.exists():
        return ""
    text = log.read_text(errors="replace").splitlines()[-lines:]
    return "".join(f"\n    {line}" for line in text)
