"""What is shipped beside the code says what the code does, and nothing of any one machine."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import mtastsd
from mtastsd.cli.main import main
from mtastsd.metrics import Metrics
from mtastsd.postfix import reply

TOP = Path(__file__).parents[2]
MAN = (TOP / "packaging/man/mtastsd.8").read_text()


# ---- the manual


def commands(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of each command that the help lists."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))
        elif not command.hidden:
            yield (*before, name)


@pytest.mark.parametrize("words", list(commands(main)), ids=" ".join)
def test_the_manual_has_each_command(words: tuple[str, ...]) -> None:
    assert re.search(rf"(?m)^\.It Cm {re.escape(' '.join(words))}( |$)", MAN)


@pytest.mark.parametrize("words", list(commands(main)), ids=" ".join)
def test_the_manual_has_each_option(words: tuple[str, ...]) -> None:
    command: click.Command = main
    for word in words:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found
    options = [o for p in command.params if isinstance(p, click.Option) for o in p.opts]
    for option in options:
        assert f"Fl Fl {option.removeprefix('--')}" in MAN, option


def test_the_manual_has_no_command_that_is_not_there() -> None:
    known = {" ".join(words) for words in commands(main)}
    described = re.findall(r"(?m)^\.It Cm ([a-z]+(?: [a-z]+)?)", MAN)
    assert set(described) == known


EVENT = re.compile(
    r"(?:log(?:\.Log\(\))?\.(?:debug|info|warning|error)|(?<!\w)tell)"
    r'\(\s*"([a-z][a-z-]*)"'
)


def log_events() -> set[str]:
    sources = (TOP / "mtastsd").rglob("*.py")
    return {event for path in sources for event in EVENT.findall(path.read_text())}


def section(name: str) -> str:
    """A section of the manual, as it stands."""
    found = re.search(rf"(?ms)^\.S[hs] {name}$(.*?)(?=^\.S[hs] |\Z)", MAN)
    assert found
    return found[1]


def test_the_manual_lists_each_log_event_and_no_other() -> None:
    events = log_events()
    assert {"ready", "lookup", "policy-fetched"} <= events  # the search still finds them
    begun = tuple(event for event in events if event.endswith("-"))  # the rest is a state's name
    listed = set(re.findall(r"(?m)^\.It Li ([a-z-]+)$", section("DIAGNOSTICS")))
    assert events - set(begun) <= listed, "log events that mtastsd(8) lacks"
    assert not {event for event in listed - events if not event.startswith(begun)}
    assert all(any(event.startswith(start) for event in listed) for start in begun)


def test_the_manual_lists_each_metric_and_no_other() -> None:
    metrics = Metrics()
    metrics.collect_with(list)
    names = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in metrics.registry.collect()
        if family.name.startswith("mtastsd_")
    }
    assert set(re.findall(r"(?m)^\.It Li (mtastsd_\w+)", section("Metrics"))) == names


@pytest.mark.parametrize(
    ("name", "style"),
    [
        ("postfix", reply.Style.PLAIN),
        ("QUERY", reply.Style.PLAIN),
        ("postfix-tlsrpt", reply.Style.TLSRPT),
        ("QUERYwithTLSRPT", reply.Style.TLSRPT),
        ("sts", reply.Style.SENDMAIL),
    ],
)
def test_the_manual_has_each_map_name(name: str, style: reply.Style) -> None:
    assert reply.style(name) is style
    assert name in re.split(r"[\s,]+", section("MAP NAMES"))


MDOC = re.compile(
    "Dd|Dt|Os|Sh|Ss|Nm|Nd|Op|Fl|Ar|Cm|Pp|Va|Ev|Pa|Li|Ql|Dq|Dv|Pq|Po|Pc|Bl|It|El|Bd|Ed|Xr|Em|Sy|No|Ns|Ic|Bq"
)


@pytest.mark.parametrize("page", sorted((TOP / "packaging/man").iterdir()), ids=lambda p: p.name)
def test_manual_pages_are_well_formed(page: Path) -> None:
    lines = page.read_text().split("\n")
    stack: list[str] = []
    for number, line in enumerate(lines, 1):
        assert line == line.rstrip(), f"line {number}: blanks at the end"
        if not re.match(r"\.[A-Z]", line) or ".Dd" not in page.read_text():
            continue
        word = line[1:].split()[0]
        assert MDOC.fullmatch(word), f"line {number}: no macro .{word}"
        if word in ("Bl", "Bd"):
            stack.append(word)
        elif word in ("El", "Ed"):
            assert stack.pop() == {"El": "Bl", "Ed": "Bd"}[word], f"line {number}"
    assert not stack


# ---- systemd


def directives(path: Path) -> dict[str, dict[str, list[str]]]:
    """The sections of a unit, each key with its values; any line that is neither is refused."""
    found: dict[str, dict[str, list[str]]] = {}
    here: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if header := re.fullmatch(r"\[([A-Z][A-Za-z]+)\]", line):
            here = found.setdefault(header[1], {})
            continue
        pair = re.fullmatch(r"([A-Z][A-Za-z0-9]+)=(.*)", line)
        assert pair, f"{path.name}: {line!r}"
        here.setdefault(pair[1], []).append(pair[2])
    return found


def test_the_unit_notifies_and_is_hardened() -> None:
    service = directives(TOP / "packaging/systemd/mtastsd.service")["Service"]
    assert service["Type"] == ["notify"]
    assert service["CapabilityBoundingSet"] == [""]
    for key in (
        "LockPersonality",
        "MemoryDenyWriteExecute",
        "NoNewPrivileges",
        "PrivateDevices",
        "PrivateTmp",
        "ProtectHome",
        "ProtectKernelTunables",
        "RestrictNamespaces",
    ):
        assert service[key] == ["yes"], key
    assert service["ProtectSystem"] == ["strict"]
    assert service["SystemCallFilter"][0] == "@system-service"
    assert service["RestartPreventExitStatus"] == ["2"]


def test_the_unit_starts_a_command_that_is_there() -> None:
    service = directives(TOP / "packaging/systemd/mtastsd.service")["Service"]
    program, command, *arguments = service["ExecStart"][0].split()
    assert Path(program).name == "mtastsd"
    found = main.get_command(click.Context(main), command)
    assert found is not None
    options = {option for parameter in found.params for option in parameter.opts}
    assert {a for a in arguments if a.startswith("--")} <= options


@pytest.mark.parametrize(
    ("unit", "name", "listens"),
    [
        ("mtastsd.socket", "policy", ["/run/mtastsd/policy.sock", "127.0.0.1:8461"]),
        ("mtastsd-tlsrpt.socket", "tlsrpt", ["/run/mtastsd/tlsrpt.sock"]),
    ],
)
def test_the_socket_units_are_those_of_the_daemon(unit: str, name: str, listens: list[str]) -> None:
    found = directives(TOP / "packaging/systemd" / unit)["Socket"]
    assert found["FileDescriptorName"] == [name]
    assert found.get("ListenStream", found.get("ListenDatagram")) == listens


# ---- commands, scripts, versions


def makefile_targets() -> set[str]:
    return set(re.findall(r"(?m)^([a-z0-9]+):", (TOP / "Makefile").read_text()))


@pytest.mark.parametrize(
    ("document", "at_least"),
    [("README.md", {"run", "test"}), ("CONTRIBUTING.md", {"test", "check"})],
)
def test_documents_name_targets_that_are_there(document: str, at_least: set[str]) -> None:
    text = (TOP / document).read_text()
    named = set(re.findall(r"(?:^|`|    )make ([a-z0-9]+)", text, re.MULTILINE))
    assert at_least <= named
    assert named <= makefile_targets()


def test_the_readme_names_commands_that_are_there() -> None:
    text = (TOP / "README.md").read_text()
    known = {words[0] for words in commands(main)}
    named = re.findall(r"(?m)^(?:    (?:[#$] )?|.*`)mtastsd ([a-z]+)", text)
    assert {"query", "check", "postfix"} <= set(named) <= known


def test_each_target_has_its_words_in_the_help() -> None:
    phony = re.search(r"(?m)^\.PHONY: (.*)$", (TOP / "Makefile").read_text())
    assert phony
    helped = set(re.findall(r"(?m)^([a-z0-9]+):.*## ", (TOP / "Makefile").read_text()))
    assert set(phony[1].split()) == helped == makefile_targets()


@pytest.mark.parametrize(
    "script", [*sorted((TOP / "scripts").iterdir()), TOP / ".ci/run"], ids=lambda p: p.name
)
def test_scripts_are_bash_that_parses(script: Path) -> None:
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert text.startswith(("#!/usr/bin/env bash\n", "#!/bin/bash\n"))
    assert "set -euo pipefail" in text
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_versions_agree() -> None:
    version = mtastsd.__version__
    assert f"\n## [{version}]" in (TOP / "CHANGELOG.md").read_text()
    assert (TOP / "packaging/debian/changelog").read_text().startswith(f"mtastsd ({version}-1) ")


@pytest.mark.parametrize(("file", "style"), [("3.4", "PLAIN"), ("3.10", "TLSRPT")])
def test_main_cf_asks_for_the_map_of_its_postfix(file: str, style: str) -> None:
    text = (TOP / f"contrib/postfix/main.cf.{file}").read_text()
    found = re.search(r"(?m)^smtp_tls_policy_maps = socketmap:inet:127\.0\.0\.1:8461:(\S+)$", text)
    assert found
    assert reply.style(found[1]) is reply.Style[style]
    for line in ("smtp_tls_security_level = dane", "smtp_dns_support_level = dnssec"):
        assert f"\n{line}\n" in text


IMPORTED_AS = {
    "PyNaCl": "dkim",  # by dkimpy, for Ed25519
    "dkimpy": "dkim",
    "prometheus-client": "prometheus_client",
    "psycopg": None,  # the store that uses it is not written yet
    "systemd-python": "systemd",
}


def dependencies() -> dict[str, list[str]]:
    """The requirements of pyproject.toml by extra; "" for those that are always needed."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    found = {"": project["dependencies"], **project["optional-dependencies"]}
    return {
        extra: [re.split(r"[>=<\[]", line)[0] for line in rows] for extra, rows in found.items()
    }


