# Every target first brings the virtual environment up to date, and does nothing about it when it is.
PYTHON ?= python3
EXPERIMENT ?= main
LAUNCHER ?= local
JOBS ?= -1
ARGS ?=
FIGURE ?=
SCALE ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup sweep status tensorboard report figures claims paper bench bench-all profile test test-all test-engines check smoke clean

help:  ## this help
	@echo "make TARGET [EXPERIMENT=$(EXPERIMENT)] [LAUNCHER=local|ray|slurm] [JOBS=runs side by side, all cores if not given] [ARGS=\"option=value ...\"]"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1@\2/p' $(MAKEFILE_LIST) | while IFS=@ read -r name text; do printf '  %-14s %s\n' "$$name" "$$text"; done
	@echo
	@echo "experiments: $(patsubst conf/experiment/%.yaml,%,$(wildcard conf/experiment/*.yaml))"

READY := .venv/ready

setup: $(READY)  ## only set up the virtual environment in .venv

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON) found: install Python 3.11 or later, or name one with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1): extrap needs Python 3.11 or later; name one with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: $(PYTHON) has no venv module: install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "setting up .venv (once, a few minutes)"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# the extras of pyproject.toml, each installed when a target first needs it
.venv/extra-%: $(READY)
	@echo "installing the extra $* (once)"
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@

ENGINE := hydra/launcher=$(LAUNCHER) $(if $(filter local,$(LAUNCHER)),hydra.launcher.n_jobs=$(JOBS))
EXTRA := $(patsubst %,.venv/extra-%,$(filter ray slurm,$(LAUNCHER)))

sweep: $(READY) $(EXTRA)  ## train and evaluate all runs of EXPERIMENT that are not finished, then its report
	@.venv/bin/python -m experiments.run experiment=$(EXPERIMENT) $(ENGINE) $(ARGS)

status: $(READY)  ## how far each sweep is, from its files alone, while it runs here or elsewhere
	@.venv/bin/python -m experiments.progress

tensorboard: .venv/extra-tensorboard  ## losses and perplexities of all runs in a browser, while sweeps write them; Ctrl-C ends it
	@.venv/bin/python -m experiments.tensorboard

report: $(READY)  ## tables and figures of EXPERIMENT from its finished runs
	@.venv/bin/python -m experiments.report gather $(EXPERIMENT)

figures: $(READY)  ## all tables and figures again from the tracked rows, without training
	@.venv/bin/python -m experiments.report draw

claims: $(READY)  ## what the tracked rows say about published claims, without training
	@.venv/bin/python -m experiments.report claims

paper: $(READY) $(EXTRA)  ## what the figures of papers need, and the figures; FIGURE=NAME: one of them; SCALE=gpu: larger models
	@needs=$$(.venv/bin/python -m experiments.remake needs $(FIGURE) $(if $(SCALE),--scale $(SCALE))) || exit; \
	for experiment in $$needs; do \
	    .venv/bin/python -m experiments.run experiment=$$experiment $(ENGINE) $(ARGS) || failed=1; \
	done; \
	.venv/bin/python -m experiments.remake draw $(FIGURE) && exit $${failed:-0}

bench: .venv/extra-bench  ## how fast it is against the peers, a few minutes; leave the machine alone meanwhile
	@.venv/bin/python -m experiments.bench $(ARGS)

bench-all: .venv/extra-bench  ## the same with longer inputs and more rounds, a quarter of an hour; ARGS=--compiled: compiled peers too
	@.venv/bin/python -m experiments.bench --all $(ARGS)

profile: $(READY)  ## where a training step goes; ARGS="position=rope objective=mlm ..."
	@.venv/bin/python -m experiments.profile $(ARGS)

test: $(READY)  ## the quick tests, about four minutes
	@.venv/bin/python -m pytest -q -n auto --dist worksteal -m "not slow and not gpu"

test-all: $(READY)  ## all tests; those for a GPU are skipped where there is none
	@.venv/bin/python -m pytest -q -n auto --dist worksteal

test-engines: $(READY) .venv/extra-ray .venv/extra-slurm  ## sweeps over several machines and processes, with the extras that they need
	@.venv/bin/python -m pytest -q tests/test_ray.py tests/test_slurm.py

check: $(READY)  ## lint and types
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

smoke: $(READY) $(EXTRA)  ## the whole path in about a minute, with models too small to mean anything
	@rm -rf results/runs/smoke
	@.venv/bin/python -m experiments.run experiment=smoke hydra.launcher.n_jobs=$(JOBS) $(ARGS)

clean:  ## remove the virtual environment and caches, never results
	@rm -rf .venv *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
