"""`mtastsd serve`: the daemon in the foreground."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click
import uvloop

from mtastsd import config, daemon, log
from mtastsd.cli.common import EXIT_FINDING, config_option, find_config, load
from mtastsd.clock import SystemClock
from mtastsd.config import ConfigError, Settings
from mtastsd.server.listen import ListenError
from mtastsd.store.errors import StoreError
from mtastsd.systemd import Systemd


@click.command()
@config_option
def serve(config_path: Path | None) -> None:
    """Run the daemon in the foreground, until SIGTERM. SIGHUP reads the configuration again."""
    settings = load(config_path)
    systemd = Systemd()
    log.setup(settings.log.level, settings.log.format, under_systemd=systemd.present)
    for warning in settings.warnings(time.time()):
        log.Log().warning("config", warning=warning)

    def reload() -> Settings | tuple[ConfigError, ...]:
        return config.load(find_config(config_path), os.environ)

    try:
        uvloop.run(
            daemon.serve(
                settings,
                reload,
                clock=SystemClock(),
                log=log.Log(),
                systemd=systemd,
                config_path=find_config(config_path),
            )
        )
    except (StoreError, ListenError) as error:
        click.echo(f"mtastsd: {error}", err=True)
        sys.exit(EXIT_FINDING)