@pytest.mark.parametrize(
    "name", [name for extra, rows in dependencies().items() if extra != "dev" for name in rows]
)
def test_each_dependency_is_used_and_explained(name: str) -> None:
    module = IMPORTED_AS.get(name, name)
    if module is None:
        return
    using = re.compile(rf"(?m)^\s*(?:import|from) {module}\b(?!\.py)")
    assert any(using.search(path.read_text()) for path in (TOP / "mtastsd").rglob("*.py"))
    assert re.search(rf"(?m)^\| [^|]*\b{name}\b[^|]*\|", (TOP / "ARCHITECTURE.md").read_text())


# ---- nothing of one machine


def shipped() -> list[Path]:
    """Every file under version control; outside a checkout, every file."""
    listed = subprocess.run(["git", "-C", str(TOP), "ls-files", "-z"], capture_output=True)
    if listed.returncode == 0 and listed.stdout:
        paths = [TOP / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
        return [path for path in paths if path.is_file()]
    hidden = re.compile(r"/(\.(?!ci/)[^/]+|__pycache__|dist|build)/")
    return [p for p in TOP.rglob("*") if p.is_file() and not hidden.search(str(p))]


FOREIGN = [
    # Spelt so that this file does not find itself.
    re.compile(rb"(?:^|[^\w.-])/(?:wor[k]|roo[t]|hom[e])/[\w.-]+", re.MULTILINE),
    re.compile(rb"https?://[^\s/]+/(?:[^\s]*/)?simpl[e](?:/|\s|$)"),
    re.compile(rb"https?://[^\s/]+/debia[n](?:/|\s|$|-security)"),
    re.compile(rb"(?:--index-ur[l]|--extra-inde[x]|PIP_INDEX_UR[L])"),
]


def test_no_file_names_a_path_or_a_package_host_of_one_machine() -> None:
    files = shipped()
    assert TOP / "pyproject.toml" in files
    found = [
        f"{path.relative_to(TOP)}: {hit[0].decode(errors='replace')}"
        for path in files
        for pattern in FOREIGN
        for hit in pattern.finditer(path.read_bytes())
    ]
    assert found == []
