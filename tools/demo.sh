#!/bin/bash
# demo.sh: a hub on 127.0.0.1:${PORT:-8000}, from nothing; IMAGES= names a folder of images to offer.
# Root sets it up, and an ordinary account, hepdemo, runs it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

VENV=$CHECKOUT/.venv
[ "$(id -u)" != 0 ] || VENV=$RIGS/venv-demo
say "setting up $VENV"
mkdir -p "$(dirname "$VENV")"
(
  flock 9
  make_venv "$VENV" demo
) 9<"$(dirname "$VENV")"

argv=("$VENV/bin/hepspawner" demo --port "${PORT:-8000}")
if [ -n "${IMAGES:-}" ]; then
  case $IMAGES in /*) ;; *) IMAGES=$PWD/$IMAGES ;; esac
  argv+=(--images "$IMAGES")
fi
path=$VENV/bin:$PATH
# root's own directories may be closed to others: theirs come first
[ "$(id -u)" != 0 ] || path=$VENV/bin:/usr/local/bin:/usr/bin:/bin:$PATH
if [ -d "$RIGS/apptainer/usr/bin" ]; then path+=:$RIGS/apptainer/usr/bin; fi

if [ "$(id -u)" = 0 ]; then
  account=hepdemo
  id "$account" >/dev/null 2>&1 || useradd -m -s /bin/bash "$account"
  home=$(getent passwd "$account" | cut -d: -f6)
  cd "$home"
  exec setpriv --reuid "$account" --regid "$account" --init-groups \
    env -i HOME="$home" USER="$account" LOGNAME="$account" SHELL=/bin/bash \
    PATH="$path" LANG="${LANG:-C.UTF-8}" TERM="${TERM:-dumb}" "${argv[@]}"
fi
PATH=$path exec "${argv[@]}"
