# shellcheck shell=bash
# Functions for make's scripts: print messages, and install what is missing.

say() { printf '== %s\n' "$*"; }

die() {
  printf 'Error: %s\n' "$*" >&2
  exit 1
}

# have COMMAND...: succeed if all of them are installed.
have() {
  local command
  for command; do command -v "$command" > /dev/null || return 1; done
}

# install PACKAGE...: from Debian or Ubuntu, with a message. Fails without root or apt-get.
install() {
  [ "$(id -u)" = 0 ] && have apt-get || return 1
  say "installing $* (apt-get)"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq || return 1
  apt-get install -y -qq --no-install-recommends "$@" > /dev/null
}

# need COMMAND PACKAGE...: install the packages unless the command is installed; exit if that fails.
need() {
  local command=$1
  shift
  have "$command" || install "$@" || die "$command is missing; install it: apt-get install $* (as root)"
}
