"""The look-up key as Postfix writes it, to the next hop that it names."""

from __future__ import annotations

from dataclasses import dataclass

from mtastsd.names import Domain, NotADomain

SMTP_PORT = 25


@dataclass(frozen=True, slots=True)
class NextHop:
    """A next hop.

    `domain` is the policy domain (RFC 8461 §3.4). `bracketed`: the name is a host, no MX is asked
    for. `port` is 25 unless the key names another.
    """

    domain: Domain
    bracketed: bool = False
    port: int = SMTP_PORT

    @property
    def key(self) -> str:
        """The canonical form: `example.com`, `example.com:587`, `[host.example.com]:587`."""
        host = f"[{self.domain}]" if self.bracketed else self.domain
        return host if self.port == SMTP_PORT else f"{host}:{self.port}"


def parse(key: bytes) -> NextHop | NotADomain:
    """The next hop of a key; NotADomain for all that has no policy, whatever the octets are."""
    raise NotImplementedError
