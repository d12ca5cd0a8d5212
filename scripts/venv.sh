#!/usr/bin/env bash
# Make .venv: the locked dependencies, and this checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

PYTHON=${PYTHON:-python3}
need "$PYTHON" python3
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  die "Python 3.11 or newer is needed, and $PYTHON is $("$PYTHON" --version 2>&1); say PYTHON=... to make"
# Debian has venv without pip in it unless python3-venv is there.
"$PYTHON" -c 'import ensurepip' 2> /dev/null || install python3-venv ||
  die "python3-venv is missing; install it: apt-get install python3-venv (as root)"

say "making .venv (Python $("$PYTHON" -c 'import platform; print(platform.python_version())'))"
rm -rf .venv
# Half of one would be taken for a whole one.
trap '[ $? = 0 ] || rm -rf .venv' EXIT
"$PYTHON" -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
