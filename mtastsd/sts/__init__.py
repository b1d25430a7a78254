"""MTA-STS, RFC 8461, as rules without I/O."""
