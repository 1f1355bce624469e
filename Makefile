# Everything a person does here: make demo, make test, make lint. Needs Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint format wheel fuzz clean
.DEFAULT_GOAL := demo

demo: $(VENV)/installed
	$(BIN)/curate demo

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --cov --cov-report=term --cov-fail-under=90

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/installed-dev
	$(BIN)/python -m build --wheel --no-isolation

# Minutes of coverage-guided fuzzing of the readers; atheris is Linux's and not every Python's.
fuzz: $(VENV)/installed-dev
	$(PIP) atheris
	$(BIN)/python bench/fuzz_readers.py -max_total_time=$(or $(SECONDS),300)

clean:
	rm -rf $(VENV) build dist curate-demo *.egg-info

# torch first: with it there, no other package pulls a newer build.
$(VENV)/torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	touch $@

$(VENV)/installed: $(VENV)/torch pyproject.toml
	$(PIP) -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/torch pyproject.toml
	$(PIP) -e '.[dev]'
	touch $@ $(VENV)/installed
