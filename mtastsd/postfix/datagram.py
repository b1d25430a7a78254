"""libtlsrpt's datagrams, protocol version 1: one JSON object for each SMTP session.

Postfix writes well-formed ones, the library copies octets from 0x80 raw, and whoever may write to
the socket can send anything. So decoding has two stages: a typed one for what is as it should be,
and, where that refuses, a tolerant one that takes any JSON with the octets that are not UTF-8
replaced. Both give the same `_Datagram`, and nothing raises.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import msgspec

from mtastsd import names
from mtastsd.names import Domain, NotADomain
from mtastsd.postfix.details import address, host_name, printable
from mtastsd.tlsrpt.session import (
    MAX_REASON,
    Detail,
    PolicyKey,
    PolicyType,
    ResultType,
    Session,
    bounded,
)

VERSION = "1"
"""The protocol version that is known; libtlsrpt before 0.5.1 names none."""

MAX_POLICIES = 8
"""Policies of one datagram that are read: Postfix sends one, two can hold for a domain."""

MAX_DETAILS = 16
"""Failures of one policy that are read: Postfix sends one at most."""

MAX_MORE = 255
"""Characters of additional-information; a longer URI is left out."""

Why = Literal["json", "shape", "version", "domain", "policies", "policy-type", "result"]


@dataclass(frozen=True, slots=True)
class BadDatagram:
    """A datagram that tells of no session, and the stable word that says why.

    `json`: no JSON; `shape`: no object; `version`: of a protocol that we don't know; `domain`: its
    domain is none; `policies`: it has none; `policy-type`: of no known kind; `result`: it does not
    say what came of the session.
    """

    why: Why


class _Failure(msgspec.Struct, gc=False):
    c: int | None = None
    s: str | None = None
    n: str | None = None
    h: str | None = None
    r: str | None = None
    a: str | None = None
    f: str | None = None


class _Policy(msgspec.Struct, gc=False):
    type: int | None = msgspec.field(name="policy-type", default=None)
    f: int | None = None
    domain: str | None = msgspec.field(name="policy-domain", default=None)
    strings: list[str] = msgspec.field(name="policy-string", default_factory=list)
    mx: list[str] = msgspec.field(name="mx-host", default_factory=list)
    failures: list[_Failure] = msgspec.field(name="failure-details", default_factory=list)


class _Datagram(msgspec.Struct, gc=False):
    d: str = ""
    policies: list[_Policy] = []
    dpv: str | None = None


_TYPED = msgspec.json.Decoder(_Datagram)

_POLICY_TYPES: Mapping[int | None, PolicyType] = MappingProxyType(
    {1: "tlsa", 2: "sts", 9: "no-policy-found"}
)

_CODES: Mapping[int, ResultType] = MappingProxyType(
    {
        201: ResultType.STARTTLS_NOT_SUPPORTED,
        202: ResultType.CERTIFICATE_HOST_MISMATCH,
        203: ResultType.CERTIFICATE_NOT_TRUSTED,
        204: ResultType.CERTIFICATE_EXPIRED,
        205: ResultType.VALIDATION_FAILURE,
        301: ResultType.STS_POLICY_FETCH_ERROR,
        302: ResultType.STS_POLICY_INVALID,
        303: ResultType.STS_WEBPKI_INVALID,
        304: ResultType.TLSA_INVALID,
        305: ResultType.DNSSEC_INVALID,
        306: ResultType.DANE_REQUIRED,
    }
)

_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_TLSA = re.compile(r"([0-9]{1,3}) +([0-9]{1,3}) +([0-9]{1,3}) +([0-9a-fA-F ]+)", re.ASCII)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+", re.ASCII)
_REPLY_CODE = re.compile(r"[0-9]{3}[ -]", re.ASCII)
_WORD_END = re.compile(r"[\r\n\t ]")


def decode(raw: bytes, at: float) -> tuple[Session, ...] | BadDatagram:
    """The sessions of a datagram that was received `at`, one for each of its policies.

    There is one policy in all that Postfix sends. Of several each counts the session in its own
    summary, with its own result (RFC 8460 §4.4: results are told by policy); the same policy twice
    is one, and failed if it failed once. A final result of success with failures (recovered from)
    and of failure without any are both as the protocol has it. Never raises.
    """
    try:
        told = _TYPED.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        tolerated = _tolerant(raw)
        if isinstance(tolerated, BadDatagram):
            return tolerated
        told = tolerated
    if told.dpv is not None and told.dpv != VERSION:
        return BadDatagram("version")
    domain = names.parse(told.d)
    if isinstance(domain, NotADomain):
        return BadDatagram("domain")
    if len(told.policies) == 1:
        session = _session(told.policies[0], domain, told.d, at)
        return session if isinstance(session, BadDatagram) else (session,)
    return _several(told, domain, at)


def _several(told: _Datagram, domain: Domain, at: float) -> tuple[Session, ...] | BadDatagram:
    if not told.policies:
        return BadDatagram("policies")
    by_policy: dict[PolicyKey, Session] = {}
    for policy in told.policies[:MAX_POLICIES]:
        session = _session(policy, domain, told.d, at)
        if isinstance(session, BadDatagram):
            return session
        other = by_policy.get(session.policy)
        by_policy[session.policy] = session if other is None else _merged(other, session)
    return tuple(by_policy.values())


def _merged(one: Session, other: Session) -> Session:
    details = tuple(dict.fromkeys(one.details + other.details))
    success = one.success and other.success
    return Session(one.at, one.domain, one.policy, success, details)


def _session(policy: _Policy, domain: Domain, d: str, at: float) -> Session | BadDatagram:
    """One policy's view of the session. `d` is the text that `domain` was made of."""
    kind = _POLICY_TYPES.get(policy.type)
    if kind is None:
        return BadDatagram("policy-type")
    if policy.f is None:
        return BadDatagram("result")
    key = _policy_key(kind, policy, domain, d)
    return Session(at, domain, key, policy.f == 0, _details(policy.failures))


