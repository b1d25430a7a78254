"""What hosts do right and wrong, and what must come of it: the tables of `test_https`."""

from __future__ import annotations

import gzip
import ssl
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import trustme

from mtastsd.ports import Fetched, FetchOutcome
from mtastsd.sts.failure import Failure, Kind
from tests.io.fakehttps import (
    FakeHttps,
    Peer,
    Script,
    chunked,
    handshake,
    policy,
    reply,
    response,
    self_signed,
    server_context,
)

HOST = "mta-sts.example.com"
POLICY = b"version: STSv1\r\nmode: enforce\r\nmx: mx.example.com\r\nmax_age: 604800\r\n"
OK = Fetched(POLICY)
LIMIT = 2000
"""`max_bytes` of the tests."""

OK_LINE = b"HTTP/1.1 200 OK"
PLAIN = b"Content-Type: text/plain"
GZIP = b"Content-Encoding: gzip"
DEFLATE = b"Content-Encoding: deflate"
CHUNKS = b"Transfer-Encoding: chunked"


def raw(*lines: bytes, body: bytes = b"") -> Script:
    """Just these lines, an empty one, and the body."""
    return reply(b"\r\n".join(lines) + b"\r\n\r\n" + body)


def plain(*fields: bytes, body: bytes = b"") -> Script:
    """A good head with these fields more and no Content-Length."""
    return raw(OK_LINE, PLAIN, *fields, body=body)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


async def reset(peer: Peer) -> None:
    peer.reset()


async def reset_in_body(peer: Peer) -> None:
    await peer.send(OK_LINE + b"\r\nContent-Length: 99\r\n" + PLAIN + b"\r\n\r\nx")
    peer.reset()


async def cut_off(peer: Peer) -> None:
    await peer.send(OK_LINE + b"\r\n" + PLAIN + b"\r\n\r\n" + POLICY[:60])
    peer.cut()


PACKED = gzip.compress(POLICY)
ZEROS = gzip.compress(b"\0" * 1_000_000)
MORE_ZEROS = gzip.compress(b"\0" * 20_000_000)
assert len(ZEROS) < LIMIT < len(MORE_ZEROS)
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
HINTED = EARLY + OK_LINE + b"\r\n" + PLAIN + b"\r\nContent-Length: 1\r\n\r\nx"

GOOD: dict[str, tuple[Script, bytes]] = {
    "policy": (policy(POLICY), POLICY),
    "empty": (policy(b""), b""),
    "charset": (response(POLICY, kind=b"text/plain; charset=utf-8"), POLICY),
    "upper case type": (response(POLICY, kind=b'TEXT/Plain ;charset="x;y"'), POLICY),
    "type said twice": (response(POLICY, PLAIN), POLICY),
    "lower case": (raw(OK_LINE, b"content-type:text/plain", b"content-length:1", body=b"x"), b"x"),
    "http/1.0": (raw(b"HTTP/1.0 200 OK", PLAIN, body=POLICY), POLICY),
    "until the end": (plain(body=POLICY), POLICY),
    "chunked": (chunked(POLICY[:10], POLICY[10:]), POLICY),
    "interim": (reply(HINTED), b"x"),
    "gzip": (response(PACKED, GZIP), POLICY),
    "x-gzip": (response(PACKED, b"Content-Encoding: X-GZIP"), POLICY),
    "deflate": (response(zlib.compress(POLICY), DEFLATE), POLICY),
    "raw deflate": (response(raw_deflate(POLICY), DEFLATE), POLICY),
    "identity": (response(POLICY, b"Content-Encoding: identity"), POLICY),
    "just fits": (policy(b"x" * LIMIT), b"x" * LIMIT),
    "gzip just fits": (response(gzip.compress(b"x" * LIMIT), GZIP), b"x" * LIMIT),
}

