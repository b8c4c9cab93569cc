#!/bin/bash
# up.sh: a real HTCondor pool on this host alone: master, collector, negotiator, schedd and three startds (node1 to
# node3; node1 and node3 have two A100 each that are not there). Needs root and what install.sh made. down.sh ends it.
# Pools with a POOL and PORT of their own live side by side. CONDOR_CONFIG=$POOL/etc/condor_config for the commands.
set -euo pipefail
umask 022
HTCONDOR=${HTCONDOR:?the DEST of install.sh}
POOL=${POOL:?a directory, not below a user\'s home: users must be able to enter it}
PORT=${PORT:-19618}                # the one port of all daemons
CPUS=${CPUS:-64}                   # of each node, invented; so is
MEM_MB=${MEM_MB:-200000}
NEGOTIATE=${NEGOTIATE:-1}          # seconds between negotiation cycles
TICK=${TICK:-1}                    # seconds between all else that daemons do now and then; more where many jobs run
EXTRA_CONF=${EXTRA_CONF:-}         # more lines of the configuration
HERE=$(cd "$(dirname "$0")" && pwd)

getent passwd condor >/dev/null || useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin condor
# the pid file must lie where the condor user can write
mkdir -p "$POOL"/etc/{tokens.d,passwords.d} "$POOL"/{run,log,lock,spool,credentials} "$POOL"/execute/node{1,2,3}
chown condor:condor "$POOL"/{run,log,lock,spool} "$POOL"/execute/node{1,2,3}
chmod 700 "$POOL"/etc/{tokens.d,passwords.d}
sed "s#@POOL@#$POOL#; s#@HTCONDOR@#$HTCONDOR#; s#schedd@PORT@#schedd$PORT#; s#@PORT@#$PORT#; s#@CPUS@#$CPUS#
  s#@MEM_MB@#$MEM_MB#; s#@NEGOTIATE@#$NEGOTIATE#; s#@TICK@#$TICK#" "$HERE/condor_config.in" >"$POOL/etc/condor_config"
printf '%s\n' "$EXTRA_CONF" >>"$POOL/etc/condor_config"

export CONDOR_CONFIG=$POOL/etc/condor_config PATH=$HTCONDOR/usr/bin:$HTCONDOR/usr/sbin:$PATH LC_ALL=C
if ! kill -0 "$(cat "$POOL/run/master.pid" 2>/dev/null)" 2>/dev/null; then
  rm -f "$POOL"/log/.*_address*
  cd / && setsid condor_master -pidfile "$POOL/run/master.pid" </dev/null >"$POOL/log/master.out" 2>&1
fi
end=$((SECONDS + 60))
until [ "$(condor_status -af Name 2>/dev/null | cut -d@ -f2- | sort -u | wc -l)" -ge 3 ] &&
  [ -n "$(condor_status -schedd -af Name 2>/dev/null)" ] && [ -n "$(condor_status -negotiator -af Name 2>/dev/null)" ]; do
  [ $SECONDS -lt $end ] || { echo "up.sh: the pool does not come up" >&2; tail -5 "$POOL/log/MasterLog" >&2; exit 1; }
  sleep 0.1
done
