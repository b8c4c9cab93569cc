#!/bin/bash
# make-image.sh DIR: a realistic single-user image as a sandbox directory: Debian minbase with Python and, below /opt/conda
# as in the ATLAS ML images, JupyterLab and JupyterHub, a kernelspec and /list-of-pkgs-inside.txt (written last: the
# image is complete where it is there). Needs root. 'cp -al' makes further images of it at no cost.
set -euo pipefail
umask 022
DIR=${1:?usage: make-image.sh DIR}
SUITE=${SUITE:-bookworm}
PACKAGES=${PACKAGES:-jupyterlab jupyterhub}
[ -s "$DIR/list-of-pkgs-inside.txt" ] && exit 0
MIRROR=${HEPSPAWNER_DEBIAN_MIRROR:-$("$(dirname "$0")/../debian-mirror.sh")}
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C

rm -rf "$DIR"
mkdir -p "$(dirname "$DIR")"
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates,procps "$SUITE" "$DIR" "$MIRROR"

# the network settings of this machine, for the installation only
settings="/etc/resolv.conf /etc/pip.conf /root/.config/pip/pip.conf"
for f in $settings; do
  [ -f "$f" ] && mkdir -p "$(dirname "$DIR$f")" && cp -L "$f" "$DIR$f"
done
for f in /etc/ssl/certs/ca-certificates.crt ${PIP_CERT:-}; do
  [ -f "$f" ] && mkdir -p "$(dirname "$DIR$f")" && cp -L "$f" "$DIR$f"
done
chroot "$DIR" python3 -m venv /opt/conda
# shellcheck disable=SC2086
chroot "$DIR" /opt/conda/bin/pip install -q --disable-pip-version-check --no-cache-dir $PACKAGES
chroot "$DIR" /opt/conda/bin/pip list --disable-pip-version-check --format=freeze 2>/dev/null | sed 's/==/ /' >"$DIR.packages"
for f in $settings; do rm -f "$DIR$f"; done
touch "$DIR/etc/resolv.conf" "$DIR/etc/hosts"        # Apptainer binds the host's over them
rm -rf "$DIR"/root/.c* "$DIR"/var/cache/apt/archives/*.deb "$DIR"/var/lib/apt/lists/*_*

K=$DIR/opt/conda/share/jupyter/kernels/python3
mkdir -p "$K"
cat >"$K/kernel.json" <<'JSON'
{"argv": ["/usr/bin/env", "python3", "-I", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
 "display_name": "ML-Python3", "language": "python", "metadata": {"debugger": true}}
JSON
# like an image that was built from a container: PATH and a shell hook of its own
mkdir -p "$DIR/.singularity.d/env"
echo 'export PATH=/opt/conda/bin:$PATH' >"$DIR/.singularity.d/env/90-environment.sh"
mv "$DIR.packages" "$DIR/list-of-pkgs-inside.txt"
