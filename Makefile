# One vocabulary for people and machines: make install | demo | test | check | format | bench | docs | test-all | build
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VIDEO ?=
STAMP := $(VENV)/.installed
export HF_HUB_OFFLINE = 1

.PHONY: install demo test test-all check format bench docs build clean

install: $(STAMP)

# torch comes first and alone: on machines with a CPU build at hand, nothing may replace it by another.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "torch==2.13.0" || $(BIN)/python -m pip install --quiet "torch>=2.8,<3"
	$(BIN)/python -m pip install --quiet -e ".[dev,docs]"
	touch $(STAMP)

demo: install
	$(BIN)/tokenreel demo $(VIDEO)

test: install
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: install
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not network"

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --strict --quiet

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python -m pip install --quiet -e ".[bench]"
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

docs: install
	$(BIN)/mkdocs build --strict

build: install
	$(BIN)/python -m build

clean:
	rm -rf dist build site out .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
