#!/usr/bin/env bash
# Run an example in each language: in Docker if it answers, else in bubblewrap, which needs no daemon.
# Root installs missing packages, with a message for each. CODEFORGE_ENGINE=docker|podman|bubblewrap chooses.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

engine=${CODEFORGE_ENGINE:-}
if [ -z "$engine" ]; then
  engine=bubblewrap
  if have docker && docker version > /dev/null 2>&1; then engine=docker; fi
fi
export CODEFORGE_ENGINE=$engine
if [ "$engine" = bubblewrap ]; then
  say "the engine is bubblewrap"
  need bwrap bubblewrap
  need cc gcc libc6-dev
  need make make
  .venv/bin/codeforge environments build
else
  say "the engine is $engine"
  .venv/bin/codeforge images build
fi
.venv/bin/python examples/tour.py
