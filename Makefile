# Two commands on a machine with Python 3.10+ and make, each with its own set-up in .venv:
#   make demo   train EMB and HERO-EMB on a small synthetic data set and compare them
#   make test   the whole test suite
PYTHON ?= python3
VENV   ?= .venv
# The CPU build for this virtual environment only; the package itself takes any torch from 2.1 on.
TORCH  ?= torch==2.13.0

# Tests run side by side in so many processes.
JOBS   ?= 2

BIN   := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test lint types docs check package clean

help:
	@sed -n 's/^#   //p' Makefile
	@echo "make check  what CI runs: lint, types, the docs, the package in three installs, tests"
	@echo "make docs   the documentation site, into build/docs"
	@echo "make clean  remove the virtual environment and what the demo wrote"

demo: $(READY)
	$(BIN)/hero-plugin demo $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# On the package as it installs: in a checkout, adapters/ and integrations/ are not inside hero_plugin/.
types: $(READY)
	$(BIN)/python -m tests.packaging.layout build/layout
	MYPYPATH=build/layout $(BIN)/mypy -p hero_plugin

# The package as users get it: a wheel, pip install ., and the editable install of the virtual environment.
package: $(READY)
	$(BIN)/python -m tests.packaging.installs

# The site, without a warning. Its help texts and tables are asked of the code.
docs: $(READY)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

check: lint types docs package test

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "hero-plugin needs Python 3.10 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV) (once, a few minutes)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) demo-run build dist *.egg-info
