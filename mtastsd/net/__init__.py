"""Adapters to the network: DNS, HTTPS, SMTP. Each implements a Protocol of `mtastsd.ports`."""
