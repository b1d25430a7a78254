"""What differs between two configurations, and what of it a running daemon can't take over."""

from __future__ import annotations

from dataclasses import dataclass

from mtastsd.config.settings import Settings, all_keys, value_of


@dataclass(frozen=True, slots=True)
class Changes:
    """The keys that differ, as `section.key`: `live` hold after a reload, `restart` do not."""

    live: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()


def changed(old: Settings, new: Settings) -> Changes:
    """The keys whose values differ, in the order of the manual, wherever they came from."""
    keys = [key for key in all_keys() if value_of(old, key) != value_of(new, key)]
    live = [key.path for key in keys if not key.restart]
    if old.override != new.override:
        live.append("override")
    if old.report.suppress != new.report.suppress:
        live.append("report.suppress")
    return Changes(tuple(live), tuple(key.path for key in keys if key.restart))
