#!/usr/bin/env bash
# Make .venv: the packages in requirements.lock, which running needs, and this checkout.
# "venv.sh dev" adds to it the packages in requirements-dev.lock, which tests and checks need.
# The last step of each writes .venv/.runtime or .venv/.dev, which make looks for.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)

if [ "${1:-}" = dev ]; then
  say "adding what tests and checks need to .venv"
  "${pip[@]}" --require-hashes -r requirements-dev.lock
  touch .venv/.dev
  exit
fi

PYTHON=${PYTHON:-python3}
need "$PYTHON" python3
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  die "Python 3.11 or newer is needed, and $PYTHON is $("$PYTHON" --version 2>&1); choose another: make PYTHON=..."
# On Debian, venv cannot install pip without the package python3-venv.
"$PYTHON" -c 'import ensurepip' 2> /dev/null || install python3-venv ||
  die "python3-venv is missing; install it: apt-get install python3-venv (as root)"

say "making .venv (Python $("$PYTHON" -c 'import platform; print(platform.python_version())'))"
rm -rf .venv
trap '[ $? = 0 ] || rm -rf .venv' EXIT
"$PYTHON" -m venv .venv
"${pip[@]}" --require-hashes -r requirements.lock
"${pip[@]}" --no-deps --no-build-isolation -e .
touch .venv/.runtime
