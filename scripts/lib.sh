# shellcheck shell=bash
# Shared by the scripts of make: saying what happens, and installing what is missing.

say() { printf '== %s\n' "$*"; }

die() {
  printf 'Error: %s\n' "$*" >&2
  exit 1
}

# have COMMAND...: whether all of them are there.
have() {
  local command
  for command; do command -v "$command" > /dev/null || return 1; done
}

# install PACKAGE...: from Debian or Ubuntu, as root, having said so. Fails where that cannot be.
install() {
  [ "$(id -u)" = 0 ] && have apt-get || return 1
  say "installing $* (apt-get)"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq || return 1
  apt-get install -y -qq --no-install-recommends "$@" > /dev/null
}

# need COMMAND PACKAGE...: have the command, by installing the packages if need be.
need() {
  local command=$1
  shift
  have "$command" || install "$@" || die "$command is missing; install it: apt-get install $* (as root)"
}
