"""The Postfix that is installed, asked by its own postconf(1)."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

PROGRAM = "postconf"

TIMEOUT = 10.0
"""Seconds; postconf reads two files."""


def run(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    """postconf with these arguments; None where there is none, or it doesn't end."""
    try:
        return subprocess.run(  # noqa: S603
            [PROGRAM, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def values(names: Sequence[str], *, expand: bool = False) -> Mapping[str, str]:
    """Parameters by name; those that this Postfix doesn't know, or all without one, are left out.

    `expand`: `$myhostname` and the like are replaced by what they stand for.
    """
    done = run(*(["-x"] if expand else []), *names)
    found: dict[str, str] = {}
    for line in done.stdout.split("\n") if done is not None else ():
        name, equals, value = line.partition(" =")
        if equals and name in names:
            found[name] = value.strip(" ")
    return found


def value(name: str) -> str:
    """One parameter, expanded; "" where it is empty, unknown or there is no Postfix."""
    return values([name], expand=True).get(name, "")


def chroot() -> str:
    """The chroot field of smtp(8) in master.cf: `y`, `n`, `-`, or "" where it can't be read."""
    done = run("-F", "smtp/unix/chroot")
    if done is None or done.returncode:
        return ""
    return done.stdout.partition("=")[2].strip(" \n")
