# nextitem: everything starts here. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
# Processes that the tests run in.
JOBS ?= 2
VENV ?= .venv
BIN := $(VENV)/bin
# perf_analyzer's last build for this generation of Linux is inside this old client; only its binary is used.
PERF_ANALYZER := tritonclient==2.51.0
# A folder of wheels that pip is configured with (its configuration or PIP_FIND_LINKS) holds for uv too.
FIND_LINKS = $$($(BIN)/pip config list | sed -n "s/.*find-links='\(.*\)'/\1/p" | head -n 1)
UV = export UV_FIND_LINKS="$${UV_FIND_LINKS:-$(FIND_LINKS)}" VIRTUAL_ENV="$(abspath $(VENV))"; $(BIN)/uv

.PHONY: help install install-dev lock demo test test-all lint format bench clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed ## Set up .venv with what nextitem needs
install-dev: $(VENV)/.installed-dev ## ... and with the test tools

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check uv

$(VENV)/.installed: pyproject.toml requirements.lock | $(BIN)/uv
	$(UV) pip install --quiet --requirement requirements.lock
	$(UV) pip install --quiet --no-deps --editable .
	$(UV) pip install --quiet --no-deps --target $(VENV)/perf_analyzer $(PERF_ANALYZER)
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(UV) pip install --quiet --requirement requirements-dev.lock
	@touch $@

lock: $(BIN)/uv ## Refresh the pins from pyproject.toml
	$(UV) pip compile --quiet --upgrade --no-header --no-annotate pyproject.toml --output-file requirements.lock
	$(UV) pip compile --quiet --upgrade --no-header --no-annotate --extra dev --constraint requirements.lock \
		pyproject.toml --output-file requirements-dev.lock
	sed -i 's/+cpu$$//' requirements.lock requirements-dev.lock # the CPU or CUDA build is the machine's choice

demo: install ## Run everything on a simulated shop, up to live recommendations from Triton
	$(BIN)/nextitem demo

test: install-dev ## Run the tests
	$(BIN)/pytest --numprocesses $(JOBS) --dist loadgroup -m "not slow and not gpu"

test-all: install-dev ## Run every test, the slow ones too
	$(BIN)/pytest --numprocesses $(JOBS) --dist loadgroup

lint: install-dev ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install-dev ## Mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## Measure: each file in benchmarks/ with its peers in the same run
	for file in benchmarks/[a-z]*.py; do $(BIN)/python -m benchmarks.$$(basename $$file .py); done

clean: ## Remove what the stages wrote (not the environment)
	rm -rf demo features model search runs
	find model_repository -mindepth 1 ! -name README.md -delete
