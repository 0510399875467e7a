# make run     sets up .venv and runs the default experiment to its first estimate
# make test    sets up .venv and runs the tests
# make bench   sets up .venv and measures speed, memory and exactness; ONLY=engine for one group
# make lint    checks formatting, style and Snakemake's advice
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
TARGET ?= results/coverage_0.1/calibrated-ips.json
BIN := .venv/bin

.PHONY: run test bench lint setup help
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# make/make/p' Makefile

setup: .venv/.ready

# The language model engine is compiled from source; -DLLAVA_BUILD=OFF leaves out the part for pictures. With CMAKE_ARGS of
# the user's own (docs/engine.md) pip must not take the wheel that it kept from a build with others.
.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "ERROR: $(PYTHON) is not Python 3.11 to 3.13; name one with make PYTHON=python3.11"; exit 1; }
	@echo "Setting up .venv: llama.cpp is compiled from source, about 6 minutes on 2 cores the first time ..."
	@$(PYTHON) -m venv .venv || { echo "ERROR: $(PYTHON) cannot make virtual environments; on Debian: apt install python3-venv"; exit 1; }
	@CMAKE_ARGS="$${CMAKE_ARGS:--DLLAVA_BUILD=OFF}" $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  $${CMAKE_ARGS:+--no-cache-dir} --constraint constraints.txt --editable '.[test]'
	@touch $@
	@echo "... done."

# After Snakemake itself was killed it leaves a lock; it is taken away when no other Snakemake works in this folder.
run: .venv/.ready
	@$(BIN)/arena-cje unlock
	@$(BIN)/snakemake --cores $(CORES) --no-hooks --quiet rules host -- $(TARGET)
	@$(BIN)/arena-cje show $(TARGET)

test: .venv/.ready
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

bench: .venv/.ready
	@$(BIN)/python -m benchmarks $(ONLY)

lint: .venv/.ready
	$(BIN)/ruff check workflow tests benchmarks
	$(BIN)/ruff format --check workflow tests benchmarks
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakefmt --check Snakefile workflow/Snakefile workflow/rules
	$(BIN)/snakemake --lint
	$(BIN)/snakemake --lint --directory .test --configfile .test/config/own_data.yaml
