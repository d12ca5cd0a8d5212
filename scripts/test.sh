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
.venv/bin/python -m pytest "$@"
if [ -n "$why" ]; then
  say "SKIPPED (listed above): every test that needs a Docker engine, or namespaces that are refused here: $why"
fi
