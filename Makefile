# Everything a fresh machine needs (Python >= 3.11 and pip) is installed by these targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := python -m pip install --quiet --disable-pip-version-check
# Environments of their own for the newest and the oldest versions that pyproject allows, and for the lock's tool.
NEWEST := .venv-newest
OLDEST := .venv-oldest
TOOLS := .venv-tools
# The documentation's and the release's tools, which need nothing of the package.
RELEASE := .venv-release
# Where other people's libraries are met: released formats, Hugging Face, streams, search, loggers, the page.
BOUNDARY := tests/interop tests/viewer tests/plots tests/data tests/pruning/test_search.py \
            tests/training/test_loggers.py tests/test_examples.py
# A process a core, one thread each: most tests wait for a process to start, or are too small for threads to pay.
PYTEST := -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations 12
# In two processes, since each compiles on one core.
compile = $(1)/python -c "from sparsecircuits.kernels import warm_up; warm_up('$(2)')"
WARM_UP = $(call compile,$(1),dense) & dense=$$!; $(call compile,$(1),held) && wait $$dense
# The sources of the viewer's page; checking them needs npm, which a machine that only runs the package may lack.
WEB := src/sparsecircuits/viewer/web
# Set by the environment of a run without a screen; `make quickstart OPEN=--no-open` does the same.
OPEN ?=

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow test-shapes test-slow-page test-newest test-oldest lock lint format bench claims \
        page docs site dist dist-test clean browser

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

quickstart: $(VENV)/.runtime ## Train a small sparse model, find a circuit, draw it (10 to 15 minutes)
	$(BIN)/sparsecircuits quickstart --out quickstart $(OPEN)

# The kernels are compiled first, once: each process would compile its own.
test: $(VENV)/.dev browser ## Run the tests
	$(call WARM_UP,$(BIN))
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST)

test-slow: $(VENV)/.dev browser ## Run the tests that take minutes
	$(BIN)/python -m pytest -m slow

# A test that does not wait for what it reads passes on an idle machine and fails on a busy one; here it fails.
test-slow-page: $(VENV)/.dev browser ## Run the browser's tests with late answers and a slow processor, as on a busy machine
	$(call WARM_UP,$(BIN))
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m browser tests/viewer --late-answers 0.4 --slow-page 4

# kernels/ is left out: Numba and torch.library read its functions, not wrapped ones, and its operators check themselves.
SHAPED := bridges circuits cli data faithfulness inference interop models nodes planted plots pruning sparsity tasks \
          training viewer
# Left out with those that need a browser: tests of kernels alone, and those that work mostly in other processes.
UNSHAPED := tests/kernels tests/cli/test_cli.py tests/training/test_distributed.py tests/training/test_resume.py \
            tests/test_docs.py tests/test_examples.py tests/test_imports.py tests/test_locks.py
test-shapes: $(VENV)/.dev ## Run the tests with every shape in an annotation checked at run time
	$(call WARM_UP,$(BIN))
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m "not slow and not dist and not no_shapecheck and not browser" \
		$(UNSHAPED:%=--ignore=%) --jaxtyping-packages=$$(printf 'sparsecircuits.%s,' $(SHAPED))shapecheck.shapes_only

# TransformerLens is met here alone: it wants a newer transformers than the oldest that pyproject allows.
test-newest: browser ## Run the boundary's tests with the newest versions that pyproject allows
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/$(PIP) -c constraints.txt torch
	$(NEWEST)/bin/$(PIP) --upgrade --upgrade-strategy eager -c constraints.txt -e '.[dev,lens]'
	$(call WARM_UP,$(NEWEST)/bin)
	OMP_NUM_THREADS=1 $(NEWEST)/bin/python $(PYTEST) $(BOUNDARY) \
		'tests/test_docs.py::test_what_is_quick_runs_in_order[docs/how/elsewhere.md]'

# torch stays the pinned wheel: its oldest has no wheel for machines without a GPU on the index that pip asks.
test-oldest: browser $(TOOLS)/.done ## Run the boundary's tests with the oldest versions that pyproject allows
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/$(PIP) -c constraints.txt torch
	$(TOOLS)/bin/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct -c constraints.txt \
		-e '.[dev]'
	$(call WARM_UP,$(OLDEST)/bin)
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python $(PYTEST) $(BOUNDARY)

