"""The sample log as files of systemd's journal, and how they were made.

`python -m tests.io.journalfiles` makes them anew. It needs systemd-journal-remote, which the tests
do not: it writes journal files out of text that has the fields which only the kernel sets.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.io.logtools import parsed, sample_lines

FOLDER = Path(__file__).parents[1] / "data/journal"
NAMES = ("first", "second")

BOOT = "0123456789abcdef0123456789abcdef"
MACHINE = "fedcba9876543210fedcba9876543210"
_MACHINE_AT = 40
"""Where the header of a file has the machine on which it was made."""

POSTFIX_UID = 106

SENDER = {
    "_BOOT_ID": BOOT,
    "_MACHINE_ID": MACHINE,
    "_HOSTNAME": "sender",
    "_TRANSPORT": "syslog",
    "_UID": str(POSTFIX_UID),
    "_GID": "113",
    "_EXE": "/usr/lib/postfix/sbin/smtp",
    "_SYSTEMD_UNIT": "postfix@-.service",
    "SYSLOG_FACILITY": "2",
    "PRIORITY": "6",
}

FORGED: Sequence[Mapping[str, str]] = (
    {"_UID": "1000", "_EXE": "/usr/bin/logger", "_SYSTEMD_UNIT": "user@1000.service"},
    {"_UID": "1000"},
    {"_TRANSPORT": "journal"},
    {"_TRANSPORT": "stdout"},
)
"""What differs in entries that somebody else wrote under Postfix's name."""


def entries() -> Iterator[Mapping[str, str]]:
    """The sample, each line behind one of another program and one that is forged."""
    forged = "8FB4822638D: to=<user@victim.example>, relay=mx.victim.example[192.0.2.1]:25, "
    forged += "delay=1, delays=0/0/0/1, dsn=4.7.5, status=deferred (Server certificate not trusted)"
    for n, line in enumerate(sample_lines()):
        read = parsed(line)
        at = int(read.at * 1_000_000) + 1000 * n
        yield _entry(at, "sshd", "1", "x")
        by = FORGED[n % len(FORGED)]
        yield {**_entry(at + 1, read.program, str(read.pid), forged), **by}
        yield _entry(at + 2, read.program, str(read.pid), read.message)


def _entry(at: int, program: str, pid: str, message: str) -> dict[str, str]:
    return {
        "__REALTIME_TIMESTAMP": str(at),
        "__MONOTONIC_TIMESTAMP": str(at - 1_700_000_000_000_000),
        **SENDER,
        "SYSLOG_IDENTIFIER": program,
        "SYSLOG_PID": pid,
        "_PID": pid,
        "MESSAGE": message,
    }


def unpacked(folder: Path, *names: str) -> None:
    """Put journal files into a folder."""
    for name in names:
        octets = gzip.decompress(FOLDER.joinpath(f"{name}.journal.gz").read_bytes())
        folder.joinpath(f"{name}.journal").write_bytes(octets)


def make() -> None:
    """Make the files of this folder anew, half of the sample in each."""
    made = list(entries())
    half = len(made) // 2
    for name, part in zip(NAMES, (made[:half], made[half:]), strict=True):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, f"{name}.journal")
            text = "\n".join("".join(f"{k}={v}\n" for k, v in entry.items()) for entry in part)
            subprocess.run(
                [
                    "/usr/lib/systemd/systemd-journal-remote",
                    f"--output={out}",
                    "--compress=no",
                    "-",
                ],
                input=text.encode() + b"\n",
                env={"SYSTEMD_JOURNAL_KEYED_HASH": "0", "SYSTEMD_JOURNAL_COMPACT": "0"},
                check=True,
            )
            octets = bytearray(out.read_bytes())
            octets[_MACHINE_AT : _MACHINE_AT + 16] = bytes.fromhex(MACHINE)
            FOLDER.joinpath(f"{name}.journal.gz").write_bytes(gzip.compress(octets, 9, mtime=0))


if __name__ == "__main__":
    sys.exit(make())  # type: ignore[func-returns-value]
