#!/bin/sh
# Last step of a build stage: take out of / what running code does not need.
#
# 1. Packages go by name: the package manager, perl, login, mount, set-id programs.
# 2. Then every library package goes that nothing left links to. Their names differ
#    between Debian releases, so they are found out, not listed.
# 3. Then documentation, caches, configuration of what is gone, and npm.
# 4. At the end the build fails if a program or a library misses a library that it
#    had before.
#
# Names that a base does not have are skipped. It runs once, as root, in an image
# that is about to be flattened; /tmp is empty afterwards.
set -eu

programs='
  adduser apt base-passwd bsdutils debconf debian-archive-keyring diffutils dpkg e2fsprogs
  gpgv init-system-helpers libaudit-common libpam-modules libpam-modules-bin
  libpam-runtime libsemanage-common login login.defs logsave mount ncurses-bin openssl
  openssl-provider-legacy passwd perl-base sqv sysvinit-utils usr-is-merged usrmerge
  util-linux util-linux-extra'
# Stay though ldd may not see who needs them: the C library, what it opens by itself
# (libgcc_s for pthread_cancel, the name service's modules), the C++ library of wheels and addons, Debian's Python.
kept_libraries='^lib(c6|c-bin|gcc-s1|nss-myhostname|stdc\+\+6|python3.*)(:|$)'

dpkg_db=/var/lib/dpkg
lists=$(mktemp -d)

# Installed packages whose names match the patterns given.
installed() {
  dpkg-query --show --showformat '${db:Status-Abbrev} ${binary:Package}\n' "$@" 2>/dev/null |
    sed -n 's/^ii *//p' | sort
}

# Packages on stdin -> their files, without folders, and never the certificate store.
# dpkg may say /bin/sh; with the merged /usr of both releases that is /usr/bin/sh.
files_of() {
  xargs --no-run-if-empty dpkg --listfiles | sed -E 's,^/(bin|sbin|lib[^/]*)/,/usr&,' |
    while read -r path; do
      case $path in
        /etc/ssl/* | /etc/ca-certificates*) continue ;;
      esac
      if [ -e "$path" ] && [ ! -d "$path" ]; then
        echo "$path"
      fi
    done | sort -u
}

# Every ELF program, library and addon.
binaries() {
  find /usr /opt /node_modules -xdev -type f \
    \( -name '*.so*' -o -name '*.node' -o -perm -100 \) 2>/dev/null |
    xargs -d '\n' grep --files-with-matches "$(printf '^\177ELF')" | sort
}

# Files on stdin -> ldd's words: "FILE:", and below it a line for each library. With one
# file it would leave the heading out, so there is always another.
linkage() {
  { echo /bin/sh; cat; } | xargs -d '\n' ldd 2>/dev/null || true
}

# "FILE: LIBRARY" for every library that a file wants and that is not there.
missing_libraries() {
  binaries | linkage | awk '/^[/]/ { file = $1 } /not found/ { print file, $1 }' | sort -u
}

# Converters of iconv(3): the Unicode and Western ones stay. The others are 8 MB, and
# Python and Node have their own.
find /usr/lib/*/gconv -name '*.so' ! -name 'UTF-*' ! -name 'UNICODE*' ! -name 'ISO8859-1*' \
  ! -name 'CP125*' -delete 2>/dev/null || true
rm -f /usr/lib/*/gconv/gconv-modules.cache

# A base may lack some from the start: python:slim has a _tkinter without its libtk.
missing_libraries > "$lists/missing-before"

# shellcheck disable=SC2086 # one word, one name
installed $programs > "$lists/dropped"
files_of < "$lists/dropped" > "$lists/dropped-files"

installed 'lib*' | grep -vE "$kept_libraries" | grep -vxFf "$lists/dropped" > "$lists/libraries"
files_of < "$lists/libraries" | grep -E '\.so(\.|$)' > "$lists/library-files" || true
binaries | grep -vxFf "$lists/dropped-files" | grep -vxFf "$lists/library-files" | linkage |
  sed -n 's/.* => \(\/[^ ]*\).*/\1/p' | sort -u | xargs readlink -f | sort -u > "$lists/needed"
while read -r package; do
  echo "$package" | files_of | grep -E '\.so(\.|$)' > "$lists/own" || continue # no library in it
  grep -qxFf "$lists/needed" "$lists/own" || echo "$package"
done < "$lists/libraries" >> "$lists/dropped"

# The package database keeps telling the truth: scanners read it.
files_of < "$lists/dropped" > "$lists/dropped-files"
installed '*' | grep -vxFf "$lists/dropped" | xargs dpkg-query --status > "$lists/status"
xargs -d '\n' rm -f < "$lists/dropped-files"
find $dpkg_db -mindepth 1 -maxdepth 1 -exec rm -rf {} +
cp "$lists/status" $dpkg_db/status
ldconfig

# Settings of what is gone, manuals, caches.
rm -rf /etc/apt /etc/cron.* /etc/default /etc/dpkg /etc/init.d /etc/kernel /etc/logrotate.d \
  /etc/pam.d /etc/rc?.d /etc/security /etc/skel /etc/systemd /etc/*-
rm -rf /usr/lib/*/perl-base /usr/share/debconf /usr/share/perl5 \
  /usr/share/info /usr/share/lintian /usr/share/locale /usr/share/man
rm -rf /var/lib/apt /var/lib/pam /var/lib/systemd /var/cache/* /var/log/* /var/tmp/* \
  /root/.[!.]*
find /usr/share/doc -type f ! -name copyright -delete # licences stay
# npm, yarn, and headers, which the official Node image has outside of packages.
rm -rf /opt/yarn* /usr/local/include /usr/local/lib/node_modules \
  /usr/local/share/doc /usr/local/share/man /usr/local/CHANGELOG.md /usr/local/README.md \
  /usr/local/bin/corepack /usr/local/bin/docker-entrypoint.sh /usr/local/bin/npm \
  /usr/local/bin/npx /usr/local/bin/yarn /usr/local/bin/yarnpkg
# What the stand-in bases carry for a build; see offline/make-base-images.sh.
rm -f /etc/pip.conf /etc/ssl/offline-build-ca.crt
find / -xdev \( -type f -o -type d \) -perm /6000 -exec chmod a-s {} +
find /usr/share /usr/lib -xdev -type d -empty -delete
find /usr /etc -xdev -xtype l ! -path /etc/mtab -delete

ldd /bin/sh > /dev/null # or the next line proves nothing
missing_libraries | grep -vxFf "$lists/missing-before" > "$lists/missing" || true
if [ -s "$lists/missing" ]; then
  echo 'prune-rootfs: missing libraries:' >&2
  cat "$lists/missing" >&2
  exit 1
fi
echo "prune-rootfs: $(wc -l < "$lists/dropped") packages dropped," \
  "$(grep -c '^Package: ' $dpkg_db/status) left"
find /tmp -mindepth 1 -delete
