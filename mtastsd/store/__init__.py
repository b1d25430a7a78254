"""Adapters to the store. Each implements the Protocols of `mtastsd.ports`."""
