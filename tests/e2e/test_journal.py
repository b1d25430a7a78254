"""The system's journal as journald writes it: who sent an entry is the kernel's word.

journald runs in a mount namespace of the test's own, with a /run of its own; this module is started
there as a program, and prints what was counted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mtastsd.clock import SystemClock
from mtastsd.log import Log
from mtastsd.metrics import Metrics
from mtastsd.postfix.maillog import MailLog
from mtastsd.server.journal import JournalSource, Trust
from mtastsd.server.journalreader import system_journal
from tests.e2e.world.waiting import START, until
from tests.io.logtools import Kept
from tests.unit.maillog_tools import OK, OK_B, B, established, to

JOURNALD = Path("/usr/lib/systemd/systemd-journald")
SOCKET = Path("/run/systemd/journal/dev-log")
NOBODY = 65534
LIMIT = 60.0

SENDER = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
    log.connect(sys.argv[1])
    for line in sys.stdin:
        log.send(f"<22>Nov 24 15:22:33 postfix/smtp[1]: {line.rstrip()}".encode())
        print(flush=True)
"""
"""Stays while it is asked who it is, as smtp(8) does."""


@pytest.mark.e2e
def test_a_real_journald(tmp_path: Path) -> None:
    """Believed is Postfix's program, not its name; and over a restart and rotations each delivery
    is counted once, the one that was under way too."""
    if os.geteuid() != 0 and not os.environ.get("CI"):
        pytest.skip("no journald: needs root")
    command = ["unshare", "--mount", sys.executable, "-m", __name__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "first": {"sessions": [OK_B], "untrusted": 6},
        "second": {"sessions": [OK_B, OK, OK_B], "untrusted": 0},
    }


# ---- inside


@contextmanager
def _journald() -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    settings = Path("/run/systemd/journald.conf.d/test.conf")
    for folder in (settings.parent, SOCKET.parent, Path("/run/log/journal")):
        folder.mkdir(parents=True)
    settings.write_text("[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\n")
    with subprocess.Popen([JOURNALD], stderr=sys.stderr) as process:
        try:
            until("journald", SOCKET.exists, seconds=START)
            yield
        finally:
            process.terminate()


@contextmanager
def _smtp(folder: Path) -> Iterator[subprocess.Popen[str]]:
    program = folder / "postfix/smtp"
    program.parent.mkdir()
    shutil.copy(os.path.realpath(sys.executable), program)
    with subprocess.Popen(
        [program, "-c", SENDER, SOCKET],
        env={**os.environ, "PYTHONHOME": sys.base_prefix},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def _send(smtp: subprocess.Popen[str], *messages: str) -> None:
    assert smtp.stdin is not None
    assert smtp.stdout is not None
    for message in messages:
        print(message, file=smtp.stdin, flush=True)
        smtp.stdout.readline()


def _forge(*messages: str) -> None:
    for message in messages:
        command = ["logger", "-u", str(SOCKET), "-t", "postfix/smtp[1]", message]
        for user in (0, NOBODY):
            subprocess.run(command, check=True, user=user)


def _rotate() -> None:
    subprocess.run(["journalctl", "--quiet", "--rotate"], check=True)


class _Reader:
    """A run of the reader; `lines` and `untrusted` are what it has read."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._metrics = Metrics()
        source = JournalSource(
            system_journal(),
            MailLog(),
            kept.take,
            kept.at,
            cursor=kept.cursor,
            trust=Trust(frozenset({0})),
            clock=SystemClock(),
            log=Log(logging.getLogger("mtastsd")),
            metrics=self._metrics,
        )
        self._task = asyncio.create_task(source.run())

    def _value(self, name: str, **labels: str) -> int:
        value = self._metrics.registry.get_sample_value(f"mtastsd_log_lines{name}_total", labels)
        return int(value or 0)

    async def read(self, lines: int) -> None:
        """Wait until so many lines are read; 0: until it has begun."""

        def done() -> bool:
            return self._kept.began and self._value("") >= lines

        await asyncio.to_thread(until, f"{lines} lines", done, seconds=START)

    async def killed(self) -> dict[str, object]:
        """What was counted and written by now."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        untrusted = self._value("_skipped", why="untrusted")
        return {"sessions": list(self._kept.sessions), "untrusted": untrusted}


async def _story(smtp: subprocess.Popen[str]) -> dict[str, dict[str, object]]:
    kept = Kept()
    kept.write_every = 1
    _send(smtp, established(), to())  # before the first start of all
    first = _Reader(kept)
    await first.read(0)
    _forge(established(), to(), "x")
    _send(smtp, established(B), to(B))
    _rotate()
    _send(smtp, established())
    await first.read(9)
    found = {"first": await first.killed()}
    _rotate()
    _send(smtp, to())
    second = _Reader(kept)
    await second.read(1)
    _rotate()
    _send(smtp, established(B), to(B))
    await second.read(3)
    return {**found, "second": await second.killed()}


if __name__ == "__main__":
    with _journald(), _smtp(Path(sys.argv[1])) as smtp:
        print(json.dumps(asyncio.run(_story(smtp))))
