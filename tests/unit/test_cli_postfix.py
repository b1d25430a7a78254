"""`mtastsd postfix` beside a postconf that is a script."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mtastsd.cli import postconf
from mtastsd.cli import postfix as command
from mtastsd.cli.main import main
from mtastsd.postfix.maincf import CA_FILES

LINES = """\
smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8461:{map}
smtp_tls_security_level = dane
smtp_dns_support_level = dnssec
smtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt
smtp_tls_loglevel = 1
"""

SCRIPT = """\
#!/bin/sh
for argument in "$@"; do printf '%s\\n' "$argument" >>"{log}"; done
case "$1" in
-F) {chroot} ;;
-e) {apply} ;;
*) cat "{values}"; echo "postconf: warning: smtp_tls_new: unknown parameter" >&2 ;;
esac
"""


class Postfix:
    """A postconf that answers from a file and notes what it was told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.values = "mail_version = 3.10.13\nsmtp_tls_policy_maps =\ncompatibility_level = 3.6\n"

    def install(self, *, chroot: str = "echo smtp/unix/chroot = y", apply: str = "exit 0") -> None:
        values, script = self.folder / "values", self.folder / "postconf"
        values.write_text(self.values)
        script.write_text(
            SCRIPT.format(log=self.folder / "log", values=values, chroot=chroot, apply=apply)
        )
        script.chmod(0o755)

    def told(self) -> list[str]:
        return (self.folder / "log").read_text().split("\n")[:-1]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Postfix:
    """No Postfix, until it is installed; authorities where Debian has them."""
    monkeypatch.setattr(postconf, "PROGRAM", str(tmp_path / "postconf"))
    monkeypatch.setattr(command, "_authorities", lambda: CA_FILES[0])
    monkeypatch.setattr("mtastsd.config.reader.DEFAULT_PATH", tmp_path / "none.toml")
    return Postfix(tmp_path)


def run(*arguments: str) -> Result:
    found = CliRunner().invoke(main, ["postfix", *arguments])
    assert found.exception is None or isinstance(found.exception, SystemExit)
    return found


def test_without_a_postfix(installed: Postfix) -> None:
    found = run()
    assert found.stdout == (
        "# There is no Postfix here (no postconf in the path). For others:\n"
        "\n# Postfix 3.10 and later\n" + LINES.format(map="postfix-tlsrpt") +
        "\n# Postfix 3.4 to 3.9\n" + LINES.format(map="postfix")
    )  # fmt: skip
    assert found.exit_code == 0


@pytest.mark.parametrize(
    ("version", "name"), [("3.10.13", "postfix-tlsrpt"), ("3.7.11", "postfix")]
)
def test_with_one(installed: Postfix, version: str, name: str) -> None:
    installed.values = installed.values.replace("3.10.13", version)
    installed.install()
    found = run()
    assert found.stdout == (
        f"# Postfix {version}, smtp(8) chrooted\n{LINES.format(map=name)}# then: postfix reload\n"
    )
    assert found.exit_code == 0
    assert "-e" not in installed.told()


def test_without_a_chroot(installed: Postfix) -> None:
    installed.install(chroot="echo smtp/unix/chroot = n")
    found = run()
    assert found.stdout.startswith(
        "# Postfix 3.10.13, smtp(8) not chrooted\n"
        "smtp_tls_policy_maps = socketmap:unix:/run/mtastsd/policy.sock:postfix-tlsrpt\n"
    )


def test_a_master_cf_without_smtp_is_taken_for_a_chroot(installed: Postfix) -> None:
    installed.install(chroot="exit 1")
    assert run().stdout.startswith("# Postfix 3.10.13, smtp(8) chrooted\n")


def test_warnings_are_comments_that_fit(installed: Postfix) -> None:
    installed.values += "smtp_tls_security_level = encrypt\nsmtp_host_lookup = native\n"
    installed.install()
    found = run()
    assert "smtp_tls_security_level = encrypt\n" in found.stdout
    assert (
        """\
# warning: smtp_tls_security_level = encrypt is above dane and stays, but an
#   answer of the map goes before it; to never get less, set minimum =
#   "encrypt" in [policy] of mtastsd.toml
# warning: smtp_host_lookup = native has no dns in it: DANE defers all its
#   mail
"""
        in found.stdout
    )
    assert found.exit_code == 0


def test_the_configuration_decides(installed: Postfix, tmp_path: Path) -> None:
    installed.install()
    config = tmp_path / "mtastsd.toml"
    config.write_text('[listen]\nsocketmap = ["inet:127.0.0.1:99"]\n[policy]\ndane = false\n')
    found = run("--config", str(config))
    assert "smtp_tls_policy_maps = socketmap:inet:127.0.0.1:99:postfix-tlsrpt\n" in found.stdout
    assert "smtp_tls_security_level = may\n" in found.stdout
    assert "smtp_dns_support_level" not in found.stdout


def test_apply_sets_exactly_these_lines(installed: Postfix) -> None:
    installed.install()
    found = run("--apply")
    lines = LINES.format(map="postfix-tlsrpt")
    assert found.stdout == (
        f"# Postfix 3.10.13, smtp(8) chrooted\n{lines}# set; now: postfix reload\n"
    )
    assert found.exit_code == 0
    told = installed.told()
    assert told[told.index("-e") + 1 :] == lines.split("\n")[:-1]


def test_apply_that_postconf_refuses(installed: Postfix) -> None:
    installed.install(apply="echo 'postconf: fatal: open main.cf: Permission denied' >&2; exit 1")
    found = run("--apply")
    assert found.exit_code == 1
    assert found.stderr == (
        "mtastsd: nothing was set: postconf: fatal: open main.cf: Permission denied\n"
    )


def test_apply_without_a_postfix(installed: Postfix) -> None:
    found = run("--apply")
    assert found.exit_code == 1
    assert found.stderr == "mtastsd: there is no Postfix here: postconf can't be run\n"
    assert found.stdout == ""


def test_a_postconf_that_hangs_is_none(installed: Postfix, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postconf, "TIMEOUT", 0.1)
    installed.install(chroot="exec sleep 30", apply="exec sleep 30")
    assert postconf.run("-e", "a = b") is None
    assert postconf.chroot() == ""


def test_values_are_expanded_where_they_are_used(installed: Postfix) -> None:
    installed.values = "smtp_helo_name = relay.example.net\n"
    installed.install()
    assert postconf.value("smtp_helo_name") == "relay.example.net"
    assert installed.told() == ["-x", "smtp_helo_name"]
    assert postconf.value("mail_version") == ""


@pytest.mark.parametrize(("mode", "where"), [(0o755, "unix:"), (0o700, "inet:127.0.0.1:99:")])
def test_a_socket_in_a_closed_folder_is_passed_over(
    installed: Postfix, tmp_path: Path, mode: int, where: str
) -> None:
    """`make run` in a home folder: the user postfix can't get there."""
    installed.install(chroot="echo smtp/unix/chroot = n")
    config = tmp_path / "mtastsd.toml"
    # Not below tmp_path, which is closed itself.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(mode)
        config.write_text(
            f'[listen]\nsocketmap = ["unix:{folder}/policy.sock", "inet:127.0.0.1:99"]\n'
        )
        found = run("--config", str(config))
    assert f"smtp_tls_policy_maps = socketmap:{where}" in found.stdout
