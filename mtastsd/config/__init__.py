"""The configuration: TOML and environment to frozen `Settings`, or errors that name the key.

`settings` is the list of keys, `values` what each may be, `lines` where a key stands in the file,
`clashes` what does not go together, `reader` the reading, `changes` what a reload can't take over.
"""

from mtastsd.config.changes import Changes, changed
from mtastsd.config.reader import DEFAULT_PATH, ConfigError, default_path, load
from mtastsd.config.settings import (
    Cache,
    Collect,
    Dns,
    Fetch,
    Listen,
    Report,
    Settings,
    Suppress,
)
from mtastsd.config.targets import PostgresStore, SendmailSubmit, SmtpSubmit, SqliteStore

__all__ = [
    "DEFAULT_PATH",
    "Cache",
    "Changes",
    "Collect",
    "ConfigError",
    "Dns",
    "Fetch",
    "Listen",
    "PostgresStore",
    "Report",
    "SendmailSubmit",
    "Settings",
    "SmtpSubmit",
    "SqliteStore",
    "Suppress",
    "changed",
    "default_path",
    "load",
]
