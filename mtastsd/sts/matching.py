"""RFC 8461 §4.1: does a policy allow an MX host."""

from __future__ import annotations

from mtastsd.names import Domain
from mtastsd.sts.policy import Policy


def allows(pattern: str, host: Domain) -> bool:
    """Whether a pattern of `Policy.mx` covers a host; both are lower-case A-labels.

    `*` stands for exactly one label, the left-most: `*.example.com` allows `mx.example.com`,
    neither `example.com` nor `a.mx.example.com`. Postfix's `.example.com` allows any depth, which
    is why the pattern and not that form is asked here.
    """
    if pattern.startswith("*."):
        return host.partition(".")[2] == pattern.removeprefix("*.")
    return host == pattern


def permitted(policy: Policy, host: Domain) -> bool:
    """Whether any pattern allows the host. Mode `none` restricts nothing (RFC 8461 §5)."""
    return policy.mode == "none" or any(allows(pattern, host) for pattern in policy.mx)
