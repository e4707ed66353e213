# Everything runs in .venv, which is made on first use: no OpenCL driver and no root are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Python keeps what it compiled: tests and examples start it many times.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check bench format stubs clean

demo: $(VENV)/.demo
	$(BIN)/python examples/finetune_digits.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -p no:benchmark

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python tools/stubs.py --check
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py

stubs: $(VENV)/.dev
	$(BIN)/python tools/stubs.py

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev
	$(BIN)/python -m pytest benchmarks --benchmark-only

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("tinyedge needs Python 3.10 or newer; try: make PYTHON=python3.12" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[cpu,demo]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[cpu,demo,dev]'
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
