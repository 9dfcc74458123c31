# make run, make test: the two commands. Everything else serves them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run demo test soak check setup lock clean

run: $(VENV)/.run  ## start the server on http://localhost:8125
	$(BIN)/callreel serve

demo: $(VENV)/.run  ## the sample call through a server with a toy model, nothing downloaded
	$(BIN)/callreel demo

test: check  ## what .ci/run runs
	$(BIN)/python -m pytest

soak: check  ## what takes longer: long files, many more examples of every property
	CALLREEL_TEST_SOAK=1 $(BIN)/python -m pytest -m "soak or not soak" --timeout 3600

check: $(VENV)/.dev  ## format, lint, types
	$(BIN)/ruff format --check src tests
	$(BIN)/ruff check src tests
	$(BIN)/mypy

setup: $(VENV)/.dev  ## the whole development environment

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Callreel needs Python 3.11 or newer; say which with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# Hashes are checked for every package; the project itself is built with the pinned backend, not with one fetched unseen.
$(VENV)/.run: requirements/run.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	touch $@

lock:  ## resolve pyproject.toml anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate pyproject.toml --group build --output-file requirements/run.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate pyproject.toml --group dev --output-file requirements/dev.txt

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
