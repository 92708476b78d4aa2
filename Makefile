# Two commands for a newcomer: `make demo` and `make test`. Both need Python 3.11 or later and nothing else.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
  if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; break; fi; done)
BIN := .venv/bin
STAMP := .venv/.installed
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS)

.PHONY: help install demo docs test test-slow lint format clean

help:
	@echo "make demo       meta-train MAML, Meta-SGD, Reptile and iMAML on sine waves; pictures in runs/demo/"
	@echo "make test       lint, type checks, and every test that is not slow"
	@echo "make test-slow  the slow tests"
	@echo "make docs       the documentation, in docs/_build/html; it runs the notebooks (make docs NOTEBOOKS=off: not)"
	@echo "make format     put the code into the project's format"
	@echo "make clean      remove the environment, caches and runs/demo/"

# The stamp is newer than setup.py once an install went through; a changed setup.py installs again.
$(STAMP): setup.py
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later was not found; name it: make PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e ".[test]"
	@touch $@

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m experiments.demo --workdir=runs/demo

# A warning is an error.
NOTEBOOKS ?= force
docs: $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e ".[docs]"
	$(BIN)/python -m sphinx -q -W --keep-going -b html -D nb_execution_mode=$(NOTEBOOKS) docs docs/_build/html

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(PYTEST) -m "not slow"

test-slow: $(STAMP)
	$(PYTEST) -m slow

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis runs/demo docs/_build docs/api docs/experiments docs/notebooks docs/papers/results
