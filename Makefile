# make fit          train SimpleNN on MNIST and test it; arguments: make fit ARGS="--trainer.max_epochs 2"
# make test         run the test suite
# make test-lowest  run it with the lowest versions that pyproject.toml allows, in .venv-lowest; needs Python 3.11 or 3.12
# make check        ruff (lint, format), mypy in strict mode, import-linter (who may import whom), the words of .ci/words.toml
# make docs         build the site of docs/ into build/site; it works offline
# make integrations  install also what the tests of tests/integrations start: MLflow, W&B, Optuna, Jupyter's kernel
# make setup        only make .venv and install into it; the others do that first, once

PYTHON ?= python3
BIN := .venv/bin
# where the runs are, if ARGS says so, for the test as well
RUNS = $(shell printf '%s' '$(ARGS)' | grep -oE -- '--trainer\.default_root_dir[= ][^ ]+')
INSTALLED := .venv/.installed
LOWEST := .venv-lowest
PIP := -m pip install --quiet --disable-pip-version-check
# a process that ends within a test ends the run; xdist would start another, and at the end wait for tests of the first
PYTEST := -m pytest -n auto --dist loadgroup --max-worker-restart 0

.PHONY: fit test test-lowest check docs integrations setup

fit: setup
	$(BIN)/mnist-amp fit $(ARGS)
	$(BIN)/mnist-amp test $(RUNS)

test: setup
	$(BIN)/python $(PYTEST) $(ARGS)

test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python $(PYTEST) $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/check_words.py

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

integrations: setup
	$(BIN)/python $(PIP) --constraint constraints.txt --editable ".[dev,integrations]"

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("mnist-amp needs Python 3.11 or newer: make setup PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@echo "Installing into .venv (about 2 minutes; on Linux 3.2 GB to download, because torch comes with CUDA) ..."
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python $(PIP) --constraint constraints.txt --editable ".[dev]"
	@touch $(INSTALLED)

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	@$(PYTHON) -c 'import sys; sys.exit("the lowest versions need Python 3.11 or 3.12: make test-lowest PYTHON=python3.12" if sys.version_info >= (3, 13) else 0)'
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python $(PIP) --constraint constraints-lowest.txt --editable ".[dev,integrations]"
	@touch $@
