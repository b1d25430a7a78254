"""A `Verdict` to the text that Postfix reads: the only place that knows Postfix's policy syntax.

Postfix defers the mail for any attribute that is unknown, malformed, empty or given twice, and
blanks and commas part attributes. So nothing that a remote wrote goes out here except host names,
checked once more, and lines of a policy in braces, where blanks and commas mean nothing.

What becomes too long loses first what only reports need, then what only helps, and last the names
that no longer fit: each step accepts less than the policy allows, never more, and no reply is so
long that Postfix would refuse it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum

from mtastsd.names import parse as parse_name
from mtastsd.postfix.socketmap import MAX_REPLY
from mtastsd.verdict import Verdict, What

MAX_TEXT = MAX_REPLY - len("OK ")
"""Octets of policy text that fit into a reply."""

NO_HOST = "no-valid-mx-pattern.invalid"
"""Matched where patterns are to be matched and none is a host name. Nobody has a certificate for it
(RFC 6761 §6.4), so the mail waits; `match=` without a value would do the same and say less."""

_SNI = " servername=hostname"  # else a host of many names shows the certificate of another

# A brace would end the attribute, and with it the protection of what follows. Control characters
# and line separators have no place in a policy, and lone surrogates can't be written as UTF-8.
_LINE = re.compile(r"[^\x00-\x1f\x7f-\x9f{}\u2028\u2029\ud800-\udfff]+")


class Style(Enum):
    """Which form of reply a map name asks for."""

    PLAIN = "plain"
    TLSRPT = "tlsrpt"
    SENDMAIL = "sendmail"


_STYLES = {
    "postfix-tlsrpt": Style.TLSRPT,
    "QUERYwithTLSRPT": Style.TLSRPT,
    "sts": Style.SENDMAIL,
}


def style(map_name: str) -> Style:
    """The style that a socketmap name stands for; unknown names are PLAIN."""
    return _STYLES.get(map_name, Style.PLAIN)


def render(verdict: Verdict, how: Style) -> str | None:
    """The policy text for a verdict, None for "not found"."""
    if verdict.what is What.NOTHING:
        return None
    if how is Style.SENDMAIL:
        return _sendmail(verdict)
    if verdict.what is not What.SECURE:
        level: str = verdict.what.value
        return level
    if not verdict.mx:
        return "secure" + _SNI
    text = f"secure match={_match(verdict.mx, len('secure match=') + len(_SNI))}{_SNI}"
    return _with_attributes(text, verdict) if how is Style.TLSRPT else text


def _sendmail(verdict: Verdict) -> str | None:
    """`secure match=...` wherever a policy enforces, whatever the verdict.

    Sendmail looks for DANE itself, before it asks, and prefers it; of the levels it knows this one.
    """
    if verdict.why == "override":
        if verdict.what is not What.SECURE:
            return None
        # Sendmail has no matching of its own to fall back on: Postfix's `nexthop, dot-nexthop`.
        patterns = verdict.mx or (verdict.domain, f"*.{verdict.domain}")
    elif verdict.enforced and verdict.policy is not None:
        patterns = verdict.policy.mx
    else:
        return None
    return f"secure match={_match(patterns, len('secure match='))}"


def _match(patterns: Iterable[str], taken: int) -> str:
    """The value of `match=`: host names in order, `*.x` as `.x`; as many as leave `taken` free."""
    room = MAX_TEXT - taken
    names: list[str] = []
    for pattern in _host_patterns(patterns):
        name = pattern.removeprefix("*")
        room -= len(name) + 1
        if room < -1:  # the last name has no colon behind it
            break
        names.append(name)
    return ":".join(names) or NO_HOST


def _host_patterns(patterns: Iterable[str]) -> list[str]:
    """Those patterns that are a host name or `*.` and a domain, each once.

    To Postfix `hostname` and `nexthop` are words that match whatever name DNS gave, an address is
    matched beside the name, and a colon begins the next name.
    """
    return [p for p in dict.fromkeys(patterns) if _is_host_pattern(p)]


def _is_host_pattern(pattern: str) -> bool:
    name = "a" + pattern[1:] if pattern.startswith("*.") else pattern
    return parse_name(name) == name


def _with_attributes(text: str, verdict: Verdict) -> str:
    """Add what Postfix 3.10 reports, and from 3.10.5 on holds each MX host against (RFC 8461 §4.1).

    Only for a policy that enforces, and only if its own patterns are what is matched.
    """
    policy = verdict.policy
    if policy is None or not verdict.enforced or verdict.mx != policy.mx:
        return text
    text_sts = f"{text} policy_type=sts policy_domain={verdict.domain}"
    # All patterns or none: an MX host whose pattern were cut off would be skipped.
    patterns = "".join(f" mx_host_pattern={p}" for p in _host_patterns(policy.mx))
    strings = "".join(
        f" {{ policy_string = {line} }}" for line in map(_policy_line, policy.lines) if line
    )
    for longer in (text_sts + patterns + strings, text_sts + patterns, text_sts):
        if len(longer.encode()) <= MAX_TEXT:
            return longer
    return text


def _policy_line(line: str) -> str:
    """A policy's line as it may stand in braces; empty if it may not, or has nothing to say."""
    line = line.replace("\t", " ").strip(" ")
    return line if _LINE.fullmatch(line) else ""
