"""RFC 8460 §4.3: what a probe of an MX host would have been as a session under enforcement.

This is how testing mode says something although the mail went out, and what `check` prints. A
probe that says nothing of the host's TLS (it could not be reached, or it did not want to talk) is
no result: transient errors are not reported (RFC 8460 §4.3.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from mtastsd.names import Domain
from mtastsd.probing import Probe, Stage, covers
from mtastsd.tlsrpt.session import ResultType

HANDSHAKE_FAILURE = "tls-handshake-failure"
"""Postfix's own word for a handshake that came to nothing."""

NAMES: Mapping[int, str] = MappingProxyType(
    {
        2: "UNABLE_TO_GET_ISSUER_CERT",
        7: "CERT_SIGNATURE_FAILURE",
        9: "CERT_NOT_YET_VALID",
        10: "CERT_HAS_EXPIRED",
        13: "ERROR_IN_CERT_NOT_BEFORE_FIELD",
        14: "ERROR_IN_CERT_NOT_AFTER_FIELD",
        18: "DEPTH_ZERO_SELF_SIGNED_CERT",
        19: "SELF_SIGNED_CERT_IN_CHAIN",
        20: "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
        21: "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
        22: "CERT_CHAIN_TOO_LONG",
        23: "CERT_REVOKED",
        24: "NO_ISSUER_PUBLIC_KEY",
        25: "PATH_LENGTH_EXCEEDED",
        26: "INVALID_PURPOSE",
        27: "CERT_UNTRUSTED",
        28: "CERT_REJECTED",
        34: "UNHANDLED_CRITICAL_EXTENSION",
        47: "PERMITTED_VIOLATION",
        48: "EXCLUDED_VIOLATION",
        62: "HOSTNAME_MISMATCH",
        66: "EE_KEY_TOO_SMALL",
        67: "CA_KEY_TOO_SMALL",
        68: "CA_MD_TOO_WEAK",
        76: "UNSUPPORTED_SIGNATURE_ALGORITHM",
        77: "SIGNATURE_ALGORITHM_MISMATCH",
        79: "INVALID_CA",
        94: "EC_KEY_EXPLICIT_PARAMS",
    }
)
"""X509_V_ERR codes of OpenSSL 3 (x509_vfy.h) that a chain from the network can lead to."""

_RESULTS: Mapping[int, ResultType] = MappingProxyType(
    {
        9: ResultType.VALIDATION_FAILURE,  # not yet valid: no word of the RFC's says so
        10: ResultType.CERTIFICATE_EXPIRED,
    }
)
"""All others are certificate-not-trusted."""

Silence = Literal["address", "unreachable", "timeout", "closed", "refused", "protocol"]


@dataclass(frozen=True, slots=True)
class Passed:
    """Enforcement would have let the mail through."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Enforcement would have stopped it. `reason` is of a small fixed vocabulary, "" for none."""

    result: ResultType
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Nothing:
    """The probe says nothing of the host's TLS. `refused`: 4xx or 5xx, it does not want us."""

    why: Silence


Judgement = Passed | Failed | Nothing

_HANDSHAKE = Failed(ResultType.VALIDATION_FAILURE, HANDSHAKE_FAILURE)

MISMATCH = Failed(ResultType.CERTIFICATE_HOST_MISMATCH, "X509_V_ERR_HOSTNAME_MISMATCH")
"""The certificate is for other names."""


def judge(probe: Probe, host: Domain) -> Judgement:
    """What enforcement of an MTA-STS policy that lists `host` would have made of it (RFC 8461
    §4.2). The chain comes before the name, as in OpenSSL."""
    refused = chain(probe)
    if refused is None and probe.tls is not None and not covers(probe.tls.names, host):
        refused = MISMATCH
    return refused or session(probe)


def chain(probe: Probe) -> Failed | None:
    """What is wrong with the certificate chain, whatever names it is for."""
    code = probe.tls.verify_code if probe.tls is not None else 0
    if not code:
        return None
    return Failed(_RESULTS.get(code, ResultType.CERTIFICATE_NOT_TRUSTED), verify_word(code))


def session(probe: Probe) -> Judgement:
    """How it went, whatever the certificate: what matters where none is asked for."""
    match probe.trouble:
        case None:
            return Passed()
        case "no-starttls":
            return Failed(ResultType.STARTTLS_NOT_SUPPORTED)
        case "starttls-refused":
            return Failed(
                ResultType.STARTTLS_NOT_SUPPORTED, f"smtp-starttls-reply-code-{probe.code}"
            )
        case "tls":
            # In TLS 1.3 a peer's alert may come after its part of the handshake.
            return _HANDSHAKE
        case "closed" if probe.stage is Stage.HANDSHAKE:
            return _HANDSHAKE
        case "connect":
            return Nothing("unreachable")
        case "timeout":
            return Nothing("unreachable" if probe.stage is Stage.CONNECT else "timeout")
        case "reply":
            return Nothing("refused")
        case why:
            return Nothing(why)


def verify_word(code: int) -> str:
    """OpenSSL's name for a verify code, the failure-reason-code of a report; the number alone where
    it is none of ours: `X509_V_ERR_92`."""
    return f"X509_V_ERR_{NAMES.get(code, code)}"
