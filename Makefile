# make run    set up what is missing and run an example in each language
# make test   set up what is missing and pass the tests
# make help   the rest
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

run: .venv ## run an example in each language, in front of you: in Docker if it answers, else by bubblewrap
	@scripts/run.sh

test: .venv ## lint, type-check and test; Docker tests where an engine can run
	@scripts/test.sh

test-hostile: .venv ## run hostile programs against the sandbox, and tell which attacks were shown to fail
	@scripts/test.sh tests/hostile

check: .venv ## lint and type-check alone
	@scripts/check.sh

images: .venv ## have an engine, and the three images
	@scripts/engine.sh
	@$(BIN)/codeforge images build

bench: images ## measure: warm, reused and cold runs beside docker run and other libraries
	@$(BIN)/python benchmarks/warm.py
	@if [ -n "$$CODEFORGE_DATA" ]; then $(BIN)/python benchmarks/humaneval.py; \
	else echo "HumanEval is left out: CODEFORGE_DATA names no folder with its data"; fi
	@$(BIN)/python benchmarks/cold.py

lock: ## resolve the dependencies again (needs uv)
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --upgrade -q -o requirements-dev.lock

.venv: requirements-dev.lock pyproject.toml
	@PYTHON=$(PYTHON) scripts/venv.sh
	@touch .venv

clean: ## remove what make made here; images and engine stay
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help run test test-hostile check images bench lock clean
