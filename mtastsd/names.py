"""Domain names: the one place where text becomes a `Domain`.

A `Domain` is a lower-case A-label name without a final dot, of at least two labels, at most 253
octets long, in letters, digits, hyphen and underscore. Whoever holds one need not check again: it
is safe in a DNS question, a URL, a header, a log line and a Postfix reply.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NewType

import idna

Domain = NewType("Domain", str)

MAX_NAME = 253
"""Octets of a name without its final dot: RFC 1035 §3.1 allows 255 with length octets and root."""

MAX_LABEL = 63
"""Octets of one label, RFC 1035 §2.3.4."""

MAX_TEXT = 1024
"""Characters that are looked at at all: IDNA mapping costs more than linear time."""

Why = Literal[
    "empty",
    "parent",  # ".example.com": Postfix asks for the parents of each name after NOTFOUND
    "address",  # an IP literal has no policy, RFC 8461 §3.4
    "single-label",
    "overlong",
    "syntax",
    "encoding",  # not UTF-8
]

# Underscore is no letter of a host name (RFC 952), but Postfix takes it and names with it exist.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})+", re.ASCII)
_ONE_LABEL = re.compile(_LABEL, re.ASCII)
_DIGITS = re.compile(r"[0-9]+", re.ASCII)
_IPV6 = re.compile(r"[0-9a-f.]*:[0-9a-f.]*:[0-9a-f.:]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class NotADomain:
    """Text that is no policy domain, and the stable word that says why."""

    why: Why


def parse(text: str) -> Domain | NotADomain:
    """Make a `Domain` of a name as people and Postfix write it.

    Upper case, one final dot and U-labels (IDNA 2008 with UTS 46 mapping) are accepted and give
    the lower-case A-label form. An all-numeric last label is an address, not a name (RFC 3696 §2).
    """
    if not text:
        return NotADomain("empty")
    if len(text) > MAX_TEXT:
        return NotADomain("overlong")
    if not text.isascii():
        mapped = _to_ascii(text)
        if mapped is None:
            return NotADomain("syntax")
        text = mapped
    name = text.lower()
    if name.startswith("."):
        return NotADomain("parent")
    name = name.removesuffix(".")
    if len(name) > MAX_NAME:
        return NotADomain("overlong")
    if not _NAME.fullmatch(name):
        return NotADomain(_why_not(name))
    if _DIGITS.fullmatch(name.rpartition(".")[2]):
        return NotADomain("address")
    return Domain(name)


def _why_not(name: str) -> Why:
    if _DIGITS.fullmatch(name) or _IPV6.fullmatch(name):
        return "address"
    return "single-label" if _ONE_LABEL.fullmatch(name) else "syntax"


def _to_ascii(text: str) -> str | None:
    """The mapped name with each U-label as A-label; a name too long for DNS comes back as it is.

    ASCII labels are left to the caller's rules: IDNA 2008 has no underscore and no `r3---sn`, and
    host names beside a U-label have both.
    """
    try:
        mapped = idna.uts46_remap(text, std3_rules=False, transitional=False)
        if len(mapped) > MAX_NAME + 1:
            return mapped
        return ".".join(map(_to_a_label, mapped.split(".")))
    except (idna.IDNAError, UnicodeError):
        return None


def _to_a_label(label: str) -> str:
    if label.isascii():
        return label
    if len(label) > MAX_LABEL:  # Punycode is never shorter than what it encodes
        raise idna.IDNAError("label too long")
    return idna.alabel(label).decode("ascii")


def child(label: str, domain: Domain) -> str:
    """`label.domain` for a question to DNS (`_mta-sts.example.com`); may pass 253 octets."""
    return f"{label}.{domain}"
