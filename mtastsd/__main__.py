"""`python -m mtastsd`."""

from mtastsd.cli.main import main

main(prog_name="mtastsd")
