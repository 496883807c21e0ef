# Every target first brings the virtual environment up to date, and does nothing about it when it is.
PYTHON ?= python3
EXPERIMENT ?= main
LAUNCHER ?= local
JOBS ?= -1
ARGS ?=
RESULTS ?= results
TABLE ?=
BEST ?=
PROBES ?=
SCHEME ?=
REFERENCE ?=
FIGURE ?=
SCALE ?=
NAME ?=

TARGETS := help setup sweep corpus probes check-scheme status tensorboard report figures claims page paper bench bench-all \
    bench-schemes kernels profile test test-all test-engines test-peers test-page vendor check smoke clean
ENGINES := LAUNCHER JOBS ARGS RESULTS
TAKES-help := EXPERIMENT
TAKES-sweep := EXPERIMENT SCHEME $(ENGINES)
TAKES-probes := EXPERIMENT PROBES ARGS RESULTS
TAKES-corpus := NAME
TAKES-check-scheme := SCHEME REFERENCE ARGS
TAKES-smoke := $(ENGINES)
TAKES-paper := FIGURE SCALE $(ENGINES)
TAKES-status := EXPERIMENT RESULTS
TAKES-report := EXPERIMENT RESULTS TABLE BEST
TAKES-figures := RESULTS
TAKES-claims := RESULTS
TAKES-page := RESULTS
TAKES-tensorboard := RESULTS
TAKES-kernels := RESULTS
TAKES-bench := ARGS
TAKES-bench-all := ARGS
TAKES-bench-schemes := ARGS
TAKES-profile := ARGS

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: $(TARGETS) FORCE

# a slip would otherwise be passed over, and the default sweep run
ifneq ($(filter-out $(TARGETS) .venv/%,$(MAKECMDGOALS)),)
$(error $(firstword $(filter-out $(TARGETS) .venv/%,$(MAKECMDGOALS))): no such target; there are $(TARGETS))
endif
GOALS := $(or $(MAKECMDGOALS),help)
# the loop's own variable hides one of that name: nobody gives a _
GIVEN := $(foreach _,$(.VARIABLES),$(if $(filter command,$(origin $(_))),$(_)))
TAKEN := $(sort PYTHON $(foreach goal,$(GOALS),$(TAKES-$(goal))))
ifneq ($(filter-out $(TAKEN) -%,$(GIVEN)),)
$(error $(firstword $(filter-out $(TAKEN) -%,$(GIVEN)))=...: make $(GOALS) takes $(TAKEN)$(if $(filter ARGS,$(TAKEN)),; options of a run go into ARGS="option=value ..."))
endif
ifneq ($(words $(RESULTS)),1)
$(error RESULTS=$(RESULTS): expected the name of a folder, without spaces)
endif
ifeq ($(OS),Windows_NT)
$(error extrap runs on Linux and macOS; on Windows, within WSL: wsl --install)
endif
ifneq ($(and $(filter JOBS,$(GIVEN)),$(filter-out local,$(LAUNCHER))),)
$(error JOBS is for LAUNCHER=local; how many runs LAUNCHER=$(LAUNCHER) has side by side is said in conf/hydra/launcher/$(LAUNCHER).yaml)
endif

help:  ## this help
	@echo "make TARGET [EXPERIMENT=$(EXPERIMENT)] [LAUNCHER=local|ray|slurm] [JOBS=runs side by side, all cores if not given] [ARGS=\"option=value ...\"] [RESULTS=folder]"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1@\2/p' $(MAKEFILE_LIST) | while IFS=@ read -r name text; do printf '  %-15s %s\n' "$$name" "$$text"; done
	@echo
	@echo "experiments: $(patsubst conf/experiment/%.yaml,%,$(wildcard conf/experiment/*.yaml))"
	@echo "at another scale: EXPERIMENT=NAME_SCALE with one of the scales $(patsubst conf/scale/%.yaml,%,$(wildcard conf/scale/*.yaml))"

# What is installed is told by the content of what names it, not by clocks, which git moves; and it has to run: the Python that
# it was made with may be gone.
WANTED := $(shell { sed '/^\[tool\./,$$d' pyproject.toml; cat constraints.txt; } | cksum | tr ' ' -)
READY := .venv/ready-$(WANTED)
RUNS := $(shell .venv/bin/python -c 'from importlib.metadata import version as v; v("extrap"), v("torch")' 2>/dev/null && echo yes)
INSTALL := .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

