"""RFC 8461 §3.1 as tables."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd import abnf
from mtastsd.sts import record
from mtastsd.sts.record import BadRecord, NoRecord, Record, select


@pytest.mark.parametrize(
    ("text", "record_id"),
    [
        (b"v=STSv1; id=20160831085700Z;", "20160831085700Z"),  # the RFC's example
        (b"v=STSv1;id=1", "1"),
        (b"v=STSv1 ;id=1", "1"),
        (b"v=STSv1\t;\tid=1\t;\t", "1"),
        (b"v=STSv1; id=" + b"a" * 32, "a" * 32),
        (b"v=STSv1; x=y; id=1", "1"),
        (b"v=STSv1; id=1; x=y", "1"),
        (b"v=STSv1; id=1; v=STSv2", "1"),
        (b"v=STSv1; id=1; id=2", "1"),
        (b"v=STSv1; id=1; id=-", "1"),  # the first holds, whatever the later says
        (b"v=STSv1; id=1; id=", "1"),
        (b"v=STSv1; ID=2; id=1", "1"),
        (b"v=STSv1; id=1; x=" + b"y" * 1000, "1"),
    ],
)
def test_good(text: bytes, record_id: str) -> None:
    assert select([text]) == Record(record_id)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"v=STSv1;", "no-id"),
        (b"v=STSv1; x=1", "no-id"),
        (b"v=STSv1; ID=1", "no-id"),
        (b"v=STSv1; id=", "bad-id"),
        (b"v=STSv1; id=2026-01-01", "bad-id"),
        (b"v=STSv1; id=1:2", "bad-id"),
        (b"v=STSv1; id=" + b"a" * 33, "bad-id"),
        (b"v=STSv1; id=" + b"a" * 40, "bad-id"),
        (b"v=STSv1; id=1 2;", "bad-id"),
        (b"v=STSv1; id=1=2;", "bad-id"),
        (b"v=STSv1; id= 1;", "bad-id"),
        (b"v=STSv1; id=\xd9\xa1;", "bad-id"),
        (b"v=STSv1; id=1\n;", "bad-id"),
        (b"v=STSv1; id=-; id=1", "bad-id"),
        (b"v=STSv1; id=1 ", "syntax"),
        (b"v=STSv1; id=1;;", "syntax"),
        (b"v=STSv1; id=1; x", "syntax"),
        (b"v=STSv1; id=1; x=", "syntax"),
        (b"v=STSv1; id=1; x=a b", "syntax"),
        (b"v=STSv1; id=1; x=a=b", "syntax"),
        (b"v=STSv1; id=1; x=\x01", "syntax"),
        (b"v=STSv1; id=1; x=\xff", "syntax"),
        (b"v=STSv1; id:1", "syntax"),
        (b"v=STSv1; id =1", "syntax"),
        (b"v=STSv1; id=1" + b" " * abnf.MAX_RECORD, "overlong"),
    ],
)
def test_bad(text: bytes, why: record.Why) -> None:
    assert select([text]) == BadRecord(why)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"v=STSv1",
        b"v=STSv1 id=1",
        b"v=STSv12; id=1",
        b"v=STSv2; id=1",
        b"v=stsv1; id=1",
        b" v=STSv1; id=1",
        b"id=1; v=STSv1",
        b"v=spf1 -all",
        b"v=TLSRPTv1; rua=mailto:a@example.com",
        b"\xff\xfe",
    ],
)
def test_none(text: bytes) -> None:
    assert select([text]) == NoRecord()
    assert select([text, b"v=STSv1; id=1"]) == Record("1")


@pytest.mark.parametrize(
    ("found", "selected"),
    [
        ([], NoRecord()),
        ([b"v=spf1 -all", b"v=STSv1; id=1", b""], Record("1")),
        ([b"v=STSv1; id=1", b"v=STSv12; id=2"], Record("1")),
        ([b"v=STSv1; id=1", b"v=STSv1; id=2"], BadRecord("several")),
        ([b"v=STSv1; id=1", b"v=STSv1; id=1"], BadRecord("several")),
        # discarded is what does not begin with the version, not what is invalid otherwise
        ([b"v=STSv1; id=1", b"v=STSv1;"], BadRecord("several")),
    ],
)
def test_one_of_many(found: list[bytes], selected: Record | NoRecord | BadRecord) -> None:
    assert select(found) == selected


def test_text_is_fit_to_be_shown() -> None:
    good = select([b"v=STSv1; id=1"])
    assert isinstance(good, Record)
    assert good.text == "v=STSv1; id=1"
    bad = select([b"v=STSv1; id=\x1b[31m\xff\n" + b"x" * 1000])
    assert isinstance(bad, BadRecord)
    assert bad.text.startswith("v=STSv1; id=?[31m??xx")
    assert len(bad.text) == record.MAX_TEXT
    several = select([b"v=STSv1; id=1", b"v=STSv1; id=2"])
    assert isinstance(several, BadRecord)
    assert several.text == "v=STSv1; id=1 | v=STSv1; id=2"


IDS = st.from_regex(r"[A-Za-z0-9]{1,32}", fullmatch=True)


@given(IDS)
def test_every_id_is_read_back(record_id: str) -> None:
    assert select([f"v=STSv1; id={record_id};".encode()]) == Record(record_id)


@given(st.lists(st.binary(max_size=80).map(lambda rest: b"v=STSv1;" + rest), max_size=2))
def test_any_octets_give_an_outcome(found: list[bytes]) -> None:
    outcome = select(found)
    if isinstance(outcome, Record):
        assert len(outcome.id) <= 32
        assert outcome.id.isascii()
        assert outcome.id.isalnum()
    elif isinstance(outcome, BadRecord):
        assert outcome.why in get_args(record.Why)
        assert outcome.text.isascii()
        assert outcome.text.isprintable()
