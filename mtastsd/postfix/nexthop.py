"""The look-up key as Postfix writes it, to the next hop that it names.

Postfix asks with the next hop as it stands in a transport map, in `relayhost` or in the recipient's
address: `example.com`, `host:port`, `[host]`, `[host]:port`; after "not found" for a bare host name
also with each of its parents, `.example.com`, `.com`. Most keys that have no policy end here,
before any question to DNS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mtastsd.names import Domain, NotADomain
from mtastsd.names import parse as parse_name

SMTP_PORT = 25

MAX_KEY = 1024
"""Octets of a key that are looked at: four U-labels of 59 characters in UTF-8 of four octets, the
longest that 253 octets of A-labels can mean, brackets and a port."""

SERVICES = {
    "smtp": SMTP_PORT,
    "mail": SMTP_PORT,
    "lmtp": 24,
    "smtps": 465,
    "ssmtp": 465,
    "submissions": 465,
    "urd": 465,
    "submission": 587,
}
"""Service names that may stand for a port: Postfix's `known_tcp_ports` and their aliases in
services(5). A table of our own, because a file that differs between hosts, or is not there in a
chroot, must not decide about a policy."""

_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_IPV6_TAG = re.compile(r"ipv6:", re.ASCII | re.IGNORECASE)  # the form of RFC 5321 §4.1.3


@dataclass(frozen=True, slots=True)
class NextHop:
    """A next hop.

    `domain` is the policy domain (RFC 8461 §3.4). `bracketed`: the name is a host, no MX is asked
    for. `port` is 25 unless the key names another.
    """

    domain: Domain
    bracketed: bool = False
    port: int = SMTP_PORT

    @property
    def key(self) -> str:
        """The canonical form: `example.com`, `example.com:587`, `[host.example.com]:587`."""
        host = f"[{self.domain}]" if self.bracketed else self.domain
        return host if self.port == SMTP_PORT else f"{host}:{self.port}"


def parse(key: bytes) -> NextHop | NotADomain:
    """The next hop of a key; NotADomain for all that has no policy, whatever the octets are.

    `host:` and `[host]:` mean the default port, as they do to Postfix.
    """
    if len(key) > MAX_KEY:
        return NotADomain("overlong")
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return NotADomain("encoding")
    if text.startswith("["):
        return _bracketed(text)
    if text.count(":") == 1:
        host, _, service = text.partition(":")
        return _next_hop(host, service, bracketed=False)
    domain = parse_name(text)  # takes no colon: IPv6 without brackets ends there
    return domain if isinstance(domain, NotADomain) else NextHop(domain)


def _bracketed(text: str) -> NextHop | NotADomain:
    host, closed, rest = text[1:].partition("]")
    if not closed or (rest and not rest.startswith(":")):
        return NotADomain("syntax")
    if _IPV6_TAG.match(host):
        return NotADomain("address")
    return _next_hop(host, rest[1:], bracketed=True)


def _next_hop(host: str, service: str, *, bracketed: bool) -> NextHop | NotADomain:
    domain = parse_name(host)
    if isinstance(domain, NotADomain):
        return domain
    port = _port(service)
    return NotADomain("syntax") if port is None else NextHop(domain, bracketed, port)


def _port(service: str) -> int | None:
    if not service:
        return SMTP_PORT
    if _PORT.fullmatch(service):
        number = int(service)
        return number if 0 < number < 65536 else None
    return SERVICES.get(service.lower()) if service.isascii() else None
