"""A network and mount namespace of our own, which ends with the process that made it.

It has no name, so two runs never meet and a killed run leaves nothing behind: a small process
holds it until the pipe from its maker closes, and all that runs inside dies with its own maker.
Mounts made inside are seen inside alone.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.e2e.world.waiting import WorldError

REPOSITORY = Path(__file__).resolve().parents[3]

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1


@dataclass(frozen=True, slots=True)
class Namespace:
    """Where the world is. `holder` keeps it alive."""

    holder: subprocess.Popen[bytes]

    @classmethod
    def make(cls) -> Self:
        holder = subprocess.Popen(
            ["unshare", "--net", "--mount", sys.executable, "-m", __name__],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert holder.stdout is not None
        if holder.stdout.readline() != b"up\n":
            raise WorldError(f"no network namespace: exit {holder.wait()}")
        return cls(holder)

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` inside, in the process that is started."""
        pid = str(self.holder.pid)
        return ["setpriv", "--pdeathsig", "KILL", "nsenter", "-t", pid, "-n", "-m", "--", *argv]

    def run(self, *argv: str, text: str = "") -> str:
        """Run to its end; the output. WorldError when it fails."""
        done = subprocess.run(
            self.inside(argv),
            input=text,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            raise WorldError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}")
        return done.stdout

    def start(
        self, *argv: str, log: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process whose output goes to `log`; its pid is the one to signal."""
        with log.open("ab") as out:
            return subprocess.Popen(
                self.inside(argv),
                cwd=REPOSITORY,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def bind(self, source: Path, target: Path) -> None:
        """Show `source` in the place of `target`, a file or folder that is there."""
        self.run("mount", "--bind", str(source), str(target))

    def close(self) -> None:
        assert self.holder.stdin is not None
        assert self.holder.stdout is not None
        self.holder.stdin.close()
        self.holder.stdout.close()
        self.holder.wait()


def obstacle() -> str:
    """Why no namespace can be made here, or nothing."""
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False
    )
    return tried.stderr.strip()


def stop(process: subprocess.Popen[bytes], seconds: float = 15) -> int:
    """SIGTERM, SIGKILL if that does not help; the exit status."""
    process.terminate()
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def loopback_up() -> None:
    """What `ip link set lo up` does, without a package for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        (flags,) = struct.unpack_from("h", request, 16)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


if __name__ == "__main__":
    loopback_up()
    print("up", flush=True)
    sys.stdin.read()
