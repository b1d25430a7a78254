"""From the file and the environment to `Settings`, or to all that is wrong with them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mtastsd.config import clashes, lines
from mtastsd.config.settings import (
    OVERRIDE,
    SECTIONS,
    SUPPRESS,
    Key,
    Settings,
    Suppress,
    all_keys,
    keys_of,
)
from mtastsd.config.values import BadValue, Kind, nearest, printable, shown
from mtastsd.names import Domain
from mtastsd.verdict import Override

MAX_FILE = 4 * 1024 * 1024
"""Octets of a configuration file: some 40,000 overrides. More is not a file that a person wrote."""

DEFAULT_PATH = Path("/etc/mtastsd/mtastsd.toml")

PREFIX = "MTASTSD_"

_PLACE = re.compile(r"(.*) \(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ConfigError:
    """One thing that is wrong. `source` is a file or `environment NAME`; `line` counts from 1.

    `table` is as the file writes it (`[dns]`, `[[override]]`); it and `key` may be empty.
    """

    source: str
    line: int | None
    table: str
    key: str
    what: str

    def __str__(self) -> str:
        where = self.source if self.line is None else f"{self.source}:{self.line}"
        name = f"{self.table} {self.key}".strip()
        return f"{where}: {name}: {self.what}" if name else f"{where}: {self.what}"


@dataclass(frozen=True, slots=True)
class _Document:
    """A file as read. `lines` says where its keys stand."""

    source: str
    data: Mapping[str, Any]
    lines: Mapping[lines.Path, int]


def default_path() -> Path | None:
    """The configuration file that is used when none is named; None where there is none."""
    try:
        return DEFAULT_PATH if DEFAULT_PATH.exists() else None
    except OSError:
        return DEFAULT_PATH  # it may be there: reading it will say what is the matter


def load(path: Path | None, environ: Mapping[str, str]) -> Settings | tuple[ConfigError, ...]:
    """Read the configuration. A variable of the environment goes before the file's key.

    Without a path: the defaults and the environment. Every error is told, not the first alone,
    except that nothing more is said of a file that is no TOML.
    """
    document = _Document("", {}, {}) if path is None else _read(path)
    if isinstance(document, ConfigError):
        return (document,)
    reader = _Reader(document, environ)
    settings = reader.settings()
    if reader.errors:
        return tuple(sorted(reader.errors, key=lambda e: (e.line is None, e.line or 0)))
    return settings


def _read(path: Path) -> _Document | ConfigError:
    source = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
    except OSError as error:
        return ConfigError(source, None, "", "", f"can't be read: {error.strerror or error}")
    if len(raw) > MAX_FILE:
        return ConfigError(source, None, "", "", f"is over {MAX_FILE} octets long")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return ConfigError(source, line, "", "", "is not UTF-8")
    try:
        # tomllib wants "\n" and so does the scanner; TOML takes "\r\n" too.
        text = text.replace("\r\n", "\n")
        return _Document(source, tomllib.loads(text), lines.find(text))
    except ValueError as error:
        return _not_toml(source, text, str(error))
    except RecursionError:
        return ConfigError(source, None, "", "", "is nested too deep")


def _is_section(value: object) -> bool:
    """Whether this is what `[name]` or `[[name]]` gives, and not `name = ...`."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, dict) for item in value)
    return isinstance(value, dict)


def _not_toml(source: str, text: str, message: str) -> ConfigError:
    found = _PLACE.fullmatch(message)
    if found is None:
        return ConfigError(source, None, "", "", f"is not TOML: {message}")
    line = int(found[2]) if found[2] else text.count("\n") + 1
    column = f" in column {found[3]}" if found[3] else ""
    what = found[1][:1].lower() + found[1][1:]
    if what.startswith("cannot "):  # overwrite, declare twice, mutate
        what = "a key or section that stands further up already"
    return ConfigError(source, line, "", "", f"is not TOML: {what}{column}")