def _policy_key(kind: PolicyType, policy: _Policy, domain: Domain, d: str) -> PolicyKey:
    """Postfix before 3.10.5 names no policy domain where there is no policy; it is `domain`, as it
    is for one that can't be read: a report has to name one."""
    base = domain
    if policy.domain is not None and policy.domain != d:
        named = names.parse(policy.domain)
        base = domain if isinstance(named, NotADomain) else named
    if kind == "no-policy-found":
        return PolicyKey(kind, base)
    if kind == "tlsa":
        records = {record for record in map(_tlsa, policy.strings) if record}
        return PolicyKey(kind, base, bounded(sorted(records)))
    return PolicyKey(kind, base, bounded(map(_line, policy.strings)), _patterns(policy.mx))


def _line(text: str) -> str:
    """A policy's line, UTF-8 and all, with `?` for what cannot be printed."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)


def _tlsa(text: str) -> str:
    """A TLSA record with single blanks and upper-case digits, as Postfix writes it; "" for none.

    RFC 6698 §2.2 allows blanks within the data.
    """
    found = _TLSA.fullmatch(text)
    if found is None:
        return ""
    data = found[4].replace(" ", "").upper()
    numbers = [int(number) for number in found.groups()[:3]]
    if len(data) % 2 or max(numbers) > 255:
        return ""
    return "{} {} {} {}".format(*numbers, data)


def _patterns(patterns: list[str]) -> tuple[str, ...]:
    """MX patterns that are a host name or `*.` and a domain, as A-labels, each once."""
    return bounded(dict.fromkeys(pattern for pattern in map(_pattern, patterns) if pattern))


def _pattern(text: str) -> str:
    if text.startswith("*."):
        parent = names.parse("a" + text[1:])  # `*.example` is a pattern, `example` no Domain
        return "" if isinstance(parent, NotADomain) else "*" + parent[1:]
    return host_name(text)


def _details(failures: list[_Failure]) -> tuple[Detail, ...]:
    """Each detail once: they count sessions, and this is one."""
    if not failures:
        return ()
    return tuple(dict.fromkeys(map(_detail, failures[:MAX_DETAILS])))


def _detail(failure: _Failure) -> Detail:
    code, more = failure.c, failure.a or ""
    reason = printable(failure.f or "", MAX_REASON)
    result = _CODES.get(code) if code is not None else ResultType.VALIDATION_FAILURE
    if result is None:
        result, reason = ResultType.VALIDATION_FAILURE, f"libtlsrpt-code-{code}"[:MAX_REASON]
    return Detail(
        result,
        address(failure.s or ""),
        host_name(failure.n or ""),
        address(failure.r or ""),
        _helo(failure.h or ""),
        reason,
        more if len(more) <= MAX_MORE and _URI.fullmatch(more) else "",
    )


def _helo(reply: str) -> str:
    """The host name of an EHLO reply. Postfix hands over all its lines, `250-mx.example.com`, and
    what follows the name changes with each session of some servers."""
    first = reply[: names.MAX_TEXT]
    if _REPLY_CODE.match(first):
        first = first[4:]
    return host_name(_WORD_END.split(first, maxsplit=1)[0])


def _tolerant(raw: bytes) -> _Datagram | BadDatagram:
    """Any JSON: NaN, control characters in strings, numbers for strings and strings for numbers.

    A number of more digits than mean anything here is no number, before it costs quadratic time.
    """
    try:
        value = json.loads(
            raw.decode("utf-8", "replace"),
            strict=False,
            parse_int=_integer,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError):
        return BadDatagram("json")
    if not isinstance(value, dict):
        return BadDatagram("shape")
    return _Datagram(
        _text(value.get("d")) or "",
        [_any_policy(policy) for policy in _list(value.get("policies"))[:MAX_POLICIES]],
        _text(value.get("dpv")),
    )


def _any_policy(value: object) -> _Policy:
    if not isinstance(value, dict):
        return _Policy()
    return _Policy(
        _number(value.get("policy-type")),
        _number(value.get("f")),
        _text(value.get("policy-domain")),
        _texts(value.get("policy-string")),
        _texts(value.get("mx-host")),
        [_any_failure(failure) for failure in _list(value.get("failure-details"))[:MAX_DETAILS]],
    )


def _any_failure(value: object) -> _Failure:
    if not isinstance(value, dict):
        return _Failure()
    texts = [_text(value.get(key)) for key in ("s", "n", "h", "r", "a", "f")]
    return _Failure(_number(value.get("c")), *texts)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    read = [_text(item) for item in _list(value)]
    return [text for text in read if text is not None]


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) else None


def _number(value: object) -> int | None:
    if isinstance(value, str):
        return _integer(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 1e18 else None
    return int(value) if isinstance(value, int) else None


def _integer(digits: str) -> int | None:
    return int(digits) if _INTEGER.fullmatch(digits) else None


def _no_number(_: str) -> None:
    return None
