"""RFC 8461 §3.2: the policy file, from octets to a `Policy` or the reasons why it is none.

Where the text is open, this reading is taken:

- Names and values are case-sensitive, as the grammar's `%s` strings say: `Mode: enforce` is an
  extension field that happens to be called Mode, and the policy has no mode.
- Fields stand in any order, version included: the grammar has no order.
- A line ends in LF or CRLF (the grammar, and erratum 6253 against the prose), in nothing else.
- Blank lines are skipped; the grammar has none, but editors leave them.
- `max_age` has up to ten digits by the grammar and at most 31557600 by the prose (erratum 7282):
  more counts as 31557600.
- Of a field that stands twice the first holds, whatever the later says; `mx` may repeat.
- An mx pattern may end in a dot, which is dropped, and have `_` in it. Any other mx value that is
  no name or `*.` and a name makes the policy invalid: to leave the line out would change what the
  policy allows. A name has two labels or more: `*.com` would let any host of a top-level domain
  stand in, and Postfix's form of it any host below.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Literal

from mtastsd import names
from mtastsd.abnf import EXTENSION_NAME, WSP
from mtastsd.names import NotADomain
from mtastsd.sts.failure import printable

Mode = Literal["enforce", "testing", "none"]

Why = Literal[
    "encoding",  # not UTF-8
    "byte-order-mark",
    "control",  # a control character; a lone CR is one
    "line-too-long",
    "too-many-lines",
    "syntax",  # not `name: value`
    "bad-version",
    "bad-mode",
    "bad-max-age",
    "bad-extension",  # without a value
    "mx-syntax",
    "mx-u-label",
    "mx-address",
    "mx-single-label",
    "mx-wildcard",  # `*`, `*.com`, or a star that is not the whole left-most label
    "too-many-mx",
    "missing-version",
    "missing-mode",
    "missing-max-age",
    "missing-mx",
]

RECENT = 16
"""Bodies whose policies are remembered: a discovery asks for its own three times in a row. No more,
for a hostile one is large."""

MAX_AGE = 31557600
"""Seconds, the upper bound that RFC 8461 §3.2 sets: a year."""

MAX_LINE = 1024
"""Octets of a line: the longest pattern takes 260, and lines end up in logs and replies."""

MAX_LINES = 8192
"""Lines that are not blank: what a body of 64 kB (RFC 8461 §3.3) can sensibly hold."""

MAX_MX = 4096
"""Lines with a pattern: the largest senders list about ten."""

MAX_PROBLEMS = 20
"""Errors that `problems` lists: an HTML page in place of a policy is wrong in every line."""

MAX_TEXT = 120
"""Characters of a rejected line that are kept, so that word and text fit a `Failure.detail`."""

_MODES: dict[str, Mode] = {"testing": "testing", "enforce": "enforce", "none": "none"}

# sts-policy-term = LF / CRLF
_TERM = re.compile(rb"\r?\n")

# sts-policy-vchar = %x21-7E / UTF8-2 / UTF8-3 / UTF8-4, "excluding CTLs". UTF8-2 lets the C1
# controls in, one of which (NEL) ends a line for some; they are refused with the others.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")

# sts-policy-max-age-value = 1*10(DIGIT)
_MAX_AGE_VALUE = re.compile(r"[0-9]{1,10}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Policy:
    """A valid policy.

    `mx` holds the patterns in the policy's order, each once, lower-case A-labels, `*.` kept, no
    final dot. `max_age` is in seconds, at most `MAX_AGE`. `lines` are all lines as they came,
    without their line ends, blanks at their end and blank lines, a tab shown as a blank;
    printable ASCII or UTF-8, checked: no control characters. Braces may stand in those that have
    no meaning here (extensions, later duplicates) and nowhere else.
    """

    mode: Mode
    max_age: int
    mx: tuple[str, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicyError:
    """Why the text is no policy: a stable word, and the line (from 1) where it stands, if any.

    `text` is that line: printable ASCII, cut to `MAX_TEXT`.
    """

    why: Why
    line: int | None = None
    text: str = ""


def section(why: str) -> str:
    """Where the rule stands that a `PolicyError.why` names."""
    match why:
        case "mx-wildcard":
            return "RFC 8461 §4.1"
        case "line-too-long" | "too-many-lines" | "too-many-mx":
            return "RFC 8461 §3.3"  # lets a sender limit what it takes
        case _:
            return "RFC 8461 §3.2"


@lru_cache(maxsize=RECENT)
def parse(body: bytes) -> Policy | PolicyError:
    """Parse a policy file; the first error in it decides."""
    draft = _Draft()
    error = next(draft.read(body), None)
    return draft.policy() if error is None else error


def problems(body: bytes) -> tuple[PolicyError, ...]:
    """All that is wrong with a policy file, in the order of its lines; at most `MAX_PROBLEMS`."""
    return tuple(islice(_Draft().read(body), MAX_PROBLEMS))


def render(policy: Policy) -> bytes:
    """The file that gives this policy again."""
    return "".join(f"{line}\r\n" for line in policy.lines).encode()


@dataclass(slots=True)
class _Draft:
    """What was read so far. `fields` has the first value of each name but mx."""

    fields: dict[str, str] = field(default_factory=dict)
    mx: dict[str, None] = field(default_factory=dict)
    mx_lines: int = 0
    lines: list[str] = field(default_factory=list)

    def read(self, body: bytes) -> Iterator[PolicyError]:
        """Take the whole file in; yields what is wrong with it."""
        for number, raw in enumerate(_TERM.split(body), 1):
            if not raw.strip(b" \t"):
                continue
            if len(self.lines) == MAX_LINES:
                yield PolicyError("too-many-lines", number)
                return
            why = self._take(raw)
            if why is not None:
                yield PolicyError(why, number, printable(raw.decode("latin-1"), MAX_TEXT))
            if why == "too-many-mx":
                return
        yield from (PolicyError(why) for why in self._missing())

    def _take(self, raw: bytes) -> Why | None:
        if len(raw) > MAX_LINE:
            return "line-too-long"
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError:
            return "encoding"
        if _CONTROL.search(line):
            return "control"
        line = line.replace("\t", " ").rstrip(WSP)
        self.lines.append(line)
        # sts-policy-field-delim = ":" *WSP
        name, colon, value = line.partition(":")
        if not colon or not EXTENSION_NAME.fullmatch(name):
            return "byte-order-mark" if name.startswith("\ufeff") else "syntax"
        return self._field(name, value.lstrip(WSP))

    def _field(self, name: str, value: str) -> Why | None:
        if name == "mx":
            return self._pattern(value)
        if name in self.fields:
            return None
        self.fields[name] = value
        match name:
            case "version":
                return None if value == "STSv1" else "bad-version"
            case "mode":
                return None if value in _MODES else "bad-mode"
            case "max_age":
                return None if _MAX_AGE_VALUE.fullmatch(value) else "bad-max-age"
            case _:
                return None if value else "bad-extension"

    def _pattern(self, value: str) -> Why | None:
        self.mx_lines += 1
        if self.mx_lines > MAX_MX:
            return "too-many-mx"
        # sts-policy-mx-value = ["*."] Domain. U-labels are not mapped: it is the A-label that an
        # MX record has and the only form that the RFC allows.
        if not value.isascii():
            return "mx-u-label"
        star = "*." if value.startswith("*.") else ""
        name = names.parse(value.removeprefix(star))
        if not isinstance(name, NotADomain):
            self.mx[star + name] = None
            return None
        if name.why == "address":
            return "mx-address"
        if "*" in value:
            return "mx-wildcard"
        return "mx-single-label" if name.why == "single-label" else "mx-syntax"

    def _missing(self) -> Iterator[Why]:
        if "version" not in self.fields:
            yield "missing-version"
        if "mode" not in self.fields:
            yield "missing-mode"
        if "max_age" not in self.fields:
            yield "missing-max-age"
        if not self.mx_lines and self.fields.get("mode") != "none":
            yield "missing-mx"

    def policy(self) -> Policy:
        """The policy, after `read` found no fault."""
        return Policy(
            mode=_MODES[self.fields["mode"]],
            max_age=min(int(self.fields["max_age"]), MAX_AGE),
            mx=tuple(self.mx),
            lines=tuple(self.lines),
        )
