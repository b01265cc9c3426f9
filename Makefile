# Everything happens in a virtual environment of the checkout; nothing but python3 with venv and pip is assumed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# How many inputs of each kind `make fuzz` tries on each parser, and how many runs `make soak` does.
FUZZ ?= 2000
RUNS ?= 200

.PHONY: help demo test faults coverage lint bench fuzz soak diagram schemas clean

help:
	@echo "make demo     a whole run on simulated slices, with real LoadGen processes (about a minute)"
	@echo "make test     the tests"
	@echo "make faults   every cell of the fault matrix (15 to 20 minutes), and docs/fault-matrix.md from what was seen"
	@echo "make coverage the tests, and how much they reach: all branches of core and campaign, 90 % overall"
	@echo "make lint     ruff, mypy, import-linter"
	@echo "make bench    the programs that measure what watching costs"
	@echo "make fuzz     damaged input for every parser, FUZZ=$(FUZZ) of each kind, and 100 MB for each"
	@echo "make soak     RUNS=$(RUNS) short runs in a row with random faults; writes docs/soak.md"
	@echo "make diagram  write the state diagram of the table into docs/architecture.md"
	@echo "make schemas  write the JSON Schemas of the files of a run into heteromig/schemas"
	@echo "make clean    remove the virtual environment and the runs"

# mlcommons-loadgen has wheels for these versions of Python, and no source that builds without a C++ toolchain.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "heteromig's demo and tests need Python 3.10 to 3.13, for which mlcommons-loadgen has wheels, and $(PYTHON) is $$($(PYTHON) -c 'import platform; print(platform.python_version())'): name another one with make demo PYTHON=python3.12." >&2; \
	  exit 2; }
	@echo "Making a virtual environment in $(VENV)."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	@echo "Installing heteromig with its extras loadgen and report."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[loadgen,report]' || { \
	  echo "The packages could not be installed. mlcommons-loadgen has wheels for Linux with Python 3.10 to 3.13 only; on other machines use heteromig with a harness of your own." >&2; \
	  exit 2; }
	@touch $@

$(VENV)/.dev: $(VENV)/.demo pyproject.toml
	@echo "Installing what the tests need."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[loadgen,report,dev]'
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/heteromig run --config examples/demo.toml

test: $(VENV)/.dev
	$(BIN)/python -m pytest

# The document is written whatever came out; the exit code says whether all of it was as expected.
faults: $(VENV)/.dev
	rm -f .faults.jsonl
	FAULT_RESULTS=$(CURDIR)/.faults.jsonl $(BIN)/python -m pytest tests/faults/test_matrix.py -m "matrix or not matrix" -q || true
	$(BIN)/python -m tests.faults.document .faults.jsonl

coverage: $(VENV)/.dev
	$(BIN)/coverage erase
	$(BIN)/python -m pytest --cov --cov-report= -q
	$(BIN)/coverage report --include='heteromig/core/*,heteromig/campaign/*' --fail-under=100
	$(BIN)/coverage report --fail-under=90

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/.dev
	$(BIN)/python -m tests.bench

fuzz: $(VENV)/.dev
	FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/fuzz -q
	$(BIN)/python -m tests.fuzz.large

soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak --runs $(RUNS) --write docs/soak.md

diagram: $(VENV)/.demo
	$(BIN)/python docs/diagram.py

schemas: $(VENV)/.demo
	$(BIN)/python -m heteromig.runner.schemas

clean:
	rm -rf $(VENV) runs
