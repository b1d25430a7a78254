"""Why a policy could not be had: one value for log line, metric, `explain` and TLS-RPT.

RFC 8460 §4.3 knows three result types for it; `result_type` maps each kind to one of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "record",  # the TXT record is invalid or there are several
    "dns",  # the policy host's addresses could not be had
    "address",  # the policy host has only addresses that are not connected to
    "connect",
    "tls",  # handshake or certificate; detail is OpenSSL's reason
    "status",
    "redirect",
    "type",  # not text/plain
    "size",
    "protocol",  # not HTTP
    "encoding",  # a content coding that can't be undone
    "syntax",  # the policy's text
    "timeout",
]

ResultType = Literal["sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid"]

MAX_DETAIL = 160
"""Characters kept of a detail: enough for a log line, little enough to store for each domain."""

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure's kind, a detail for people (printable ASCII), and a policy's line (from 1)."""

    kind: Kind
    detail: str = ""
    line: int | None = None

    @property
    def result_type(self) -> ResultType:
        """RFC 8460 §4.3.2.2: what the report calls it."""
        match self.kind:
            case "tls":
                return "sts-webpki-invalid"
            case "record" | "syntax" | "type" | "size" | "encoding":
                return "sts-policy-invalid"
            case _:
                return "sts-policy-fetch-error"

    def __str__(self) -> str:
        where = f" (line {self.line})" if self.line is not None else ""
        return f"{self.kind}: {self.detail}{where}" if self.detail else f"{self.kind}{where}"


def printable(text: str, limit: int = MAX_DETAIL) -> str:
    """Remote text made fit for a detail: unprintable characters become `?`, the rest is cut off."""
    return _UNPRINTABLE.sub("?", text[:limit])
