# Everything a checkout needs, from Python 3.11+ and make alone. `make help` lists the targets.

# HOST is read from the command line only: some shells and toolchains export a HOST of their own.
HOST := 127.0.0.1
PORT ?= 8000
ARGS ?=

# Tests wait for sockets and processes now and then: one worker more than cores keeps the cores busy.
WORKERS = $$(($$(getconf _NPROCESSORS_ONLN) + 1))

PYTHONS := python3 python3.13 python3.12 python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip --quiet
UV_VERSION := 0.13.9
UV := UV_PYTHON_DOWNLOADS=never .tools/bin/uv
# Older pips take a requirement with extras for another project than its pin without them.
COMPILE = $(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet \
	--no-strip-extras --extra all $(UPGRADE)

# Shell text that sets $$python, or says what is missing.
define find_python
python=; \
for candidate in $(or $(PYTHON),$(PYTHONS)); do \
	if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
		python=$$candidate; break; \
	fi; \
done; \
if [ -z "$$python" ]; then \
	echo "chainserve needs Python 3.11 or newer, and $(if $(PYTHON),$(PYTHON) is not,none of $(PYTHONS) is):" \
		"install one, or say where it is, as in make PYTHON=/path/to/python3." >&2; \
	exit 1; \
fi; \
if ! $$python -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	echo "$$python cannot make virtual environments:" \
		"install the package python3-venv (Debian, Ubuntu: apt-get install python3-venv)." >&2; \
	exit 1; \
fi
endef

.PHONY: help
help: ## List the targets.
	@echo "Usage: make TARGET [PYTHON=python3.13] [HOST=0.0.0.0] [PORT=9000] [ARGS='-k resume']"
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

.PHONY: serve
serve: $(VENV)/.runtime ## Start the server on HOST and PORT (127.0.0.1:8000).
	@CHAINSERVE_HOST='$(HOST)' PORT='$(PORT)' exec $(BIN)/python server.py

.PHONY: test
test: $(VENV)/.dev ## Run the tests, with one worker more than cores; ARGS go to pytest.
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(ARGS)

.PHONY: coverage
coverage: $(VENV)/.dev ## Run the tests and say which lines and branches they miss.
	$(BIN)/python -m pytest --cov $(ARGS)

.PHONY: lint
lint: $(VENV)/.dev ## Check style and format.
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

.PHONY: format
format: $(VENV)/.dev ## Repair style and format.
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

.PHONY: type
type: $(VENV)/.dev ## Check types.
	$(BIN)/python -m mypy

.PHONY: bench
bench: $(VENV)/.dev ## Measure this server beside LangServe (Linux); ARGS=--quick takes a minute.
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: wheel
wheel: $(VENV)/.dev ## Build the wheel into dist/.
	rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation

.PHONY: lock
lock: .tools/uv-$(UV_VERSION) ## Bring the lock files up to pyproject.toml; UPGRADE=-U takes the newest.
	$(COMPILE) --group build --output-file requirements.lock
	$(COMPILE) --group dev --constraints requirements.lock --output-file requirements-dev.lock

.PHONY: clean
clean: ## Remove everything that was built or installed here.
	rm -rf $(VENV) .tools dist tests/js/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are written last, so an installation that was interrupted is made anew.
$(VENV)/.runtime: requirements.lock pyproject.toml
	@$(find_python); \
	echo "Installing into $(VENV) with $$python; this happens once." >&2; \
	$$python -m venv --clear $(VENV)
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

.tools/uv-$(UV_VERSION):
	@$(find_python); $$python -m venv --clear .tools
	@.tools/bin/python -m pip --quiet install uv==$(UV_VERSION)
	@touch $@
