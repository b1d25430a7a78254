"""Handing report mails over to sendmail programs: what they are given, how they end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtastsd.net import submit
from mtastsd.net.submit import SendmailMailer
from mtastsd.ports import Sent
from tests.io.fetching import Loop, loop, run

__all__ = ["loop"]

SENDER, RECIPIENT = "tls@reports.example.com", "tls-reports+a=b@example.org"
MESSAGE = b"From: tls@reports.example.com\r\nSubject: x\r\n\r\n.\r\n..dots\r\n a \r\n"


async def send(
    mailer: SendmailMailer, message: bytes = MESSAGE, *, recipient: str = RECIPIENT
) -> Sent:
    return await mailer.send(message, sender=SENDER, recipient=recipient)


def program(folder: Path, *lines: str) -> str:
    path = folder / "sendmail"
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return str(path)


def test_a_program_takes_it(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTASTSD_STORE_URL", "postgresql://user:secret@host/db")
    monkeypatch.setenv("NOTIFY_SOCKET", "@none")
    path = program(
        tmp_path,
        f"cd {tmp_path}",
        "printf '%s\\n' \"$@\" >arguments",
        "cat >message",
        "env >environment",
        "ls -l /proc/self/fd >files",
        "echo queued",
    )

    async def main() -> None:
        sent = await send(SendmailMailer(path))
        assert sent == Sent("delivered", "exit 0 EX_OK: queued")
        assert (tmp_path / "arguments").read_text() == f"-i\n-f\n{SENDER}\n--\n{RECIPIENT}\n"
        assert (tmp_path / "message").read_bytes() == MESSAGE.replace(b"\r\n", b"\n")
        seen = (tmp_path / "environment").read_text()
        assert "PATH=" in seen
        assert "secret" not in seen
        assert "NOTIFY_SOCKET" not in seen

    run(loop, main())


def test_nothing_is_a_shell_s(loop: Loop, tmp_path: Path) -> None:
    path = program(tmp_path, f"cd {tmp_path}", "printf '%s\\n' \"$@\" >arguments")
    recipient = "`id>x`$(id>x)|id&'*~{a}@example.org"

    async def main() -> None:
        await send(SendmailMailer(path), recipient=recipient)
        assert (tmp_path / "arguments").read_text().split("\n")[-2] == recipient
        assert not (tmp_path / "x").exists()

    run(loop, main())


@pytest.mark.parametrize("code", [*range(64, 79), 0, 1, 2, 127, 255])
def test_exits(tmp_path: Path, code: int) -> None:
    async def main() -> None:
        sent = await send(SendmailMailer(program(tmp_path, f"echo why >&2; exit {code}")))
        never, later = {65, 67, 68}, {75}
        assert (sent.outcome == "never") is (code in never)
        assert (sent.outcome == "delivered") is (code == 0)
        assert code not in later or sent.outcome == "later"
        name, _ = submit.EXITS.get(code, ("", ""))
        assert sent.detail == " ".join(["exit", str(code), *([name] if name else [])]) + ": why"

    run(asyncio.new_event_loop, main())


def test_the_exits_of_this_system() -> None:
    for code, (name, _) in submit.EXITS.items():
        assert getattr(os, name) == code


def test_a_signal(loop: Loop, tmp_path: Path) -> None:
    async def main() -> None:
        sent = await send(SendmailMailer(program(tmp_path, "kill -SEGV $$")))
        assert sent == Sent("later", "signal 11")

    run(loop, main())


def no_program(path: Path) -> None:
    pass


def not_executable(path: Path) -> None:
    path.write_text("#!/bin/sh\n")


def no_interpreter(path: Path) -> None:
    path.write_text("#!/nowhere/sh\n")
    path.chmod(0o755)


@pytest.mark.parametrize("make", [no_program, Path.mkdir, not_executable, no_interpreter])
def test_not_to_be_started(loop: Loop, make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "sendmail")

    async def main() -> None:
        sent = await send(SendmailMailer(str(tmp_path / "sendmail")))
        assert sent.outcome == "later"
        assert re.fullmatch(r"/.*/sendmail: (No such file.*|Permission denied)", sent.detail)

    run(loop, main())


def test_a_program_that_does_not_read(loop: Loop, tmp_path: Path) -> None:
    async def main() -> None:
        path = program(tmp_path, "exit 0")
        sent = await send(SendmailMailer(path), MESSAGE + b"x" * 5_000_000)
        assert sent == Sent("delivered", "exit 0 EX_OK")

    run(loop, main())


def test_a_program_that_floods(loop: Loop, tmp_path: Path) -> None:
    async def main() -> None:
        path = program(tmp_path, "printf 'x\\033'; head -c 3000000 /dev/zero >&2; exit 75")
        sent = await send(SendmailMailer(path))
        assert sent.outcome == "later"
        assert sent.detail.startswith("exit 75 EX_TEMPFAIL: x??")
        assert len(sent.detail) == submit.MAX_TEXT

    run(loop, main())


def test_what_a_program_leaves_behind_goes_on(loop: Loop, tmp_path: Path) -> None:
    """Many queue the mail, say yes and deliver in the background."""

    async def main() -> None:
        path = program(tmp_path, "sleep 600 &", f"echo $! >{tmp_path}/pid")
        sent = await send(SendmailMailer(path))
        assert sent == Sent("delivered", "exit 0 EX_OK")
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)  # and it was there

    run(loop, main())


class Witness:
    """A FIFO that a program and its children hold open: its end is the end of the last of them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "fifo"
        os.mkfifo(self.path)
        self._file = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    async def line(self) -> bytes:
        """What the program has said; nobody is left where it is empty."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._file, readable.set)
        await readable.wait()
        loop.remove_reader(self._file)
        return os.read(self._file, 100)


HANGING = ["exec 9>{}", "sleep 600 &", "(sleep 600; echo) &", "echo $$ >&9", "wait"]


def hanging(folder: Path, witness: Witness) -> str:
    return program(folder, *[line.format(witness.path) for line in HANGING])


def test_a_program_that_hangs(loop: Loop, tmp_path: Path) -> None:
    """It is gone when the outcome is told: it can't deliver what will be sent again."""

    async def main() -> None:
        sent = await send(SendmailMailer(program(tmp_path, "exec sleep 600"), timeout=0.05))
        assert sent == Sent("later", "killed after 0.05 s")

    run(loop, main())


def test_its_children_go_with_it(loop: Loop, tmp_path: Path) -> None:
    async def main() -> None:
        witness = Witness(tmp_path)
        task = asyncio.ensure_future(send(SendmailMailer(hanging(tmp_path, witness))))
        pid = int(await witness.line())
        assert os.getpgid(pid) == pid != os.getpgrp()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)  # reaped as well
        assert await witness.line() == b""

    run(loop, main())


def test_a_program_that_can_t_be_killed(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = SendmailMailer._start
    children: list[asyncio.subprocess.Process] = []

    async def started(*arguments: Any) -> asyncio.subprocess.Process:
        child = await start(*arguments)
        assert not isinstance(child, OSError)
        children.append(child)
        return child

    def refuse(group: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(SendmailMailer, "_start", started)
    monkeypatch.setattr(os, "killpg", refuse)
    monkeypatch.setattr(submit, "KILL_TIMEOUT", 0.05)

    async def main() -> None:
        mailer = SendmailMailer(program(tmp_path, "exec sleep 600"), timeout=0.05)
        sent = await send(mailer)
        assert sent == Sent("later", "can't be killed after 0.05 s")
        children[0].kill()
        assert await children[0].wait() == -signal.SIGKILL

    run(loop, main())