# Both locks come from one resolution: what `make quickstart` installs is part of what `make test` does.
COMPILE = $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
	--override locks/without.in --custom-compile-command "make lock" pyproject.toml locks/extra.in
lock: $(TOOLS)/.done ## Renew locks/*.txt, the versions that quickstart and test install
	$(COMPILE) --extra dev -o locks/dev.txt
	$(COMPILE) -c locks/dev.txt -o locks/runtime.txt

	$(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
		--custom-compile-command "make lock" locks/release.in -o locks/release.txt

lint: $(VENV)/.dev ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/make_types.py --check
	$(BIN)/python docs/make_api.py --check
	@command -v npm >/dev/null || { echo "no npm found: the page's sources are not checked"; exit 0; }; \
	cd $(WEB) && npm ci --ignore-scripts --no-audit --no-fund --loglevel error && npm run --silent lint

format: $(VENV)/.dev ## Put format and style right
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	@! command -v npm >/dev/null || (cd $(WEB) && npm ci --ignore-scripts --no-audit --no-fund --loglevel error && npm run --silent format)

bench: $(VENV)/.runtime ## Time the kernels and the training step against their baselines
	$(BIN)/sparsecircuits bench

claims: $(VENV)/.runtime ## Measure the claims that need no training, and draw docs/claims/README.md
	$(BIN)/sparsecircuits reproduce --untrained --out docs/claims

page: ## Build the viewer's page from src/sparsecircuits/viewer/web (needs npm)
	cd $(WEB) && npm install --no-save --no-audit --no-fund && npm run build

docs: $(VENV)/.dev ## Write what is generated from the program: docs/help.md, docs/api.md, and the types of the viewer's page
	$(BIN)/python docs/make_help.py
	$(BIN)/python docs/make_api.py
	$(BIN)/python docs/make_types.py

site: $(RELEASE)/.done ## Build the documentation, strictly; then open site/index.html (no server, no network)
	NO_MKDOCS_2_WARNING=1 $(RELEASE)/bin/mkdocs build --quiet

dist: $(RELEASE)/.done ## Build the sdist, and from it the wheel, into dist/
	rm -rf dist
	$(RELEASE)/bin/python -m build --no-isolation --outdir dist

dist-test: $(VENV)/.dev dist ## Install the wheel into an environment of its own and use it without network
	$(BIN)/python -m pytest -m dist tests/test_distribution.py

clean: ## Remove the environment and caches
	rm -rf $(VENV) $(NEWEST) $(OLDEST) $(TOOLS) $(RELEASE) site dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Versions and hashes are those of the lock, so that a fresh machine gets what was tested. torch is not in it but in
# constraints.txt: pinned, it is a CPU wheel here and a CUDA one elsewhere, which brings its own libraries along.
$(VENV)/.runtime: pyproject.toml constraints.txt locks/runtime.txt
	@echo "installing into $(VENV)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP) --require-hashes --no-deps -r locks/runtime.txt
	$(BIN)/$(PIP) -c constraints.txt torch
	$(BIN)/$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

# A CUDA torch has brought its own triton.
$(VENV)/.dev: $(VENV)/.runtime locks/dev.txt
	$(BIN)/$(PIP) --require-hashes --no-deps -r locks/dev.txt
	@$(BIN)/python -c "import triton" 2>/dev/null || [ "$$(uname)" != Linux ] || $(BIN)/$(PIP) --no-deps triton==3.9.0
	@touch $@

$(TOOLS)/.done:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/$(PIP) uv
	@touch $@

$(RELEASE)/.done: locks/release.txt
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/$(PIP) --require-hashes --no-deps -r locks/release.txt
	@touch $@

# The picture's tests drive a real Chromium, from the distribution's packages: the one that has no windows where there is
# one, since a page in it costs half of the processor time.
BROWSERS := chromium-headless-shell chromium chromium-browser google-chrome
APT := DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends
browser:
	@for name in $(BROWSERS); do if command -v $$name >/dev/null; then exit 0; fi; done; \
	{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
	  && { $(APT) chromium-headless-shell || $(APT) chromium; }; } \
	|| echo "no Chromium found: the browser tests will be skipped (install the package chromium to run them)"
