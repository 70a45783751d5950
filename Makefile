# make demo, make test: both make their own environment in .venv on the first call; later calls are quick.
#   PYTHON       interpreter the environment is made from (3.11 or newer for the pinned versions)
#   VENV         folder of the environment
#   CONSTRAINTS  file of pinned versions; empty: the newest that the package allows
#   ARGS         further arguments for pytest or the demo:  make test ARGS="-m slow"
#   PROCESSES    processes that share the tests; auto: one a core

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
ARGS ?=
PROCESSES ?= auto

RUN := $(VENV)/bin/python
ENVIRONMENT := $(VENV)/.ciss_fast-environment
NATIVE := $(VENV)/.ciss_fast-native

.PHONY: demo test lint native clean

demo: native
	$(RUN) -m ciss_fast.demo $(ARGS)

test: native
	$(RUN) -m pytest -n $(PROCESSES) --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(ENVIRONMENT)
	$(RUN) -m ruff check .

# Compiles what changed in csrc/, in place: the installation is editable.
native: $(NATIVE)

$(NATIVE): $(ENVIRONMENT) CMakeLists.txt $(shell find csrc -type f)
	$(RUN) setup.py --quiet build_ext --inplace
	touch $@

$(ENVIRONMENT): pyproject.toml setup.py $(CONSTRAINTS)
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	CISS_FAST_NATIVE=0 $(RUN) -m pip install $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e ".[test]"
	touch $@

# What was built; the environment stays.
clean:
	rm -rf build dist ciss_fast/_native.* ciss_fast/_cuda.* $(NATIVE)
