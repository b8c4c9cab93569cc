#!/bin/bash
# up.sh: a real Slurm on this host alone: munged, slurmctld and three slurmd (c1, c2: partition cpu; g1: partition gpu
# with two A100 that are not there), with DBD=1 also mariadbd and slurmdbd. Starts what does not run yet; needs root.
# `. $RIG/env` afterwards for the commands; down.sh ends it. Clusters with a RIG and BASE_PORT of their own live side
# by side (with CGROUP=1 only one: Slurm names cgroups after nodes). The knobs are the variables below.
set -euo pipefail
umask 022
RIG=${RIG:-${TMPDIR:-/tmp}/hepspawner-slurm}
BASE_PORT=${BASE_PORT:-16800}      # slurmctld; then slurmdbd, c1, c2, g1
CLUSTER=${CLUSTER:-rig$BASE_PORT}  # with a name of its own on this host: down.sh knows stray jobs by it
CPUS=${CPUS:-128}                  # of each node, invented; so is
MEM_MB=${MEM_MB:-262144}
MINJOBAGE=${MINJOBAGE:-300}        # seconds that slurmctld remembers finished jobs
KILLWAIT=${KILLWAIT:-5}            # seconds between SIGTERM and SIGKILL
SLURMDTIMEOUT=${SLURMDTIMEOUT:-60} # seconds until a silent node is down
MESSAGETIMEOUT=${MESSAGETIMEOUT:-10} # seconds that commands wait for a hung slurmctld
REQUEUEDELAY=${REQUEUEDELAY:-10}   # seconds until a requeued job may start again, and for which a launch may last
FREQ=${FREQ:-5}                    # seconds between looks at memory: each slurmstepd walks /proc; 0 for over 200 jobs
DBD=${DBD:-0}                      # 1: accounting, with the account physics of alice and bob
CGROUP=${CGROUP:-0}                # 1: memory limits by cgroup
EXTRA_CONF=${EXTRA_CONF:-}         # more lines of slurm.conf; they replace lines with the same key
HERE=$(cd "$(dirname "$0")" && pwd)
HOST=$(hostname -s)
PATH=$PATH:/usr/sbin:/sbin
ETC=$RIG/etc RUN=$RIG/run LOG=$RIG/log SOCKET=$RIG/run/munge/socket

alive() { [ -s "$1" ] && grep -qs '^State:.[^XZ]' "/proc/$(cat "$1" 2>/dev/null)/status"; }
waitfor() {  # waitfor SECONDS COMMAND...
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "up.sh: gave up waiting for: $*" >&2; return 1; }
    sleep 0.05
  done
}

mkdir -p "$ETC/munge" "$RUN/munge" "$RUN/ctld" "$LOG/munge" "$LOG/ctld" "$RIG/state" "$RIG/spool"
chown munge: "$ETC/munge" "$RUN/munge" "$LOG/munge"
chown slurm: "$RUN/ctld" "$LOG/ctld" "$RIG/state"
chmod 700 "$ETC/munge" "$LOG/munge" "$RIG/state"
if [ ! -s "$ETC/munge/key" ]; then
  (umask 077; head -c 128 /dev/urandom >"$ETC/munge/key"); chown munge: "$ETC/munge/key"
fi
for gpu in gpu0 gpu1; do  # what stands for the GPUs is two more /dev/null
  [ -e "$ETC/$gpu" ] || { mknod "$ETC/$gpu" c 1 3; chmod 666 "$ETC/$gpu"; }
done

if [ "$CGROUP" = 1 ]; then
  BY="ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/cgroup"
else
  BY="ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill"
fi
ACCOUNTING="AccountingStorageType=accounting_storage/none"
[ "$DBD" != 1 ] || ACCOUNTING="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((BASE_PORT + 1))
AccountingStoragePass=$SOCKET
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu"

