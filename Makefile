# Two commands do everything on a fresh machine (Python 3.11+, git and make): `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo test check-slow lint format bench conformance clean

demo: $(STAMP)
	@$(BIN)/osmotic demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow"

check-slow: $(STAMP)
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest -q -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

conformance: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/conformance.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/peers.py

bench: $(STAMP)
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/demo.py
	OMP_NUM_THREADS=2 $(BIN)/python benchmarks/metrics.py

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "osmotic needs Python 3.11 or newer; pass PYTHON=/path/to/python3.11")'
	@echo "making the environment in $(VENV) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV)
