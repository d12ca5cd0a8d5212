#!/usr/bin/env bash
# All checks and all tests. CODEFORGE_TEST_ENGINE=required: no engine is a failure; otherwise, where
# none can run, what needs none is tested, and the last lines say what was left out.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

need cc gcc libc6-dev
need make make
scripts/check.sh

why=
if ! scripts/engine.sh; then
  [ "${CODEFORGE_TEST_ENGINE:-}" != required ] || die "a Docker engine is required here"
  why="no Docker engine can run on this machine (see above)"
  export CODEFORGE_TEST_ENGINE=none
else
  .venv/bin/codeforge images build
  need docker-registry docker-registry
fi
if [ $# -gt 0 ] || [ -n "$why" ]; then
  .venv/bin/python -m pytest "$@"
else
  # Those that need no engine, or have one of their own, run beside those that share the machine's.
  log=$(mktemp)
  .venv/bin/python -m pytest tests/unit tests/faults > "$log" 2>&1 &
  beside=$!
  trap 'kill "$beside" 2>/dev/null || true; rm -f "$log"' EXIT
  failed=
  .venv/bin/python -m pytest tests/contract tests/hostile || failed=1
  say "tests/unit and tests/faults, which ran meanwhile"
  wait "$beside" || failed=1
  cat "$log"
  [ -z "$failed" ] || die "tests failed (see above)"
fi
if [ -n "$why" ]; then
  say "SKIPPED (listed above): every test that needs a Docker engine, or namespaces that are refused here: $why"
fi
