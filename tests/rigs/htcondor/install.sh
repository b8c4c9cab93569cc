#!/bin/bash
# install.sh DEST: HTCondor 25 from Debian sid, unpacked below DEST with the libraries it needs, so that it runs on an
# older Debian too: nothing is installed on the host, no service is started. DEST must be the final place: the ELF
# interpreter is an absolute path. Needs patchelf and readelf (binutils).
set -euo pipefail
umask 022
DEST=${1:?usage: install.sh DEST}
SUITE=${SUITE:-sid}
[ -e "$DEST/complete" ] && exit 0

for tool in patchelf readelf; do command -v $tool >/dev/null || { echo "$tool is missing" >&2; exit 1; }; done
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$KEYRING" ] || { echo "$KEYRING is missing: not a Debian machine?" >&2; exit 1; }
MIRROR=${HEPSPAWNER_DEBIAN_MIRROR:-$("$(dirname "$0")/../debian-mirror.sh")}
ARCH=$(dpkg --print-architecture)
LIBS="libc6 libstdc++6 libgcc-s1 libgomp1 libbrotli1 libcap2 libcom-err2 libcrypt1 libcurl4t64 libexpat1
 libgssapi-krb5-2 libidn2-0 libk5crypto3 libkeyutils1 libkrb5-3 libkrb5support0 libldap2 libnghttp2-14 libnghttp3-9
 libngtcp2-16 libngtcp2-crypto-ossl0 libpcre2-8-0 libpsl5t64 libsasl2-2 libseccomp2 libsqlite3-0 libssh2-1t64
 libssl3t64 libsystemd0 libunistring5 libuuid1 libzstd1 zlib1g libmunge2 libscitokens0t64 libvomsapi1t64"

rm -rf "$DEST"
A=$DEST/apt
mkdir -p "$A"/etc/apt.conf.d "$A"/etc/preferences.d "$A"/lists/partial "$A"/cache/archives/partial "$A"/deb "$DEST"/sys
: > "$A/status"
echo "deb [arch=$ARCH signed-by=$KEYRING] $MIRROR $SUITE main" > "$A/etc/sources.list"
APT=(-o "Dir::Etc=$A/etc" -o "Dir::State::lists=$A/lists" -o "Dir::State::status=$A/status" -o "Dir::Cache=$A/cache"
     -o "APT::Architecture=$ARCH" -o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Sandbox::User=root
     -o Acquire::Check-Valid-Until=false -o Acquire::Check-Date=false)
apt-get "${APT[@]}" update -q
# shellcheck disable=SC2086
(cd "$A/deb" && apt-get "${APT[@]}" download -q condor $LIBS)
for d in "$A"/deb/*.deb; do
  case $d in
    */condor_*) dpkg -x "$d" "$DEST" ;;
    *) dpkg -x "$d" "$DEST/sys" ;;
  esac
done

SYS=$(cd "$DEST"/sys/usr/lib/*-linux-gnu && pwd)
LOADER=$(find "$SYS" -maxdepth 1 -name 'ld-linux-*.so.*' | head -1)
LIB=$DEST/usr/lib:$DEST/usr/lib/condor:$SYS
while IFS= read -r -d '' f; do
  head -c4 "$f" | grep -q ELF || continue
  readelf -d "$f" 2>/dev/null | grep -q '^Dynamic section' || continue # static helpers
  if readelf -l "$f" | grep -q INTERP; then patchelf --set-interpreter "$LOADER" "$f"; fi
  patchelf --force-rpath --set-rpath "$LIB" "$f"
done < <(find "$DEST"/usr/{bin,sbin,lib,libexec} -type f -size +1k -print0)
rm -rf "$A" "$DEST"/usr/share/doc "$DEST"/sys/usr/share "$DEST"/sys/usr/lib/*/gconv
"$DEST/usr/bin/condor_version"
touch "$DEST/complete"
