"""What takes in datagrams: mtastsd, and tlsrpt-collectd of the PyPI package tlsrpt-reporter."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import (
    HERE,
    BenchError,
    answers,
    running,
    wait_for,
)

CAPTURED = HERE.parent / "data" / "datagrams.jsonl"
PEER = "tlsrpt-collectd"
"""Of the PyPI package tlsrpt-reporter 0.6.0."""

QUEUE = Path("/proc/sys/net/unix/max_dgram_qlen")

CONFIG = """\
[listen]
socketmap = ["unix:{dir}/policy.sock"]
http = ""
admin = "unix:{dir}/admin.sock"
tlsrpt = "unix:{dir}/tlsrpt.sock"
tlsrpt_group = ""
[collect]
probe = false
[store]
url = "sqlite:///{dir}/store.db"
[log]
format = "text"
"""


@dataclass(frozen=True, slots=True)
class Collector:
    """A running one. `count` is the statement that says how many sessions its database holds."""

    path: Path
    pid: int
    database: Path
    count: str

    def cpu(self) -> float:
        """Seconds, with its child processes."""
        return sum(_cpu(pid) for pid in (self.pid, *_children(self.pid)))

    def stored(self) -> int:
        """Sessions in its database."""
        with closing(sqlite3.connect(self.database, timeout=10)) as connection:
            return int(connection.execute(self.count).fetchone()[0] or 0)


@dataclass(frozen=True, slots=True)
class Sending:
    """What the sender says."""

    sent: int
    lost: int
    wall: float

    @property
    def lost_percent(self) -> float:
        return 100 * self.lost / self.sent


class Sender:
    """datagrams.c, compiled into `directory`, and the captured datagrams."""

    def __init__(self, directory: Path) -> None:
        self._program = directory / "datagrams"
        self._file = directory / "datagrams.bin"
        argv = ["cc", "-O2", "-o", str(self._program), str(HERE / "datagrams.c")]
        subprocess.run(argv, check=True)
        with CAPTURED.open(encoding="utf-8") as lines:
            captured = [json.loads(line)["datagram"].encode("utf-8") for line in lines]
        self._file.write_bytes(b"".join(struct.pack("!I", len(d)) + d for d in captured))

    def send(self, path: Path, count: int, rate: int = 0) -> Sending:
        """So many: evenly spaced at `rate` a second, or as fast as they are taken for 0."""
        place = ["-s", str(path), "-f", str(self._file)]
        argv = [str(self._program), *place, "-n", str(count), "-r", str(rate)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"datagrams: exit {done.returncode}: {done.stderr[-500:]}")
        said = json.loads(done.stdout)
        return Sending(said["sent"], said["lost"], said["wall_s"])


def set_queue(length: int) -> bool:
    """Set what sockets made from now on queue, in this network namespace; false if we may not."""
    try:
        QUEUE.write_text(str(length), "ascii")
    except OSError:
        return False
    return True


@contextmanager
def ours(directory: Path) -> Iterator[Collector]:
    """The daemon with an empty store."""
    directory.mkdir()
    config = directory / "mtastsd.toml"
    config.write_text(CONFIG.format(dir=directory), "utf-8")
    argv = [sys.executable, "-m", "mtastsd", "serve", "--config", str(config)]
    with running(argv, directory / "log") as process:
        wait_for(lambda: answers(directory / "policy.sock"), f"mtastsd, see {directory / 'log'}")
        wait_for(lambda: _ready(process.pid), "the receiving process")
        yield Collector(
            directory / "tlsrpt.sock",
            process.pid,
            directory / "store.db",
            "SELECT sum(successes + failures) FROM tally",
        )


def _ready(daemon: int) -> bool:
    """Whether the receiver waits for datagrams, not for its interpreter to start."""
    for pid in _children(daemon):
        with suppress(OSError):  # another child, which has just ended
            if b"mtastsd.server.receiver" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return "poll" in Path(f"/proc/{pid}/wchan").read_text("ascii")
    return False


def peer_program() -> Path | None:
    """tlsrpt-collectd, which tests/bench/run installs; None where it could not be had."""
    program = os.environ.get("BENCH_PEER", "")
    return Path(program) if os.access(program, os.X_OK) else None


@contextmanager
def peer(directory: Path, program: Path) -> Iterator[Collector]:
    """tlsrpt-collectd with its defaults and an empty database."""
    directory.mkdir()
    path, database = directory / "tlsrpt.sock", directory / "collectd.db"
    options = {
        "storage": f"sqlite://{database}",
        "socketname": path,
        "socketuser": "root",
        "socketgroup": "root",
        "pidfilename": "",
        "logfilename": directory / "collectd.log",
    }
    argv = [str(program), *(f"--{name}={value}" for name, value in options.items())]
    with running(argv, directory / "log") as process:
        wait_for(lambda: _takes(path), f"tlsrpt-collectd, see {directory / 'log'}")
        yield Collector(path, process.pid, database, "SELECT sum(cntrtotal) FROM finalresults")


def _takes(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return False
    return True


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    return [int(child) for child in text.split()]


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
