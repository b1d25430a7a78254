"""On which line of a TOML text each key stands.

`tomllib` gives values without places. This scanner reads text that `tomllib` has taken already, so
it need not check the grammar, only follow it far enough to know what is a key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

Path = tuple[str | int, ...]
"""Keys and, for what stands in an array, its index: `("override", 0, "mx", 1)`."""

# A multi-line string may end in up to two quotes of its own before the three that close it.
_TOKEN = re.compile(
    r'''
      """(?:\\.|[^\\])*?"{3,5}
    | \'\'\'.*?'{3,5}
    | "(?:\\.|[^"\\\n])*"
    | '[^'\n]*'
    | \#[^\n]*
    | [A-Za-z0-9_+:-]+
    | [^\ \t\r]
    ''',
    re.VERBOSE | re.DOTALL,
)


def find(text: str) -> Mapping[Path, int]:
    """The line, from 1, of each key, table header and array item of a valid TOML text."""
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, int]] = []
        self._at = 0
        self._lines: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}
        line, seen = 1, 0
        for found in _TOKEN.finditer(text):
            line += text.count("\n", seen, found.start())
            seen = found.start()
            if not found[0].startswith("#"):
                self._tokens.append((found[0], line))

    def run(self) -> Mapping[Path, int]:
        table: Path = ()
        while self._at < len(self._tokens):
            part, line = self._tokens[self._at]
            if part == "\n":
                self._at += 1
            elif part == "[":
                table = self._header(line)
            else:
                self._pair(table)
        return self._lines

    def _peek(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1][0]

    def _note(self, path: Path, line: int) -> None:
        self._lines.setdefault(path, line)

    def _header(self, line: int) -> Path:
        """`[a.b]` or `[[a.b]]`; a name of an array of tables means its last table."""
        self._take()
        is_array = self._peek() == "["
        if is_array:
            self._take()
        keys = self._keys("]")
        path: Path = ()
        for key in keys[:-1]:
            path = self._last((*path, key))
        path = (*path, keys[-1])
        if is_array:
            self._take()
            self._counts[path] = self._counts.get(path, 0) + 1
            self._note(path, line)
        path = self._last(path)
        self._note(path, line)
        return path

    def _last(self, path: Path) -> Path:
        count = self._counts.get(path)
        return path if count is None else (*path, count - 1)

    def _keys(self, end: str) -> list[str]:
        """The parts of a dotted key; takes the token that ends it too."""
        keys = []
        while (part := self._take()) != end:
            if part != ".":
                keys.append(_unquoted(part))
        return keys

    def _pair(self, table: Path) -> None:
        line = self._tokens[self._at][1]
        path = table
        for key in self._keys("="):
            path = (*path, key)
            self._note(path, line)
        self._value(path)

    def _value(self, path: Path) -> None:
        match self._peek():
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case _:
                while self._peek() not in {"\n", ",", "]", "}", ""}:
                    self._take()

    def _array(self, path: Path) -> None:
        self._take()
        index = 0
        while (part := self._peek()) != "]":
            if part in {"\n", ","}:
                self._take()
                continue
            self._note((*path, index), self._tokens[self._at][1])
            self._value((*path, index))
            index += 1
        self._take()

    def _inline_table(self, path: Path) -> None:
        self._take()
        while (part := self._peek()) != "}":
            if part in {"\n", ","}:
                self._take()
            else:
                self._pair(path)
        self._take()


def _unquoted(key: str) -> str:
    return str(tomllib.loads(f"k = {key}")["k"]) if key[0] in "\"'" else key
