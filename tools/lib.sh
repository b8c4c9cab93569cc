# Sourced by tools/demo.sh and tests/rigs/setup.sh: a Python, packages of Debian, virtual environments.
# Everything made here can be read by ordinary users.
umask 022
CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ "$(id -u)" = 0 ]; then
  RIGS=${HEPSPAWNER_RIGS:-/opt/hepspawner-rigs}
else
  RIGS=${HEPSPAWNER_RIGS:-${XDG_CACHE_HOME:-$HOME/.cache}/hepspawner-rigs}
fi

say() { printf 'hepspawner: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# as_root COMMAND…: as root, by sudo where that asks no password; fails otherwise
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif can_root; then sudo -n -- "$@"
  else return 1; fi
}
can_root() { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }

# apt_install PACKAGE…: installs those that are missing
apt_install() {
  local missing=() p
  command -v apt-get >/dev/null || { say "no apt-get here: cannot install $*"; return 1; }
  for p in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
  done
  [ ${#missing[@]} = 0 ] && return 0
  can_root || { say "neither root nor sudo: cannot install ${missing[*]}"; return 1; }
  say "installing packages: ${missing[*]}"
  local get=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3)
  # without package lists, or with outdated ones, the first attempt fails
  as_root "${get[@]}" install -y --no-install-recommends "${missing[@]}" </dev/null >/dev/null 2>&1 && return 0
  as_root "${get[@]}" update </dev/null >&2 || true
  as_root "${get[@]}" install -y --no-install-recommends "${missing[@]}" </dev/null >&2
}

# find_python: prints a Python >= 3.10 with venv; for root, one that ordinary users can execute too
find_python() {
  local round name path found
  for round in 1 2; do
    for name in /usr/bin/python3 python3 python3.{19..10}; do
      path=$(command -v "$name") || continue
      usable_python "$path" || continue
      found=$path
      "$path" -c 'import ensurepip, venv' 2>/dev/null && { echo "$path"; return; }
    done
    [ $round = 2 ] || apt_install python3 python3-venv || break
  done
  [ -z "${found:-}" ] || die "$found has no venv: please install python3-venv"
  die "no Python >= 3.10 found that ordinary users can execute"
}
usable_python() {
  local as=()
  [ "$(id -u)" != 0 ] || as=(setpriv --reuid 65534 --regid 65534 --clear-groups)
  (cd / && "${as[@]}" "$1" -I -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null)
}

# make_venv DIR EXTRAS [REQUIREMENT…]: DIR is a virtual environment with the checkout installed into it, not editable.
# Requirements are looked at again only when they changed, the checkout is installed again only when it did.
make_venv() {
  local dir=$1 extras=$2 python stamp source
  shift 2
  if ! "$dir/bin/python" -c 0 2>/dev/null || [ ! -e "$dir/made" ]; then
    python=$(find_python) || return
    rm -rf "$dir"
    mkdir -p "$(dirname "$dir")"
    "$python" -m venv "$dir" || return
    pip_config "$dir"
    "$dir/bin/python" -m pip install -q --disable-pip-version-check uv >&2 || say "uv cannot be had: pip will do, more slowly"
    touch "$dir/made"
  fi
  stamp=$({ echo "$extras $*"; sed '/^\[tool\./,$d' "$CHECKOUT/pyproject.toml"; } | sha256sum)
  if [ "$(cat "$dir/requirements.stamp" 2>/dev/null)" != "$stamp" ]; then
    rm -f "$dir"/*.stamp
    venv_install "$dir" "$CHECKOUT[$extras]" "$@" 'hatchling>=1.25' || return
    echo "$stamp" >"$dir/requirements.stamp"
  fi
  source=$(cd "$CHECKOUT" && find hepspawner share pyproject.toml -type f ! -name '*.pyc' -print0 |
    sort -z | xargs -0 sha256sum | sha256sum)
  if [ "$(cat "$dir/source.stamp" 2>/dev/null)" != "$source" ]; then
    venv_install "$dir" --no-deps --no-build-isolation --reinstall-package hepspawner "$CHECKOUT" || return
    echo "$source" >"$dir/source.stamp"
  fi
}

# venv_install DIR ARGUMENT…: by uv, which is several times faster; by pip where uv cannot (it does not read pip.conf)
venv_install() {
  local dir=$1 a args=()
  shift
  pip_config "$dir"
  if [ -x "$dir/bin/uv" ] && [ "$PIP_ONLY" = no ]; then
    "$dir/bin/uv" pip install -q --python "$dir/bin/python" --compile-bytecode "$@" >&2 && return
    say "uv failed: trying pip"
  fi
  for a in "$@"; do
    case $a in --reinstall-package) args+=(--force-reinstall) ;; hepspawner) ;; *) args+=("$a") ;; esac
  done
  "$dir/bin/python" -m pip install -q --disable-pip-version-check "${args[@]}" >&2
}

# pip_config DIR: what uv must know of pip's configuration
pip_config() {
  local config cert
  config=$("$1/bin/python" -m pip config list 2>/dev/null) || true
  cert=${PIP_CERT:-$(sed -n "s/^global.cert='\(.*\)'/\1/p" <<<"$config")}
  [ -z "$cert" ] || export SSL_CERT_FILE=${SSL_CERT_FILE:-$cert}
  PIP_ONLY=no
  if grep -qE '\.(index-url|no-index|proxy)=' <<<"$config"; then PIP_ONLY=yes; fi
}
