"""socketmap_table(5): requests and replies."""

from __future__ import annotations

MAX_REPLY = 100_000
"""Octets of a reply's payload that Postfix takes; one more defers the mail (measured, 3.10)."""

MAX_REQUEST = 10_000
"""Octets of a request's payload: Postfix's own limit for a query."""
