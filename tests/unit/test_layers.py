"""Who may import whom. Arrows point down, and pure modules know no socket, clock or event loop.

A module's unit is its first name under `mtastsd`: `mtastsd.sts.flow` is of unit `sts`. Each unit
stands in one layer; one that stands in none fails here, so a new one has to be given its place.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mtastsd

ROOT = Path(mtastsd.__file__).parent

RULES = frozenset(
    {
        "abnf",
        "addresses",
        "answers",
        "dane",
        "names",
        "outlook",
        "probing",
        "sts",
        "timing",
        "tlsa",
        "tlsrpt",
        "units",
        "verdict",
    }
)
FORMATS = frozenset({"postfix"})
PURE = RULES | FORMATS
PORTS = frozenset({"ports"})
ADAPTERS = frozenset({"clock", "net", "store", "systemd"})
AIDS = frozenset({"log", "metrics"})
"""For all who do something; rules neither log nor count."""
FACES = frozenset(
    {
        "__main__",
        "cli",
        "collecting",
        "config",
        "daemon",
        "listeners",
        "reportchild",
        "reporting",
        "wiring",
    }
)

LAYERS: dict[str, frozenset[str]] = {
    "rules": RULES,
    "formats": FORMATS,
    "ports": PORTS,
    "adapters": ADAPTERS,
    "aids": AIDS,
    "services": frozenset({"service"}),
    "servers": frozenset({"server"}),
    "faces": FACES,
}

_BELOW_SERVERS = PURE | PORTS | AIDS | LAYERS["services"]
_BELOW_FACES = _BELOW_SERVERS | ADAPTERS | LAYERS["servers"]

# What a layer may import besides the unit itself. Adapters do not know each other.
MAY: dict[str, frozenset[str]] = {
    "rules": RULES,
    "formats": PURE,
    "ports": PURE,
    "aids": PURE,
    "adapters": PURE | PORTS | AIDS,
    "services": PURE | PORTS | AIDS,
    "servers": _BELOW_SERVERS,
    "faces": _BELOW_FACES,
}

# Among the faces: the configuration knows none, the daemon knows the configuration.
FACES_MAY: dict[str, frozenset[str]] = {
    "config": frozenset(),
    "listeners": frozenset({"config"}),
    "wiring": frozenset({"config"}),
    "collecting": frozenset({"config", "wiring"}),
    "reportchild": frozenset(),
    "reporting": frozenset({"config", "wiring"}),
    "daemon": frozenset({"collecting", "config", "listeners", "reportchild", "wiring"}),
    "cli": FACES - {"__main__", "cli"},
    "__main__": frozenset({"cli"}),
}

PURE_LIBRARIES = frozenset({"idna", "msgspec"})

WORLD = frozenset({"asyncio", "logging", "os", "random", "socket", "ssl", "time"})
SAME_BY_ANOTHER_NAME = frozenset(
    {
        *("_asyncio", "_io", "_random", "_socket", "_ssl", "_thread", "_time", "posix", "builtins"),
        *("concurrent", "multiprocessing", "queue", "sched", "signal", "subprocess", "threading"),
        *("fcntl", "ftplib", "http", "imaplib", "mmap", "poplib", "pty", "resource", "select"),
        *("selectors", "smtplib", "socketserver", "syslog", "termios", "webbrowser", "xmlrpc"),
        *("glob", "pathlib", "shutil", "sqlite3", "tempfile", "urllib.error", "urllib.request"),
        *("ctypes", "importlib", "secrets", "uuid"),
    }
)
IMPURE = WORLD | SAME_BY_ANOTHER_NAME

CLOCKS = frozenset({"now", "utcnow", "today"})
"""Methods of date and datetime that read the clock."""

OPENERS = frozenset({"__import__", "eval", "exec", "input", "open"})
"""Builtins that reach what an import statement would show."""


def unit_of(module: str) -> str:
    """`sts` for mtastsd.sts.flow; "" for the package itself, which holds the version alone."""
    return module.split(".")[1] if "." in module else ""


def layer_of(unit: str) -> str | None:
    found = [layer for layer, units in LAYERS.items() if unit in units]
    assert len(found) < 2, f"{unit} stands in {found}"
    return found[0] if found else None


def imports(module: str, tree: ast.AST, *, package: bool) -> Iterator[tuple[int, str]]:
    """Each module that an import statement may load, wherever it stands, with its line.

    `from a import b` may load a.b, which is found out by giving both.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + package]
                base = ".".join([*parts, base] if base else parts)
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def violations(module: str, source: str, *, package: bool = False) -> list[str]:
    """What is wrong with a module's imports, one text each."""
    unit = unit_of(module)
    tree = ast.parse(source)
    if unit == "":
        names = [n for _, n in imports(module, tree, package=True)]
        return [f"the package imports {n}" for n in names if not n.startswith("__future__")]
    layer = layer_of(unit)
    if layer is None:
        return [f"{unit} belongs to no layer"]
    bad = []
    for line, name in imports(module, tree, package=package):
        top = name.partition(".")[0]
        if top == "mtastsd":
            bad += _arrow(line, unit, layer, name)
        elif unit in PURE | PORTS:
            bad += _impure(line, layer, name)
    if unit in PURE | PORTS:
        bad += _calls(tree)
    if unit != "cli":
        bad += [f"{n.lineno}: only cli prints" for n in _called(tree) if _name(n.func) == "print"]
    return bad


