PYTHON ?= python3.11
VENV   ?= .venv
PEERS  ?= .peers
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check bench clean

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

test: $(VENV)/.installed-dev check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# All that takes 20 minutes together; longer ones by name: make bench ROWS='C1 D growth'.
ROWS ?= A B C8 E F G I
bench: $(VENV)/.installed-dev $(PEERS)/.installed
	$(BIN)/python -m bench $(ROWS) --peers $(PEERS)

$(PEERS)/.installed: bench/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check --requirement bench/peers.txt
	touch $@

# torch goes in first and alone: a looser requirement would bring several gigabytes of CUDA with it.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[dev,mujoco,box2d,tensorboard,language]'
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
