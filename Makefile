# Trunkline's commands: `make` lists them. Each one sets up .venv first, where it is missing or older than its lock.
#
# Needed: a POSIX shell, make and Python 3.11 or newer. Everything else is installed into this folder, by uv from uv.lock.
# Once .venv is there, no command but `clean` needs the network again.
#
#   PYTHON=/path/to/python3.12 make test   another Python than the first suitable one on PATH
#   make test ARGS="-k offsets"            arguments for pytest (or for `trunkline demo`)
#   make test JOBS=2                       test processes; six keep two cores busy, since many tests wait for Kafka

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
STAMP := .venv/.installed
JOBS ?= 6
ARGS ?=
# A file is one process's, for what its tests share. The files come in the order of their names: those that take long come first,
# and hundreds of short unit tests fill what is left at the end.
PYTEST := $(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# uv is taken from PATH, else installed by pip into .tools, an environment of its own: a Python that its distribution manages
# (PEP 668) stays untouched, and neither root nor a writable home is needed. Debian's python3 can't make an environment without
# python3-venv; its pip can still install into a plain folder.
define SET_UP
cd "$(CURDIR)"
python=
for one in "$${PYTHON:-python3}" python3 python3.14 python3.13 python3.12 python3.11 python; do
    if python=$$("$$one" -c 'import sys; assert sys.version_info >= (3, 11); print(sys.executable)' 2>/dev/null); then break; fi
    python=
done
if [ -z "$$python" ]; then
    echo "Trunkline needs Python 3.11 or newer, and none is on PATH. Name one: PYTHON=/path/to/python3 make ..." >&2
    exit 3
fi

printf "Installing Trunkline's environment into .venv, about 300 MB "
# A dot every two seconds says that it goes on.
(while sleep 2 >/dev/null 2>&1; do printf .; done) &
dots=$$!
trap 'kill "$$dots" 2>/dev/null || :' EXIT

unset VIRTUAL_ENV PYTHONHOME
uv=uv
case "$$(uv --version 2>/dev/null)" in
"" | "uv 0."[0-4].*)
    mkdir -p .tools
    echo '*' > .tools/.gitignore
    export PIP_ROOT_USER_ACTION=ignore
    uv=.tools/bin/uv
    if ! "$$uv" --version >/dev/null 2>&1; then
        if "$$python" -m venv .tools >/dev/null 2>&1; then
            .tools/bin/python -m pip install --quiet --disable-pip-version-check uv
        elif "$$python" -m pip --version >/dev/null 2>&1; then
            "$$python" -m pip install --quiet --disable-pip-version-check --upgrade --target .tools/lib uv
            uv=.tools/lib/bin/uv
        else
            echo
            echo "$$python can neither make an environment nor run pip: install python3-venv, pip or uv." >&2
            exit 3
        fi
    fi
    ;;
esac

if [ -z "$${UV_CACHE_DIR:-}" ] && ! [ -w "$${HOME:-/nonexistent}" ]; then
    export UV_CACHE_DIR="$(CURDIR)/.tools/cache"
fi
# What this machine trusts counts, such as the certificate of a company's proxy; older versions of uv call it UV_NATIVE_TLS.
export UV_SYSTEM_CERTS=true UV_NATIVE_TLS=true
export UV_PROJECT_ENVIRONMENT="$(CURDIR)/.venv" UV_PYTHON_DOWNLOADS=never
# Quiet unless it fails: its hundred lines of packages would bury what comes after.
"$$uv" sync --quiet --locked --all-extras --python "$$python" || { echo; exit 1; }
echo " done"
endef
export SET_UP

# A test run starts some hundred Python processes: each would compile for a second and more what another one has compiled before.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help
help: ## List the commands.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{printf "%-12s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml uv.lock
	@sh -euc "$$SET_UP"
	@touch $@

.PHONY: demo
demo: $(STAMP) ## See events flow from sources through Kafka to five sinks, in under a minute. ARGS=--stay keeps it up.
	@$(BIN)/trunkline demo $(ARGS)

.PHONY: test
test: lint ## Everything that always must hold, in under 10 minutes.
	$(PYTEST) -m "not slow" $(ARGS)

.PHONY: check
check: lint ## Format, style, types, imports and the unit tests: the quick answer, in under two minutes.
	$(PYTEST) tests/unit -m "not slow" $(ARGS)

.PHONY: test-all
test-all: lint ## The slow tests too: other brokers, browsers, toolchains.
	$(PYTEST) $(ARGS)

.PHONY: lint
lint: $(STAMP) ## Format, style, types, and which room may import which.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: $(STAMP) ## Put the code into its form.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: chaos
chaos: $(STAMP) ## The fault campaign in full, row by row, resumable; writes docs/reliability.md. ARGS="--rows 4,5" chooses.
	@$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: bench
bench: $(STAMP) ## Measure speed, beside the raw Kafka client. ARGS choose.
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: docs
docs: $(STAMP) ## Write the reference pages anew from the code.
	@$(BIN)/python -m tools.docs docs

.PHONY: clean
clean: ## Remove environment, embedded broker's data and caches.
	rm -rf .venv .tools .trunkline .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
