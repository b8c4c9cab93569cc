#!/bin/bash
# down.sh: ends what up.sh started, and the jobs. --purge: at once, and with RIG itself.
set -uo pipefail
RIG=${RIG:-${TMPDIR:-/tmp}/hepspawner-slurm}
HERE=$(cd "$(dirname "$0")" && pwd)
[ -e "$RIG/env" ] || exit 0
. "$RIG/env"
RUN=$RIG/run

alive() { [ -s "$1" ] && grep -qs '^State:.[^XZ]' "/proc/$(cat "$1" 2>/dev/null)/status"; }
# stop PIDFILE SECONDS
stop() {
  local i
  alive "$1" && kill -CONT "$(cat "$1")" && kill "$(cat "$1")" || return 0
  for ((i = 0; i < $2 * 20; i++)); do alive "$1" || return 0; sleep 0.05; done
}
# Processes of the cluster: daemons have up.sh's mark, jobs the name of their cluster; slurmstepd hides what it has, but
# writes to this cluster's logs.
marked() {
  local steps
  grep -lszxaF -e "SLURM_RIG=$RIG" -e "SLURM_CLUSTER_NAME=$CLUSTER" /proc/[0-9]*/environ | cut -d/ -f3
  steps=$(pgrep -x slurmstepd) || return
  find $(printf '/proc/%s/fd ' $steps) -lname "$RIG/log/*" 2>/dev/null | cut -d/ -f3 | sort -u
}
# with_children PID...: those, and what they started, also where it has thrown its environment away
with_children() {
  local more=$*
  while [ -n "$more" ]; do
    echo "$more"
    more=$(pgrep -P "$(echo $more | tr ' ' ,)")
  done
}

if [ "${1:-}" != --purge ]; then
  if timeout 5 scontrol ping >/dev/null 2>&1; then
    timeout 10 scancel -p cpu
    timeout 10 scancel -p gpu
    for ((i = 0; i < 200; i++)); do [ -n "$(timeout 5 squeue -h -t PD,R,CG,S)" ] || break; sleep 0.1; done
  fi
  for node in c1 c2 g1; do stop "$RUN/slurmd.$node.pid" 10; done
  stop "$RUN/ctld/pid" 20
  . "$HERE/dbd-down.sh"
  stop "$RUN/munge/pid" 5
fi
# Until there is none: one may just have been starting another. They are stopped first, so that none does.
for ((i = 0; i < 100; i++)); do
  pids=$(marked)
  [ -n "$pids" ] || break
  pids=$(with_children $pids)
  kill -STOP $pids 2>/dev/null
  kill -KILL $(with_children $pids) 2>/dev/null
  sleep 0.02
done
for node in c1 c2 g1; do  # of CGROUP=1
  find /sys/fs/cgroup/*/"slurm_$node" -depth -type d -exec rmdir {} + 2>/dev/null
done
[ "${1:-}" != --purge ] || rm -rf "$RIG"
[ -z "$pids" ]