# Bound to the addresses given here, not to all. The nodes are what is written here, not the hardware.
# batch_sched_delay: else a job waits up to 3 s before anybody looks at it.
conf="ClusterName=$CLUSTER
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$BASE_PORT
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmdParameters=config_overrides
SlurmUser=slurm
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$SOCKET,cred_expire=$REQUEUEDELAY
CredType=cred/munge
StateSaveLocation=$RIG/state
SlurmctldPidFile=$RUN/ctld/pid
SlurmctldLogFile=$LOG/ctld/log
SlurmdPidFile=$RUN/slurmd.%n.pid
SlurmdLogFile=$LOG/slurmd.%n.log
SlurmdSpoolDir=$RIG/spool/%n
ReturnToService=2
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
$BY
JobAcctGatherFrequency=$FREQ
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1,sched_min_interval=0
MaxJobCount=20000
MinJobAge=$MINJOBAGE
KillWait=$KILLWAIT
InactiveLimit=0
SlurmctldTimeout=30
SlurmdTimeout=$SLURMDTIMEOUT
MessageTimeout=$MESSAGETIMEOUT
JobCompType=jobcomp/none
$ACCOUNTING
DefMemPerCPU=100
GresTypes=gpu"
nodes="NodeName=DEFAULT CPUs=$CPUS Sockets=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEM_MB State=UNKNOWN
NodeName=c1 NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((BASE_PORT + 2))
NodeName=c2 NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((BASE_PORT + 3))
NodeName=g1 NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((BASE_PORT + 4)) Gres=gpu:a100:2
PartitionName=cpu Nodes=c1,c2 Default=YES MaxTime=1-00:00:00 DefaultTime=01:00:00 State=UP
PartitionName=gpu Nodes=g1 MaxTime=04:00:00 DefaultTime=01:00:00 State=UP"
# with a key twice every command would complain
while IFS= read -r line; do
  [ -z "$line" ] || [[ $line == *Name=* ]] || conf=$(grep -iv "^${line%%=*}=" <<<"$conf")
done <<<"$EXTRA_CONF"
printf '%s\n' "$conf" "$EXTRA_CONF" "$nodes" >"$ETC/slurm.conf"
echo "NodeName=g1 Name=gpu Type=a100 File=$ETC/gpu[0-1]" >"$ETC/gres.conf"
major=$(slurmd -V | sed 's/[^0-9]*//; s/\..*//')
{
  echo "ConstrainRAMSpace=yes"
  if [ "$major" -lt 24 ]; then echo "CgroupAutomount=no"; echo "CgroupMountpoint=/sys/fs/cgroup"
  elif [ "$CGROUP" != 1 ]; then echo "CgroupPlugin=disabled"; fi
} >"$ETC/cgroup.conf"
export SLURM_CONF=$ETC/slurm.conf
{
  echo "export SLURM_CONF=$SLURM_CONF RIG=$RIG"
  for knob in BASE_PORT CLUSTER CPUS MEM_MB MINJOBAGE KILLWAIT SLURMDTIMEOUT MESSAGETIMEOUT REQUEUEDELAY FREQ DBD CGROUP \
    EXTRA_CONF; do
    printf '%s=%q\n' $knob "${!knob}"
  done
} >"$RIG/env"

export SLURM_RIG=$RIG  # the mark of its daemons, by which down.sh finds them
if ! alive "$RUN/munge/pid"; then
  rm -f "$SOCKET"*
  runuser -u munge -- munged --key-file="$ETC/munge/key" --socket="$SOCKET" --pid-file="$RUN/munge/pid" \
    --log-file="$LOG/munge/log" --seed-file="$RUN/munge/seed" --num-threads=10
fi
waitfor 10 munge -S "$SOCKET" -n
[ "$DBD" != 1 ] || . "$HERE/dbd-up.sh"
alive "$RUN/ctld/pid" || { rm -f "$RUN/ctld/pid"; slurmctld; }
waitfor 20 scontrol ping
for node in c1 c2 g1; do
  alive "$RUN/slurmd.$node.pid" || { rm -f "$RUN/slurmd.$node.pid"; slurmd -N $node; }
done
ready() { [ "$(sinfo -h -N -t idle,mix,alloc,drain -o %N | sort -u | wc -l)" = 3 ]; }
waitfor 30 ready
