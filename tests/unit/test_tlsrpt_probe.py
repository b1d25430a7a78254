"""RFC 8460 §4.3: what a probe counts as."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from mtastsd.names import Domain
from mtastsd.probing import Probe, Stage, Tls, Trouble
from mtastsd.tlsrpt.probe import (
    NAMES,
    Failed,
    Judgement,
    Nothing,
    Passed,
    judge,
    verify_word,
)
from mtastsd.tlsrpt.session import MAX_REASON, ResultType

HOST = Domain("mx.example.com")
GOOD = Tls(0, names=(HOST,))

HANDSHAKE = Failed(ResultType.VALIDATION_FAILURE, "tls-handshake-failure")
NO_STARTTLS = ResultType.STARTTLS_NOT_SUPPORTED


def seen(
    stage: Stage, trouble: Trouble | None = None, *, code: int = 0, tls: Tls | None = None
) -> Probe:
    return Probe(HOST, "192.0.2.1", stage, trouble, code=code, tls=tls)


def refused(code: int) -> Tls:
    return Tls(code, names=(HOST,))


TABLE: list[tuple[Probe, Judgement]] = [
    (seen(Stage.DONE, tls=GOOD), Passed()),
    (seen(Stage.CONNECT, "address"), Nothing("address")),
    (seen(Stage.CONNECT, "connect"), Nothing("unreachable")),
    (seen(Stage.CONNECT, "timeout"), Nothing("unreachable")),
    (seen(Stage.BANNER, "timeout"), Nothing("timeout")),
    (seen(Stage.BANNER, "closed"), Nothing("closed")),
    (seen(Stage.BANNER, "reply", code=554), Nothing("refused")),
    (seen(Stage.BANNER, "protocol"), Nothing("protocol")),
    (seen(Stage.EHLO, "reply", code=421), Nothing("refused")),
    (seen(Stage.EHLO, "no-starttls"), Failed(NO_STARTTLS)),
    (seen(Stage.STARTTLS, "starttls-refused", code=454),
     Failed(NO_STARTTLS, "smtp-starttls-reply-code-454")),
    (seen(Stage.STARTTLS, "starttls-refused", code=502),
     Failed(NO_STARTTLS, "smtp-starttls-reply-code-502")),
    (seen(Stage.STARTTLS, "closed"), Nothing("closed")),
    (seen(Stage.HANDSHAKE, "tls"), HANDSHAKE),
    (seen(Stage.HANDSHAKE, "closed"), HANDSHAKE),
    (seen(Stage.HANDSHAKE, "timeout"), Nothing("timeout")),
    (seen(Stage.SECOND_EHLO, "tls", tls=GOOD), HANDSHAKE),
    (seen(Stage.SECOND_EHLO, "closed", tls=GOOD), Nothing("closed")),
    (seen(Stage.SECOND_EHLO, "reply", code=451, tls=GOOD), Nothing("refused")),
    # The certificate decides, however the session went on.
    (seen(Stage.DONE, tls=refused(10)),
     Failed(ResultType.CERTIFICATE_EXPIRED, "X509_V_ERR_CERT_HAS_EXPIRED")),
    (seen(Stage.DONE, tls=refused(9)),
     Failed(ResultType.VALIDATION_FAILURE, "X509_V_ERR_CERT_NOT_YET_VALID")),
    (seen(Stage.HANDSHAKE, "tls", tls=refused(18)),
     Failed(ResultType.CERTIFICATE_NOT_TRUSTED, "X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT")),
    (seen(Stage.SECOND_EHLO, "closed", tls=refused(20)),
     Failed(ResultType.CERTIFICATE_NOT_TRUSTED, "X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY")),
    (seen(Stage.DONE, tls=refused(999)),
     Failed(ResultType.CERTIFICATE_NOT_TRUSTED, "X509_V_ERR_999")),
    (seen(Stage.DONE, tls=Tls(0, names=("mx.example.net",))),
     Failed(ResultType.CERTIFICATE_HOST_MISMATCH, "X509_V_ERR_HOSTNAME_MISMATCH")),
    (seen(Stage.DONE, tls=Tls(0)),
     Failed(ResultType.CERTIFICATE_HOST_MISMATCH, "X509_V_ERR_HOSTNAME_MISMATCH")),
    # Expired and for another name: the chain comes first.
    (seen(Stage.DONE, tls=Tls(10)),
     Failed(ResultType.CERTIFICATE_EXPIRED, "X509_V_ERR_CERT_HAS_EXPIRED")),
]  # fmt: skip


@pytest.mark.parametrize(("probe", "judged"), TABLE)
def test_judgements(probe: Probe, judged: Judgement) -> None:
    assert judge(probe, HOST) == judged


@pytest.mark.parametrize("trouble", get_args(Trouble))
@pytest.mark.parametrize("stage", Stage)
def test_whatever_ends_a_probe_is_judged(stage: Stage, trouble: Trouble) -> None:
    """No trouble passes for success, and no transient one for a failure."""
    judged = judge(seen(stage, trouble, tls=GOOD), HOST)
    assert not isinstance(judged, Passed)
    if trouble in ("address", "connect", "timeout", "reply", "protocol"):
        assert isinstance(judged, Nothing)


def test_reasons_are_short_and_printable() -> None:
    for code in [*NAMES, 0, 12345]:
        assert re.fullmatch(r"X509_V_ERR_[A-Z0-9_]+", verify_word(code))
        assert len(verify_word(code)) <= MAX_REASON
