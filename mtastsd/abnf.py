"""Productions that RFC 8460 §3 and RFC 8461 §3.1 share: TXT records of `name=value` fields.

Octets become characters one to one (Latin-1), so that every production here sees what is not
ASCII and refuses it; nothing is decoded, mapped or guessed. Work is linear in the record.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_RECORD = 4096
"""Octets of a TXT record that are parsed: DNS allows 65535, records that mean something have less
than 500."""

WSP = " \t"
"""WSP = SP / HTAB, RFC 5234 §B.1; for `strip`, which by itself takes VT and U+00A0 too."""

# sts-ext-name = tlsrpt-ext-name = (ALPHA / DIGIT) *31(ALPHA / DIGIT / "_" / "-" / ".")
EXTENSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", re.ASCII)

# sts-ext-value = tlsrpt-ext-value = 1*(%x21-3A / %x3C / %x3E-7E)    ; no "=", ";", SP, CTLs
EXTENSION_VALUE = re.compile(r"[\x21-\x3a\x3c\x3e-\x7e]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Field:
    """A field whose name is well-formed; what the value may be depends on the name."""

    name: str
    value: str

    def is_extension(self) -> bool:
        """Whether it is what a parser must accept without knowing it (`sts-extension`)."""
        return EXTENSION_VALUE.fullmatch(self.value) is not None


def candidates(found: Sequence[bytes], version: str) -> list[bytes]:
    """The records that begin with `version` and a field delimiter; all others are discarded.

    The prose of both RFCs wants the semicolon right after the version, their grammar allows WSP
    before it. RFC 8461 erratum 6285 (reported, not verified) asks which; the grammar is taken, as
    other senders do, so `v=STSv1 ;` begins a record. `v=STSv12;` does not.
    """
    tag = version.encode("ascii")
    return [record for record in found if _begins(record, tag)]


def _begins(record: bytes, tag: bytes) -> bool:
    return record.startswith(tag) and record[len(tag) :].lstrip(b" \t").startswith(b";")


def fields(record: bytes) -> tuple[Field, ...] | None:
    """The fields behind the version of one of `candidates`; None where the syntax is broken.

    One delimiter may stand at the end. WSP belongs to a delimiter, so a record that ends in WSP
    without a semicolon is broken, and so are two semicolons in a row.
    """
    if len(record) > MAX_RECORD:
        return None
    # field-delim = *WSP ";" *WSP. Split and strip: a regular expression for it takes quadratic
    # time where a record is one long run of blanks.
    pieces = record.decode("latin-1").split(";")[1:]
    last = pieces.pop().lstrip(WSP)
    texts = [piece.strip(WSP) for piece in pieces] + ([last] if last else [])
    if last.endswith((" ", "\t")):
        return None
    read = tuple(_field(text) for text in texts)
    good = tuple(field for field in read if field is not None)
    return good if len(good) == len(read) else None


def _field(text: str) -> Field | None:
    name, equals, value = text.partition("=")
    if not equals or not EXTENSION_NAME.fullmatch(name):
        return None
    return Field(name, value)
