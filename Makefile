# make run       train and measure on real digits that come with a package (about 3 minutes, 2 cores)
# make docs      the documentation in site/, built without a network, links checked
# make test      lint, types and tests
# make test-all  the slow tests as well
# make test-settings  some of the tests once more, under settings of JAX that are not its defaults
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: run docs test test-all test-settings lint clean

run: $(VENV)/.run
	$(BIN)/python -m experiments.mnist --data embedded --epochs 40 --every 5 --repeats 3

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test: $(VENV)/.test lint
	$(BIN)/python -m pytest -n auto --dist loadfile

test-all: $(VENV)/.test lint
	$(BIN)/python -m pytest -n auto --dist loadfile -m "slow or not slow"

test-settings: $(VENV)/.test
	$(BIN)/python -m pytest -m slow tests/jaxsens/test_settings.py

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) site

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) "pip>=25.1" # the first that knows --group

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e . --group experiments
	@touch $@

# Nothing of the library is imported: its pages are read from the source.
$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --group docs
	@touch $@

# neural-tangents asks for TensorFlow, which the part of it in use never imports: leave it out.
$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e . --group test
	$(PIP) --no-deps neural-tangents==0.6.5
	@touch $@