setup: $(READY)  ## only set up the virtual environment in .venv

$(READY): $(if $(RUNS),,FORCE)
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON) found: install Python 3.11 to 3.14, or name one with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1): extrap needs Python 3.11 to 3.14; name one with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: $(PYTHON) has no venv module: install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -c "$$PLATFORM"
	@echo "setting up .venv (once, a few minutes)"
	@$(PYTHON) -m venv $(if $(RUNS),,--clear) .venv
	@rm -f .venv/ready*
	@$(INSTALL) --no-compile -e '.[dev]' || { echo "error: pip could not install what pyproject.toml and constraints.txt name; mend that and run the same command again" >&2; exit 1; }
	@.venv/bin/python -m compileall -qq -j 0 .venv/lib || true  # pip uses one core; wheels hold modules of other Pythons, too
	@touch $@

# PyTorch has no wheels for other platforms
define PLATFORM
import platform, sys
machine, mac, (libc, version) = platform.machine(), platform.mac_ver()[0], platform.libc_ver()
number = lambda text: [int(part) for part in text.split(".")[:2] if part.isdigit()]
if mac and (machine != "arm64" or number(mac) < [14]):
    sys.exit(f"error: this is macOS {mac} on {machine}: extrap needs macOS 14 or later on Apple silicon, or Linux (PyTorch has no other wheels)")
if sys.platform == "linux" and (machine not in ("x86_64", "aarch64") or libc != "glibc" or number(version) < [2, 28]):
    sys.exit(f"error: this is Linux on {machine} with {libc or 'another C library than glibc'} {version}: extrap needs glibc 2.28 or later on x86_64 or aarch64 (PyTorch has no other wheels)")
endef
export PLATFORM

# the extras of pyproject.toml, each installed when a target first needs it
.venv/extra-%: $(READY)
	@echo "installing the extra $* (once)"
	@$(INSTALL) -e '.[$*]'
	@touch $@

ENGINE := hydra/launcher=$(LAUNCHER) $(if $(filter local,$(LAUNCHER)),hydra.launcher.n_jobs=$(JOBS)) \
    $(if $(filter-out results,$(RESULTS)),runtime.results_dir=$(RESULTS))
