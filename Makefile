# `make lab` opens the laboratory, `make test` runs every check. Both need Python 3.11+ and make, and set up what is missing.
# One Python can be named: make lab PYTHON=python3.12
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup lab test slow docs export notebooks pytest ruff hooks clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
LAB := nbs/labs/nem.ipynb
PYTHON ?=
LAB_ARGS ?=
PYTEST_ARGS ?= tests
WORKERS ?= 2
# Bytecode is made when a module is first imported: most of what is installed never is.
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check --no-compile
# Torch in one thread for each of the WORKERS processes: two threads each on two cores are slower than one.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

# $(call stage,name,command): runs the command and prints how long it took; a failure stops make.
define stage
@echo "== $(1)"; start=$$SECONDS; status=0; { $(2); } || status=$$?; \
echo "== $(1): $$(( SECONDS - start )) s$$([ $$status -eq 0 ] || echo ', FAILED')"; exit $$status
endef

help: ## Say what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

setup: $(STAMP) ## Make .venv with the exact versions of constraints.txt

# Torch goes first and pinned: the pin resolves to a CPU build where one is offered and to the CUDA build elsewhere.
# (pyproject.toml is no prerequisite: nbdev_export writes it anew each time.)
$(STAMP): constraints.txt settings.ini setup.py
	@python="$(PYTHON)"; \
	for candidate in $${python:-python3 python python3.11 python3.12 python3.13 python3.14}; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$$candidate"; found=yes; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	  echo "Python must be 3.11 or newer: found $$($${python:-python3} --version 2>&1 || true). Install one, or name it: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	if ! $(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  echo "== make $(VENV) with $$($$python --version)"; \
	  "$$python" -m venv --clear $(VENV) || { rm -rf $(VENV); echo "Python could not make $(VENV) (see above). On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; \
	fi
	$(call stage,install torch,$(PIP) -c constraints.txt torch </dev/null)
	$(call stage,install latentlab,$(PIP) -c constraints.txt -e '.[dev]' </dev/null)
	@touch $@

lab: $(STAMP) ## Open JupyterLab on the live lab
	$(BIN)/latentlab lab $(dir $(LAB)) --notebook $(notdir $(LAB)) --root nbs $(LAB_ARGS)

test: $(STAMP) ## Run everything: clean + export, ruff, nbdev_test, pytest with the browser tests; prints its own time
	$(call stage,all of make test,$(MAKE) --no-print-directory export ruff notebooks pytest)

export: $(STAMP) ## Clean and export all notebooks; fails on what that changes
	$(call stage,clean and export,PATH="$$PWD/$(BIN):$$PATH" $(BIN)/python .ci/export.py)

ruff: $(STAMP) ## Check the style of package and tests
	$(call stage,ruff,$(BIN)/ruff check --output-format concise .)

notebooks: $(STAMP) ## Run every notebook as nbdev_test does, the longest first
	$(call stage,nbdev_test,MPLBACKEND=agg $(ONE_THREAD) $(BIN)/python .ci/notebooks.py $(WORKERS))

pytest: $(STAMP) ## Run the tests, a real JupyterLab in Chromium included; those marked slow are left to `make slow`
	$(call stage,pytest,MPLBACKEND=agg $(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow" -ra --durations=20 $(PYTEST_ARGS))

slow: $(STAMP) ## Run what takes long: cells marked slow, kills at random moments, SLURM jobs, several devices, more of the browser
	$(call stage,slow cells,for book in $$(grep -rl --include='*.ipynb' '#| slow' nbs | sort); do MPLBACKEND=agg $(ONE_THREAD) $(BIN)/nbdev_test --path $$book --flags slow --do_print || exit 1; done)
	$(call stage,slow tests,MPLBACKEND=agg $(ONE_THREAD) $(BIN)/python -m pytest -m slow -ra --durations=10 $(PYTEST_ARGS))

docs: $(STAMP) ## Build the documentation site from the notebooks, offline, into _docs/index.html
	$(call stage,install mkdocs,$(PIP) -c constraints.txt -e '.[docs]' </dev/null)
	$(call stage,documentation,$(BIN)/python .ci/docs.py)

hooks: $(STAMP) ## For developers: git merges and cleans notebooks the way nbdev does
	$(BIN)/nbdev_install_hooks

clean: ## Remove .venv and everything built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
