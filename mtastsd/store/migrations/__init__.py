"""The schema as numbered steps of SQL, one folder a dialect: `sqlite/0001_policies.sql`.

A step that was released is never edited; a change is a new step. Its number is the version of
the schema after it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from typing import Literal

Dialect = Literal["sqlite"]

_NAME = re.compile(r"([0-9]{4})_([a-z0-9_]+)\.sql", re.ASCII)


@dataclass(frozen=True, slots=True)
class Migration:
    """One step. `name` says in a word or two what it is for."""

    version: int
    name: str
    sql: str


def load(dialect: Dialect) -> tuple[Migration, ...]:
    """All steps of a dialect in their order, from 1 without a gap."""
    folder = resources.files(__name__).joinpath(dialect)
    steps = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if match := _NAME.fullmatch(file.name):
            text = file.read_text(encoding="utf-8")
            steps.append(Migration(int(match[1]), match[2], text))
    assert [step.version for step in steps] == list(range(1, len(steps) + 1)), "gap in migrations"
    return tuple(steps)
