"""The daemon as a process: start, systemd's protocol, reload, stop."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mtastsd.postfix import netstring

LIMIT = 30.0
"""Seconds until a test that hangs is given up."""


class Running:
    """A daemon, its sockets and what it told the service manager."""

    def __init__(self, folder: Path, notify: socket.socket) -> None:
        self.folder = folder
        self.config = folder / "mtastsd.toml"
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes]
        self._notify = notify

    def start(
        self, environ: Mapping[str, str] | None = None, held: socket.socket | None = None
    ) -> None:
        command = [sys.executable, "-m", "mtastsd", "serve", "--config", str(self.config)]
        env = {**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify"), **(environ or {})}
        fds: tuple[int, ...] = ()
        if held is not None:
            fds = (held.fileno(),)
            line = f"exec 3<&{fds[0]}; export LISTEN_PID=$$; exec {shlex.join(command)}"
            command = ["bash", "-c", line]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=env, stderr=log, stdout=log, pass_fds=fds)

    def told(self, word: str) -> str:
        """The next message to the service manager that holds this word."""
        while True:
            message = self._notify.recv(4096).decode()
            if word in message:
                return message

    def ask(self, key: str, path: Path | None = None) -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(LIMIT)
            sock.connect(str(path or self.folder / "policy.sock"))
            sock.sendall(netstring.encode(f"postfix {key}".encode()))
            return sock.recv(65536)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mtastsd", *words, "--config", str(self.config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT)

    def text(self) -> str:
        return self.log.read_text()


CONFIG = """\
[listen]
socketmap = ["unix:{0}/policy.sock"]
http = ""
tlsrpt = ""
admin = "unix:{0}/admin.sock"
[dns]
nameservers = ["127.0.0.1:{1}"]
timeout = "100ms"
[fetch]
deadline = "{2}"
[store]
url = "sqlite:///{0}/state/mtastsd.db"
[log]
format = "text"
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Running]:
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(tmp_path / "notify"))
    notify.settimeout(LIMIT)
    mute = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # a resolver that never answers
    mute.bind(("127.0.0.1", 0))
    running = Running(tmp_path, notify)
    running.config.write_text(CONFIG.format(tmp_path, mute.getsockname()[1], "300ms"))
    yield running
    if hasattr(running, "process") and running.process.poll() is None:
        running.process.kill()
        running.process.wait()
    notify.close()
    mute.close()


def test_answers_says_so_and_stops_with_clients_connected(daemon: Running) -> None:
    daemon.start()
    assert "READY=1" in daemon.told("READY")
    assert daemon.ask(".com") == b"9:NOTFOUND ,"
    with socket.socket(socket.AF_UNIX) as idle:
        idle.connect(str(daemon.folder / "policy.sock"))
        assert daemon.stop() == 0
        daemon.told("STOPPING=1")
    assert not (daemon.folder / "policy.sock").exists()
    assert not (daemon.folder / "admin.sock").exists()
    assert "Traceback" not in daemon.text()


def test_a_mute_resolver_costs_the_deadline(daemon: Running) -> None:
    daemon.start()
    daemon.told("READY")
    assert daemon.ask("example.com") == b"9:NOTFOUND ,"
    result = daemon.run("query", "example.com")
    assert (result.returncode, result.stdout) == (0, "NOTFOUND \n")
    assert daemon.stop() == 0


def test_sighup_takes_the_new_configuration_and_refuses_a_bad_one(daemon: Running) -> None:
    daemon.start()
    daemon.told("READY")
    good = daemon.config.read_text()
    override = '[[override]]\ndomain = "example.com"\naction = "encrypt"\nreason = "ticket 1"\n'
    daemon.config.write_text(good + override)
    daemon.process.send_signal(signal.SIGHUP)
    assert "MONOTONIC_USEC=" in daemon.told("RELOADING")
    daemon.told("READY")
    assert daemon.ask("example.com") == b"10:OK encrypt,"
    daemon.config.write_text(good + override + "[polcy]\n")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.told("READY")
    assert daemon.ask("example.com") == b"10:OK encrypt,"
    assert "polcy" in daemon.text()
    daemon.config.write_text(good.replace("policy.sock", "other.sock"))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.told("READY")
    assert "needs_restart=listen.socketmap" in daemon.text()
    assert daemon.stop() == 0


