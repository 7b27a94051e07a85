# Every target makes .venv when it is missing or older than pyproject.toml or constraints.txt.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/stamp

.PHONY: help quickstart test test-slow test-gpu lint docs bench torture epoch large mutants wheelhouse
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: $(STAMP)  ## train a small sentence encoder on this machine, in minutes
	$(BIN)/unsee quickstart

test: $(STAMP)  ## all tests that are quick
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not gpu" $(ARGS)

test-slow: $(STAMP)  ## the laws at length
	$(BIN)/pytest -m "slow and not gpu" $(ARGS)

# Where there is no network, after install.sh of the wheelhouse: make test-gpu GPU_PYTHON=python3
GPU_PYTHON ?= $(BIN)/python
test-gpu: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),$(STAMP))  ## the laws on a GPU; without one they are skipped
	$(GPU_PYTHON) -m pytest -m gpu tests/gpu $(ARGS)

# make torture FUZZ="--minutes 10 --parsers index,tasks"
torture: $(STAMP)  ## kill runs at every failpoint and 100 random instants, resume, compare bit for bit; an hour of fuzzing (long)
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/torture.py $(ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/fuzz.py $(FUZZ)

# Readers of corpora that want other versions of what we use: beside .venv's packages, for the bench only.
PEERS := mosaicml-streaming==0.13.0 catalogue==2.0.10 brotli==1.2.1 zstd==1.5.7.2 python-snappy==0.7.3 cramjam==2.14.0 \
  litdata==0.2.76 lightning-utilities==0.15.3 obstore==0.12.1 tifffile==2026.3.3 \
  boto3==1.44.8 botocore==1.44.8 s3transfer==0.19.3 jmespath==1.1.0

epoch: $(STAMP)  ## prepare and stream ten million sentences: every one once, in bounded memory (long)
	$(BIN)/python tests/torture/epoch.py $(ARGS)

# make large ARGS="--folder F": the same command goes on where a killed one was
large: $(STAMP)  ## prepare 100,000 small files, and 50 GB of text, at 1,024 descriptors in bounded memory (hours; 25 GB of disk)
	$(BIN)/python tests/torture/large.py $(ARGS)

# with the checkout of a peer: make bench ARGS="--peer-unsee PATH"
bench: $(STAMP)  ## where a step's time goes, beside other trainers: tables and bench.json
	DS_BUILD_OPS=0 $(BIN)/python -m pip install -q -c constraints.txt -e ".[bench]"
	$(BIN)/python -m pip install -q --no-deps --upgrade --target $(VENV)/bench-peers $(PEERS)
	$(BIN)/unsee bench $(ARGS)

lint: $(STAMP)  ## format, style, types, and imports that point down
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

# -W: a warning is an error. doctest: the examples of pages and docstrings. No network is needed to build or to read it.
docs: export OMP_NUM_THREADS ?= 1
docs: $(STAMP)  ## the site: tutorial, how-to, explanation, reference; build/docs/html/index.html
	$(BIN)/python -m sphinx -q -W --keep-going -E -d build/docs/cache -b html docs build/docs/html
	$(BIN)/python -m sphinx -q -W --keep-going -d build/docs/cache -b doctest docs build/docs/doctest

# What survives is listed by `.venv/bin/mutmut results`, one of them shown by `.venv/bin/mutmut show NAME`.
mutants: $(STAMP)  ## change the code on purpose, a place at a time, and count the changes that no unit test sees (long)
	OMP_NUM_THREADS=1 $(BIN)/mutmut run --max-children 2 $(ARGS)

# make wheelhouse PYTHON=3.12 PLATFORM=x86_64 HAVE=list.txt ARGS="--extras mlflow"     PYTHON: of the machine to install on
PLATFORM ?= x86_64
wheelhouse: $(STAMP)  ## all wheels to install this on a machine without a network, but torch
	$(BIN)/python cluster/airgapped/wheelhouse.py --python $(patsubst python%,%,$(PYTHON)) --platform $(PLATFORM) \
	  $(if $(HAVE),--have $(HAVE)) $(ARGS)

# Tests start several ranks on few cores: more threads than cores make them many times slower.
test test-slow: export OMP_NUM_THREADS ?= 1

# torch first and alone: the build you put into .venv yourself (CUDA, ROCm, CPU) is kept when its version fits.
# DS_BUILD_OPS=0: DeepSpeed's compiled extensions are not used, and building them needs a compiler and CUDA.
HERE := $(if $(filter 3.%,$(PYTHON)),python3.11,$(PYTHON))
$(STAMP): pyproject.toml constraints.txt
	@command -v $(HERE) >/dev/null || { echo "$(HERE) not found: install Python 3.11, or make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(HERE) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -c constraints.txt torch
	DS_BUILD_OPS=0 $(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	@touch $@