class _Reader:
    """One reading. Each method adds to `errors` and gives a default where a value is bad."""

    def __init__(self, document: _Document, environ: Mapping[str, str]) -> None:
        self.errors: list[ConfigError] = []
        self._document = document
        self._environ = environ
        self._origins: dict[str, str] = {}
        self._bad: set[str] = set()

    def settings(self) -> Settings:
        self._stray_names()
        self._stray_variables()
        sections = {name: self._section(name) for name in SECTIONS}
        settings = Settings(
            **sections, override=self._overrides(), origins=MappingProxyType(self._origins)
        )
        for clash in clashes.find(settings):
            if self._bad.isdisjoint((clash.key, *clash.others)):
                self._clash(clash)
        return settings

    def _error(self, path: lines.Path, table: str, key: str, what: str) -> None:
        line = self._document.lines.get(path)
        table, key = printable(table), printable(key)
        self.errors.append(ConfigError(self._document.source, line, table, key, what))

    def _clash(self, clash: clashes.Clash) -> None:
        """Told where the first of its keys was set: one of them was, for defaults do not clash."""
        set_ = [name for name in (clash.key, *clash.others) if name in self._origins]
        source, line = self._origins[set_[0]], None
        if not source.startswith("environment "):
            source, _, text = source.rpartition(":")
            line = int(text)
        section, _, key = clash.key.partition(".")
        self.errors.append(ConfigError(source, line, f"[{section}]", key, clash.what))

    def _stray_names(self) -> None:
        for name, value in self._document.data.items():
            if name in SECTIONS or name == "override":
                continue
            if _is_section(value):
                known = [*SECTIONS, "override"]
                hint = nearest(name, known) or f" (known: {', '.join(known)})"
                self._error((name,), f"[{name}]", "", f"unknown section{hint}")
            else:
                homes = [f"[{k.section}]" for k in all_keys() if k.name == name]
                hint = f"; it belongs below {' or '.join(homes)}" if homes else ""
                self._error((name,), "", name, f"stands outside any section{hint}")

    def _stray_variables(self) -> None:
        """Misspelt twins. Others are let be: container hosts set MTASTSD_PORT and the like."""
        known = {key.variable: key for key in all_keys()}
        areas = tuple(f"{PREFIX}{name}_".upper() for name in (*SECTIONS, "override"))
        for name in sorted(self._environ):
            key = known.get(name)
            if key is not None and key.kind.from_text is None:
                what = "a list can't be set in the environment"
            elif key is None and (
                name.startswith(areas) or get_close_matches(name, known, n=1, cutoff=0.9)
            ):
                what = f"unknown variable{nearest(name, known)}"
            else:
                continue
            self.errors.append(ConfigError(f"environment {name}", None, "", "", what))

    def _section(self, name: str) -> Any:  # noqa: ANN401
        table = self._document.data.get(name, {})
        if not isinstance(table, dict):
            self._error((name,), f"[{name}]", "", f"must be a section: [{name}]")
            table = {}
        keys = {key.name: key for key in keys_of(name)}
        words = [*keys, "suppress"] if name == "report" else list(keys)
        self._unknown((name,), f"[{name}]", table, words)
        values = {key.attribute: self._value(key, table) for key in keys.values()}
        if name == "report":
            values["suppress"] = self._suppressed(table)
        return SECTIONS[name](**values)

    def _unknown(
        self, path: lines.Path, table: str, found: Mapping[str, object], known: list[str]
    ) -> None:
        for name in found:
            if name in known:
                continue
            homes = [f"[{k.section}]" for k in all_keys() if k.name == name]
            hint = f" (it belongs below {' or '.join(homes)})" if homes else nearest(name, known)
            hint = hint or f" (known here: {', '.join(known)})"
            self._error((*path, name), table, name, f"unknown key{hint}")

    def _value(self, key: Key, table: Mapping[str, object]) -> Any:  # noqa: ANN401
        if key.kind.from_text is not None and key.variable in self._environ:
            raw = key.kind.from_text(self._environ[key.variable])
            source, line = f"environment {key.variable}", None
        elif key.name in table:
            raw = table[key.name]
            source, line = self._document.source, self._document.lines.get((key.section, key.name))
        else:
            return key.kind.parse(key.default)
        self._origins[key.path] = source if line is None else f"{source}:{line}"
        try:
            return key.kind.parse(raw)
        except BadValue as bad:
            self._bad.add(key.path)
            self.errors.append(ConfigError(source, line, f"[{key.section}]", key.name, str(bad)))
            return key.kind.parse(key.default)

    def _overrides(self) -> tuple[Override, ...]:
        found: dict[str, Override] = {}
        needed = ("domain", "action")
        for index, row in self._rows(("override",), OVERRIDE, needed):
            override = Override(
                Domain(row["domain"]),
                row["action"],
                row.get("mx", ()),
                row.get("until"),
                row.get("reason", ""),
            )
            if override.mx and override.action != "secure":
                what = f'goes with action = "secure" only, not "{override.action}"'
                self._error(("override", index, "mx"), "[[override]]", "mx", what)
            if override.domain in found:
                what = f"{shown(override.domain)} has an override further up already"
                self._error(("override", index, "domain"), "[[override]]", "domain", what)
            found[override.domain] = override
        return tuple(found.values())

    def _suppressed(self, table: Mapping[str, object]) -> tuple[Suppress, ...]:
        found: dict[str, Suppress] = {}
        for index, row in self._rows(("report", "suppress"), SUPPRESS, ("to",), table):
            suppress = Suppress(row["to"], row.get("until"))
            if suppress.to in found:
                what = f"{shown(suppress.to)} is suppressed further up already"
                path = ("report", "suppress", index, "to")
                self._error(path, "[[report.suppress]]", "to", what)
            found[suppress.to] = suppress
        return tuple(found.values())

    def _rows(
        self,
        path: tuple[str, ...],
        kinds: Mapping[str, Kind[Any]],
        needed: tuple[str, ...],
        within: Mapping[str, object] | None = None,
    ) -> list[tuple[int, dict[str, Any]]]:
        """The good ones of an array of tables, with their index."""
        table = f"[[{'.'.join(path)}]]"
        rows = (self._document.data if within is None else within).get(path[-1], [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            self._error(path, table, "", f"must be written as {table}")
            return []
        good = []
        for index, row in enumerate(rows):
            before = len(self.errors)
            here: lines.Path = (*path, index)
            self._unknown(here, table, row, list(kinds))
            values = {
                n: self._item(here, table, n, row[n], k) for n, k in kinds.items() if n in row
            }
            for name in needed:
                if name not in row:
                    self._error(here, table, name, "must be set")
            self._origins[f"{'.'.join(path)}.{index}"] = (
                f"{self._document.source}:{self._document.lines.get(here)}"
            )
            if len(self.errors) == before:
                good.append((index, values))
        return good

    def _item(self, path: lines.Path, table: str, name: str, raw: object, kind: Kind[Any]) -> Any:  # noqa: ANN401
        try:
            return kind.parse(raw)
        except BadValue as bad:
            self._error((*path, name), table, name, str(bad))
            return None
