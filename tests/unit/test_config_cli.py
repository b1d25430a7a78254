"""`mtastsd config check|show`: what is printed, and the exit status."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mtastsd.cli.config import config_group
from mtastsd.config import Settings, default_path, load
from mtastsd.config.settings import all_keys


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to write; neither the machine's own nor its environment is seen."""
    for key in all_keys():
        monkeypatch.delenv(key.variable, raising=False)
    monkeypatch.setattr("mtastsd.config.reader.DEFAULT_PATH", tmp_path / "default.toml")
    return tmp_path / "mtastsd.toml"


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(config_group, [str(word) for word in words])


FULL = """\
[dns]
timeout = "1500ms"
nameservers = ["::1"]
[report]
organization = "O \\"&\\" K"
[store]
url = "postgresql://me:s3cr3t@h/d"
[[override]]
domain = "example.com"
action = "secure"
mx = ["*.example.com"]
until = 2999-12-31
reason = "ticket"
[[report.suppress]]
to = "mailto:a@example.com"
"""


def test_check_of_a_good_file(file: Path) -> None:
    file.write_text(FULL)
    done = run("check", "--config", file)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "ok\n", "")


def test_check_of_a_bad_file(file: Path) -> None:
    file.write_text('[dns]\ntimout = "2s"\n[lisen]\n')
    done = run("check", "--config", file)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        f'{file}:2: [dns] timout: unknown key (did you mean "timeout"?)\n'
        f'{file}:3: [lisen]: unknown section (did you mean "listen"?)\n'
    )


def test_check_of_a_file_that_is_not_there(file: Path) -> None:
    done = run("check", "--config", file)
    assert done.exit_code == 2
    assert done.stderr == f"{file}: can't be read: No such file or directory\n"


def test_check_finds_what_has_ended(file: Path) -> None:
    file.write_text('[[override]]\ndomain = "example.com"\naction = "off"\nuntil = 2020-02-29\n')
    done = run("check", "--config", file)
    assert (done.exit_code, done.stdout) == (1, "ok\n")
    assert done.stderr == f"warning: {file}:1: [[override]] example.com: ended with 2020-02-29\n"


def test_without_a_file_the_default_is_read_where_it_is_there(file: Path) -> None:
    default = file.with_name("default.toml")
    done = run("check")
    assert (done.exit_code, done.stdout.startswith("ok (there is no ")) == (0, True)
    default.write_text("[dnss]")
    done = run("check")
    assert (done.exit_code, done.stderr.startswith(f"{default}:1: [dnss]: ")) == (2, True)


def test_a_default_file_that_may_not_be_seen_is_not_taken_as_absent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hidden(type(Path())):  # type: ignore[misc]
        def exists(self) -> bool:
            raise PermissionError

    hidden = Hidden("/x")
    monkeypatch.setattr("mtastsd.config.reader.DEFAULT_PATH", hidden)
    assert default_path() is hidden


def test_show_is_a_file_that_loads_to_the_same(file: Path) -> None:
    file.write_text(FULL.replace("s3cr3t", "***"))
    settings = load(file, {})
    done = run("show", "--config", file)
    assert done.exit_code == 0
    file.write_text(done.stdout)
    assert load(file, {}) == settings


def test_show_tells_origins_and_no_password(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(FULL)
    monkeypatch.setenv("MTASTSD_LOG_LEVEL", "debug")
    done = run("show", "--config", file)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for line in (
        f'timeout = "1500ms" # {file}:2',
        f'nameservers = ["[::1]:53"] # {file}:3',
        'dnssec = "auto" # default',
        'timeout = "60s" # default',
        "max_bytes = 65536 # default",
        f'organization = "O \\"&\\" K" # {file}:5',
        f'url = "postgresql://me:***@h/d" # {file}:7',
        'level = "debug" # environment MTASTSD_LOG_LEVEL',
        f"[[override]] # {file}:8",
        "until = 2999-12-31",
        f"[[report.suppress]] # {file}:14",
    ):
        assert line in lines
    assert "s3cr3t" not in done.stdout


def test_show_of_defaults_has_every_key(file: Path) -> None:
    done = run("show")
    data = tomllib.loads(done.stdout)
    assert [f"{s}.{k}" for s, keys in data.items() for k in keys] == [k.path for k in all_keys()]
    file.write_text(done.stdout)
    assert load(file, {}) == Settings()


def test_show_as_json(file: Path) -> None:
    file.write_text(FULL)
    done = run("show", "--json", "--config", file)
    shown = json.loads(done.stdout)
    assert shown["dns"]["timeout"] == {"value": "1500ms", "origin": f"{file}:2"}
    assert shown["dns"]["dnssec"] == {"value": "auto", "origin": "default"}
    assert shown["store"]["url"]["value"] == "postgresql://me:***@h/d"
    assert shown["override"] == [
        {
            "domain": "example.com",
            "action": "secure",
            "mx": ["*.example.com"],
            "until": "2999-12-31",
            "reason": "ticket",
            "origin": f"{file}:8",
        }
    ]
    assert shown["report"]["suppress"] == [{"to": "mailto:a@example.com", "origin": f"{file}:14"}]


def test_show_of_a_bad_file(file: Path) -> None:
    file.write_text("x")
    done = run("show", "--config", file)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{file}:1: is not TOML" in done.stderr
