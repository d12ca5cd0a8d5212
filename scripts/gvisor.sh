#!/usr/bin/env bash
# Have gVisor's runsc as a runtime of the Docker engine that answers, without restarting it.
# Exits 1, having said why, where that cannot be.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

# Of the machine's daemon, unless it is told of another's.
CONFIG=${DOCKER_CONFIG_FILE:-/etc/docker/daemon.json}

registered() { docker info --format '{{range $name, $_ := .Runtimes}}{{println $name}}{{end}}' | grep -qx runsc; }

if registered; then
  say "Docker has the runtime runsc"
  exit 0
fi
[ "$(id -u)" = 0 ] || die "Docker has no runtime runsc, and only root can register one: docs/engines.md"
need runsc runsc

# A container of the machine's own files, in namespaces of its own, that runs nothing to speak of.
trial=$(mktemp -d)
trap 'rm -rf "$trial"' EXIT
(cd "$trial" && runsc spec -- /bin/true)
sed -i 's|"rootfs"|"/"|' "$trial/config.json"
runs() {
  timeout -k 2 10 runsc --root="$trial/state" "$@" --ignore-cgroups run -bundle "$trial" "trial-$RANDOM" \
    > /dev/null 2>&1 < /dev/null
}

# A platform that the machine cannot run hangs or fails; the slowest runs anywhere.
for platform in systrap kvm ptrace; do
  runs --platform=$platform --network=none && break
  [ $platform != ptrace ] || die "runsc can run on none of its platforms on this machine"
done
arguments=("--platform=$platform")
# An older runsc takes every network namespace of a newer kernel for the machine's own, and refuses it.
if ! runs "${arguments[@]}"; then
  say "this runsc cannot give a container a network on this kernel: none of them gets one"
  arguments+=(--network=none)
fi

say "registering runsc (${arguments[*]}) in $CONFIG"
mkdir -p "${CONFIG%/*}"
"${PYTHON:-python3}" - "$CONFIG" "$(command -v runsc)" "${arguments[@]}" << 'PYTHON'
import json
import pathlib
import sys

path, runsc, arguments = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
config = json.loads(path.read_text()) if path.exists() else {}
config.setdefault("runtimes", {})["runsc"] = {"path": runsc, "runtimeArgs": arguments}
path.write_text(json.dumps(config, indent=2) + "\n")
PYTHON

# The daemon reads this part of its configuration anew on SIGHUP; containers that run are left alone.
if [ -z "${DOCKER_PIDFILE:-}" ] && [ -d /run/systemd/system ]; then
  systemctl reload docker
else
  kill -HUP "$(cat "${DOCKER_PIDFILE:-/var/run/docker.pid}")"
fi
for _ in $(seq 20); do
  if registered; then exit 0; fi
  sleep 0.5
done
die "Docker did not take up the runtime; is it configured by something else than $CONFIG?"
