#!/usr/bin/env bash
# Build the sandbox images.
#
#   docker/build.sh [python] [javascript] [typescript]      default: all three
#
# A base image that is not there is pulled; if no registry answers, a stand-in is built
# from the distribution's packages (docker/offline/make-base-images.sh). Layers that are
# up to date are not built again.
#
# Environment:
#   PYTHON_IMAGE, NODE_IMAGE   another base, e.g. python:3.11-slim@sha256:...; only pulled
#   PULL_SECONDS               how long a pull may take (default 60; a slow line needs more)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

default_python=python:3.11-slim
default_node=node:18-slim
PYTHON_IMAGE=${PYTHON_IMAGE:-$default_python}
NODE_IMAGE=${NODE_IMAGE:-$default_node}
PULL_SECONDS=${PULL_SECONDS:-60}

log=$(mktemp)
trap 'rm -f "$log"' EXIT

die() {
  echo "build.sh: $*" >&2
  exit 1
}

# have_base IMAGE STAND-IN: make sure that the base is local; say where it came from.
have_base() {
  local image=$1 stand_in=$2
  if docker image inspect "$image" > /dev/null 2>&1; then
    echo "base $image: already here"
    return
  fi
  if timeout "$PULL_SECONDS" docker pull --quiet "$image" > "$log" 2>&1; then
    echo "base $image: pulled from the registry"
    return
  fi
  case $image in
    "$default_python" | "$default_node") ;;
    *) die "cannot pull $image: $(tail -n 1 "$log")" ;;
  esac
  echo "base $image: no registry gives it; building the offline stand-in"
  docker/offline/make-base-images.sh "$stand_in"
}

# build LANGUAGE BUILD-ARG: quiet, unless it fails.
build() {
  local tag=ai-codeforge-$1:latest start=$SECONDS
  echo "$tag: building ..."
  if ! docker build --build-arg "$2" -t "$tag" -f "docker/$1.Dockerfile" . > "$log" 2>&1; then
    cat "$log" >&2
    die "$tag: build failed; its log is above"
  fi
  echo "$tag: $(docker image ls --format '{{.Size}}' "$tag"), $((SECONDS - start)) s"
}

[ $# -gt 0 ] || set -- python javascript typescript
for language; do
  case $language in
    python | javascript | typescript) ;;
    *) die "unknown language: $language (known: python, javascript, typescript)" ;;
  esac
done
command -v docker > /dev/null || die "docker is not installed"
docker info > /dev/null 2>&1 || die "docker does not answer: is it running, and may you use it?"

for language; do
  case $language in
    python)
      have_base "$PYTHON_IMAGE" python
      build python "PYTHON_IMAGE=$PYTHON_IMAGE"
      ;;
    *)
      have_base "$NODE_IMAGE" node
      build "$language" "NODE_IMAGE=$NODE_IMAGE"
      ;;
  esac
done
