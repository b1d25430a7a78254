"""TLS-RPT, RFC 8460, as rules without I/O."""
