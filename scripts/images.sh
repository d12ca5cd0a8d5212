#!/usr/bin/env bash
# Have the three images: built here, on the official bases or, where no registry answers, on
# stand-ins made from Debian packages. What is up to date costs seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

# What the stand-ins are made with; only looked for where a base is neither here nor to be pulled.
for base in python:3.11-slim node:18-slim; do
  docker image inspect "$base" > /dev/null 2>&1 && continue
  say "base image $base: pulling"
  if timeout 120 docker pull --quiet "$base" > /dev/null 2>&1; then
    continue
  fi
  say "base image $base: no registry answers; it will be made from Debian packages"
  need mmdebstrap mmdebstrap
  need npm npm
  have pip3 || "${PYTHON:-python3}" -m pip --version > /dev/null 2>&1 || need pip3 python3-pip
done
exec .venv/bin/codeforge images build
