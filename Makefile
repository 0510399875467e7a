# make run     sets up .venv and runs the default experiment to its first estimate; VERBOSE=1 shows the lines of every job
# make setup   sets up .venv alone
# make test    sets up .venv and runs the tests
# make smoke   sets up .venv and runs the experiments of config/experiments/ at smoke size
# make bench   sets up .venv and measures speed, memory and exactness; ONLY=engine for one group
# make docs    sets up .venv and writes the pages of docs/ as a site that needs no network, to site/
# make lint    checks formatting, style and Snakemake's advice
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
TARGET ?= results/coverage_0.1/calibrated-ips.json
BIN := .venv/bin

.PHONY: run test smoke bench docs lint setup help
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# make/make/p' Makefile

setup: .venv/.ready

# envs/install.py compiles the language model engine from source and says how far it is.
.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "ERROR: $(PYTHON) is not Python 3.11 to 3.13; name one with make PYTHON=python3.11"; exit 1; }
	@echo "Setting up .venv; the first time llama.cpp is compiled from source ..."
	@$(PYTHON) -m venv .venv || { echo "ERROR: $(PYTHON) cannot make virtual environments; on Debian: apt install python3-venv"; exit 1; }
	@$(BIN)/python envs/install.py .
	@touch $@

.venv/.ready-test: .venv/.ready
	@echo "Adding what the tests need ..."
	@$(BIN)/python envs/install.py '.[test]'
	@touch $@

# After Snakemake itself was killed it leaves a lock; it is taken away when no other Snakemake works in this folder.
run: .venv/.ready
	@$(BIN)/arena-cje unlock
	@ARENA_CJE_SHOW=no ARENA_CJE_COMMAND='make run $(MAKEOVERRIDES)' VERBOSE=$(VERBOSE) $(BIN)/snakemake --cores $(CORES) -- $(TARGET)
	@$(BIN)/arena-cje show $(TARGET)

test: .venv/.ready-test
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

smoke: .venv/.ready-test
	$(BIN)/python -m pytest -m smoke tests/workflow/test_experiments.py $(ARGS)

bench: .venv/.ready-test
	@$(BIN)/python -m benchmarks $(ONLY)

.venv/.ready-docs: .venv/.ready
	@echo "Adding what the site needs ..."
	@$(BIN)/python envs/install.py '.[docs]'
	@touch $@

docs: .venv/.ready-docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Open site/index.html; the search needs a server: $(BIN)/python -m http.server -b 127.0.0.1 -d site"

lint: .venv/.ready-test
	$(BIN)/ruff check workflow tests benchmarks envs
	$(BIN)/ruff format --check workflow tests benchmarks envs
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakefmt --check Snakefile workflow/Snakefile workflow/rules
	$(BIN)/snakemake --lint
	$(BIN)/snakemake --lint --directory .test --configfile .test/config/own_data.yaml
