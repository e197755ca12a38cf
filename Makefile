# Everything a fresh clone needs: Python 3.11 or newer and make. The first target makes .venv; later runs need no network.
#
#   make demo        eight real peers on this machine learn digits together
#   make test        the tests (make test-slow: the long ones)
#   make check       format, lint, types, layers: what CI runs
#   make soak        ten minutes of six nodes in random faults; SOAK="--minutes 60 --seed 5" for others
#   make bench       every number that the README claims, beside its rival or limit
#   make format      rewrite the files as `make check` wants them

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
READY := .venv/.ready
CODE := p2pfl node sim topology tests benchmarks examples
# Extra words for pip, for example the index of a CPU build: `make PIP_FLAGS="--extra-index-url URL"`.
PIP_FLAGS ?=

.PHONY: demo test test-slow soak check bench format
.DEFAULT_GOAL := demo

demo: $(READY)
	$(BIN)/p2pfl demo

test: $(READY)
	$(BIN)/pytest -n auto -m "not slow"

test-slow: $(READY)
	$(BIN)/pytest -m slow

soak: $(READY)
	$(BIN)/python -m tests.soak $(SOAK)

check: $(READY)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/pytest tests/test_layers.py

bench: $(READY)
	@failed=; for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || failed="$$failed $$file"; done; \
	if [ -n "$$failed" ]; then echo "below their limit:$$failed"; exit 1; fi

format: $(READY)
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

# The stamp is written last, so that an interrupted set-up is done again.
$(READY): pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "p2pfl needs Python 3.11 or newer; none is on the PATH. Install one, or: make PYTHON=/path/to/python3"; exit 3; }
	@echo "setting up .venv with $(PYTHON) (once; the next run needs no network)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_FLAGS) -e '.[dev]'
	@touch $@
