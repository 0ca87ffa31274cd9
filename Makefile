# Everything from a fresh machine that has make and a Python >= 3.11 with pip and venv; no Docker.
# PYTHON=/path/to/python chooses the interpreter of the virtual environments.

SHELL := /bin/sh
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help run test test-long test-lab prove prove-whole audit lab explore lint constraints clean

VENV := .venv
LAB_VENV := .venv-lab
PINS_VENV := build/pins
RUN := outputs/latest
COMMA := ,
CHECK :=

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

run: $(VENV)/installed  ## run all notebooks; reports are in outputs/latest
	@$(VENV)/bin/ssot run

test: $(VENV)/installed-test  ## run the tests, and every check of the notebooks as a test
	@$(VENV)/bin/pytest --nbval -n auto --dist loadfile -m 'not long'

test-long: $(VENV)/installed-test  ## run the tests that take long: whole batches, proofs, pytests, platforms
	@$(VENV)/bin/pytest -n auto --dist loadfile -m long tests

test-lab: $(LAB_VENV)/installed-lab-test  ## run the tests that need JupyterLab beside the rest
	@$(LAB_VENV)/bin/pytest tests/lab/test_explore.py tests/browser

prove: $(VENV)/installed  ## break the code in every known way, and see that the checks notice
	@$(VENV)/bin/ssot prove

prove-whole: $(VENV)/installed  ## the same with all checks of a notebook for each, which takes long
	@$(VENV)/bin/ssot prove --whole

audit: $(VENV)/installed  ## ask of every check what it is worth, with what was measured
	@$(VENV)/bin/ssot audit

lab: $(LAB_VENV)/installed-lab  ## open JupyterLab on the notebooks
	@$(LAB_VENV)/bin/jupyter lab --ServerApp.root_dir="$(CURDIR)/notebooks" \
		--ServerApp.ip=127.0.0.1 $$(test "$$(id -u)" -ne 0 || echo --allow-root)

explore: $(LAB_VENV)/installed-lab  ## replay a failed check in JupyterLab (RUN=… CHECK=…)
	@$(LAB_VENV)/bin/ssot explore "$(RUN)" $(if $(CHECK),"$(CHECK)")

lint: $(VENV)/installed-test  ## check style, types and the direction of imports
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

constraints: $(PINS_VENV)/bin/python  ## write constraints.txt anew, with today's versions
	@$(PINS_VENV)/bin/python -m pip install -qq --upgrade setuptools '.[lab,test]'
	@$(PINS_VENV)/bin/python -m pip check
	@{ sed -n '/^#/p' constraints.txt; $(PINS_VENV)/bin/python -m pip freeze --all \
		--exclude pip --exclude ssot-interplay | LC_ALL=C sort -f; } >build/constraints.txt
	@mv build/constraints.txt constraints.txt
	@rm -rf build

clean:  ## remove virtual environments, caches and outputs
	@rm -rf $(VENV) $(LAB_VENV) build *.egg-info
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -path ./.git -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune \
		-exec rm -rf {} +
	@find outputs -mindepth 1 -maxdepth 1 ! -name .gitkeep -exec rm -rf {} +

# JupyterLab has a virtual environment of its own: beside papermill it makes every start of a run
# two seconds slower.
$(VENV)/installed $(VENV)/installed-test: $(VENV)/bin/python pyproject.toml constraints.txt
$(LAB_VENV)/installed-lab $(LAB_VENV)/installed-lab-test: \
		$(LAB_VENV)/bin/python pyproject.toml constraints.txt

%/installed:
	$(call install,$*,.)

%/installed-test:
	$(call install,$*,.[test])
	@touch $*/installed

%/installed-lab:
	$(call install,$*,.[lab])

%/installed-lab-test:
	$(call install,$*,.[lab$(COMMA)test])
	@touch $*/installed-lab

# $(call install,the virtual environment,what): the build's own requirements are pinned as well,
# by the second variable since pip 25.3.
define install
	@echo "installing into $(1)"
	@PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_ROOT_USER_ACTION=ignore \
		$(1)/bin/python -m pip --disable-pip-version-check install -qq --editable '$(2)'
	@touch $@
endef

%/bin/python:
	@set -- $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11); \
	new=; found=; \
	for python in "$$@"; do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		new=$$python; \
		"$$python" -c 'import ensurepip, venv' 2>/dev/null || continue; \
		found=$$python; \
		break; \
	done; \
	if [ -z "$$new" ]; then \
		echo "no Python >= 3.11 found (tried $$*): install one, or set PYTHON" >&2; exit 1; \
	elif [ -z "$$found" ]; then \
		echo "$$new has no venv module: install python3-venv, or set PYTHON" >&2; exit 1; \
	fi; \
	"$$found" -m venv $* || { rm -rf $*; exit 1; }
