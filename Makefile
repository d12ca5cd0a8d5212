# make run    set up what is missing and run an example in each language
# make test   set up what is missing and pass the tests
# make help   the rest
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# Written when .venv has what running needs, and when it has what tests and checks need too.
RUNTIME := .venv/.runtime
DEV := .venv/.dev

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

run: $(RUNTIME) ## run an example in each language, in Docker if it answers, else in bubblewrap
	@scripts/run.sh

test: $(DEV) ## lint, type-check and test, on every engine that can run here
	@scripts/test.sh

test-all: $(DEV) ## run every test on every engine, with both builds of init
	@CODEFORGE_TEST_ALL=1 scripts/test.sh

test-hostile: $(DEV) ## attack sandboxes with hostile programs, and list the attacks that failed
	@scripts/test.sh tests/hostile

check: $(DEV) ## lint and type-check only
	@scripts/check.sh

images: $(RUNTIME) ## provide a Docker engine and the three images
	@scripts/engine.sh
	@$(BIN)/codeforge images build

bench: images ## compare warm, reused and cold runs with docker run and other libraries
	@$(BIN)/python benchmarks/warm.py
	@if [ -n "$$CODEFORGE_DATA" ]; then $(BIN)/python benchmarks/humaneval.py; \
	else echo "HumanEval is left out: set CODEFORGE_DATA to the folder with its data"; fi
	@$(BIN)/python benchmarks/cold.py

COMPILE := uv pip compile pyproject.toml --group build --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-header --no-annotate --upgrade -q

lock: ## resolve the dependencies again (needs uv: pip install uv)
	$(COMPILE) -o requirements.lock
	$(COMPILE) --all-extras --group dev -c requirements.lock -o requirements-dev.lock

$(RUNTIME): requirements.lock pyproject.toml
	@PYTHON=$(PYTHON) scripts/venv.sh

$(DEV): $(RUNTIME) requirements-dev.lock
	@scripts/venv.sh dev

clean: ## remove .venv, builds and caches; images and engine stay
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help run test test-all test-hostile check images bench lock clean
