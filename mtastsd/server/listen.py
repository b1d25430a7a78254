"""Sockets to listen on: bound here, handed over by systemd, or found taken."""

from __future__ import annotations

import grp
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BACKLOG = 1024
"""Connections that wait to be accepted: a Postfix that starts all its smtp(8) at once."""

MAX_UNIX_PATH = 107
"""Octets of a unix socket's path in Linux's sockaddr_un."""


class ListenError(Exception):
    """A socket can't be bound. The message is for the operator and names address and cause."""


def bind_inet(host: str, port: int) -> socket.socket:
    """A listening TCP socket; `host` is an address or a name that resolves to one."""
    with _told(f"inet:{host}:{port}"):
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, proto, _, address = infos[0]
        with _closed_on_error(socket.socket(family, kind, proto)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(BACKLOG)
            sock.setblocking(False)
    return sock


def bind_unix(
    path: Path, mode: int, group: str = "", *, kind: socket.SocketKind = socket.SOCK_STREAM
) -> socket.socket:
    """A unix socket of this mode and group; a dead socket in its place is replaced.

    It is bound under another name and moved into place with its rights, so that nobody connects
    before they hold, and a client never finds the path missing.
    """
    fresh = path.with_name(f".{path.name}.new")
    if len(os.fsencode(fresh)) > MAX_UNIX_PATH:
        raise ListenError(f"unix:{path}: the path is too long for a unix socket")
    with _told(f"unix:{path}"):
        if kind == socket.SOCK_STREAM and _alive(path):
            raise ListenError(f"unix:{path}: another process listens there")
        fresh.unlink(missing_ok=True)
        with _closed_on_error(socket.socket(socket.AF_UNIX, kind)) as sock:
            sock.bind(str(fresh))
            if group:
                os.chown(fresh, -1, _gid(path, group))
            os.chmod(fresh, mode)
            if kind == socket.SOCK_STREAM:
                sock.listen(BACKLOG)
            os.rename(fresh, path)
            sock.setblocking(False)
    return sock


@contextmanager
def _told(address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ListenError(f"{address}: {error.strerror or error}") from error


@contextmanager
def _closed_on_error(sock: socket.socket) -> Iterator[socket.socket]:
    try:
        yield sock
    except BaseException:
        sock.close()
        raise


def _gid(path: Path, group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise ListenError(f"unix:{path}: there is no group {group!r}") from error


def _alive(path: Path) -> bool:
    """Whether somebody listens at the path."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise ListenError(f"unix:{path}: there is a file of that name that is no socket")
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True


class Bound:
    """A socket of ours and its place in the file system, to be cleared at the end."""

    def __init__(self, sock: socket.socket, path: Path | None = None) -> None:
        self.sock = sock
        self._path = path
        self._inode = path.stat().st_ino if path is not None else 0

    @property
    def address(self) -> str | tuple[str, int]:
        """Where to connect to: a path, or host and port. The kernel knows a unix socket by the
        name under which it was bound, before it was moved."""
        if self._path is not None:
            return str(self._path)
        name = self.sock.getsockname()
        return name if isinstance(name, str) else (name[0], name[1])

    def close(self) -> None:
        """Close, and remove the file unless somebody else has taken its place since."""
        self.sock.close()
        if self._path is None:
            return
        try:
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        except OSError:
            pass  # gone already, or a folder that is not ours any more
