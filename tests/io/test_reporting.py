"""The reporting process: kept running, alone on its store, and gone when the daemon is."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mtastsd import reportchild, reporting
from mtastsd.clock import SystemClock
from mtastsd.config import Settings, load
from mtastsd.log import Log
from mtastsd.reportchild import Child

LIMIT = 30.0


class Sleeper(Child):
    """A child that does nothing until its standard input ends, and says when it is there."""

    def __init__(self) -> None:
        super().__init__(None, clock=SystemClock(), log=Log(logging.getLogger("mtastsd")))
        self._started: asyncio.Queue[int] = asyncio.Queue()
        self.on_start = self._started.put_nowait

    def command(self) -> Sequence[str]:
        return [sys.executable, "-c", "import sys; sys.stdin.read()"]

    async def next(self) -> int:
        """The id of the process that was started next."""
        async with asyncio.timeout(LIMIT):
            return await self._started.get()


@pytest.fixture
def child() -> Sleeper:
    return Sleeper()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_ended_with_the_daemon(child: Sleeper) -> None:
    running = asyncio.create_task(child.run(lambda: True))
    pid = await child.next()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not alive(pid)


async def test_cancelled_while_it_is_being_started(child: Sleeper) -> None:
    running = asyncio.create_task(child.run(lambda: True))
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert child._process is None or not alive(child._process.pid)


async def test_started_anew_when_it_dies(
    child: Sleeper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reportchild, "RESTART_AFTER", 0.0)
    running = asyncio.create_task(child.run(lambda: True))
    first = await child.next()
    with caplog.at_level(logging.ERROR, "mtastsd"):
        os.kill(first, signal.SIGKILL)
        assert await child.next() != first
    assert [r.getMessage() for r in caplog.records] == ["reporting-ended"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_reload_starts_and_stops_it_without_an_error(
    child: Sleeper, caplog: pytest.LogCaptureFixture
) -> None:
    enabled = False
    with caplog.at_level(logging.ERROR, "mtastsd"):
        running = asyncio.create_task(child.run(lambda: enabled))
        await asyncio.sleep(0)
        assert child._process is None
        enabled = True
        child.restart()
        first = await child.next()
        child.restart()
        assert await child.next() != first
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert caplog.records == []


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mtastsd.toml"
    path.write_text(
        f'[store]\nurl = "sqlite:///{tmp_path}/m.db"\n[dns]\nnameservers = ["127.0.0.1:9"]\n'
        '[report]\nenabled = true\norganization = "Relay"\ncontact = "r@relay.example"\n'
        'from = "r@relay.example"\nsubmit = "smtp://127.0.0.1:9"\n[log]\nformat = "text"\n'
    )
    return path


def worker(config: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mtastsd", "report", "work", "--config", str(config)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)


def test_the_worker_ends_when_its_standard_input_does(config: Path) -> None:
    process = worker(config)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(LIMIT) == 0
    assert process.stderr is not None
    process.stderr.close()


def test_one_worker_a_store(config: Path) -> None:
    settings = load(config, {})
    assert isinstance(settings, Settings)
    with reporting.only_one(settings) as alone:
        assert alone
        second = worker(config)
        _, told = second.communicate(timeout=LIMIT)
        assert second.returncode == 2
        assert b"another process reports" in told
    with reporting.only_one(settings) as alone:
        assert alone
