"""Sample and manual of the configuration say what the code does, key by key."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from mtastsd.config import Settings, load
from mtastsd.config.settings import OVERRIDE, SECTIONS, SUPPRESS, Key, all_keys, keys_of

TOP = Path(__file__).parents[2]
SAMPLE = TOP / "packaging/mtastsd.toml"
MAN = TOP / "packaging/man/mtastsd.toml.5"

KEYS = list(all_keys())
TABLES = {"[[override]]": list(OVERRIDE), "[[report.suppress]]": list(SUPPRESS)}

# In the sample a line that is a setting and no prose has no blank after its #.
EXAMPLE = re.compile(r"(?m)^#(?=[a-z\[])")


def path_of(key: Key) -> str:
    return key.path


# ---- the sample


def test_the_sample_is_the_defaults() -> None:
    assert load(SAMPLE, {}) == Settings()


def test_the_sample_has_every_key_in_order_and_no_other() -> None:
    data = tomllib.loads(SAMPLE.read_text(encoding="utf-8"))
    assert {name: list(table) for name, table in data.items()} == {
        name: [key.name for key in keys_of(name)] for name in SECTIONS
    }


@pytest.mark.parametrize("key", KEYS, ids=path_of)
def test_the_sample_writes_each_default_as_the_code_does(key: Key) -> None:
    data = tomllib.loads(SAMPLE.read_text(encoding="utf-8"))
    assert data[key.section][key.name] == key.default


def test_the_examples_in_the_sample_load_and_have_every_key(tmp_path: Path) -> None:
    text = EXAMPLE.sub("", SAMPLE.read_text(encoding="utf-8"))
    (tmp_path / "x.toml").write_text(text, encoding="utf-8")
    loaded = load(tmp_path / "x.toml", {})
    assert isinstance(loaded, Settings), loaded
    assert len(loaded.override) == len(loaded.report.suppress) == 1
    data = tomllib.loads(text)
    assert list(data["override"][0]) == TABLES["[[override]]"]
    assert list(data["report"]["suppress"][0]) == TABLES["[[report.suppress]]"]


def test_the_sample_fits_a_terminal() -> None:
    assert max(len(line) for line in SAMPLE.read_text(encoding="utf-8").split("\n")) <= 100


# ---- the manual


@dataclass(frozen=True)
class Entry:
    """A key as the manual describes it. `text` is its paragraph, `intro` its section's."""

    section: str
    name: str
    default: str | None
    text: str
    intro: str


def entries() -> Iterator[Entry]:
    source = MAN.read_text(encoding="utf-8")
    parts = re.split(r"(?m)^\.Ss (\[.*\])\n", source)
    for section, body in zip(parts[1::2], parts[2::2], strict=True):
        body = body.partition("\n.Sh ")[0]
        intro, *items = re.split(r"(?m)^\.It Va ", body)
        for item in items:
            head, _, text = item.partition("\n")
            name, _, default = head.partition(" No = Li ")
            yield Entry(section, name, default.replace(r"\(dq", '"') or None, text, intro)


ENTRIES: Mapping[tuple[str, str], Entry] = {(e.section, e.name): e for e in entries()}


def entry(key: Key) -> Entry:
    return ENTRIES[f"[{key.section}]", key.name]


def test_the_manual_has_every_key_in_order_and_no_other() -> None:
    expected = [(f"[{key.section}]", key.name) for key in KEYS]
    assert [place for place in ENTRIES if place[0] not in TABLES] == expected
    for table, names in TABLES.items():
        assert [name for section, name in ENTRIES if section == table] == names


@pytest.mark.parametrize("key", KEYS, ids=path_of)
def test_the_manual_has_each_default(key: Key) -> None:
    default = entry(key).default
    assert default is not None
    assert tomllib.loads(f"x = {default}")["x"] == key.default


@pytest.mark.parametrize("key", [k for k in KEYS if k.kind.limits], ids=path_of)
def test_the_manual_has_each_range(key: Key) -> None:
    assert f"From {key.kind.limits}" in entry(key).text.replace("\n", " ")


@pytest.mark.parametrize("key", KEYS, ids=path_of)
def test_the_manual_says_what_needs_a_restart(key: Key) -> None:
    found = entry(key)
    assert ("needs a restart" in found.intro + found.text) == key.restart


@pytest.mark.parametrize("key", KEYS, ids=path_of)
def test_the_manual_says_what_an_empty_text_means(key: Key) -> None:
    """Where "" is allowed and is not the identity that reports need."""
    if key.default == "" and key.path not in (
        "report.organization",
        "report.contact",
        "report.from",
        "report.dkim_selector",
        "report.dkim_key",
    ):
        assert r"\(dq\(dq" in entry(key).text


def test_the_error_in_the_manual_is_one_that_is_made(tmp_path: Path) -> None:
    text = "\n" * 10 + '[dns]\ntimout = "2s"\n'
    (tmp_path / "mtastsd.toml").write_text(text, encoding="utf-8")
    loaded = load(tmp_path / "mtastsd.toml", {})
    assert isinstance(loaded, tuple)
    error = str(loaded[0]).replace(str(tmp_path), "/etc/mtastsd")
    assert f"\n{error}\n" in MAN.read_text(encoding="utf-8")


def test_the_examples_in_the_manual_load(tmp_path: Path) -> None:
    blocks = re.findall(r"(?ms)^\.Bd [^\n]*\n(\[.*?)^\.Ed$", MAN.read_text(encoding="utf-8"))
    assert len(blocks) == 2
    for block in blocks:
        (tmp_path / "x.toml").write_text(block, encoding="utf-8")
        assert isinstance(load(tmp_path / "x.toml", {}), Settings), block


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_the_manual_is_rendered_without_a_warning() -> None:
    done = subprocess.run(
        ["groff", "-mandoc", "-Tutf8", "-ww", str(MAN)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    for key in KEYS:
        assert key.name in re.sub(r".\x08|\x1b\[[0-9;]*m", "", done.stdout)
