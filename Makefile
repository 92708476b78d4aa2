# Two commands for a newcomer: `make demo` and `make test`. Both need Python 3.11 or later and nothing else.
# Another Python, or other extras, get an environment of their own: make test PYTHON=python3.13 EXTRAS=test-core
NAMED := $(filter-out undefined,$(firstword $(origin PYTHON)))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
  if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; break; fi; done)
EXTRAS ?= test
VERSION := $(if $(NAMED),-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null))
VENV ?= .venv$(VERSION)$(if $(filter-out test,$(EXTRAS)),-$(EXTRAS))
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2
# Each worker begins with one half of the tests, so that few modules, with their fixtures, are shared between them.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: help install where demo docs test test-slow lint format clean

help:
	@echo "make demo       meta-train MAML, Meta-SGD, Reptile and iMAML on sine waves; pictures in runs/demo/"
	@echo "make test       lint, type checks, and every test that is not slow; with another Python: PYTHON=python3.13"
	@echo "make test-slow  every test, compiled with all of XLA's optimizations, which the quick tests skip"
	@echo "make docs       the documentation, in docs/_build/html"
	@echo "make format     put the code into the project's format"
	@echo "make clean      remove the environment, caches and runs/demo/"

# The stamp is newer than setup.py once an install went through; a changed setup.py installs again.
$(STAMP): setup.py
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later was not found; name it: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is no Python 3.11 or later, or is not installed"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e ".[$(EXTRAS)]"
	@touch $@

install: $(STAMP)

where:
	@echo $(BIN)

demo: $(STAMP)
	$(BIN)/python -m experiments.demo --workdir=runs/demo

# A warning is an error.
docs: $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e ".[docs]"
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(PYTEST) -m "not slow"

test-slow: $(STAMP)
	$(PYTEST)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis runs/demo docs/_build docs/api docs/experiments docs/notebooks docs/settings docs/combinations
