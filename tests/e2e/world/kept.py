"""What the receivers got, kept as files that tests read while the receivers run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Mail:
    """A message as a server took it; `tls`: over TLS."""

    host: str
    envelope: list[str]
    tls: bool
    file: str


@dataclass(frozen=True, slots=True)
class Post:
    """A body that was posted to the reports host."""

    path: str
    headers: dict[str, str]
    file: str


class Kept:
    """One folder: mail.jsonl and posts.jsonl say what came, the bodies are files beside them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._written = 0

    def mail(self, host: str, envelope: Sequence[str], tls: bool, body: bytes) -> None:
        self._add("mail", asdict(Mail(host, list(envelope), tls, self._body(body, "eml"))))

    def post(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        self._add("posts", asdict(Post(path, dict(headers), self._body(body, "body"))))

    def event(self, kind: str, **fields: Any) -> None:
        """Anything else that a test may want to know, in events.jsonl."""
        self._add("events", {"kind": kind, **fields})

    def mails(self, *, to: str) -> list[Mail]:
        """The messages so far to one recipient."""
        mails = (Mail(**row) for row in self._rows("mail"))
        return [mail for mail in mails if any(f"<{to}>" in line for line in mail.envelope)]

    def posts(self) -> list[Post]:
        return [Post(**row) for row in self._rows("posts")]

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [row for row in self._rows("events") if row["kind"] == kind]

    def body(self, kept: Mail | Post) -> bytes:
        return (self._folder / kept.file).read_bytes()

    def _body(self, body: bytes, suffix: str) -> str:
        self._written += 1
        name = f"{self._written:05}.{suffix}"
        (self._folder / name).write_bytes(body)
        return name

    def _add(self, what: str, row: Mapping[str, Any]) -> None:
        with (self._folder / f"{what}.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def _rows(self, what: str) -> list[dict[str, Any]]:
        file = self._folder / f"{what}.jsonl"
        # A line that is being written has no end yet.
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        return [json.loads(line) for line in lines]
