"""The daemon's end of the reporting process: kept running while reports are enabled.

Not in `reporting`: what builds and signs reports takes 6 MB and 90 ms to import, for nothing here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mtastsd.log import Log
from mtastsd.ports import Clock

RESTART_AFTER = 30.0
"""Seconds before a child that ended is started anew."""

STOP_WITHIN = 0.5
"""Seconds that it has at a stop; a delivery that is under way is then tried again later."""


class Child:
    """Keeps the reporting process running, from the daemon."""

    def __init__(self, config: Path | None, *, clock: Clock, log: Log) -> None:
        self._config = config
        self._clock = clock
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._changed = asyncio.Event()
        self.on_start: Callable[[int], None] = lambda pid: None

    def command(self) -> Sequence[str]:
        """What is run."""
        config = ["--config", str(self._config)] if self._config is not None else []
        return [sys.executable, "-m", "mtastsd", "report", "work", *config]

    async def run(self, enabled: Callable[[], bool]) -> None:
        """While `enabled`, start it, and again when it ends; when cancelled, end it."""
        while True:
            self._changed.clear()
            if not enabled():
                await self._changed.wait()
                continue
            status = await self._once()
            if not self._changed.is_set():
                self._log.error("reporting-ended", status=status)
                await self._clock.sleep(RESTART_AFTER)

    async def _once(self) -> int | None:
        environ = {k: v for k, v in os.environ.items() if k not in ("NOTIFY_SOCKET", "LISTEN_FDS")}
        # The pipe is what tells it that we are gone, however we went.
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *self.command(), stdin=asyncio.subprocess.PIPE, env=environ
            )
        )
        try:
            process = self._process = await asyncio.shield(starting)
            self.on_start(process.pid)
            await process.wait()
        finally:
            # Cancelled while it was being started, it would be left behind.
            await self._end(await starting)
        return process.returncode

    def restart(self) -> None:
        """The configuration has changed: end it, so that it is read again."""
        self._changed.set()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    @staticmethod
    async def _end(process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_WITHIN):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
