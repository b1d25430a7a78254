"""DKIM signatures under report mails, RFC 8460 §3, RSA or Ed25519.

load(path, domain, selector)  -> Signer | BadKey      once, at the start
Signer.sign(message)          -> the message, signed
Signer.judge(records)         -> why what DNS has does not fit, None where it does
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import dkim
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from mtastsd.sts.failure import printable

MAX_FILE = 65536
"""Octets of a key file: an RSA key of `MAX_BITS` has three thousand."""

MIN_BITS = 1024
"""Signers use no shorter RSA keys and receivers ignore them, RFC 6376 §3.3.3."""

GOOD_BITS = 2048
"""What an RSA key should have; a shorter one is used with a warning."""

MAX_BITS = 4096
"""The most that every receiver must verify. It takes 45 ms to sign with, and grows by the cube."""

MAX_NAME = 67
"""Characters of the domain and of the selector. dkimpy folds at column 72, within a longer name
too, and a folded name is another name."""

MAX_RECORD = 4096
"""Octets of a key record that is looked at: an RSA key of `MAX_BITS` makes eight hundred."""

SIGNED = (
    "from",
    "to",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "content-type",
    "tls-report-domain",  # with the next one, RFC 8460 §5.3
    "tls-report-submitter",
    "tls-required",
    "auto-submitted",
)
"""Header fields that are signed where they are there. From is signed once more than it is there,
so that nobody can add another (RFC 6376 §5.4.2)."""

Kind = Literal["rsa", "ed25519"]

Why = Literal[
    "unreadable",
    "exposed",  # others than user and group may read it
    "no-key",
    "encrypted",
    "unsupported",  # neither RSA nor Ed25519
    "size",
    "name",  # domain or selector
]

RecordWhy = Literal[
    "missing",
    "several",
    "syntax",
    "revoked",
    "type",  # k=
    "hash",  # h= without sha256
    "service",  # s= with neither tlsrpt nor *
    "key",  # another one
]

_ALGORITHM: dict[Kind, bytes] = {"rsa": b"rsa-sha256", "ed25519": b"ed25519-sha256"}

# tag-list = tag-spec *( ";" tag-spec ) [ ";" ], RFC 6376 §3.2; DNS text has no folding, but WSP
_TAG = re.compile(r"[ \t]*([A-Za-z]\w*)[ \t]*=[ \t]*([!-:<-~ \t]*)", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class BadKey:
    """Why there is no signing with this key; `detail` is for people."""

    why: Why
    detail: str

    def __str__(self) -> str:
        return f"{self.why}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs in the name of `domain`. Can be pickled, for signing in another process.

    `bits` of an RSA key, 256 for Ed25519. `public` is the p= of its record, `warnings` are for
    people. `secret` is the key as dkimpy takes it.
    """

    domain: str
    selector: str
    kind: Kind
    bits: int
    public: str
    secret: bytes = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def record_name(self) -> str:
        """Where receivers look for the public key."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def record(self) -> str:
        """The TXT record to publish there, for reports alone: RFC 8460 §3 wants s=tlsrpt.

        Where the key signs other mail too it must be without s=, which `judge` takes as well.
        """
        return f"v=DKIM1; k={self.kind}; s=tlsrpt; p={self.public}"

    def sign(self, message: bytes) -> bytes:
        """The message with a DKIM-Signature on top, relaxed/relaxed and without l= (RFC 8460 §3).

        Its line ends are CRLF. Pure Python without letting go of the interpreter: 7 ms with RSA of
        2048 bits, 45 ms with 4096, and 45 ms for each MB.
        """
        signing = dkim.DKIM(message, signature_algorithm=_ALGORITHM[self.kind], tlsrpt=True)
        there = {name.decode("ascii").lower() for name, _ in signing.headers}
        names = [name for name in SIGNED if name in there]
        header: bytes = signing.sign(
            self.selector.encode("ascii"),
            self.domain.encode("ascii"),
            self.secret,
            canonicalize=(dkim.Relaxed, dkim.Relaxed),
            include_headers=[name.encode("ascii") for name in (*names, "from")],
        )
        return header + message

    def judge(self, records: Sequence[bytes]) -> RecordWhy | None:
        """Whether the TXT records found at `record_name`, strings joined, fit this key."""
        if not records:
            return "missing"
        if len(records) > 1:  # RFC 6376 §3.6.2: what comes of it is undefined
            return "several"
        tags = _tags(records[0])
        if tags is None or "p" not in tags:
            return "syntax"
        public = re.sub(r"[ \t]", "", tags["p"])
        if not public:
            return "revoked"
        if tags.get("k", "rsa") != self.kind:
            return "type"
        if not _listed(tags.get("h", "sha256")) & {"sha256"}:
            return "hash"
        if not _listed(tags.get("s", "*")) & {"*", "tlsrpt"}:
            return "service"
        return None if public in self._publics() else "key"

    def _publics(self) -> tuple[str, ...]:
        """What p= may be: for RSA also the bare RSAPublicKey that RFC 6376 §3.6.1 speaks of."""
        if self.kind == "ed25519":
            return (self.public,)
        bare = serialization.load_der_public_key(base64.b64decode(self.public)).public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.PKCS1
        )
        return self.public, base64.b64encode(bare).decode("ascii")


def load(path: str, domain: str, selector: str) -> Signer | BadKey:
    """Read a private key: PEM (PKCS#8, PKCS#1), or the base64 of Ed25519 that dknewkey writes.

    The file may be readable by its user and group; systemd's credentials show an ACL as the latter.
    """
    for name in (domain, selector):
        if len(name) > MAX_NAME or not _NAME.fullmatch(name):
            return BadKey("name", f"{printable(name)}: no name of up to {MAX_NAME} characters")
    data = _read(path)
    if isinstance(data, BadKey):
        return data
    key = _parse(data)
    match key:
        case BadKey():
            return key
        case RSAPrivateKey():
            return _rsa(key, domain, selector)
        case Ed25519PrivateKey():
            return _ed25519(key, domain, selector)


def _rsa(key: RSAPrivateKey, domain: str, selector: str) -> Signer | BadKey:
    bits = key.key_size
    if not MIN_BITS <= bits <= MAX_BITS:
        return BadKey("size", f"RSA with {bits} bits, not {MIN_BITS} to {MAX_BITS}")
    advice = f"RSA with {bits} bits is weak: make one with {GOOD_BITS} or more"
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return Signer(
        domain,
        selector,
        "rsa",
        bits,
        base64.b64encode(public).decode("ascii"),
        secret,
        () if bits >= GOOD_BITS else (advice,),
    )


def _ed25519(key: Ed25519PrivateKey, domain: str, selector: str) -> Signer:
    # RFC 8463 §4: the record holds the bare key.
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode("ascii")
    secret = base64.b64encode(key.private_bytes_raw())
    return Signer(domain, selector, "ed25519", 256, public, secret)


def _read(path: str) -> bytes | BadKey:
    try:
        # A FIFO would hold up the start for ever.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(file, "rb") as opened:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                return BadKey("unreadable", f"{path} is no regular file")
            if status.st_mode & stat.S_IRWXO:
                mode = stat.S_IMODE(status.st_mode)
                return BadKey("exposed", f"{path} has mode {mode:04o}: others must have no access")
            data = opened.read(MAX_FILE + 1)
    except OSError as error:
        return BadKey("unreadable", f"{path}: {error.strerror}")
    return data if len(data) <= MAX_FILE else BadKey("no-key", f"over {MAX_FILE} octets")


def _parse(data: bytes) -> RSAPrivateKey | Ed25519PrivateKey | BadKey:
    if b"-----BEGIN" not in data:
        return _bare(data)
    try:
        key = serialization.load_pem_private_key(data, None)
    except TypeError:
        return BadKey("encrypted", "the key must be without a passphrase")
    except (ValueError, UnsupportedAlgorithm):
        return BadKey("no-key", "there is no private key in it that can be read")
    if isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        return key
    return BadKey("unsupported", "the key is neither RSA nor Ed25519")


def _bare(data: bytes) -> Ed25519PrivateKey | BadKey:
    try:
        seed = base64.b64decode(data.strip(b" \t\r\n"), validate=True)
        return Ed25519PrivateKey.from_private_bytes(seed)
    except (binascii.Error, ValueError):
        return BadKey("no-key", "neither PEM nor 32 octets in base64")


def _tags(record: bytes) -> dict[str, str] | None:
    if len(record) > MAX_RECORD:
        return None
    tags: dict[str, str] = {}
    specs = record.decode("latin-1").split(";")
    if not specs[-1].strip(" \t"):
        specs.pop()
    for spec in specs:
        found = _TAG.fullmatch(spec)
        if found is None or found[1] in tags:
            return None
        tags[found[1]] = found[2].rstrip(" \t")
    # RFC 6376 §3.6.1: v= comes first or not at all.
    if "v" in tags and (next(iter(tags)), tags["v"]) != ("v", "DKIM1"):
        return None
    return tags


def _listed(value: str) -> set[str]:
    return {item.strip(" \t") for item in value.split(":")}
