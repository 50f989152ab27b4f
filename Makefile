# `make demo` and `make test` need Python 3.11 or newer and nothing else: they make their own environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check check-all lint bench docs clean

demo: $(STAMP)  ## train the default recipe on bundled data (under two minutes on 2 cores)
	$(BIN)/zoo train aaren/digits

test: export OMP_NUM_THREADS ?= 1  # small tensors, several processes
test: $(STAMP) lint  ## all tests that run in minutes
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow and not fetch"

check-all: $(STAMP) lint  ## the slow ones too
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## measure speed and memory, side by side
	$(BIN)/python benchmarks/cli.py
	$(BIN)/python benchmarks/aaren.py
	$(BIN)/python benchmarks/combiner.py
	$(BIN)/python benchmarks/titans.py
	$(BIN)/python benchmarks/transnormer.py
	$(BIN)/python benchmarks/sigmareparam.py
	$(BIN)/python benchmarks/landmark.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/kill.py

docs: $(STAMP)  ## the pages generated from the code, then the site in build/site
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
