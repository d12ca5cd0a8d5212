#!/usr/bin/env bash
# Make sure that a Docker engine answers: use the running one, else install and start Debian's docker.io.
# Exits with 1 and a message if that is not possible.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

LOG=${TMPDIR:-/tmp}/codeforge-dockerd.log

answers() { docker version --format '{{.Server.Version}}' 2> /dev/null; }

if have docker && version=$(answers); then
  say "Docker engine $version answers"
  exit 0
fi
if have docker; then
  case $(docker version 2>&1 || true) in
    *'permission denied'*)
      user=$(id -un)
      die "a Docker engine is running, but you may not use it: sudo usermod -aG docker $user, then log in again"
      ;;
  esac
fi
[ "$(id -u)" = 0 ] || die "no Docker engine answers, and only root can install or start one"

if ! have dockerd; then
  say "no Docker engine answers: installing Debian's docker.io"
  install docker.io iptables || die "docker.io could not be installed; install Docker: https://docs.docker.com/engine/install/"
fi
if [ -d /run/systemd/system ]; then
  say "starting Docker (systemctl start docker)"
  systemctl start docker || true
else
  say "starting dockerd (log: $LOG)"
  # In a session of its own, so that Ctrl-C in make does not reach it.
  setsid --fork dockerd > "$LOG" 2>&1 < /dev/null
fi
for _ in $(seq 60); do
  if version=$(answers); then
    say "Docker engine $version answers"
    exit 0
  fi
  sleep 0.5
done
[ ! -e "$LOG" ] || tail -n 5 "$LOG" >&2
die "dockerd did not come up within 30 s; this machine may not allow it (perhaps it is a container)"
