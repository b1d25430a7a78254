"""RFC 8461 §3.1: the `_mta-sts` TXT record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from mtastsd import abnf
from mtastsd.sts.failure import printable

VERSION = "v=STSv1"
"""sts-version = %s"v=STSv1": case counts."""

MAX_TEXT = 512
"""Characters of a record that are kept to show it to people."""

SECTION = "RFC 8461 §3.1"
"""Where the rules stand that a `BadRecord` breaks."""

Why = Literal[
    "several",  # more than one record begins as an MTA-STS record does
    "overlong",  # our own limit, `abnf.MAX_RECORD`
    "syntax",  # not fields between semicolons, or an extension that is none
    "no-id",
    "bad-id",
]

# sts-id = %s"id=" 1*32(ALPHA / DIGIT)
_ID = re.compile(r"[A-Za-z0-9]{1,32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Record:
    """A valid record. `text` is the whole of it for people: printable ASCII, cut to `MAX_TEXT`."""

    id: str
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class NoRecord:
    """No record among them is an MTA-STS record."""


@dataclass(frozen=True, slots=True)
class BadRecord:
    """There is more than one, or the only one is invalid: the domain has no policy to offer.

    `text` is what was found, for people: printable ASCII, cut to `MAX_TEXT`.
    """

    why: Why
    text: str = field(default="", compare=False)


def select(found: Sequence[bytes]) -> Record | NoRecord | BadRecord:
    """Pick the one record out of a TXT RRset; its strings are joined before.

    The first of duplicate fields holds, whatever the later says (RFC 8461 §3.2, last paragraph,
    speaks of records too). Names are case-sensitive (`%s`): `ID=1` is an extension, not an id.
    """
    ours = abnf.candidates(found, VERSION)
    if not ours:
        return NoRecord()
    text = printable(b" | ".join(ours).decode("latin-1"), MAX_TEXT)
    if len(ours) > 1:
        return BadRecord("several", text)
    if len(ours[0]) > abnf.MAX_RECORD:
        return BadRecord("overlong", text)
    fields = abnf.fields(ours[0])
    if fields is None or not all(f.name == "id" or f.is_extension() for f in fields):
        return BadRecord("syntax", text)
    record_id = next((f.value for f in fields if f.name == "id"), None)
    if record_id is None:
        return BadRecord("no-id", text)
    return Record(record_id, text) if _ID.fullmatch(record_id) else BadRecord("bad-id", text)
