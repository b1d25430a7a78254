"""A `Verdict` to the text that Postfix reads: the only place that knows Postfix's policy syntax."""

from __future__ import annotations

from enum import Enum

from mtastsd.verdict import Verdict


class Style(Enum):
    """Which form of reply a map name asks for."""

    PLAIN = "plain"
    TLSRPT = "tlsrpt"
    SENDMAIL = "sendmail"


def style(map_name: str) -> Style:
    """The style that a socketmap name stands for; unknown names are PLAIN."""
    raise NotImplementedError


def render(verdict: Verdict, how: Style) -> str | None:
    """The policy text for a verdict, None for "not found"."""
    raise NotImplementedError
