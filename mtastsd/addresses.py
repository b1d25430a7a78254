"""Where sockets are: `unix:/path`, `inet:host:port`, as in Postfix's `socketmap:` tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from mtastsd import names

MAX_PATH = 99
"""Octets of a socket's path: `sun_path` of Linux has 108 with the final NUL, and the name under
which a socket is bound before it is moved into place is a little longer."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_HOST_PORT = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([^:]*))?")
_ONE_LABEL = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A unix-domain socket at an absolute path."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class InetAddress:
    """A TCP or UDP end. `host` is an IP address without brackets or a host name."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"inet:{self.host_port}"

    @property
    def host_port(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Address = UnixAddress | InetAddress


@dataclass(frozen=True, slots=True)
class NotAnAddress:
    """Why a text is no address, in words for whoever wrote it."""

    why: str


def parse(text: str) -> Address | NotAnAddress:
    """`unix:/path`, `inet:host:port` or `inet:[::1]:port`."""
    kind, _, rest = text.partition(":")
    match kind:
        case "unix":
            return _unix(rest)
        case "inet":
            return parse_host_port(rest)
        case _:
            return NotAnAddress('must begin with "unix:" or "inet:"')


def _unix(path: str) -> UnixAddress | NotAnAddress:
    if not path.startswith("/") or path.endswith("/"):
        return NotAnAddress("needs the absolute path of the socket")
    if _CONTROL.search(path):
        return NotAnAddress("has a control character in its path")
    if len(path.encode()) > MAX_PATH:
        return NotAnAddress(f"has a path of over {MAX_PATH} octets")
    return UnixAddress(path)


def parse_host_port(
    text: str, *, default_port: int | None = None, names_allowed: bool = True
) -> InetAddress | NotAnAddress:
    """`host:port`; the port may be left out where there is a default.

    The host is an IP address, IPv6 in brackets, or, where `names_allowed`, a host name.
    """
    if default_port is not None and text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"  # a bare IPv6 address, as resolv.conf has it
    found = _HOST_PORT.fullmatch(text)
    if found is None:
        return NotAnAddress("must be host:port, an IPv6 address in brackets")
    host = parse_host(found[1], names_allowed=names_allowed)
    if host is None:
        return NotAnAddress(f"has no {'host name or ' if names_allowed else ''}IP address")
    if found[2] is None and default_port is not None:
        return InetAddress(host, default_port)
    if found[2] is None:
        return NotAnAddress("has no port")
    if not _PORT.fullmatch(found[2]) or not 1 <= int(found[2]) <= 65535:
        return NotAnAddress("has a port that is not 1 to 65535")
    return InetAddress(host, int(found[2]))


def parse_host(text: str, *, names_allowed: bool = True) -> str | None:
    """An IPv4 address, an IPv6 address in brackets or a host name, in canonical form."""
    try:
        if text.startswith("[") and text.endswith("]"):
            return str(IPv6Address(text[1:-1]))
        return str(IPv4Address(text))
    except AddressValueError:
        pass
    if not names_allowed:
        return None
    name = names.parse(text)
    if not isinstance(name, names.NotADomain):
        return name
    lower = text.lower()
    return lower if name.why == "single-label" and _ONE_LABEL.fullmatch(lower) else None
