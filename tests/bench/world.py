"""A closed world of domains: certificates, nginx as the policy host of all, and a DNS server.

    dN.policy.test   an enforce policy, two MX hosts, all unsigned
    nN.none.test     two MX hosts and nothing else

Ports 53 and 443 of loopback are the world's own: it runs in a network namespace. As a program
(`world.py DIRECTORY`) this is the DNS server; it counts the questions by type and writes the
counts to DIRECTORY/questions.json at SIGUSR1.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import signal
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

POLICY_ZONE, NONE_ZONE = "policy.test", "none.test"
POLICY = ("version: STSv1", "mode: enforce", "mx: mx1.{0}", "mx: mx2.{0}", "max_age: 604800", "")
RECORD = b"v=STSv1; id=20260101T000000;"
TTL = 3600
A, SOA, MX, TXT = 1, 6, 15, 16
NAMES = {A: "A", SOA: "SOA", MX: "MX", TXT: "TXT", 28: "AAAA", 52: "TLSA"}
HEAD = struct.Struct("!HHHHHH")
FLAGS_OK, NXDOMAIN = 0x8180, 3


def with_policy(first: int, count: int) -> list[str]:
    return [f"d{n}.{POLICY_ZONE}" for n in range(first, first + count)]


def without_policy(first: int, count: int) -> list[str]:
    return [f"n{n}.{NONE_ZONE}" for n in range(first, first + count)]


# -- certificates and nginx


class Authority:
    """A certificate authority, and the one key of all its policy hosts."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._host_key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark authority")])
        self._key_id = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = self._builder(self._subject, self._key.public_key())
        for extension, critical in (
            (x509.BasicConstraints(True, None), True),
            (self._key_id, False),
            (usage, True),
        ):
            builder = builder.add_extension(extension, critical)
        self.pem = self._sign(builder)
        self.host_key_pem = self._host_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def certificate(self, host: str) -> bytes:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._key_id)
        builder = (
            self._builder(subject, self._host_key.public_key())
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(issuer_id, critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        )
        return self._sign(builder)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=7))
        )

    def _sign(self, builder: x509.CertificateBuilder) -> bytes:
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)


NGINX = """\
user root; daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/nginx.log warn;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
  access_log {dir}/gets.log;
  client_body_temp_path {dir}/tmp; proxy_temp_path {dir}/tmp; fastcgi_temp_path {dir}/tmp;
  uwsgi_temp_path {dir}/tmp; scgi_temp_path {dir}/tmp;
  server {{
    listen 127.0.0.1:443 ssl backlog=4096;
    ssl_certificate {dir}/certificates/$ssl_server_name.pem;
    ssl_certificate_key {dir}/host.key;
    server_name ~^mta-sts\\.(?<domain>.+)$;
    location = /.well-known/mta-sts.txt {{
      default_type text/plain;
      return 200 "{policy}";
    }}
  }}
}}
"""


def make(directory: Path, domains: list[str]) -> None:
    """All that nginx needs to serve the policies of these domains, and `ca.pem`."""
    authority = Authority()
    certificates = directory / "certificates"
    certificates.mkdir()
    (directory / "tmp").mkdir()
    for domain in domains:
        host = f"mta-sts.{domain}"
        (certificates / f"{host}.pem").write_bytes(authority.certificate(host))
    (directory / "ca.pem").write_bytes(authority.pem)
    (directory / "host.key").write_bytes(authority.host_key_pem)
    policy = r"\r\n".join(POLICY).format("$domain")  # escapes are undone by nginx
    config = NGINX.format(dir=directory, policy=policy)
    (directory / "nginx.conf").write_text(config, "ascii")


# -- the DNS server


def name(text: str) -> bytes:
    labels = [label for label in text.encode("ascii").split(b".") if label]
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def record(owner: bytes, rdtype: int, data: bytes) -> bytes:
    return owner + struct.pack("!HHIH", rdtype, 1, TTL, len(data)) + data


class Names(asyncio.DatagramProtocol):
    """Answers from the rules in this module's head; whoever asks for more gets NXDOMAIN."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._counts: Counter[str] = Counter()
        self._built: dict[bytes, tuple[str, int, int, int, bytes]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def write_counts(self) -> None:
        temporary = self._directory / "questions.tmp"
        temporary.write_text(json.dumps(self._counts), "ascii")
        temporary.rename(self._directory / "questions.json")
        self._counts.clear()

    def datagram_received(self, data: bytes, address: object) -> None:
        end = data.find(b"\0", HEAD.size) + 1
        question = data[HEAD.size : end + 4].lower()
        if (built := self._built.get(question)) is None:
            built = self._built[question] = self._build(question)
        kind, flags, answers, authority, body = built
        self._counts[kind] += 1
        ident = int.from_bytes(data[:2], "big")
        head = HEAD.pack(ident, flags, 1, answers, authority, 0)
        self._transport.sendto(head + data[HEAD.size : end + 4] + body, address)  # type: ignore[attr-defined]

    def _build(self, question: bytes) -> tuple[str, int, int, int, bytes]:
        owner, (rdtype,) = question[:-4], struct.unpack("!H", question[-4:-2])
        labels = [label.decode("latin-1") for label in _labels(owner)]
        zone = ".".join(labels[-2:])
        exists, found = _data(labels, rdtype)
        kind = NAMES.get(rdtype, str(rdtype)) + ("" if found else "-none")
        if found:
            answers = b"".join(record(owner, rdtype, data) for data in found)
            return kind, FLAGS_OK, len(found), 0, answers
        numbers = struct.pack("!IIIII", 1, 7200, 900, 1209600, 900)
        soa = record(name(zone), SOA, name(f"ns.{zone}") + name(f"root.{zone}") + numbers)
        return kind, FLAGS_OK | (0 if exists else NXDOMAIN), 0, 1, soa


def _labels(owner: bytes) -> Iterator[bytes]:
    at = 0
    while size := owner[at]:
        yield owner[at + 1 : at + 1 + size]
        at += 1 + size


def _data(labels: list[str], rdtype: int) -> tuple[bool, list[bytes]]:
    """Whether the name exists, and the data of its records of that type."""
    zone, below = ".".join(labels[-2:]), labels[:-3]
    domain = ".".join(labels[-3:])
    if zone not in (POLICY_ZONE, NONE_ZONE) or len(labels) < 3:
        return len(labels) < 3, []
    if not below:
        hosts = [struct.pack("!H", 10 * n) + name(f"mx{n}.{domain}") for n in (1, 2)]
        return True, hosts if rdtype == MX else []
    hosts_here = [["mx1"], ["mx2"]] + ([["mta-sts"]] if zone == POLICY_ZONE else [])
    if below in hosts_here:
        return True, [bytes((127, 0, 0, 1))] if rdtype == A else []
    if below == ["_mta-sts"] and zone == POLICY_ZONE:
        return True, [bytes((len(RECORD),)) + RECORD] if rdtype == TXT else []
    return False, []


async def serve(directory: Path) -> None:
    loop = asyncio.get_running_loop()
    _, names = await loop.create_datagram_endpoint(
        lambda: Names(directory), local_addr=("127.0.0.1", 53)
    )
    loop.add_signal_handler(signal.SIGUSR1, names.write_counts)
    print("up", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
