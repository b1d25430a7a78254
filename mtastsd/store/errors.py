"""Why a store can't be opened. Each message names the file and says what stands in the way."""

from __future__ import annotations


class StoreError(Exception):
    """The store can't be opened as it is; the start ends here. Nothing was moved or changed."""


class StoreTooNew(StoreError):
    """A newer version of this program has written it; what it means is not known here."""


class StoreForeign(StoreError):
    """A sound database of some other program."""


class StoreLocked(StoreError):
    """Another process holds it for longer than we wait."""


class StoreForbidden(StoreError):
    """The file or its directory can't be read and written by this user."""


class StoreFull(StoreError):
    """The disk has no room for the files that a database needs while it is open."""


class StoreCorrupt(StoreError):
    """What is there is no database or a broken one: the only case in which it is set aside."""
