# What all scripts of the rig share; sourced.
R=${RIG:-/opt/hepspawner-rigs/kubernetes}; HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH=$R/bin:/usr/sbin:/usr/bin:/sbin:/bin
PKI=$R/pki RUN=$R/run LOG=$R/log VAR=$R/var ETC=$R/etc
# ports below 1024: no other test, and no connection of this machine, has them by chance
API=127.0.0.1 APIPORT=643
ETCD=http://127.0.0.1:579
NODEIP=10.250.0.1          # a /32 put on lo: the kubelet refuses a 127/8 node address
NODE=node1
SVCNET=10.251.0.0/24 PODNET=10.252.0.0/24
mkdir -p $RUN $LOG $VAR $ETC $R/bin $R/img
# start NAME CMD... : in the background, own session, pid and start time recorded
start() { local n=$1; shift
  if alive $n; then echo "$n already up"; return; fi
  setsid "$@" >>$LOG/$n.log 2>&1 </dev/null & local p=$!
  echo "$p $(awk '{print $22}' /proc/$p/stat)" >$RUN/$n.pid; }
# alive NAME : the recorded pid still is the process we started (same start time)
alive() { [ -f $RUN/$1.pid ] || return 1; local p t; read p t <$RUN/$1.pid
  [ "$(awk '$3!="Z"{print $22}' /proc/$p/stat 2>/dev/null)" = "$t" ]; }   # a zombie is dead
stop() { local n=$1 p t i; alive $n || { rm -f $RUN/$n.pid; return 0; }; read p t <$RUN/$n.pid; kill $p
  for i in $(seq 100); do alive $n || break; sleep .1; done
  alive $n && { echo "$n: kill -9"; kill -9 $p; sleep .3; }; rm -f $RUN/$n.pid; echo "$n stopped"; }
waitfor() { local what=$1 i; shift; for i in $(seq 300); do "$@" >/dev/null 2>&1 && { echo "$what ok"; return 0; }; sleep .2; done; echo "$what NOT ready"; return 1; }
