"""`mtastsd report`: the tally before it is sent, dry runs, sending again, and anybody's reports."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mtastsd.cli.main import main
from mtastsd.clock import SystemClock
from mtastsd.config import Settings, load
from mtastsd.daemon import Stores, open_store
from mtastsd.log import Log
from mtastsd.names import Domain
from mtastsd.ports import Delivery, TallyBatch
from mtastsd.reporting import Press
from mtastsd.tlsrpt.record import Mailto
from mtastsd.tlsrpt.session import Detail, PolicyKey, ResultType
from mtastsd.tlsrpt.tally import Day, Totals, day_of
from tests.unit import tlsrpt_schema

D = Domain("example.com")
FAILED = Detail(ResultType.CERTIFICATE_EXPIRED, "192.0.2.1", "mx.example.com", "192.0.2.2")
STS = PolicyKey("sts", D, ("version: STSv1", "mode: enforce"), ("mx.example.com",))


class Site:
    """A configuration and its store."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "mtastsd.toml"
        self.config.write_text(
            f'[store]\nurl = "sqlite:///{folder}/m.db"\n[report]\n'
            'organization = "Relay Example"\ncontact = "tlsrpt@relay.example"\n'
            'from = "tlsrpt@relay.example"\n'
        )
        loaded = load(self.config, {})
        assert isinstance(loaded, Settings)
        self.settings = loaded
        self.today = day_of(time.time())

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(main, ["report", *words, "--config", str(self.config)])

    def fill(self, day: Day, *, settle: bool = False) -> None:
        asyncio.run(self._fill(day, settle))

    async def _fill(self, day: Day, settle: bool) -> None:
        log = Log(logging.getLogger("mtastsd"))
        stores = await open_store(self.settings, SystemClock(), log)
        tally = {STS: Totals(7, 2, {FAILED: 2})}
        sequence = await stores.tallies.sequence("test")
        await stores.tallies.add(TallyBatch("test", sequence + 1, {(day, D): tally}, {}))
        if settle:
            await self._settle(stores, day)
        await stores.policies.close()

    async def _settle(self, stores: Stores, day: Day) -> None:
        tally = await stores.tallies.tally(day, D)
        report = Press.of(self.settings, None).build(day, D, tally, 1.0)
        row = Delivery(report.report_id, "mailto:r@example.com", "failed", 9, 1.0, 2.0, "550 no")
        await stores.outbox.settle(day, D, "reported", report, [row])

    def mail(self) -> bytes:
        press = Press.of(self.settings, None)
        report = press.build(self.today, D, {STS: Totals(7, 2, {FAILED: 2})}, 1.0)
        return press.compose(report, Mailto("r@example.com"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_today_s_tally_before_it_is_sent(site: Site) -> None:
    site.fill(site.today)
    listed = site.run("list").output
    assert "example.com  9         2       not closed yet" in listed
    shown = site.run("show", "Example.com").output
    assert "sts example.com, MX mx.example.com: 7 succeeded, 2 failed" in shown
    assert "certificate-expired" in shown
    assert "this is what would be reported now" in shown
    [row] = json.loads(site.run("list", "--json").output)["domains"]
    assert (row["domain"], row["sessions"], row["failures"]) == ("example.com", 9, 2)


def test_what_was_sent_and_sending_it_again(site: Site) -> None:
    yesterday = Day(site.today - 1)
    site.fill(yesterday, settle=True)
    listed = site.run("list", "--day", "yesterday").output
    assert "mailto:r@example.com failed after 9 tries (550 no)" in listed
    assert site.run("send", "example.com").output == "waiting: mailto:r@example.com\n"
    shown = json.loads(site.run("show", "example.com", "--day", "yesterday", "--json").output)
    [delivery] = shown["deliveries"]
    assert (delivery["state"], delivery["tries"]) == ("waiting", 0)
    assert site.run("send", "other.example").exit_code == 1


def test_a_dry_run_writes_reports_and_sends_nothing(site: Site, tmp_path: Path) -> None:
    site.fill(site.today)
    result = site.run("build", "--day", "today", "--output", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    [path] = (tmp_path / "out").iterdir()
    assert path.name.startswith("relay.example!example.com!")
    assert path.name.endswith(".json.gz")
    found = json.loads(gzip.decompress(path.read_bytes()))
    assert list(tlsrpt_schema.problems(tlsrpt_schema.REPORT, found)) == []
    assert "not closed yet" in site.run("list").output
    nothing = site.run("build", "--day", "2020-02-29", "--output", str(tmp_path / "none"))
    assert nothing.exit_code == 1


def test_a_dry_run_needs_an_identity(site: Site, tmp_path: Path) -> None:
    site.config.write_text(site.config.read_text().replace("organization", "#organization"))
    result = site.run("build", "--output", str(tmp_path / "out"))
    assert (result.exit_code, "report.organization" in result.output) == (2, True)


def read(*paths: Path, as_json: bool = False) -> Result:
    options = ["--json"] if as_json else []
    return CliRunner().invoke(main, ["report", "read", *options, *map(str, paths)])


def test_the_reader_takes_json_gzip_and_mail(site: Site, tmp_path: Path) -> None:
    mail = tmp_path / "a.eml"
    mail.write_bytes(site.mail())
    whole = read(mail)
    assert whole.exit_code == 0
    assert "Relay Example (tlsrpt@relay.example)" in whole.output
    body = read(mail, as_json=True).output
    plain = tmp_path / "b.json"
    plain.write_text(json.dumps(json.loads(body)["reports"][0]).replace("_", "-"))
    packed = tmp_path / "c.json.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    several = read(mail, plain, packed)
    assert several.exit_code == 0, several.output
    assert "Relay Example  example.com    sts     21         6       3" in several.output
    assert "6         example.com    certificate-expired  mx.example.com" in several.output


def test_the_reader_says_what_it_can_t_read_and_goes_on(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "mails"
    folder.mkdir()
    (folder / "good.eml").write_bytes(site.mail())
    (folder / "spam.eml").write_bytes(b"From: a@example.com\r\n\r\nhello\r\n")
    (folder / "bad.json.gz").write_bytes(b"\x1f\x8bxxxx")
    result = read(folder, tmp_path / "missing")
    assert result.exit_code == 1
    assert "Relay Example" in result.output
    for words in ("spam.eml: no report in it", "bad.json.gz: no report: gzip", "No such file"):
        assert words in result.output


@pytest.mark.parametrize("day", ["tomorrow", "2026-13-01", "0"])
def test_a_day_that_is_none(site: Site, day: str) -> None:
    result = site.run("list", "--day", day)
    assert (result.exit_code, "2026-11-24, today or yesterday" in result.output) == (2, True)