BAD: list[tuple[Kind, str, Script, str]] = [
    ("status", "404", response(b"no", status=b"404 Not Found"), "404"),
    ("status", "500", response(b"no", status=b"500 Sorry"), "500"),
    ("status", "204", raw(b"HTTP/1.1 204 No Content", PLAIN), "204"),
    ("status", "206", response(POLICY, status=b"206 Partial"), "206"),
    ("status", "endless", raw(b"HTTP/1.1 404 No", b"Content-Length: 99999999"), "404"),
    ("redirect", "301", raw(b"HTTP/1.1 301", b"Location: https://a/\x80\xff"), "301 https://a/??"),
    ("redirect", "to nowhere", response(b"", status=b"308 Moved"), "308"),
    ("redirect", "304", raw(b"HTTP/1.1 304 Not Modified"), "304"),
    ("type", "html", response(POLICY, kind=b"text/html; a=b"), "text/html; a=b"),
    ("type", "missing", response(POLICY, kind=None), "missing"),
    ("type", "empty", response(POLICY, kind=b""), ""),
    ("type", "like plain", response(POLICY, kind=b"text/plainer"), "text/plainer"),
    ("type", "list", response(POLICY, kind=b"text/plain, a/b"), "text/plain, a/b"),
    ("type", "two", response(POLICY, b"Content-Type: text/html"), "text/html"),
    ("size", "length", policy(b"x" * (LIMIT + 1)), "Content-Length 2001"),
    ("size", "length alone", plain(b"Content-Length: 99999999999"), "Content-Length 99999999999"),
    ("size", "chunks", chunked(*[b"x" * 500] * 5), "more than 2000 octets"),
    ("size", "until the end", plain(body=b"x" * (LIMIT + 1)), "more than 2000 octets"),
    ("size", "decoded", response(gzip.compress(b"x" * (LIMIT + 1)), GZIP), "~ octets decoded"),
    ("size", "bomb", response(ZEROS, GZIP), "~ octets decoded"),
    ("size", "bomb in chunks", chunked(ZEROS, fields=GZIP + b"\r\n"), "~ octets decoded"),
    ("size", "big bomb", chunked(MORE_ZEROS, fields=GZIP + b"\r\n"), "more than 2000 octets"),
    ("encoding", "br", response(POLICY, b"Content-Encoding: br"), "br"),
    ("encoding", "a list", response(PACKED, b"Content-Encoding: gzip, gzip"), "gzip, gzip"),
    ("encoding", "two fields", response(PACKED, GZIP, GZIP), "gzip, gzip"),
    ("encoding", "no gzip", response(POLICY, GZIP), "~"),
    ("encoding", "check sum", response(PACKED[:-8] + b"\0" * 8, GZIP), "~"),
    ("encoding", "half", response(PACKED[:-9], GZIP), "truncated"),
    ("encoding", "nothing", response(b"", GZIP), "truncated"),
    ("encoding", "more behind", response(PACKED + b"x", GZIP), "data behind the end"),
    ("encoding", "no deflate", response(b"\xff\xff\xff", DEFLATE), "~"),
    ("protocol", "http/0.9", reply(POLICY), "~"),
    ("protocol", "no line", reply(b"x" * 3000), "~"),
    ("protocol", "long line", reply(b"HTTP/1.1 200 " + b"x" * 100_000), "~"),
    ("protocol", "many fields", plain(*[b"X-%d: y" % n for n in range(5000)]), "~"),
    ("protocol", "huge field", plain(b"X: " + b"y" * 30_000), "~"),
    ("protocol", "http/2", reply(b"\0\0\x12\x04\0\0\0\0\0"), "~"),
    ("protocol", "switches", raw(b"HTTP/1.1 101 Switching", b"Upgrade: x"), "~"),
    ("protocol", "interims", reply(EARLY * 1000), "head of more than 16384 octets"),
    ("protocol", "crumbs", chunked(*[b"x"] * 1500), "more than 1024 pieces"),
    ("protocol", "two lengths", response(POLICY, b"Content-Length: 1"), "~"),
    ("protocol", "signed length", plain(b"Content-Length: +5", body=b"abcde"), "~"),
    ("protocol", "long length", plain(b"Content-Length: " + b"9" * 5000), "~"),
    ("protocol", "no chunk", plain(CHUNKS, body=b"zz\r\n"), "~"),
    ("protocol", "no last chunk", plain(CHUNKS, body=b"1\r\nx\r\n"), "~"),
    ("protocol", "other transfer coding", plain(b"Transfer-Encoding: gzip"), "~"),
    ("protocol", "shorter than said", plain(b"Content-Length: 9", body=b"x"), "~"),
    ("protocol", "silence", reply(b""), "closed without a response"),
    ("connect", "reset", reset, "connection-reset"),
    ("connect", "reset in body", reset_in_body, "connection-reset"),
    ("connect", "cut off", cut_off, "closed without TLS close_notify"),
]
"""Kind, name, what the host does, and the detail; one that starts with "~" ends so."""

ANSWERS: dict[str, tuple[Script, FetchOutcome]] = {
    **{name: (script, Fetched(body)) for name, (script, body) in GOOD.items()},
    **{f"{kind}: {name}": (script, Failure(kind, why)) for kind, name, script, why in BAD},
}
assert len(ANSWERS) == len(GOOD) + len(BAD)


async def wrong_name(world: FakeHttps) -> None:
    await world.serve(HOST, policy(POLICY), certificate=world.certificate("example.com"))


async def cn_only(world: FakeHttps) -> None:
    leaf = world.certificate(common_name=HOST)
    await world.serve(HOST, policy(POLICY), certificate=leaf)


