#!/bin/sh
# Make /node_modules, or what NODE_MODULES names, smaller without touching code that runs.
#   trim-node-modules.sh [--no-declarations]
# With --no-declarations, type declarations go too: for an image without TypeScript.
set -eu
modules=${NODE_MODULES:-/node_modules}

find "$modules" -type f ! -iname 'license*' \( \
  -iname '*.md' -o -iname '*.markdown' -o -name '*.map' -o -name '*.flow' \
  -o -name '*.tsbuildinfo' -o -name '.eslintrc*' -o -name '.editorconfig' \) -delete
if [ "${1-}" = --no-declarations ]; then
  find "$modules" -type f \( -name '*.ts' -o -name '*.mts' -o -name '*.cts' \) -delete
fi

# The compiler's messages in other languages than English.
rm -rf "$modules"/typescript/lib/[a-z][a-z] "$modules"/typescript/lib/[a-z][a-z]-[a-z]*
# Declarations that jest's own packages asked for. Without a tsconfig.json, tsc reads
# all of @types for every program: with these it needs twice the time and memory.
types=$modules/@types
rm -rf "$types"/babel__* "$types"/istanbul-* "$types"/stack-utils "$types"/yargs "$types"/yargs-parser

rm -f "$modules"/.package-lock.json
find "$modules" -type d -empty -delete
