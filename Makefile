# clearseek: `make help` lists what can be made. Needs make, and Python 3.11 or later with pip and venv.

PYTHON ?= python3
ARGS ?=

VENV := .venv
PEERS := .venv-peers
PEER_PACKAGES := accelerate datasets hypothesis peft pytest pytest-timeout transformers trl==1.16.0
# An environment is right while this fingerprint of what went into it stands; so nothing is installed twice.
fingerprint = $(shell { echo "$(CURDIR)"; cat pyproject.toml $(1); } | cksum | tr ' ' '-')
STAMP := $(VENV)/.installed-$(call fingerprint,constraints.txt)
PEERS_STAMP := $(PEERS)/.installed-$(call fingerprint,constraints-peers.txt)

.DEFAULT_GOAL := help
.PHONY: help setup train test test-slow test-peers check format peers published bench clean

help:  ## list what can be made
	@grep -E '^[a-zA-Z%_-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | \
	    awk -F ':.*## ' '{ printf "  make %-11s %s\n", $$1, $$2 }'

setup: $(STAMP)  ## make .venv and install clearseek in it; instant when nothing changed

train: setup  ## run recipes/r1-mini.toml: from nothing to a small model that reasons (ARGS="--out RUN ...")
	$(VENV)/bin/clearseek run recipes/r1-mini.toml $(ARGS)

test: setup  ## the fast tests (ARGS="-k name" picks some)
	$(VENV)/bin/python -m pytest -q $(ARGS)

test-slow: setup  ## the slow tests
	$(VENV)/bin/python -m pytest -q tests/slow $(ARGS)

test-peers: peers  ## the tests that compare with transformers and PEFT
	$(PEERS)/bin/python -m pytest -q $(shell grep -rl importorskip tests --include='test_*.py') $(ARGS)

check: setup  ## lint, format, types, floors of the house
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: setup  ## put the source in its form
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

peers: $(PEERS_STAMP)  ## make .venv-peers: clearseek beside transformers and TRL, for comparisons

PUBLISHED := llama_cpp_python-0.3.36
published: setup  ## fetch published chat templates and vocabularies into .published/, for the tests that read them
	@rm -rf .published && mkdir -p .published
	@$(VENV)/bin/python -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest .published \
	    $(subst _,-,$(subst -,==,$(PUBLISHED)))
	@tar -xzf .published/$(PUBLISHED).tar.gz -C .published --strip-components=4 $(PUBLISHED)/vendor/llama.cpp/models
	@rm .published/$(PUBLISHED).tar.gz

bench: bench-pretrain bench-rl  ## every benchmark beside its peers, one JSON object each

bench-rl: peers  ## CPU-seconds of reinforcement learning beside TRL's
	@$(PEERS)/bin/python benchmarks/rl_vs_trl.py $(ARGS)

bench-%: peers  ## benchmarks/%.py, such as bench-pretrain
	@$(PEERS)/bin/python benchmarks/$(subst -,_,$*).py $(ARGS)

clean:  ## remove environments, caches and builds; runs/ stays
	rm -rf $(VENV) $(PEERS) .published build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find clearseek tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# $(1) environment, $(2) what pip installs, $(3) stamp
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "clearseek needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo missing)." \
	    "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(1)/bin/python || $(PYTHON) -m venv $(1) || \
	    { rm -rf $(1); echo "$(PYTHON) cannot make an environment;" \
	    "on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing into $(1)" >&2
	@$(1)/bin/python -m pip install --quiet --disable-pip-version-check $(2)
	@rm -f $(1)/.installed-*
	@touch $(3)
endef

$(STAMP):
	$(call install,$(VENV),-c constraints.txt -e '.[dev]',$@)

$(PEERS_STAMP):
	$(call install,$(PEERS),-c constraints-peers.txt -e . $(PEER_PACKAGES),$@)
