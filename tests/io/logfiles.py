"""A log file that is written, rotated and cut short while a reader follows it."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mtastsd.postfix.maillog import MailLog
from mtastsd.server.logfeed import At, Take
from mtastsd.server.logfile import LogFileSource
from tests.io.logtools import Running
from tests.unit.maillog_tools import B, established, to


def line(message: str, time: str = "Nov 24 15:22:33", pid: int = 1) -> bytes:
    return f"{time} relay postfix/smtp[{pid}]: {message}\n".encode()


DELIVERY = line(established()) + line(to())
SECOND = line(established(B)) + line(to(B, queue_id="ABCDEF12345"))
OTHER = b"Nov 24 15:22:33 relay postfix/qmgr[3]: 8FB4822638D: removed\n"


class RunningFile(Running):
    """A log and its reader."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "mail.log"

    def write(self, octets: bytes, name: str = "mail.log") -> None:
        with self.path.with_name(name).open("ab") as file:
            file.write(octets)

    def source(self) -> LogFileSource:
        return self.reader(self.kept.take, self.kept.at, self.kept.cursor)

    def reader(self, take: Take, at: At, cursor: str) -> LogFileSource:
        return LogFileSource(
            self.path,
            MailLog(),
            take,
            at,
            cursor=cursor,
            clock=self.clock,
            log=self.log,
            metrics=self.metrics,
            utc_offset=lambda _: 0,
        )

    # ---- what happens to a log

    def shift(self, *, to_number: bool = True) -> Path:
        """Make room for the next rotated file; its name."""
        if not to_number:
            count = len(list(self.path.parent.glob("mail.log-*")))
            return self.path.with_name(f"mail.log-202511{10 + count}")
        names = [self.path.with_name(f"mail.log.{n}") for n in range(1, 20)]
        last = next(i for i, name in enumerate(names) if not name.exists())
        for n in range(last, 0, -1):
            names[n - 1].rename(names[n])
        return names[0]

    def rotate(self, *, create: bool = True, to_number: bool = True) -> None:
        self.path.rename(self.shift(to_number=to_number))
        if create:
            self.path.touch()

    def copytruncate(self) -> None:
        shutil.copyfile(self.path, self.shift())
        os.truncate(self.path, 0)


@asynccontextmanager
async def reading(folder: Path, *, begun: bytes = OTHER) -> AsyncIterator[RunningFile]:
    """A reader whose position is kept, at the end of a file that has a line."""
    running = RunningFile(folder)
    running.write(begun)
    running.start()
    await running.read()
    running.kept.write()
    yield running
    await running.stop()
