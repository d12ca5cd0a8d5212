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

# start COMMAND...: in the background, in a process group of its own.
start() {
  set -m
  "$@" < /dev/null &
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

# on_gvisor COMMAND...: with a daemon of its own; the machine's keeps its configuration, and its sandboxes to itself.
on_gvisor() {
  local root images daemon failed=
  root=$(mktemp -d /tmp/cf-gvisor-XXXXXX)
  mapfile -t images < <(.venv/bin/python -c 'from codeforge import LANGUAGES
for row in LANGUAGES: print(row.image)')
  echo '{}' > "$root/daemon.json"
  # In a network of its own: a daemon without a bridge removes docker0, which is the other one's.
  unshare --net dockerd --config-file="$root/daemon.json" --host="unix://$root/docker.sock" \
    --data-root="$root/data" --exec-root="$root/exec" --pidfile="$root/pid" --bridge=none --iptables=false \
    --ip6tables=false --log-level=error > "$root/log" 2>&1 &
  daemon=$!
  for _ in $(seq 120); do
    DOCKER_HOST=unix://$root/docker.sock docker version > /dev/null 2>&1 && break
    sleep 0.5
  done
  docker save "${images[@]}" | DOCKER_HOST=unix://$root/docker.sock docker load > /dev/null
  export DOCKER_HOST=unix://$root/docker.sock
  { DOCKER_CONFIG_FILE=$root/daemon.json DOCKER_PIDFILE=$root/pid scripts/gvisor.sh && "$@"; } || failed=$?
  kill "$daemon" && wait "$daemon" || true
  rm -rf "$root" || true
  return "${failed:-0}"
}

# suite NAME ARGUMENT...: the tests of that name, by pytest with these arguments as well.
suite() (
  name=$1
  shift
  tests=(.venv/bin/python -m pytest -o cache_dir="$logs/$name.cache" "$@")
  case $name in
    unit) "${tests[@]}" tests/unit tests/faults ;;
    docker) "${tests[@]}" tests/contract tests/hostile --ignore "$DATA" ;;
    # What is about engines; the rest of these folders is run once, with Docker's.
    bubblewrap | podman)
      CODEFORGE_TEST_ENGINE='' CODEFORGE_ENGINE=$name "${tests[@]}" tests/contract tests/hostile -m engine
      ;;
    gvisor) CODEFORGE_RUNTIME=runsc on_gvisor "${tests[@]}" tests/contract tests/hostile -m core ;;
    python-data-image) .venv/bin/codeforge images build python-data ;;
    python-data) "${tests[@]}" "$DATA" ;;
  esac
)

# line NAME...: these, one after the other; what each said, and how it ended, in files of its name.
line() {
  local name
  for name; do
    suite "$name" > "$logs/$name" 2>&1 && echo 0 > "$logs/$name.ended" || echo $? > "$logs/$name.ended"
  done
}

# Without Docker there is nothing of Docker's to run, and pytest leaves it out and says so.
lines=(
  "docker"
  "unit${gvisor:+ gvisor}${docker:+ python-data-image}"
  "${bubblewrap:+bubblewrap}${podman:+ podman}"
)
say "the tests, in lines beside each other; what they said comes at the end"
for names in "${lines[@]}"; do
  # shellcheck disable=SC2086 # names without spaces
  start line $names
done
wait "${pids[@]}" || true
pids=()
# Alone: another test is about all of Docker's sandboxes.
[ -z "$docker" ] || line python-data

failed=()
# shellcheck disable=SC2048 # names without spaces
for name in ${lines[*]} ${docker:+python-data}; do
  say "$name"
  cat "$logs/$name"
  case $(cat "$logs/$name.ended" 2> /dev/null) in
    0) ;;
    1) failed+=("$name") ;; # of pytest's: tests failed
    *) die "the tests of $name did not come to their end (see above)" ;;
  esac
done

# Lines beside each other keep every core busy, and some tests are about time. What failed has to pass alone.
twice=()
for name in "${failed[@]}"; do
  say "$name: what failed, once more, with nothing beside it"
  suite "$name" --last-failed --last-failed-no-failures none || twice+=("$name")
done
for line in "${skipped[@]}"; do say "SKIPPED, all that needs $line"; done
for name in "${failed[@]}"; do say "FAILED beside others, and run once more alone (see above): tests of $name"; done
[ ${#twice[@]} = 0 ] || die "tests failed, alone as well (see above): ${twice[*]}"
