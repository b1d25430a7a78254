"""The real clock: the only place that asks the system for time and chance."""

from __future__ import annotations

import asyncio
import random
import time


class SystemClock:
    """Implements `ports.Clock`."""

    def __init__(self) -> None:
        self.now = time.time
        self.monotonic = time.monotonic
        self.random = random.SystemRandom().random

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