async def wildcard(world: FakeHttps) -> None:
    await world.serve(HOST, policy(POLICY), certificate=world.certificate("*.example.com"))


async def wide_wildcard(world: FakeHttps) -> None:
    await world.serve(HOST, policy(POLICY), certificate=world.certificate("*.com"))


async def expired(world: FakeHttps) -> None:
    await world.serve(HOST, policy(POLICY), certificate=world.certificate(HOST, days=-1))


async def not_yet(world: FakeHttps) -> None:
    await world.serve(HOST, policy(POLICY), certificate=world.certificate(HOST, days=400))


async def self_made(world: FakeHttps) -> None:
    await world.serve(HOST, policy(POLICY), certificate=self_signed(HOST))


async def unknown_ca(world: FakeHttps) -> None:
    await world.serve(HOST, policy(POLICY), certificate=trustme.CA().issue_cert(HOST))


async def unknown_root(world: FakeHttps) -> None:
    other = trustme.CA()
    context = server_context(other.issue_cert(HOST))
    chain = Path(world.ca_file).with_name("chain.pem")
    leaf = other.issue_cert(HOST)
    chain.write_bytes(
        leaf.private_key_pem.bytes() + leaf.cert_chain_pems[0].bytes() + other.cert_pem.bytes()
    )
    context.load_cert_chain(chain)
    await world.serve(HOST, policy(POLICY), certificate=context)


async def tls11(world: FakeHttps) -> None:
    context = server_context(world.certificate(HOST), tls11=True)
    await world.serve_raw(HOST, handshake(context))


async def no_tls(world: FakeHttps) -> None:
    await world.serve_raw(HOST, plain(body=POLICY))


async def wants_certificate(world: FakeHttps) -> None:
    context = server_context(world.certificate(HOST))
    context.verify_mode = ssl.CERT_REQUIRED
    await world.serve_raw(HOST, handshake(context))


async def resets_handshake(world: FakeHttps) -> None:
    await world.serve_raw(HOST, reset)


async def closes_handshake(world: FakeHttps) -> None:
    await world.serve_raw(HOST, reply(b""))


async def refuses(world: FakeHttps) -> None:
    world.dead(HOST)


PEERS: dict[str, tuple[Callable[[FakeHttps], Awaitable[None]], FetchOutcome]] = {
    "wildcard": (wildcard, OK),
    "wide wildcard": (wide_wildcard, Failure("tls", "hostname-mismatch at ADDRESS")),
    "wrong name": (wrong_name, Failure("tls", "hostname-mismatch at ADDRESS")),
    "common name only": (cn_only, Failure("tls", "hostname-mismatch at ADDRESS")),
    "expired": (expired, Failure("tls", "certificate-expired at ADDRESS")),
    "not yet valid": (not_yet, Failure("tls", "certificate-not-yet-valid at ADDRESS")),
    "self-signed": (self_made, Failure("tls", "self-signed at ADDRESS")),
    "unknown CA": (unknown_ca, Failure("tls", "unknown-issuer at ADDRESS")),
    "unknown root": (unknown_root, Failure("tls", "untrusted-root at ADDRESS")),
    "TLS 1.1": (tls11, Failure("tls", "protocol-version at ADDRESS")),
    "no TLS": (no_tls, Failure("tls", "not-tls at ADDRESS")),
    "client certificate": (wants_certificate, Failure("tls", "~-required")),
    "reset": (resets_handshake, Failure("connect", "connection-reset at ADDRESS")),
    "closed": (closes_handshake, Failure("connect", "connection-reset at ADDRESS")),
    "refused": (refuses, Failure("connect", "connection-refused at ADDRESS")),
}


async def stall(peer: Peer) -> None:
    await peer.gone()


async def stall_in_fields(peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-")
    await peer.gone()


async def stall_in_body(peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\nx")
    await peer.gone()


async def drip(peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 999\r\n\r\n")
    while not await peer.gone(within=0.01):
        await peer.send(b"x")


async def drip_fields(peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\n")
    while not await peer.gone(within=0.01):
        await peer.send(b"X: y\r\n")


async def drip_handshake(peer: Peer) -> None:
    await peer.send(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")  # a ServerHello of 16 KiB begins
    while not await peer.gone(within=0.01):
        await peer.send(b"\0")


SLOW: dict[str, tuple[Script, bool, str]] = {
    "before the fields": (stall, True, "response"),
    "in the fields": (stall_in_fields, True, "response"),
    "in the body": (stall_in_body, True, "response"),
    "drip": (drip, True, "response"),
    "drip of fields": (drip_fields, True, "response"),
    "in the handshake": (stall, False, "connect"),
    "drip in the handshake": (drip_handshake, False, "connect"),
}
