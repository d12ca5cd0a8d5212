#!/usr/bin/env bash
# Run all checks and all tests, on every engine that this machine has or can get: Docker, bubblewrap, Podman,
# and gVisor through a Docker daemon of its own. The last lines name what was skipped and why, and what was unstable.
#
#   scripts/test.sh              everything; gVisor and Podman run the tests that are marked `core`
#   scripts/test.sh ARGUMENT...  pytest with these arguments, on the engine that CODEFORGE_ENGINE names
#
#   CODEFORGE_TEST_ALL=1              every test on every engine, with a warm stock, and with both builds of init
#   CODEFORGE_TEST_ENGINE=required    fail where one of CODEFORGE_TEST_ENGINES (docker bubblewrap) cannot run
#   CODEFORGE_TEST_MAX_UNSTABLE=N     fail if more than N tests fail at first and pass alone
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

[ -e .venv/.dev ] || die "the development environment is missing; run: make check"
need cc gcc libc6-dev
need make make
need tmux tmux

# Programs compared with plain Docker: the longest part that needs no network.
COMPARISON=(tests/contract/test_differential.py tests/contract/test_humaneval_differential.py)
AT_ONCE=3 # suites; more than cores, because tests also wait
PYTHON_DATA=tests/contract/test_python_data.py
# About the images themselves: these run containers, but no sandboxes, so that they may run beside the rest.
IMAGES=(tests/contract/test_images.py tests/contract/test_node_worker.py tests/contract/test_sbom_images.py)

logs=$(mktemp -d)
skipped=()
pids=()
# Kill every suite that is still running, with its children: each leads a process group.
finish() {
  local pid
  for pid in "${pids[@]}"; do kill -- "-$pid" 2> /dev/null || true; done
  rm -rf "$logs"
}
trap finish EXIT

# skip ENGINE REASON: leave an engine out, or fail if it is required.
skip() {
  if [ "${CODEFORGE_TEST_ENGINE:-}" = required ]; then
    case " ${CODEFORGE_TEST_ENGINES:-docker bubblewrap} " in *" $1 "*) die "$1 is required here: $2" ;; esac
  fi
  skipped+=("$1: $2")
}

docker=yes
if scripts/engine.sh; then
  .venv/bin/codeforge images build
  need docker-registry docker-registry
else
  docker=
  skip docker "no Docker engine can run on this machine (see above)"
  [ -n "${CODEFORGE_ENGINE:-}" ] || export CODEFORGE_TEST_ENGINE=none
fi

bubblewrap=yes
if ! have bwrap && ! install bubblewrap; then
  bubblewrap=
  skip bubblewrap "it is not installed: apt-get install bubblewrap (as root)"
elif ! .venv/bin/codeforge environments build || ! .venv/bin/codeforge environments build python-data ||
  ! output=$(echo 'print(1)' | .venv/bin/codeforge run - --engine bubblewrap 2>&1); then
  bubblewrap=
  skip bubblewrap "${output:-its environments could not be built (see above)}"
fi

