"""mtastsd: MTA-STS (RFC 8461), DANE (RFC 7672) and TLS-RPT (RFC 8460) for a sending Postfix."""

__version__ = "0.1.0"
