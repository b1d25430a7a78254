"""The processes of a benchmark: world, daemon, floors, load. Each ends with its `with` block."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import world

HERE = Path(__file__).parent
METRICS = ("127.0.0.1", 8462)

UP_WITHIN = 30.0
"""Seconds until a process must be there; a million stored policies are no reason to take longer."""

CONFIG = """\
[listen]
socketmap = ["unix:{dir}/policy.sock"]
http = "inet:{metrics}"
admin = "unix:{dir}/admin.sock"
tlsrpt = ""
[fetch]
allow_private_addresses = true
[store]
url = "sqlite:///{store}"
[log]
format = "text"
"""


class BenchError(Exception):
    """Something broke: there is no number."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a client saw, and what it cost the server. Times of replies in seconds."""

    requests: int
    wall: float
    cpu: float
    p50: float = 0.0
    p99: float = 0.0
    client_cpu: float = 0.0
    ok: int = 0
    p999: float = 0.0

    @property
    def rate(self) -> float:
        return self.requests / self.wall

    @property
    def cpu_each(self) -> float:
        return self.cpu / self.requests


@dataclass(frozen=True, slots=True)
class Server:
    """Something that answers look-ups at a unix socket."""

    path: Path
    pid: int


class World:
    """The running world: a DNS server, policy hosts, and their questions and GETs counted."""

    def __init__(self, directory: Path, names: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        self._names = names

    def counts(self) -> dict[str, int]:
        """Questions by type and HTTPS GETs (`GET`) since the last time."""
        counted = self.directory / "questions.json"
        counted.unlink(missing_ok=True)
        self._names.send_signal(signal.SIGUSR1)
        wait_for(counted.exists, "the DNS server's counts")
        gets = self.directory / "gets.log"
        found: dict[str, int] = json.loads(counted.read_text("ascii"))
        found["GET"] = len(gets.read_text("ascii").splitlines())
        os.truncate(gets, 0)
        return found


def wait_for(there: object, what: str, within: float = UP_WITHIN) -> None:
    """Until `there()` is true."""
    assert callable(there)
    ends = time.monotonic() + within
    while not there():
        if time.monotonic() > ends:
            raise BenchError(f"{what}: nothing within {within:.0f} s")
        time.sleep(0.005)


@contextmanager
def running(
    argv: Sequence[str], log: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that must be alive all the time; its output goes into `log`."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **environment},
        )
    try:
        yield process
        if process.poll() is not None:
            raise BenchError(f"{argv[:3]} ended with {process.returncode}: {tail(log)}")
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def tail(log: Path) -> str:
    return log.read_text("utf-8", "replace")[-500:]


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return False
    return True


@contextmanager
def started_world(directory: Path, domains: list[str]) -> Iterator[World]:
    directory.mkdir()
    world.make(directory, domains)
    script = [sys.executable, str(HERE / "world.py"), str(directory)]
    nginx = ["nginx", "-c", str(directory / "nginx.conf"), "-e", str(directory / "nginx.log")]
    log = directory / "world.log"
    with running(script, log) as names, running(nginx, log):
        wait_for(lambda: "up" in tail(log), "the DNS server")
        wait_for((directory / "nginx.pid").exists, "nginx")
        yield World(directory, names)


@contextmanager
def daemon(directory: Path, store: Path, ca: Path) -> Iterator[Server]:
    """mtastsd with its defaults, metrics on, on a store that is there or is begun."""
    directory.mkdir(exist_ok=True)
    config, path = directory / "mtastsd.toml", directory / "policy.sock"
    host, port = METRICS
    text = CONFIG.format(dir=directory, metrics=f"{host}:{port}", store=store)
    config.write_text(text, "utf-8")
    argv = [sys.executable, "-m", "mtastsd", "serve", "--config", str(config)]
    with running(argv, directory / "log", SSL_CERT_FILE=str(ca)) as process:
        wait_for(lambda: answers(path), f"mtastsd, see {directory / 'log'}")
        yield Server(path, process.pid)


@contextmanager
def hot_floor(directory: Path, keys: Path) -> Iterator[Server]:
    path = directory / "floor.sock"
    argv = [sys.executable, str(HERE / "floor_hot.py"), str(path), str(keys)]
    with running(argv, directory / "floor.log") as process:
        wait_for(lambda: answers(path), "the floor")
        yield Server(path, process.pid)


def cold_floor(keys: Path, ca: Path, *options: str) -> Load:
    argv = [sys.executable, str(HERE / "floor_cold.py"), str(keys), *options]
    return _load(_output(argv, SSL_CERT_FILE=str(ca)))


class Client:
    """The load generator, compiled into `directory`."""

    def __init__(self, directory: Path) -> None:
        self._program = str(directory / "loadgen")
        _output(["cc", "-O2", "-o", self._program, str(HERE / "loadgen.c")])

    def ask(self, server: Server, keys: Path, connections: int, *, times: int) -> Load:
        """So many requests, keys in turn."""
        return self._run(server, keys, connections, "-n", str(times))

    def press(self, server: Server, keys: Path, connections: int, *, seconds: float) -> Load:
        """Requests without end for so long."""
        return self._run(server, keys, connections, "-d", str(seconds))

    def _run(self, server: Server, keys: Path, connections: int, *how: str) -> Load:
        place = ["-s", str(server.path), "-p", str(server.pid), "-k", str(keys)]
        return _load(_output([self._program, *place, "-c", str(connections), *how]))


def _output(argv: Sequence[str], **environment: str) -> str:
    done = subprocess.run(
        argv, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


def _load(line: str) -> Load:
    found = json.loads(line)
    return Load(
        requests=found["requests"],
        wall=found["wall_s"],
        cpu=found["cpu_s"],
        p50=found.get("p50_us", 0.0) / 1e6,
        p99=found.get("p99_us", 0.0) / 1e6,
        client_cpu=found.get("client_cpu_s", 0.0),
        ok=found.get("replies", {}).get("OK", 0),
        p999=found.get("p999_us", 0.0) / 1e6,
    )


def resident(pid: int) -> int:
    """Octets of resident memory."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak(pid: int) -> int:
    """Octets of resident memory at its highest."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def scrape() -> int:
    """Read the metrics once; the octets of the answer."""
    with socket.create_connection(METRICS, 5) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        size = 0
        while data := sock.recv(65536):
            size += len(data)
    return size
