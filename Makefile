# What each target does is in scripts/; `make help` lists them.

.DEFAULT_GOAL := help
.PHONY: run replay test check e2e bench fuzz cover dist clean help

run: .venv/.run ## start the daemon from this checkout, its state in .state/
	@scripts/run

replay: .venv/.run ## a day of real datagrams to the daemon of `make run`, and the reports of it
	@scripts/replay

test: .venv/.dev ## every test; as root those with a real Postfix too
	@scripts/test

check: .venv/.dev ## ruff, mypy and the layer test
	@scripts/check

e2e: .venv/.dev ## the tests with a real Postfix (root)
	@scripts/e2e

bench: .venv/.dev ## the benchmarks, beside their floors
	@tests/bench/run

fuzz: .venv/.dev ## mutated samples to every decoder, for SECONDS (60)
	@.venv/bin/python -m tests.fuzz $(or $(SECONDS),60)

cover: .venv/.dev ## branch coverage of the unit and loopback tests
	@scripts/cover

dist: .venv/.dev ## wheel and source archive, in dist/
	@scripts/dist

clean: ## remove what the targets made, the virtual environment and .state/ too
	@scripts/clean

help: ## this list
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

.venv/.run: pyproject.toml
	@scripts/venv systemd $@

.venv/.dev: pyproject.toml
	@scripts/venv systemd,dev $@
