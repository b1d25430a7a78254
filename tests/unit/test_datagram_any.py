"""Whatever octets a datagram has: it is decoded or it is not, and what comes out is bounded."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mtastsd.postfix import datagram
from mtastsd.postfix.datagram import MAX_DETAILS, MAX_POLICIES, BadDatagram, decode
from mtastsd.tlsrpt.session import MAX_STRINGS, MAX_STRINGS_SIZE, Session
from tests.unit.test_datagram import AT, SAMPLES, make, policy

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([0, 1, 2, 9])
)
_TOP = ("dpv", "d", "pr", "policies")
_OF_POLICY = ("policy-type", "policy-domain", "policy-string", "mx-host", "failure-details", "t")
_OF_FAILURE = ("f", "c", "s", "n", "h", "r", "a", "x")
_KEYS = st.sampled_from(_TOP + _OF_POLICY + _OF_FAILURE)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=6),
    max_leaves=30,
)


def check(decoded: tuple[Session, ...] | BadDatagram) -> None:
    """What is promised of anything that comes out."""
    if isinstance(decoded, BadDatagram):
        assert decoded.why in datagram.Why.__args__  # type: ignore[attr-defined]
        return
    assert 1 <= len(decoded) <= MAX_POLICIES
    assert len({s.policy for s in decoded}) == len(decoded)
    for session in decoded:
        assert len(session.policy.strings) <= MAX_STRINGS
        assert all(text.isprintable() for text in session.policy.strings)
        assert sum(map(len, session.policy.strings)) <= MAX_STRINGS_SIZE
        assert len(session.policy.mx) <= MAX_STRINGS
        assert len(set(session.details)) == len(session.details) <= MAX_DETAILS
        for d in session.details:
            texts = (d.sending_ip, d.mx_host, d.mx_ip, d.helo, d.reason, d.more)
            assert all(t.isascii() and t.isprintable() and len(t) <= 255 for t in texts)


@given(st.binary(max_size=400))
def test_any_octets(raw: bytes) -> None:
    check(decode(raw, AT))


@given(_JSON)
def test_any_json(value: object) -> None:
    check(decode(json.dumps(value).encode(), AT))


@given(st.dictionaries(_KEYS, _JSON), st.dictionaries(_KEYS, _JSON), st.dictionaries(_KEYS, _JSON))
def test_any_fields(
    top: dict[str, object], inner: dict[str, object], failure: dict[str, object]
) -> None:
    policies = [policy(failures=[failure]) | inner, policy(type=1) | inner]
    check(decode(make(**({"policies": policies} | top)), AT))
    check(decode(make(policies), AT))


@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 30), st.binary(max_size=5))),
)
def test_damaged_samples(sample: dict[str, Any], damages: list[tuple[int, int, bytes]]) -> None:
    raw = sample["datagram"].encode()
    for place, cut, put in damages:
        at = place % (len(raw) + 1)
        raw = raw[:at] + put + raw[at + cut :]
    check(decode(raw, AT))
