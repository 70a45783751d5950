# make demo, make test: both make their own environment in .venv on the first call; later calls are quick.
#   PYTHON       interpreter the environment is made from (3.11 or newer for the pinned versions)
#   VENV         folder of the environment
#   CONSTRAINTS  file of pinned versions; empty: the newest that the package allows
#   ARGS         further arguments for pytest or the demo:  make test ARGS="-m slow"

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
ARGS ?=

RUN := $(VENV)/bin/python
STAMP := $(VENV)/.ciss_fast-installed
# The installation is editable: only what is compiled or declared calls for a new one, not a changed .py file.
NATIVE_SOURCES := CMakeLists.txt setup.py $(shell find csrc -type f)

.PHONY: demo test lint native clean

demo: $(STAMP)
	$(RUN) -m ciss_fast.demo $(ARGS)

test: $(STAMP)
	$(RUN) -m pytest $(ARGS)

lint: $(STAMP)
	$(RUN) -m ruff check .

# Compile what changed in csrc/, without going through pip: the quick loop when working on a kernel.
native: $(STAMP)
	$(RUN) setup.py --quiet build_ext --inplace

$(STAMP): pyproject.toml $(CONSTRAINTS) $(NATIVE_SOURCES)
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e ".[test]"
	touch $@

# What was built; the environment stays, but the next call installs into it again.
clean:
	rm -rf build dist *.egg-info ciss_fast/_native.* $(STAMP)
