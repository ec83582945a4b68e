# Everything a fresh machine needs (Python >= 3.11 and pip) is installed by these targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Set by the environment of a run without a screen; `make quickstart OPEN=--no-open` does the same.
OPEN ?=

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow lint format bench page docs clean browser

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

quickstart: $(VENV)/.runtime ## Train a small sparse model, find a circuit, draw it (about 11 minutes)
	$(BIN)/sparsecircuits quickstart --out quickstart $(OPEN)

# A process a core, one thread each: most tests wait for a process to start, or are too small for threads to pay.
# The kernels are compiled first, once: each process would compile its own.
test: $(VENV)/.dev browser ## Run the tests
	$(BIN)/python -c "from sparsecircuits.kernels import warm_up; warm_up()"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations 12

test-slow: $(VENV)/.dev browser ## Run the tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev ## Put format and style right
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.runtime ## Time the kernels and the training step against their baselines
	$(BIN)/sparsecircuits bench

page: ## Build the viewer's page from src/sparsecircuits/viewer/web (needs npm)
	cd src/sparsecircuits/viewer/web && npm install --no-save --no-audit --no-fund && npm run build

docs: $(VENV)/.dev ## Write the generated pages: docs/help.md
	$(BIN)/python docs/make_help.py

clean: ## Remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch comes first and alone: pinned, it is a CPU wheel; unpinned it would bring gigabytes along.
$(VENV)/.runtime: pyproject.toml constraints.txt
	@echo "installing into $(VENV)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# The picture's tests drive a real Chromium, from the distribution's packages.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	     && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
	|| echo "no Chromium found: the browser tests will be skipped (install the package chromium to run them)"
