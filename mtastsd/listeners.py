"""The daemon's sockets: those that systemd holds, else bound as `[listen]` says."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtastsd.addresses import Address, InetAddress, UnixAddress
from mtastsd.config import Listen
from mtastsd.log import Log
from mtastsd.server.listen import Bound, bind_inet, bind_unix

ADMIN_MODE = 0o600
HTTP_MODE = 0o660
"""Mode of a unix socket for HTTP: a proxy of the same group reads the metrics."""

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class Listeners:
    """What is listened on, and how it is called in the log."""

    socketmap: tuple[Bound, ...]
    admin: Bound
    http: Bound | None
    http_hosts: frozenset[str]
    names: tuple[str, ...]
    tlsrpt: socket.socket | None = None
    """The datagram socket that systemd holds; without one, collecting binds its own."""

    @classmethod
    def open(
        cls, listen: Listen, held: Mapping[str, Sequence[socket.socket]], log: Log
    ) -> Listeners:
        """Bind all, or none. Raises ListenError.

        A socket unit's `FileDescriptorName` is `policy`, `admin`, `http` or `tlsrpt`; sockets of
        other names are left alone and told of.
        """
        for name in held.keys() - {"policy", "admin", "http", "tlsrpt"}:
            log.warning("socket-unknown", name=name)
        opened: list[Bound] = []
        try:
            policy = [Bound(sock) for sock in held.get("policy", ())]
            names = [_name(bound.sock) for bound in policy]
            if not policy:
                policy = [_bind(a, listen.socketmap_mode) for a in listen.socketmap]
                names = [str(address) for address in listen.socketmap]
            opened += policy
            admin = _held(held, "admin") or _bind(listen.admin, ADMIN_MODE)
            opened.append(admin)
            http = _held(held, "http")
            if http is None and listen.http is not None:
                http = _bind(listen.http, HTTP_MODE)
        except BaseException:
            for bound in opened:
                bound.close()
            raise
        tlsrpt = next(iter(held.get("tlsrpt", ())), None)
        return cls(tuple(policy), admin, http, _hosts(listen.http), tuple(names), tlsrpt)

    def close(self) -> None:
        """Close all and clear the file system of them."""
        for bound in (*self.socketmap, self.admin, *([self.http] if self.http else [])):
            bound.close()


def _held(held: Mapping[str, Sequence[socket.socket]], name: str) -> Bound | None:
    sockets = held.get(name, ())
    return Bound(sockets[0]) if sockets else None


def _bind(address: Address, mode: int) -> Bound:
    match address:
        case UnixAddress(path=path):
            return Bound(bind_unix(Path(path), mode), Path(path))
        case InetAddress(host=host, port=port):
            return Bound(bind_inet(host, port))


def _name(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    return str(InetAddress(name[0], name[1]))


def _hosts(http: Address | None) -> frozenset[str]:
    """The names under which the status page is ours: its address, and loopback's."""
    if not isinstance(http, InetAddress) or http.host in ("0.0.0.0", "::"):
        return frozenset()
    return LOOPBACK_HOSTS | {f"[{http.host}]" if ":" in http.host else http.host}
