#!/usr/bin/env bash
# Lint and type-check.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

say "ruff, mypy"
.venv/bin/ruff check --quiet .
.venv/bin/ruff format --check --quiet .
.venv/bin/mypy
