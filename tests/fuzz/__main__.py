"""Feeds mutated samples to every decoder of remote octets, until the time is up or one raises.

The property tests draw from grammars and run in seconds; this goes on for as long as it is let, on
whole samples cut, joined and changed octet by octet. A failure prints its seed and input: make a
row of it in the decoder's table test.
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from mtastsd.net import dnswire
from mtastsd.postfix import datagram, netstring, nexthop, socketmap, syslog
from mtastsd.postfix.maillog import MailLog
from mtastsd.sts import policy
from mtastsd.sts import record as sts_record
from mtastsd.tlsrpt import message, report
from mtastsd.tlsrpt import record as tlsrpt_record

DATA = Path(__file__).parents[1] / "data"
MAX_INPUT = 4096

Target = Callable[[bytes], object]

QUESTION = dnswire.question("_mta-sts.example.com", 16)
assert QUESTION is not None
HEAD = struct.pack("!HHHHHH", 1, 0x8180, 1, 1, 0, 0) + QUESTION.section
RECORD = b"\xc0\x0c\0\x10\0\1\0\0\0\x3c\0\x0e\x0dv=STSv1; id=1"


def _netstring(octets: bytes) -> object:
    with suppress(netstring.NetstringError):
        return netstring.Decoder(1000).feed(octets)
    return None


def _dns(octets: bytes) -> object:
    assert QUESTION is not None
    message = octets if octets.startswith(HEAD[:2]) else HEAD + octets
    if not dnswire.matches(QUESTION, 1, message):
        return None
    return dnswire.read(QUESTION, dnswire.TXT.value, message)


def _maillog(octets: bytes) -> object:
    log = MailLog()
    for line in octets.decode("utf-8", "replace").split("\n"):
        read = syslog.parse_line(line, 1_790_000_000.0)
        if read is not None:
            log.feed(read.program, read.pid, read.message, read.at, read.host)
    return log.held


TARGETS: dict[str, Target] = {
    "netstring": _netstring,
    "socketmap": socketmap.parse,
    "nexthop": nexthop.parse,
    "sts-record": lambda octets: sts_record.select([octets]),
    "tlsrpt-record": lambda octets: tlsrpt_record.select([octets]),
    "policy": policy.parse,
    "policy-problems": policy.problems,
    "dns": _dns,
    "datagram": lambda octets: datagram.decode(octets, 0.0),
    "maillog": _maillog,
    "report": report.decode,
    "mail": message.extract,
}

PIECES = [
    b"",
    b"\0",
    b"\r\n",
    b"\n",
    b";",
    b"=",
    b":",
    b"{",
    b"}",
    b"[",
    b'"',
    b"\xff\xfe",
    b"\xc0\x0c",
]


def samples() -> Sequence[bytes]:
    """Real datagrams, log lines, and one of each other kind."""
    told = [
        json.loads(line)["datagram"].encode()
        for line in (DATA / "datagrams.jsonl").read_text().splitlines()
    ]
    lines = [line.encode() for line in (DATA / "maillog.txt").read_text().splitlines() if line]
    return [
        *told,
        *lines,
        b"26:postfix [example.com]:587,",
        b"v=STSv1; id=20260101T000000;",
        b"v=TLSRPTv1; rua=mailto:a@example.com,https://example.com/x",
        b"version: STSv1\r\nmode: enforce\r\nmx: *.example.com\r\nmax_age: 86400\r\n",
        b'{"organization-name":"x","date-range":{},"report-id":"1","policies":[{"policy":{}}]}',
        b"Content-Type: multipart/report; boundary=x\r\n\r\n--x\r\n\r\n{}\r\n--x--\r\n",
        HEAD + RECORD,
        RECORD * 3,
    ]


def mutated(chance: random.Random, pool: Sequence[bytes]) -> bytes:
    """A sample with some of it changed."""
    octets = bytearray(chance.choice(pool))
    for _ in range(chance.randrange(6)):
        at = chance.randrange(len(octets) + 1)
        match chance.randrange(5):
            case 0:
                octets[at : at + chance.randrange(8)] = b""
            case 1:
                octets[at:at] = chance.choice(PIECES) * chance.randrange(1, 40)
            case 2:
                octets[at:at] = bytes([chance.randrange(256)])
            case 3 if octets:
                octets[min(at, len(octets) - 1)] ^= 1 << chance.randrange(8)
            case _:
                other = chance.choice(pool)
                octets[at:] = other[chance.randrange(len(other) + 1) :]
    return bytes(octets[:MAX_INPUT])


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.fuzz")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=time.time_ns())
    options = parser.parse_args()
    chance, pool = random.Random(options.seed), samples()
    end, rounds = time.monotonic() + options.seconds, 0
    while time.monotonic() < end:
        octets = mutated(chance, pool)
        for name, target in TARGETS.items():
            try:
                target(octets)
            except Exception as error:
                print(
                    f"seed {options.seed}, round {rounds}: {name} raised {error!r} for {octets!r}"
                )
                return 1
        rounds += 1
    print(f"{rounds} inputs to {len(TARGETS)} decoders: none raised")
    return 0


if __name__ == "__main__":
    sys.exit(main())