def _arrow(line: int, unit: str, layer: str, name: str) -> list[str]:
    other = unit_of(name)
    if other in {"", unit} or not _is_module(other):
        return []
    allowed = MAY[layer] | FACES_MAY.get(unit, frozenset())
    return [] if other in allowed else [f"{line}: {layer} ({unit}) imports {other}"]


def _is_module(unit: str) -> bool:
    return (ROOT / unit).is_dir() or (ROOT / f"{unit}.py").exists() or layer_of(unit) is not None


def _impure(line: int, layer: str, name: str) -> list[str]:
    top = name.partition(".")[0]
    if top in IMPURE or name in IMPURE:
        return [f"{line}: {layer} imports {name}"]
    if top not in sys.stdlib_module_names and top not in PURE_LIBRARIES:
        return [f"{line}: {layer} imports the library {name}"]
    return []


def _called(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _name(node: ast.expr) -> str:
    """The last name of `f`, `a.f`, `a.b.f`; "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _calls(tree: ast.AST) -> list[str]:
    """Calls that reach the world without an import statement."""
    bad = []
    for call in _called(tree):
        name, of = _name(call.func), getattr(call.func, "value", None)
        if of is None and name in OPENERS:
            bad.append(f"{call.lineno}: calls {name}")
        if of is not None and name in CLOCKS and _name(of) in {"date", "datetime"}:
            bad.append(f"{call.lineno}: reads the clock")
    return bad


def modules() -> dict[str, Path]:
    """Each module of the package by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("mtastsd", *path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    path = MODULES[module]
    assert violations(module, path.read_text("utf-8"), package=path.name == "__init__.py") == []


def test_every_unit_stands_in_one_layer() -> None:
    units = {unit_of(module) for module in MODULES} - {""}
    assert {unit for unit in units if layer_of(unit) is None} == set()
    assert set(FACES_MAY) == FACES
    assert set(MAY) == set(LAYERS)


def test_nothing_is_importable_that_the_test_does_not_see() -> None:
    """Compiled modules and files of other suffixes would bypass it."""
    odd = {p.suffix for p in ROOT.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert odd <= {".py", ".sql", ".typed", ""}


def test_the_walk_finds_what_it_should() -> None:
    assert {"mtastsd", "mtastsd.sts.flow", "mtastsd.postfix.reply", "mtastsd.ports"} <= set(MODULES)


# -- the test of the test: each of these must be caught


BAD = [
    ("mtastsd.names", "import socket"),
    ("mtastsd.names", "import os.path"),
    ("mtastsd.names", "from os import path"),
    ("mtastsd.names", "import asyncio as a"),
    ("mtastsd.dane", "def f():\n    import time"),
    ("mtastsd.dane", "if TYPE_CHECKING:\n    import ssl"),
    ("mtastsd.sts.flow", "from random import random"),
    ("mtastsd.sts.flow", "from urllib import request"),
    ("mtastsd.sts.flow", "import urllib.request"),
    ("mtastsd.tlsrpt.record", "import logging"),
    ("mtastsd.tlsrpt.record", "import dns.resolver"),
    ("mtastsd.tlsrpt.record", "from cryptography import x509"),
    ("mtastsd.postfix.reply", "import logging.handlers"),
    ("mtastsd.postfix.reply", "import httpcore"),
    ("mtastsd.ports", "import asyncio"),
    ("mtastsd.verdict", "from datetime import datetime\nx = datetime.now()"),
    ("mtastsd.verdict", "import datetime\nx = datetime.datetime.now(datetime.UTC)"),
    ("mtastsd.verdict", "from datetime import date\nx = date.today()"),
    ("mtastsd.verdict", "x = open('f')"),
    ("mtastsd.verdict", "x = __import__('socket')"),
    ("mtastsd.verdict", "print('x')"),
    ("mtastsd.names", "from mtastsd import log"),
    ("mtastsd.names", "from mtastsd.metrics import Metrics"),
    ("mtastsd.names", "from mtastsd.postfix import nexthop"),
    ("mtastsd.names", "import mtastsd.ports"),
    ("mtastsd.sts.flow", "from .. import ports"),
    ("mtastsd.sts.flow", "from ..service.flights import Flights"),
    ("mtastsd.postfix.reply", "from mtastsd.ports import Clock"),
    ("mtastsd.ports", "from mtastsd.service import discovery"),
    ("mtastsd.ports", "from mtastsd.log import Log"),
    ("mtastsd.net.dns", "from mtastsd.service.flights import Spawn"),
    ("mtastsd.net.dns", "from mtastsd.store import sqlite"),
    ("mtastsd.store.sqlite", "from mtastsd.net import dns"),
    ("mtastsd.store.sqlite", "from mtastsd import config"),
    ("mtastsd.log", "from mtastsd.ports import Clock"),
    ("mtastsd.service.discovery", "from mtastsd.net import dns"),
    ("mtastsd.service.discovery", "from mtastsd.store.sqlite import SqliteStore"),
    ("mtastsd.service.discovery", "from mtastsd.server import lookups"),
    ("mtastsd.service.discovery", "from mtastsd.config import Settings"),
    ("mtastsd.server.socketmap", "from mtastsd.net.dns import DnsResolver"),
    ("mtastsd.server.socketmap", "from mtastsd.store.sqlite import SqliteStore"),
    ("mtastsd.server.socketmap", "from mtastsd.config import Settings"),
    ("mtastsd.server.socketmap", "from mtastsd.cli import main"),
    ("mtastsd.config.reader", "from mtastsd import daemon"),
    ("mtastsd.daemon", "from mtastsd.cli.main import main"),
    ("mtastsd.daemon", "print('ready')"),
    ("mtastsd", "from mtastsd import daemon"),
    ("mtastsd.helpers", ""),
    ("mtastsd.newpackage.thing", "x = 1"),
]

GOOD = [
    ("mtastsd", "from __future__ import annotations\n__version__ = '1'"),
    ("mtastsd.names", "import re\nimport idna\nfrom typing import Literal"),
    ("mtastsd.names", "from mtastsd import __version__"),
    ("mtastsd.sts.flow", "from urllib.parse import urlsplit\nfrom datetime import datetime"),
    ("mtastsd.sts.flow", "from mtastsd.sts import policy\nfrom . import record\nimport msgspec"),
    ("mtastsd.verdict", "def f(clock):\n    return clock.now()"),
    ("mtastsd.postfix.reply", "from mtastsd.verdict import Verdict"),
    ("mtastsd.ports", "from mtastsd.sts.flow import StsBranch"),
    ("mtastsd.net.dns", "import asyncio, socket, dns.message\nfrom mtastsd.log import Log"),
    ("mtastsd.service.discovery", "import asyncio\nfrom mtastsd.ports import Clock"),
    ("mtastsd.server.lookups", "from mtastsd.service.discovery import Discovery"),
    ("mtastsd.daemon", "from mtastsd.net.dns import DnsResolver\nfrom mtastsd import config"),
    ("mtastsd.cli.main", "from mtastsd import daemon\nprint('x')"),
]


@pytest.mark.parametrize(("module", "source"), BAD)
def test_what_must_not_be_is_caught(module: str, source: str) -> None:
    assert violations(module, source)


@pytest.mark.parametrize(("module", "source"), GOOD)
def test_what_may_be_is_not(module: str, source: str) -> None:
    assert violations(module, source) == []
