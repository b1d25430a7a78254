"""RFC 8460 §4.3.2.1: failure-reason-codes, and what they say of the result.

Postfix calls an untrusted issuer a validation failure and gives OpenSSL's text with underscores;
the RFC has a word of its own for it. Texts become OpenSSL's names, which don't change between its
versions as the texts do. A reason that is not listed stays as it came, bounded and printable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from mtastsd.tlsrpt.session import Detail, ResultType

MX_MISMATCH = "mtasts-policy-mx-mismatch"
"""No pattern of the policy lists the MX host."""

_PREFIX = "X509_V_ERR_"

_TEXTS: Mapping[str, str] = MappingProxyType(
    {
        "unable_to_get_issuer_certificate": "UNABLE_TO_GET_ISSUER_CERT",
        "certificate_signature_failure": "CERT_SIGNATURE_FAILURE",
        "certificate_is_not_yet_valid": "CERT_NOT_YET_VALID",
        "certificate_not_yet_valid": "CERT_NOT_YET_VALID",
        "certificate_has_expired": "CERT_HAS_EXPIRED",
        "self-signed_certificate": "DEPTH_ZERO_SELF_SIGNED_CERT",
        "self_signed_certificate": "DEPTH_ZERO_SELF_SIGNED_CERT",
        "self-signed_certificate_in_certificate_chain": "SELF_SIGNED_CERT_IN_CHAIN",
        "self_signed_certificate_in_certificate_chain": "SELF_SIGNED_CERT_IN_CHAIN",
        "unable_to_get_local_issuer_certificate": "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
        "unable_to_verify_the_first_certificate": "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
        "certificate_chain_too_long": "CERT_CHAIN_TOO_LONG",
        "certificate_revoked": "CERT_REVOKED",
        "issuer_certificate_doesn't_have_a_public_key": "NO_ISSUER_PUBLIC_KEY",
        "path_length_constraint_exceeded": "PATH_LENGTH_EXCEEDED",
        "unsupported_certificate_purpose": "INVALID_PURPOSE",
        "unsuitable_certificate_purpose": "INVALID_PURPOSE",
        "certificate_not_trusted": "CERT_UNTRUSTED",
        "certificate_rejected": "CERT_REJECTED",
        "proxy_path_length_constraint_exceeded": "PROXY_PATH_LENGTH_EXCEEDED",
        "hostname_mismatch": "HOSTNAME_MISMATCH",
        "Hostname_mismatch": "HOSTNAME_MISMATCH",
        "no_matching_DANE_TLSA_records": "DANE_NO_MATCH",
        "EE_certificate_key_too_weak": "EE_KEY_TOO_SMALL",
        "CA_certificate_key_too_weak": "CA_KEY_TOO_SMALL",
        "CA_signature_digest_algorithm_too_weak": "CA_MD_TOO_WEAK",
        "invalid_CA_certificate": "INVALID_CA",
    }
)
"""Texts of OpenSSL 1.1 and 3, blanks as Postfix writes them."""

_RESULTS: Mapping[str, ResultType] = MappingProxyType(
    {
        "CERT_HAS_EXPIRED": ResultType.CERTIFICATE_EXPIRED,
        "HOSTNAME_MISMATCH": ResultType.CERTIFICATE_HOST_MISMATCH,
        **dict.fromkeys(
            (
                "UNABLE_TO_GET_ISSUER_CERT",
                "CERT_SIGNATURE_FAILURE",
                "DEPTH_ZERO_SELF_SIGNED_CERT",
                "SELF_SIGNED_CERT_IN_CHAIN",
                "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
                "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
                "CERT_CHAIN_TOO_LONG",
                "CERT_REVOKED",
                "NO_ISSUER_PUBLIC_KEY",
                "PATH_LENGTH_EXCEEDED",
                "INVALID_PURPOSE",
                "CERT_UNTRUSTED",
                "CERT_REJECTED",
                "DANE_NO_MATCH",
                "EE_KEY_TOO_SMALL",
                "CA_KEY_TOO_SMALL",
                "CA_MD_TOO_WEAK",
                "INVALID_CA",
            ),
            ResultType.CERTIFICATE_NOT_TRUSTED,
        ),
    }
)
"""What a validation failure for this reason is called. A certificate that is not yet valid stays
one, for which no other word fits, and so does the proxy's path length of RFC 8460 §B."""


def settle(detail: Detail) -> Detail:
    """The detail with its reason from the fixed vocabulary, and the result that goes with it."""
    if not detail.reason:
        return detail
    name = _TEXTS.get(detail.reason)
    reason = f"{_PREFIX}{name}" if name is not None else detail.reason
    result = detail.result
    if result is ResultType.VALIDATION_FAILURE and reason.startswith(_PREFIX):
        result = _RESULTS.get(reason.removeprefix(_PREFIX), result)
    if reason == detail.reason and result is detail.result:
        return detail
    return replace(detail, result=result, reason=reason)
