#!/usr/bin/env bash
# Register gVisor's runsc as a runtime of the Docker engine that answers, without restarting the engine.
# Exits with 1 and a message if that is not possible.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

# By default the configuration of the machine's daemon.
CONFIG=${DOCKER_CONFIG_FILE:-/etc/docker/daemon.json}

registered() { docker info --format '{{range $name, $_ := .Runtimes}}{{println $name}}{{end}}' | grep -qx runsc; }

if registered; then
  say "Docker has the runtime runsc"
  exit 0
fi
[ "$(id -u)" = 0 ] || die "Docker has no runtime runsc, and only root can register one: docs/engines.md"
need runsc runsc

# A trial container: the machine's own files, new namespaces, and a program that ends at once.
trial=$(mktemp -d)
trap 'rm -rf "$trial"' EXIT
(cd "$trial" && runsc spec -- /bin/true)
sed -i 's|"rootfs"|"/"|' "$trial/config.json"
runs() {
  timeout -k 2 10 runsc --root="$trial/state" "$@" --ignore-cgroups run -bundle "$trial" "trial-$RANDOM" \
    > /dev/null 2>&1 < /dev/null
}

# A platform that the machine does not support hangs or fails. The last and slowest one runs almost anywhere.
for platform in systrap kvm ptrace; do
  runs --platform=$platform --network=none && break
  [ $platform != ptrace ] || die "runsc can run on none of its platforms on this machine"
done
arguments=("--platform=$platform")
# An older runsc takes every network namespace of a newer kernel for the machine's own, and refuses it.
if ! runs "${arguments[@]}"; then
  say "this runsc cannot give a container a network on this kernel; its containers will have none"
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

# On SIGHUP the daemon reads this part of its configuration again; running containers are not affected.
if [ -z "${DOCKER_PIDFILE:-}" ] && [ -d /run/systemd/system ]; then
  systemctl reload docker
else
  kill -HUP "$(cat "${DOCKER_PIDFILE:-/var/run/docker.pid}")"
fi
for _ in $(seq 20); do
  if registered; then exit 0; fi
  sleep 0.5
done
die "Docker did not accept the runtime; is it configured by something other than $CONFIG?"
