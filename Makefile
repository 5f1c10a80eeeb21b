# make demo | test | test-torch | lint | docs | build: each makes its own environment in .venv first.
# PYTHON names the interpreter to use, 3.11 or newer.
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
# uv installs in a fraction of pip's time, which is a tenth of that of `make test`; where it cannot
# be had, or its index is one that only pip knows, pip does the same.
INSTALL = { $(BIN)/uv pip install --quiet --python $(BIN)/python --editable $(1) || \
	$(BIN)/python -m pip install --quiet --no-compile --editable $(1); }

# What is imported is kept compiled in .venv, or each of the many processes that the tests start would
# compile JAX anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-torch lint docs build clean

$(BIN)/pip:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer was found; set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	-$(BIN)/python -m pip install --quiet --no-compile 'uv>=0.8,<1'

$(VENV)/.installed: setup.py pyproject.toml | $(BIN)/pip
	$(call INSTALL,.)
	@touch $@

# With the package itself, in one go.
$(VENV)/.installed-dev: setup.py pyproject.toml | $(BIN)/pip
	$(call INSTALL,'.[dev]')
	@touch $(VENV)/.installed $@

demo: $(VENV)/.installed
	$(BIN)/python launch/demo.py --workdir=demo

# Three processes, as some tests wait for what they start; one that dies ends the run, which could
# otherwise wait for what it had been handed.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart=0

# Apart from the rest, since PyTorch takes gigabytes: our logits against torchvision's and timm's.
$(VENV)/.installed-torch: $(VENV)/.installed
	$(call INSTALL,'.[torch]')
	@touch $@

test-torch: $(VENV)/.installed-torch
	$(BIN)/python -m pytest -rP tests/test_pytorch_weights.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# LT_JAX_DOCS_EXECUTE=1 runs the notebooks too, so that the pages have their pictures.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

# A wheel and an sdist, in dist.
build: $(VENV)/.installed-dev
	$(BIN)/python -m build --outdir dist .

clean:
	rm -rf $(VENV) demo build dist docs/_build