if [ $# -gt 0 ]; then
  .venv/bin/python -m pytest "$@"
  exit
fi

podman=yes
if [ -z "$docker" ]; then
  podman=
  skip podman "its images come from Docker"
elif ! have podman && ! install podman; then
  podman=
  skip podman "it is not installed: apt-get install podman (as root)"
fi

own_daemon=
if [ -n "$docker" ] && [ "$(id -u)" = 0 ] && have dockerd; then own_daemon=yes; fi

gvisor=yes
if [ -z "$own_daemon" ]; then
  gvisor=
  skip gvisor "only root can start a Docker daemon with its runtime"
elif ! have runsc && ! install runsc; then
  gvisor=
  skip gvisor "it is not installed: apt-get install runsc"
fi

# on_own_daemon COMMAND...: run it with a second Docker daemon, whose sandboxes other suites do not see. It has our
# images and no network.
on_own_daemon() {
  local root images daemon status=0
  root=$(mktemp -d /tmp/cf-daemon-XXXXXX)
  mapfile -t images < <(.venv/bin/python -c 'from codeforge import LANGUAGES
for row in LANGUAGES: print(row.image)')
  echo '{}' > "$root/daemon.json"
  # In a new network namespace: a daemon without a bridge removes docker0, which belongs to the machine's daemon.
  unshare --net dockerd --config-file="$root/daemon.json" --host="unix://$root/docker.sock" \
    --data-root="$root/data" --exec-root="$root/exec" --pidfile="$root/pid" --bridge=none --iptables=false \
    --ip6tables=false --log-level=error > "$root/log" 2>&1 &
  daemon=$!
  for _ in $(seq 120); do
    DOCKER_HOST=unix://$root/docker.sock docker version > /dev/null 2>&1 && break
    sleep 0.5
  done
  docker save "${images[@]}" | DOCKER_HOST=unix://$root/docker.sock docker load > /dev/null
  export DOCKER_HOST=unix://$root/docker.sock DOCKER_CONFIG_FILE=$root/daemon.json DOCKER_PIDFILE=$root/pid
  "$@" || status=$?
  kill "$daemon" && wait "$daemon" || true
  rm -rf "$root" || true
  return "$status"
}

# on_gvisor COMMAND...: run it with runsc as a runtime of the daemon that answers.
on_gvisor() { scripts/gvisor.sh && "$@"; }

# suite NAME ARGUMENT...: run the tests of that name, with more arguments for pytest.
suite() (
  name=$1
  shift
  tests=(.venv/bin/python -m pytest -o cache_dir="$logs/$name.cache" "$@")
  elsewhere=("$PYTHON_DATA" "${IMAGES[@]}")
  [ -z "$own_daemon" ] || elsewhere+=("${COMPARISON[@]}")
  core=(-m core)
  [ "${CODEFORGE_TEST_ALL:-}" != 1 ] || core=(-m engine)
  case $name in
    checks) scripts/check.sh ;;
    unit) "${tests[@]}" tests/unit ;;
    faults) "${tests[@]}" tests/faults ;;
    docker) "${tests[@]}" tests/contract tests/hostile "${elsewhere[@]/#/--ignore=}" ;;
    images) "${tests[@]}" "${IMAGES[@]}" ;;
    comparison) on_own_daemon "${tests[@]}" "${COMPARISON[@]}" ;;
    # Tests that do not run programs on an engine run once, in Docker's suite.
    bubblewrap) CODEFORGE_TEST_ENGINE='' CODEFORGE_ENGINE=$name "${tests[@]}" tests/contract tests/hostile -m engine ;;
    podman) CODEFORGE_TEST_ENGINE='' CODEFORGE_ENGINE=$name "${tests[@]}" tests/contract tests/hostile "${core[@]}" ;;
    gvisor) CODEFORGE_RUNTIME=runsc on_own_daemon on_gvisor "${tests[@]}" tests/contract tests/hostile "${core[@]}" ;;
    python-data-image) .venv/bin/codeforge images build python-data ;;
    python-data) "${tests[@]}" "$PYTHON_DATA" ;;
  esac
)

# record NAME: run a suite; its output and its exit status go into files of its name.
record() {
  local status=0 start=$SECONDS
  suite "$1" > "$logs/$1" 2>&1 || status=$?
  echo "$status" > "$logs/$1.status"
  say "$1: done after $((SECONDS - start)) s"
}

# failures NAME: the tests that failed in the last run of a suite, a line each.
failures() {
  .venv/bin/python - "$logs/$1.cache/v/cache/lastfailed" << 'PYTHON'
import json
import pathlib
import sys

path = pathlib.Path(sys.argv[1])
print("\n".join(sorted(json.loads(path.read_text()) if path.exists() else [])))
PYTHON
}

# Without Docker, pytest skips what needs it and says so. The longest suites start first.
suites=(docker checks ${docker:+images} ${bubblewrap:+bubblewrap} unit ${own_daemon:+comparison} faults ${gvisor:+gvisor} ${podman:+podman} ${docker:+python-data-image})
say "running ${suites[*]}, $AT_ONCE at once; their output follows when all are done"
for name in "${suites[@]}"; do
  while [ "$(jobs -pr | wc -l)" -ge "$AT_ONCE" ]; do wait -n || true; done
  set -m # a process group of its own
  record "$name" < /dev/null &
  pids+=($!)
  set +m
done
wait "${pids[@]}" || true
pids=()
# Alone: other tests count all of Docker's sandboxes.
if [ -n "$docker" ]; then
  record python-data
  suites+=(python-data)
fi

failed=()
for name in "${suites[@]}"; do
  say "$name"
  cat "$logs/$name"
  case $(cat "$logs/$name.status" 2> /dev/null) in
    0) ;;
    1) failed+=("$name") ;; # tests or checks failed
    *) die "the tests of $name did not run to the end (see above)" ;;
  esac
done

# Parallel suites keep every core busy, and some tests are about time. A test that fails runs once more, alone. If it
# passes then, it is unstable, which is a defect to find; if it fails again, it is a failure.
broken=()
unstable=()
for name in "${failed[@]}"; do
  say "$name: the tests that failed, once more and alone"
  first=$(failures "$name")
  suite "$name" --last-failed --last-failed-no-failures none || broken+=("$name")
  second=$(failures "$name")
  while read -r test; do [ -z "$test" ] || unstable+=("$name: $test"); done < <(comm -23 <(echo "$first") <(echo "$second"))
done
for line in "${skipped[@]}"; do say "SKIPPED, all that needs $line"; done
for line in "${unstable[@]}"; do say "UNSTABLE, failed among other tests and passed alone: $line"; done
[ ${#broken[@]} = 0 ] || die "tests failed, alone as well (see above): ${broken[*]}"
most=${CODEFORGE_TEST_MAX_UNSTABLE:-}
[ -z "$most" ] || [ ${#unstable[@]} -le "$most" ] || die "${#unstable[@]} unstable tests; at most $most are accepted"
