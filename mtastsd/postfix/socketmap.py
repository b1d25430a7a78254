"""socketmap_table(5): what a request's payload asks, and the payloads that answer it.

Postfix takes NOTFOUND as "no policy here" and goes on to its next table and its own security
level; TEMP and PERM make it defer the mail, with no more than "policy table lookup error" in the
log. So neither is ever said of a domain: they are for a daemon that can't work at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

MAX_REPLY = 100_000
"""Octets of a reply's payload that Postfix takes; one more defers the mail (measured, 3.10)."""

MAX_REQUEST = 10_000
"""Octets of a request's payload: Postfix's own limit for a query."""

MAX_MAP_NAME = 64
"""Octets kept of a map name: longer than any that means something, and short in a log line."""

MAX_REASON = 200
"""Octets of the reason in TEMP and PERM: Postfix logs no more."""

_MAP_NAME = re.compile(rb"[!-~]*")
_NOT_GRAPHIC = re.compile(r"[^!-~]", re.ASCII)
_NOT_PRINTABLE = re.compile(r"[^ -~]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Query:
    """A request. `map_name` is graphic ASCII, at most `MAX_MAP_NAME` long; `key` is as it came."""

    map_name: str
    key: bytes


@dataclass(frozen=True, slots=True)
class BadRequest:
    """A payload without the blank between map name and key.

    It is answered with `notfound()`, like every key that is no domain, and the connection stays
    open. No mail ever asks like that: Postfix and Sendmail write the blank in all cases, so the
    asker is a person or a broken program, and PERM would only teach a relay to defer mail.
    """

    why: Literal["no-key"] = "no-key"


def parse(payload: bytes) -> Query | BadRequest:
    """The map name and the key, parted by the first blank. A missing name is an unknown map."""
    name, blank, key = payload.partition(b" ")
    if not blank:
        return BadRequest()
    return Query(_printable_name(name), key)


def _printable_name(name: bytes) -> str:
    if len(name) <= MAX_MAP_NAME and _MAP_NAME.fullmatch(name):
        return name.decode("ascii")
    return _NOT_GRAPHIC.sub("?", name[:MAX_MAP_NAME].decode("latin-1"))


def ok(text: str) -> bytes:
    """`OK text`; TEMP for text that is empty or too long: it defers the mail too, but says why."""
    payload = b"OK " + text.encode()
    if not text or len(payload) > MAX_REPLY:
        return temp("no policy text that fits a reply")
    return payload


def notfound() -> bytes:
    """`NOTFOUND `, with the blank that some clients wait for."""
    return b"NOTFOUND "


def temp(why: str) -> bytes:
    """`TEMP why`: the mail waits."""
    return b"TEMP " + _reason(why)


def perm(why: str) -> bytes:
    """`PERM why`: the mail waits all the same; Postfix only words its log line differently."""
    return b"PERM " + _reason(why)


def _reason(why: str) -> bytes:
    return _NOT_PRINTABLE.sub("?", why[:MAX_REASON]).encode("ascii")
