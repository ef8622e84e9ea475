# make build   environment, sample data if no WAREHOUSE_DATA, every relation with its tests
# make test    lint, dbt tests, pytest
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help environment data build test lint docs clean

help:  ## Show the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

# The lock file and the environment's recipe decide whether it is up to date.
.venv/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "wavehouse needs Python >= 3.11, this is " + sys.version.split()[0] + ": make PYTHON=python3.11 build")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

environment: .venv/.installed  ## Install the locked dependencies into .venv

# A checkout from before the daily track gets the daily market, and keeps its minute bars.
data: environment  ## Write the sample markets that are missing, unless WAREHOUSE_DATA names others
	@if [ -z "$$WAREHOUSE_DATA" ] && { [ ! -d data/sample/minute_bars ] || [ ! -d data/sample/daily_bars ]; }; \
	then $(BIN)/wavehouse sample --missing; fi

build: data  ## Build every relation and run its tests (dbt build)
	$(BIN)/dbt build

lint: data  ## Check the style of Python and SQL
	$(BIN)/ruff check python tests benchmarks
	$(BIN)/ruff format --check python tests benchmarks
	$(BIN)/sqlfluff lint --processes 2 models tests/data/*.sql

test: lint build  ## Lint, build with dbt tests, run pytest
	$(BIN)/pytest --numprocesses 2 --dist loadfile

docs: build  ## Generate the docs page with the lineage and serve it
	$(BIN)/dbt docs generate
	$(BIN)/dbt docs serve

clean:  ## Remove what builds leave behind; data and .venv stay
	rm -rf target logs warehouse.duckdb warehouse.duckdb.wal
