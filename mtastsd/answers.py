"""What DNS said, as values: an answer, no data, or an error. Nothing else is possible.

A resolver adapter makes these; the rules of `dane` and `sts.flow` take them. An error is never
"no such record": an attacker who can drop a packet would otherwise switch a policy off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from mtastsd.names import Domain

T = TypeVar("T")

DnsWhy = Literal["timeout", "servfail", "refused", "malformed", "network", "no-server", "name"]
"""Why there is no answer; `name`: the name is too long or otherwise can't be asked for."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """Records were found. `ttl` in seconds is the lowest of the chain, CNAMEs included.

    `secure` is the AD bit of a server whose AD bit is believed, for the whole chain.
    `name` is the owner of the records, after all CNAMEs; `aliased` says that there were any.
    """

    records: tuple[T, ...]
    ttl: int
    secure: bool
    name: str
    aliased: bool = False


@dataclass(frozen=True, slots=True)
class NoData:
    """The name does not exist (`exists` false) or has no record of this type.

    `ttl` in seconds is the negative one of RFC 2308 §5, 0 where the answer brought no SOA.
    """

    exists: bool
    ttl: int
    secure: bool
    aliased: bool = False


@dataclass(frozen=True, slots=True)
class DnsError:
    """No answer could be had; nothing is known."""

    why: DnsWhy


@dataclass(frozen=True, slots=True)
class Mx:
    """One MX record. `host` is None for the null MX (RFC 7505) and for names that are no host's."""

    preference: int
    host: Domain | None
    null: bool = False


@dataclass(frozen=True, slots=True)
class Tlsa:
    """One TLSA record, RFC 6698 §2.1."""

    usage: int
    selector: int
    matching: int
    data: bytes


TxtAnswer = Answer[bytes] | NoData | DnsError
"""Each record is one octet string, its character-strings joined without a blank."""
MxAnswer = Answer[Mx] | NoData | DnsError
AddressAnswer = Answer[str] | NoData | DnsError
"""Addresses in their canonical text form."""
TlsaAnswer = Answer[Tlsa] | NoData | DnsError
