#!/usr/bin/env bash
# All checks and all tests, on every engine that this machine has or can be given: Docker, bubblewrap, Podman,
# and gVisor by a Docker daemon of its own. What cannot run is left out, and the last lines say what and why.
# CODEFORGE_TEST_ENGINE=required makes that a failure, for those that CODEFORGE_TEST_ENGINES names (docker and
# bubblewrap). With arguments: pytest with these, on the engine that CODEFORGE_ENGINE says.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

need cc gcc libc6-dev
need make make
need tmux tmux
scripts/check.sh

DATA=tests/contract/test_python_data.py

logs=$(mktemp -d)
skipped=()
pids=()
# Ends everything that was started, with its children; each is the first of its own process group.
finish() {
  local pid
  for pid in "${pids[@]}"; do kill -- "-$pid" 2> /dev/null || true; done
  rm -rf "$logs"
}
trap finish EXIT

# without ENGINE WHY: it is left out, or that is a failure.
without() {
  if [ "${CODEFORGE_TEST_ENGINE:-}" = required ]; then
    case " ${CODEFORGE_TEST_ENGINES:-docker bubblewrap} " in *" $1 "*) die "$1 is required here: $2" ;; esac
  fi
  skipped+=("$1: $2")
}

# start NAME COMMAND...: in the background, in a process group of its own, with its output in a file.
start() {
  local name=$1
  shift
  set -m
  "$@" > "$logs/$name" 2>&1 < /dev/null &
  pids+=($!)
  set +m
}

docker=yes
if scripts/engine.sh; then
  .venv/bin/codeforge images build
  need docker-registry docker-registry
else
  docker=
  without docker "no Docker engine can run on this machine (see above)"
  [ -n "${CODEFORGE_ENGINE:-}" ] || export CODEFORGE_TEST_ENGINE=none
fi

bubblewrap=yes
if ! have bwrap && ! install bubblewrap; then
  bubblewrap=
  without bubblewrap "it is not installed: apt-get install bubblewrap (as root)"
elif ! .venv/bin/codeforge environments build || ! .venv/bin/codeforge environments build python-data ||
  ! told=$(echo 'print(1)' | .venv/bin/codeforge run - --engine bubblewrap 2>&1); then
  bubblewrap=
  without bubblewrap "${told:-its environments could not be made (see above)}"
fi

if [ $# -gt 0 ]; then
  .venv/bin/python -m pytest "$@"
  exit
fi

podman=yes
if [ -z "$docker" ]; then
  podman=
  without podman "its images come from Docker"
elif ! have podman && ! install podman; then
  podman=
  without podman "it is not installed: apt-get install podman (as root)"
fi

gvisor=yes
if [ -z "$docker" ] || [ "$(id -u)" != 0 ] || ! have dockerd; then
  gvisor=
  without gvisor "only root can start a Docker daemon with its runtime"
elif ! have runsc && ! install runsc; then
  gvisor=
  without gvisor "it is not installed: apt-get install runsc"
fi

# A daemon of its own: the machine's keeps its configuration, and its sandboxes to itself.
on_gvisor() (
  local root images
  root=$(mktemp -d /tmp/cf-gvisor-XXXXXX)
  mapfile -t images < <(.venv/bin/python -c 'from codeforge import LANGUAGES
for row in LANGUAGES: print(row.image)')
  echo '{}' > "$root/daemon.json"
  # In a network of its own: a daemon without a bridge removes docker0, which is the other one's.
  unshare --net dockerd --config-file="$root/daemon.json" --host="unix://$root/docker.sock" \
    --data-root="$root/data" --exec-root="$root/exec" --pidfile="$root/pid" --bridge=none --iptables=false \
    --ip6tables=false --log-level=error > "$root/log" 2>&1 &
  local daemon=$! failed=
  for _ in $(seq 120); do
    DOCKER_HOST=unix://$root/docker.sock docker version > /dev/null 2>&1 && break
    sleep 0.5
  done
  docker save "${images[@]}" | DOCKER_HOST=unix://$root/docker.sock docker load > /dev/null
  export DOCKER_HOST=unix://$root/docker.sock
  DOCKER_CONFIG_FILE=$root/daemon.json DOCKER_PIDFILE=$root/pid scripts/gvisor.sh || failed=1
  [ -n "$failed" ] || CODEFORGE_RUNTIME=runsc .venv/bin/python -m pytest tests/contract tests/hostile -m core ||
    failed=1
  kill "$daemon" && wait "$daemon" || true
  rm -rf "$root" || true
  [ -z "$failed" ]
)

# Those that need no engine or have one of their own, then gVisor's. Then the large image is made.
beside() {
  local failed=
  .venv/bin/python -m pytest tests/unit tests/faults || failed=1
  [ -z "$gvisor" ] || on_gvisor || failed=1
  [ -z "$docker" ] || .venv/bin/codeforge images build python-data || failed=1
  [ -z "$failed" ]
}

# Podman 4.3 on a busy machine now and then loses a container, or the connection to one. What failed
# is run once more, and both are shown.
on_podman() {
  local run=(env CODEFORGE_ENGINE=podman .venv/bin/python -m pytest tests/contract tests/hostile -m engine)
  "${run[@]}" -o cache_dir="$logs/podman-cache" && return
  say "Podman: what failed, once more"
  "${run[@]}" -o cache_dir="$logs/podman-cache" --last-failed --last-failed-no-failures none
}

# What is about engines; the rest of these folders is run once, with Docker's.
without_daemon() {
  local failed=
  [ -z "$bubblewrap" ] || CODEFORGE_TEST_ENGINE='' CODEFORGE_ENGINE=bubblewrap \
    .venv/bin/python -m pytest tests/contract tests/hostile -m engine || failed=1
  [ -z "$podman" ] || on_podman || failed=1
  [ -z "$failed" ]
}

say "three lines of tests beside each other; what they said comes at the end"
start docker .venv/bin/python -m pytest tests/contract tests/hostile --ignore "$DATA"
start beside beside
start without_daemon without_daemon
failed=
for number in 0 1 2; do wait "${pids[$number]}" || failed=1; done
pids=()
say "tests/contract and tests/hostile on Docker"
cat "$logs/docker"
say "tests/unit and tests/faults; then gVisor"
cat "$logs/beside"
say "bubblewrap; then Podman"
cat "$logs/without_daemon"
if [ -n "$docker" ]; then
  say "the image python-data"
  .venv/bin/python -m pytest "$DATA" || failed=1
fi
for line in "${skipped[@]}"; do say "SKIPPED, all that needs $line"; done
[ -z "$failed" ] || die "tests failed (see above)"