def test_socket_activation_and_watchdog(daemon: Running) -> None:
    held = socket.socket(socket.AF_UNIX)
    path = daemon.folder / "held.sock"
    held.bind(str(path))
    held.listen()
    environ = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "policy", "WATCHDOG_USEC": "300000"}
    daemon.start(environ, held)
    assert f"unix:{path}" in daemon.told("READY")
    daemon.told("WATCHDOG=1")
    daemon.told("WATCHDOG=1")
    assert daemon.ask(".com", path) == b"9:NOTFOUND ,"
    assert not (daemon.folder / "policy.sock").exists()
    assert daemon.stop() == 0
    assert path.exists()  # it is systemd's
    held.close()


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("[fetch]\nmax_byte = 5\n", 2, ("mtastsd.toml:14: [fetch] max_byte:", '"max_bytes"')),
        ("[fetch\n", 2, ("mtastsd.toml:",)),
        ('[listen]\nsocketmap = ["unix:/nonexistent/a.sock"]\n', 1, ("/nonexistent/a.sock",)),
        ('[store]\nurl = "sqlite:////proc/mtastsd.db"\n', 1, ("/proc/mtastsd.db",)),
    ],
)
def test_what_stops_the_start(
    daemon: Running, text: str, status: int, words: tuple[str, ...]
) -> None:
    daemon.config.write_text(_without(daemon.config.read_text(), text) + text)
    daemon.start()
    assert daemon.process.wait(LIMIT) == status
    for word in words:
        assert word in daemon.text()
    assert "Traceback" not in daemon.text()


def _without(base: str, text: str) -> str:
    """The configuration less the sections that the text has."""
    try:
        names = set(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        names = {"fetch"}
    kept, keep = [], True
    for line in base.splitlines(keepends=True):
        if line.startswith("["):
            keep = line.strip("[]\n") not in names
        if keep:
            kept.append(line)
    return "".join(kept)


def test_two_daemons_on_one_socket(daemon: Running) -> None:
    daemon.start()
    daemon.told("READY")
    first = daemon.process
    daemon.start()
    assert daemon.process.wait(LIMIT) == 1
    assert "another process listens there" in daemon.text()
    daemon.process = first
    assert daemon.ask(".com") == b"9:NOTFOUND ,"
    assert daemon.stop() == 0


def test_nobody_there_is_exit_3(daemon: Running) -> None:
    result = daemon.run("query", "example.com")
    assert result.returncode == 3
    assert str(daemon.folder / "admin.sock") in result.stderr


def test_commands_against_the_daemon(daemon: Running) -> None:
    daemon.start()
    daemon.told("READY")
    assert "look-ups" in daemon.run("status").stdout
    assert daemon.run("policy", "list").stdout.endswith("0 domains\n")
    result = daemon.run("policy", "show", "example.com")
    assert (result.returncode, result.stdout) == (1, "nothing is known of example.com\n")
    assert daemon.run("policy", "flush", "example.com").returncode == 1
    refused = daemon.run("policy", "show", ".com")
    assert (refused.returncode, "no next hop" in refused.stderr) == (1, True)
    assert daemon.stop() == 0


def test_a_flood_of_connections_leaves_it_answering(daemon: Running) -> None:
    daemon.start()
    daemon.told("READY")
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(daemon.folder / "policy.sock"))
            sock.sendall(b"7:postfix")
        answers: list[bytes] = []
        asking = threading.Thread(target=lambda: answers.append(daemon.ask(".com")))
        asking.start()
        asking.join(LIMIT)
        assert answers == [b"9:NOTFOUND ,"]
    assert daemon.stop() == 0
