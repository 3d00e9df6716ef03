# make demo      train and attack natural, adversarial and RvS training on the embedded digits
# make test      run the tests but for the slow ones
# make test-all  run all tests
# make install   the package and what it needs, into .venv
# make lint      check style
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

.PHONY: demo test test-all install lint

demo: install
	$(BIN)/python -m experiments.demo

test: $(VENV)/dev
	$(PYTEST) -m "not slow"

test-all: $(VENV)/dev
	$(PYTEST)

install: $(VENV)/plain

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The stamps: installed anew whenever setup.py changes.
$(VENV)/plain: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/dev: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[dev,peers,experiments]"
	touch $@ $(VENV)/plain
