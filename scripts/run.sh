#!/usr/bin/env bash
# Run an example in each language: in Docker where it answers, else by bubblewrap, which needs no daemon.
# What is missing is installed, as root and having said so. CODEFORGE_ENGINE=docker|podman|bubblewrap decides.
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
  say "sandboxes by bubblewrap"
  need bwrap bubblewrap
  need cc gcc libc6-dev
  need make make
  .venv/bin/codeforge environments build
else
  say "sandboxes in $engine"
  .venv/bin/codeforge images build
fi
.venv/bin/python examples/tour.py
