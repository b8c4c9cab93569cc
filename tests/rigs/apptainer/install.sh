#!/bin/bash
# install.sh DEST: Apptainer 1.4 with squashfuse and mksquashfs from Debian sid, unpacked below DEST with the libraries
# they need, so that it runs on an older Debian too. Nothing is installed on the host, and no privilege is needed.
# DEST must be the final place: the ELF interpreter is an absolute path.
set -euo pipefail
umask 022
DEST=${1:?usage: install.sh DEST}
SUITE=${SUITE:-sid}
[ -e "$DEST/complete" ] && exit 0

command -v patchelf >/dev/null || { echo "patchelf is missing" >&2; exit 1; }
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$KEYRING" ] || { echo "$KEYRING is missing: not a Debian machine?" >&2; exit 1; }
MIRROR=${HEPSPAWNER_DEBIAN_MIRROR:-$("$(dirname "$0")/../debian-mirror.sh")}
ARCH=$(dpkg --print-architecture)

rm -rf "$DEST"
A=$DEST/apt
mkdir -p "$A"/etc/apt.conf.d "$A"/etc/preferences.d "$A"/lists/partial "$A"/cache/archives/partial "$A"/deb "$DEST"/sys
: > "$A/status"
echo "deb [arch=$ARCH signed-by=$KEYRING] $MIRROR $SUITE main" > "$A/etc/sources.list"
APT=(-o "Dir::Etc=$A/etc" -o "Dir::State::lists=$A/lists" -o "Dir::State::status=$A/status" -o "Dir::Cache=$A/cache"
     -o "APT::Architecture=$ARCH" -o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Sandbox::User=root
     -o Acquire::Check-Valid-Until=false -o Acquire::Check-Date=false)
apt-get "${APT[@]}" update -q
PROGRAMS="apptainer squashfuse squashfs-tools"
# shellcheck disable=SC2086
LIBS=$(apt-cache "${APT[@]}" depends $PROGRAMS | sed -n 's/^ *Depends: \(lib[^ ]*\|zlib1g\)$/\1/p' | sort -u)
# shellcheck disable=SC2086
(cd "$A/deb" && apt-get "${APT[@]}" download -q $PROGRAMS $LIBS libgcc-s1)
for d in "$A"/deb/*.deb; do
  case $d in
    */apptainer_*) dpkg -x "$d" "$DEST" ;;
    *) dpkg -x "$d" "$DEST/sys" ;;
  esac
done

# Apptainer finds its own files relative to its binary
LIB=$(cd "$DEST"/usr/lib/*-linux-gnu && pwd)
SYS=$DEST/sys/usr/lib/$(basename "$LIB")
mv "$DEST/etc" "$DEST/usr/etc"
ln -sfn ../etc "$DEST/usr/lib/etc"
mkdir -p "$DEST"/usr/{,lib/}var/lib/apptainer/mnt/session
# and always searches its own bin directory for helpers
mv "$DEST"/sys/usr/bin/{squashfuse,squashfuse_ll,mksquashfs,unsquashfs} "$LIB/apptainer/bin/"

LOADER=$(find "$SYS" -maxdepth 1 -name 'ld-linux-*.so.*' | head -1)
while IFS= read -r -d '' f; do
  patchelf --print-interpreter "$f" >/dev/null 2>&1 || continue        # not a dynamic executable
  patchelf --set-interpreter "$LOADER" --force-rpath --set-rpath "$SYS" "$f"
  if "$LOADER" --list "$f" | grep 'not found'; then echo "$f lacks the libraries above" >&2; exit 1; fi
done < <(find "$DEST/usr/bin" "$LIB/apptainer/bin" -type f -size +1k -print0)
# the same libraries serve the libraries
rm -rf "$A" "$DEST"/usr/share "$DEST"/sys/usr/share "$DEST"/sys/usr/lib/*/gconv
"$DEST/usr/bin/apptainer" --version
touch "$DEST/complete"
