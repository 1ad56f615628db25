# `make demo` and `make test` need Python 3.11, git and make, and set everything else up themselves.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(if $(filter /%,$(VENV)),,$(CURDIR)/)$(VENV)/bin
export PATH := $(BIN):$(PATH)
READY := $(VENV)/.ready

.PHONY: demo test lint repro plots bench sweep ablations readme lock clean
.DEFAULT_GOAL := help

help: ## List what can be made
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	"$(BIN)"/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	"$(BIN)"/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	"$(BIN)"/python -m scripts.plots
	@git rev-parse --git-dir >/dev/null 2>&1 || "$(BIN)"/dvc config --local core.no_scm true # a zip has no git
	@touch $@

demo: $(READY) ## Run the whole pipeline on the embedded sample, in .demo/
	"$(BIN)"/python -m scripts.demo

test: $(READY) lint ## Lint, check types and run all tests
	"$(BIN)"/python -m pytest --numprocesses auto --dist loadfile

lint: $(READY)
	"$(BIN)"/ruff check .
	"$(BIN)"/ruff format --check .
	"$(BIN)"/mypy
	"$(BIN)"/lint-imports

repro: $(READY) ## Run the pipeline on the data set that params.yaml names
	"$(BIN)"/dvc repro

plots: $(READY) ## Draw the models' curves on a page that needs no network
	"$(BIN)"/python -m scripts.plots
	"$(BIN)"/dvc plots show

bench: $(READY) ## Measure speed beside the classic loop and TFDS, in half an hour (QUICK=1: in 5 minutes; GPU=1: on a GPU)
	"$(BIN)"/python -m benchmarks $(if $(QUICK),--quick) $(if $(GPU),--gpu)

SEEDS ?= 3

sweep: $(READY) ## Train all networks for SEEDS seeds: how much accuracy moves by itself
	"$(BIN)"/python -m scripts.sweep --seeds $(SEEDS)

ablations: $(READY) ## Train one network on more and fewer labels, taught and not: hours, in as many sittings as you like
	"$(BIN)"/python -m scripts.ablations

readme: $(READY) ## Write README's figures anew from reports/
	"$(BIN)"/python -m scripts.readme

RESOLVE = uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-annotate \
  --allow-unsafe --no-header --quiet

lock: ## Resolve the lock files anew from pyproject.toml (needs uv)
	$(RESOLVE) --extra pipeline --extra dev --output-file requirements.lock
	$(RESOLVE) --extra pipeline --extra dev --extra gpu --constraint requirements.lock --output-file requirements-gpu.lock
	$(RESOLVE) --extra serving --constraint requirements.lock --output-file requirements-serving.lock

clean: ## Remove the environment and the demo
	rm -rf $(VENV) .demo
