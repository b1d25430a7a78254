"""The daemon under test: `mtastsd serve`, as a process inside the world."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from tests.e2e.world.netns import stop
from tests.e2e.world.waiting import until, until_up
from tests.e2e.world.world import World

REPLY_TIMEOUT = 20.0
"""Seconds, more than the daemon's `fetch.deadline` below."""

CONFIG = """
[listen]
socketmap = ["unix:{sockets}/policy.sock", "inet:127.0.0.1:8461"]
tlsrpt = "unix:{sockets}/tlsrpt.sock"
tlsrpt_mode = "0666"
tlsrpt_group = ""
http = "unix:{folder}/http.sock"
admin = "unix:{folder}/admin.sock"

[fetch]
allow_private_addresses = true
# So that a hundred first contacts at once on a busy machine are all answered with what is found.
deadline = "10s"

[store]
url = "sqlite:///{folder}/mtastsd.db"

[log]
level = "debug"
format = "text"
"""


class Daemon:
    """One daemon with its own folder; started and killed as often as a test likes."""

    def __init__(self, world: World, folder: Path) -> None:
        folder.mkdir()
        self._world = world
        self._policy_socket = world.sockets / "policy.sock"
        self.log = folder / "mtastsd.log"
        self.config = folder / "mtastsd.toml"
        self.folder = folder
        self.configure()
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, more: str = "") -> None:
        """Write the configuration, with sections that CONFIG has not; it holds from a start on."""
        base = CONFIG.format(sockets=self._world.sockets, folder=self.folder)
        self.config.write_text(base + more)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        argv = (str(Path(sys.executable).parent / "mtastsd"), "serve", "--config", str(self.config))
        env = {"SSL_CERT_FILE": str(self._world.pki.ca_file)}
        self.process = self._world.namespace.start(*argv, log=self.log, env=env)
        until_up("mtastsd", self.process, self._answers, log=self.log)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        return stop(self.process)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def child(self, words: str) -> int:
        """The process that it started with these words in its command line."""
        assert self.process is not None
        pid = self.process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            command = Path(f"/proc/{child}/cmdline").read_bytes().decode().replace("\0", " ")
            if words in command:
                return int(child)
        raise LookupError(words)

    def program(self, *argv: str) -> str:
        """What `mtastsd ARGV` prints; WorldError unless it exits with 0."""
        program = str(Path(sys.executable).parent / "mtastsd")
        return self._world.namespace.run(program, *argv)

    def tell(self, *argv: str) -> str:
        """The same, with the daemon's configuration."""
        return self.program(*argv, "--config", str(self.config))

    def logged(self, text: str) -> int:
        """How often its log has the text."""
        return self.log.read_text().count(text)

    def wait_for_log(self, text: str, *, more_than: int = 0) -> None:
        """Until its log has the text more often than that."""
        until(text, lambda: self.logged(text) > more_than, seconds=REPLY_TIMEOUT, log=self.log)

    def reply(self, key: str, map_name: str = "postfix") -> str:
        """What it answers to a look-up, as Postfix would get it."""
        request = f"{map_name} {key}".encode()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(REPLY_TIMEOUT)
            client.connect(str(self._policy_socket))
            client.sendall(b"%d:%b," % (len(request), request))
            with client.makefile("rb") as reader:
                size = b""
                while (octet := reader.read(1)) != b":":
                    if not octet:
                        raise EOFError("no reply")
                    size += octet
                return reader.read(int(size)).decode()

    def _answers(self) -> bool:
        try:
            return self.reply("") != ""
        except OSError:
            return False