# each word in quotes, for the shell to leave brackets alone, unless whoever gave them has done that himself
QUOTE := '
WORDS := $(if $(findstring $(QUOTE),$(ARGS))$(findstring ",$(ARGS))$(findstring \,$(ARGS))$(findstring $$,$(ARGS)),$(ARGS),$(foreach word,$(ARGS),'$(word)'))
EXTRA := $(patsubst %,.venv/extra-%,$(filter ray slurm,$(LAUNCHER)))

sweep: $(READY) $(EXTRA)  ## train and evaluate all runs of EXPERIMENT that are not finished, then its report
	@.venv/bin/python -m extrap experiment=$(EXPERIMENT) $(ENGINE) $(if $(SCHEME),"scheme=$$SCHEME") $(WORDS)

comma := ,
probes: $(READY)  ## probe the finished runs of EXPERIMENT, beyond perplexity; PROBES="reach order recall detection heads": some of these
	@.venv/bin/python -m extrap.sweep.probe experiment=$(EXPERIMENT) $(if $(PROBES),"eval.probes=[$(subst $(eval) ,$(comma),$(strip $(PROBES)))]") $(if $(filter-out results,$(RESULTS)),runtime.results_dir=$(RESULTS)) $(WORDS)

corpus: $(READY)  ## fetch the corpus NAME for data=corpus, once: wikitext-2, wikitext-103, enwik8, text8, pg19-sample, fineweb-edu-sample
	@.venv/bin/python -m extrap.sweep.corpus $(NAME)

check-scheme: $(READY)  ## check SCHEME (path/to/mine.py:Mine, or one of the project); REFERENCE=path/to/file.py:function: against your formula
	@.venv/bin/python -m extrap.sweep.check "$$SCHEME" $(if $(REFERENCE),--reference "$$REFERENCE") $(WORDS)

status: $(READY)  ## how far each sweep is (or EXPERIMENT alone), from its files, while it runs here or elsewhere
	@.venv/bin/python -m extrap.sweep.progress --results $(RESULTS) $(if $(filter EXPERIMENT,$(GIVEN)),$(EXPERIMENT))

tensorboard: .venv/extra-tensorboard  ## losses and perplexities of all runs in a browser, while sweeps write them; Ctrl-C ends it
	@.venv/bin/python -m experiments.tensorboard --results $(RESULTS)

report: $(READY)  ## tables and figures of EXPERIMENT from its finished runs, EXPERIMENT="a b": both in one; TABLE="lengths=... schemes=...": a table of your own; BEST=train.lr: each scheme at its best
	@.venv/bin/python -m experiments.report --results $(RESULTS) gather $(EXPERIMENT) $(if $(TABLE),--table "$(TABLE)") $(if $(BEST),--best $(BEST))

figures: $(READY)  ## all tables and figures again from the tracked rows, without training
	@.venv/bin/python -m experiments.report --results $(RESULTS) draw

claims: $(READY)  ## what the tracked rows say about published claims, without training
	@.venv/bin/python -m experiments.report --results $(RESULTS) claims

page: $(READY)  ## one page to look through all results, claims and papers in a browser, offline: results/page.html
	@.venv/bin/python -m experiments.report --results $(RESULTS) page

paper: $(READY) $(EXTRA)  ## what the figures of papers need, and the figures; FIGURE=NAME: one of them; SCALE=gpu: larger models
	@needs=$$(.venv/bin/python -m experiments.report needs $(FIGURE) $(if $(SCALE),--scale $(SCALE))) || exit; \
	for experiment in $$needs; do \
	    .venv/bin/python -m extrap experiment=$$experiment $(ENGINE) $(WORDS) || failed=1; \
	done; \
	.venv/bin/python -m experiments.report --results $(RESULTS) papers $(FIGURE) && exit $${failed:-0}

bench: .venv/extra-bench  ## how fast it is against the peers, five minutes or so; leave the machine alone meanwhile
	@.venv/bin/python -m experiments.bench $(ARGS)

bench-all: .venv/extra-bench  ## the same with longer inputs, more rounds and training to the same loss, in 45 minutes or so; ARGS=--compiled: compiled peers too
	@.venv/bin/python -m experiments.bench --all $(ARGS)

bench-schemes: $(READY)  ## what every scheme costs relative to NoPE in training, scoring and memory
	@.venv/bin/python -m experiments.bench --schemes $(ARGS)

kernels: $(READY)  ## what the heads of KERPLE have learned, of finished runs of zoo: results/zoo/kernels.csv
	@.venv/bin/python -m experiments.kernels experiment=zoo position=kerple,kerple_power,kerple_three --results $(RESULTS)

profile: $(READY)  ## where a training step goes; ARGS="position=rope objective=mlm ..."
	@.venv/bin/python -m experiments.profile $(WORDS)

test: $(READY)  ## the quick tests, two to six minutes on two cores
	@.venv/bin/python -m pytest -q -n auto --dist worksteal --durations=15 -m "not slow and not gpu"

test-all: $(READY)  ## all tests; those for a GPU are skipped where there is none
	@.venv/bin/python -m pytest -q -n auto --dist worksteal

test-engines: $(READY) .venv/extra-ray .venv/extra-slurm  ## sweeps over several machines and processes, with the extras that they need
	@.venv/bin/python -m pytest -q -n 2 --dist loadfile tests/test_ray.py tests/test_slurm.py

test-peers: .venv/extra-bench  ## schemes and extensions against those of x-transformers and transformers
	@.venv/bin/python -m pytest -q tests/test_peers.py

test-page: .venv/extra-page  ## the page in a real browser, which has to be there: chromium, chromium-browser or google-chrome, or what CHROMIUM names
	@.venv/bin/python -m pytest -q tests/test_browser.py

vendor:  ## build the library that the page draws with from its sources (needs node and npm; only for another version)
	@cd extrap/report/page/vendor && npm ci --no-audit --no-fund && node bundle.mjs && rm -rf node_modules

check: $(READY)  ## lint and types
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check .
	@.venv/bin/python -m mypy

smoke: $(READY) $(EXTRA)  ## the whole pipeline in about a minute, with models too small to mean anything
	@rm -rf "$(RESULTS)/runs/smoke"
	@.venv/bin/python -m extrap experiment=smoke $(ENGINE) $(WORDS)

clean:  ## remove the virtual environment and caches, never results
	@rm -rf .venv *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
