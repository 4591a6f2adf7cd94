# Petal's chores. A bare Python 3.11+, git and make are enough: everything else is installed into .venv.
#
#   make demo    run the main job: an agent that is killed half-way, resumed, and still remembers
#   make test    everything that must hold: lint, types, import directions, tests, coverage
#   make unit    the quick tests alone; PYTEST='-k thread -x' passes options on
#   make bench   measure what keeping state costs, against LangGraph's savers: docs/benchmarks.md, in about 25 minutes
#   make lock    renew constraints.txt
#   make clean   remove .venv and what the tools left
#
#   PYTHON=/path/to/python3 chooses the interpreter, VENV=folder another environment, JOBS=n the tests at once.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint types imports unit tests covered bench lock install clean

# Bytecode is kept also where the environment says not to: the tests, the demo and the benchmarks start hundreds of
# processes, and each would compile LangGraph for itself, which takes longer than most of them run.
unexport PYTHONDONTWRITEBYTECODE

VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin
PIP := -m pip --disable-pip-version-check --no-input
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev

# What an installation depends on beside Python's own modules, which are used where they lie.
BUILT_FROM := pyproject.toml setup.py $(wildcard src/petal/checkpoints/codec/c/*)

# What the specification wants covered to the last line and branch.
COVERED := src/petal/core/config/checkpointer.py,src/petal/checkpoints/*,src/petal/core/yaml/handlers/checkpointer.py

NEWEST_FIRST := python3.13 python3.12 python3.11 python3 python
OLDEST_FIRST := python3.11 python3.12 python3.13 python3 python

# $(call find-python,candidates): sets $$python to the first that is new enough and can make environments.
# Each is run, not only looked up: a version switcher's stand-in may be there for a version that is not.
find-python = python=; \
	for candidate in $(if $(PYTHON),'$(PYTHON)',$(1)); do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	  then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo 'Petal needs Python 3.11 or newer with its venv module; tried: $(or $(PYTHON),$(1)).' >&2; \
	  echo 'Install one (on Debian: apt-get install python3 python3-venv), or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3' >&2; \
	  exit 1; \
	fi

heading = printf '\n== %s\n' '$(1)'

help:
	@sed -n 's/^#   //p' Makefile

demo: $(RUNTIME)
	@$(BIN)/python examples/demo.py

test: lint types imports tests covered
	@printf '\nAll of it holds: lint, types, import directions, tests, coverage.\n'

lint: $(DEV)
	@$(call heading,ruff check)
	@$(BIN)/ruff check .
	@$(call heading,ruff format --check)
	@$(BIN)/ruff format --check .

types: $(DEV)
	@$(call heading,mypy --strict)
	@$(BIN)/mypy src $(wildcard tests/typing/*.py)

# Without its cache, which keeps an import as it was read when the imported module was not there yet.
imports: $(DEV)
	@$(call heading,import directions)
	@$(BIN)/lint-imports --no-logo --no-cache

unit: $(DEV)
	@$(call heading,pytest tests/unit)
	@$(BIN)/python -m pytest tests/unit $(PYTEST)

tests: $(DEV)
	@$(call heading,pytest)
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -n $(JOBS) --dist worksteal $(PYTEST)

covered: $(DEV)
	@$(call heading,coverage of where state is kept: every line and branch)
	@$(BIN)/coverage combine --quiet
	@printf 'All of src/petal: %s %%\n' "$$($(BIN)/coverage report --format=total)"
	@$(BIN)/coverage report --include='$(COVERED)' --fail-under=100

# In parts: python -m bench --only a --candidates floor,petal-sqlite --turns 200
bench: $(DEV)
	@$(BIN)/python -m bench $(BENCH)

install: $(DEV)

# The oldest Python that Petal supports, since a package's newest version may have dropped it. A constraint that a
# newer Python does not need is harmless: constraints install nothing.
lock:
	@$(call find-python,$(OLDEST_FIRST)); \
	set -eu; \
	folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	echo "Resolving Petal with all extras for $$("$$python" --version) ..."; \
	"$$python" -m venv "$$folder/venv"; \
	"$$folder/venv/bin/python" $(PIP) install -qq '.[all,dev]'; \
	"$$folder/venv/bin/python" $(PIP) freeze --exclude petal --exclude-editable >"$$folder/pins"; \
	if grep -nE '://|@' "$$folder/pins"; then \
	  echo 'These came from a file or an address, not from an index; constraints.txt stays as it was.' >&2; exit 1; \
	fi; \
	{ echo '# The versions that Petal is tested with, made by "make lock".'; cat "$$folder/pins"; } >constraints.txt; \
	echo "constraints.txt holds $$(grep -vc '^#' constraints.txt) pins."

clean:
	rm -rf .venv .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist src/*.egg-info
	rm -f src/petal/checkpoints/codec/_many_models.*.so src/petal/checkpoints/codec/_many_models.*.pyd

# Also when the link is there but leads nowhere, since its Python was removed.
$(BIN)/python:
	@$(call find-python,$(NEWEST_FIRST)); \
	echo "Making $(VENV) with $$("$$python" --version) ..."; \
	"$$python" -m venv --clear '$(VENV)'

$(RUNTIME): $(BUILT_FROM) constraints.txt | $(BIN)/python
	@echo 'Installing Petal ...'
	@$(BIN)/python $(PIP) install -qq --no-compile -c constraints.txt -e .
	@touch $@

# All extras and the tools; that includes what the demo needs.
$(DEV): $(BUILT_FROM) constraints.txt | $(BIN)/python
	@echo 'Installing Petal, its extras and the tools for its tests ...'
	@$(BIN)/python $(PIP) install -qq --no-compile -c constraints.txt -e '.[all,dev]'
	@touch $(RUNTIME) $@
