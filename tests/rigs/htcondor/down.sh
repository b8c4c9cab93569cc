#!/bin/bash
# down.sh: ends all of a pool at once: its daemons, in whatever state they are, its jobs and what they started.
# --purge: its directory, too.
set -uo pipefail
POOL=${POOL:?the directory that up.sh was given}

# Daemons have the pool's configuration in their environment, jobs their scratch directory.
marked() { grep -lszF "$POOL/" /proc/[0-9]*/environ | cut -d/ -f3 | grep -vx $$; }
# with_children PID...: those, and what they started, also where it has thrown its environment away
with_children() {
  local more=$*
  while [ -n "$more" ]; do
    echo "$more"
    more=$(pgrep -P "$(echo $more | tr ' ' ,)")
  done
}

# Until there is none: one may just have been starting another. They are stopped first, so that none does.
export -n POOL
for ((i = 0; i < 100; i++)); do
  pids=$(marked)
  [ -n "$pids" ] || break
  pids=$(with_children $pids)
  kill -STOP $pids 2>/dev/null
  kill -KILL $(with_children $pids) 2>/dev/null
  sleep 0.02
done
[ "${1:-}" != --purge ] || rm -rf "$POOL"
[ -z "$pids" ]
