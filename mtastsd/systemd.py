"""systemd: readiness, watchdog, sockets that it holds for us.

Without the extra `systemd`, or without systemd, all of this does nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

try:
    from systemd import daemon as _daemon
except ImportError:  # the extra is not installed
    _daemon = None

FIRST_FD = 3
"""SD_LISTEN_FDS_START."""


class Systemd:
    """The service manager, as seen from this process's environment."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._send: Callable[[str], object] | None = _daemon.notify if _daemon else None
        self.present = bool(environ.get("NOTIFY_SOCKET"))

    def _notify(self, *lines: str) -> None:
        if self._send is not None and self.present:
            self._send("\n".join(lines))

    def ready(self, status: str) -> None:
        self._notify("READY=1", f"STATUS={status}")

    def reloading(self, monotonic: float) -> None:
        """`monotonic` in seconds; Type=notify-reload waits for READY after this time."""
        self._notify("RELOADING=1", f"MONOTONIC_USEC={int(monotonic * 1e6)}")

    def stopping(self) -> None:
        self._notify("STOPPING=1", "STATUS=stopping")

    def status(self, status: str) -> None:
        self._notify(f"STATUS={status}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._notify("WATCHDOG=1")

    @property
    def watchdog(self) -> float | None:
        """Seconds within which the watchdog wants to be fed, None where there is none."""
        usec = self._environ.get("WATCHDOG_USEC", "")
        pid = self._environ.get("WATCHDOG_PID", str(os.getpid()))
        if not usec.isdigit() or pid != str(os.getpid()):
            return None
        return int(usec) / 1e6

    def sockets(self) -> dict[str, list[socket.socket]]:
        """The sockets handed over, by FileDescriptorName."""
        count = self._environ.get("LISTEN_FDS", "")
        if not count.isdigit() or self._environ.get("LISTEN_PID") != str(os.getpid()):
            return {}
        names = self._environ.get("LISTEN_FDNAMES", "").split(":")
        held: dict[str, list[socket.socket]] = {}
        for index in range(int(count)):
            sock = socket.socket(fileno=FIRST_FD + index)
            sock.setblocking(False)
            os.set_inheritable(sock.fileno(), False)
            name = names[index] if index < len(names) else ""
            held.setdefault(name or "unknown", []).append(sock)
        return held
