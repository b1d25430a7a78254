"""One failure, its result type and its text."""

from __future__ import annotations

from typing import get_args

import pytest

from mtastsd.sts.failure import MAX_DETAIL, Failure, Kind, ResultType, printable

RESULT_TYPES: dict[Kind, ResultType] = {
    "record": "sts-policy-invalid",
    "dns": "sts-policy-fetch-error",
    "address": "sts-policy-fetch-error",
    "connect": "sts-policy-fetch-error",
    "tls": "sts-webpki-invalid",
    "status": "sts-policy-fetch-error",
    "redirect": "sts-policy-fetch-error",
    "type": "sts-policy-invalid",
    "size": "sts-policy-invalid",
    "protocol": "sts-policy-fetch-error",
    "encoding": "sts-policy-invalid",
    "syntax": "sts-policy-invalid",
    "timeout": "sts-policy-fetch-error",
}


@pytest.mark.parametrize("kind", get_args(Kind))
def test_result_types(kind: Kind) -> None:
    assert Failure(kind).result_type == RESULT_TYPES[kind]


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (Failure("timeout"), "timeout"),
        (Failure("status", "404"), "status: 404"),
        (Failure("syntax", "bad-mode", 2), "syntax: bad-mode (line 2)"),
        (Failure("syntax", line=2), "syntax (line 2)"),
    ],
)
def test_text(failure: Failure, text: str) -> None:
    assert str(failure) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain ~", "plain ~"),
        ("a\r\nb\tc\x00d\x7f", "a??b?c?d?"),
        ("\x1b[31m\u202egr\u00fcn", "?[31m?gr?n"),
        ("x" * (MAX_DETAIL + 1), "x" * MAX_DETAIL),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_printable_to_another_limit() -> None:
    assert printable("abc\n", 2) == "ab"
