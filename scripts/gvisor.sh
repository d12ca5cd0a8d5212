#!/usr/bin/env bash
# Have gVisor's runsc as a runtime of the Docker engine that answers, without restarting it.
# Exits 1, having said why, where that cannot be.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

CONFIG=/etc/docker/daemon.json

registered() { docker info --format '{{range $name, $_ := .Runtimes}}{{println $name}}{{end}}' | grep -qx runsc; }

if registered; then
  say "Docker has the runtime runsc"
  exit 0
fi
[ "$(id -u)" = 0 ] || die "Docker has no runtime runsc, and only root can register one: docs/engines.md"
need runsc runsc

# A platform that the machine cannot run hangs or fails; the slowest runs anywhere.
for platform in systrap kvm ptrace; do
  timeout -k 2 10 runsc --root="$(mktemp -d)" --platform=$platform --network=none --ignore-cgroups do true \
    > /dev/null 2>&1 && break
  [ $platform != ptrace ] || die "runsc can run on none of its platforms on this machine"
done

say "registering runsc (platform $platform) in $CONFIG"
mkdir -p "${CONFIG%/*}"
"${PYTHON:-python3}" - "$CONFIG" "$(command -v runsc)" $platform << 'PYTHON'
import json
import pathlib
import sys

path, runsc, platform = pathlib.Path(sys.argv[1]), *sys.argv[2:]
config = json.loads(path.read_text()) if path.exists() else {}
config.setdefault("runtimes", {})["runsc"] = {"path": runsc, "runtimeArgs": [f"--platform={platform}"]}
path.write_text(json.dumps(config, indent=2) + "\n")
PYTHON

# The daemon reads this part of its configuration anew on SIGHUP; containers that run are left alone.
if [ -d /run/systemd/system ]; then
  systemctl reload docker
else
  kill -HUP "$(cat "${DOCKER_PIDFILE:-/var/run/docker.pid}")"
fi
for _ in $(seq 20); do
  if registered; then exit 0; fi
  sleep 0.5
done
die "Docker did not take up the runtime; is it configured by something else than $CONFIG?"
