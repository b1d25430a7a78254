"""The daemon under test: `mtastsd serve`, as a process inside the world."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from tests.e2e.world.netns import stop
from tests.e2e.world.waiting import until_up
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
        self.config.write_text(CONFIG.format(sockets=world.sockets, folder=folder))
        self.process: subprocess.Popen[bytes] | None = None

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
