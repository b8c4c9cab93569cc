#!/bin/bash
# stops the kubelet, the pods of this node (through containerd, only namespace k8s.io of our own containerd), containerd, the lo address
. "$(dirname "$0")/env.sh"; C="ctr -a $RUN/containerd.sock -n k8s.io"
stop kubelet
if alive containerd; then
  for t in $($C tasks ls -q); do $C tasks kill -s SIGKILL $t 2>/dev/null; done; sleep 1
  for t in $($C tasks ls -q); do $C tasks rm -f $t >/dev/null 2>&1; done
  for c in $($C containers ls -q); do $C containers rm $c >/dev/null 2>&1; done
  stop containerd
fi
for c in $(ls $VAR/cni/rig 2>/dev/null | grep '^10\.' ); do i=$(head -1 $VAR/cni/rig/$c | tr -d '\r'); rm -f /var/lib/cni/results/rig-$i-eth0 /var/lib/cni/results/cni-loopback-$i-lo; done   # libcni's cache
stop svc
# had containerd died: whatever still sits in the kubelet's cgroups, then the shims of our own containerd (told by its socket's path)
for p in $(cat $(find /sys/fs/cgroup/pids/kubepods -name cgroup.procs 2>/dev/null) /dev/null); do kill -9 $p 2>/dev/null; done
for d in /proc/[0-9]*; do { tr '\0' ' ' <$d/cmdline; } 2>/dev/null | grep -q "^[^ ]*containerd-shim-runc-v2 .*-address $RUN/containerd.sock" && kill -9 ${d#/proc/}; done
# what the kubelet and containerd left mounted below our own folders
for m in $(awk -v r="$R/" 'index($2,r)==1{print $2}' /proc/mounts | sort -r); do umount -l "$m"; done
for l in $(ip -o link show master rigbr0 2>/dev/null | sed 's/^[0-9]*: \([^@:]*\).*/\1/'); do ip link del $l; done; ip link del rigbr0 2>/dev/null
ip addr del $NODEIP/32 dev lo 2>/dev/null; ip addr del 10.251.0.1/32 dev lo 2>/dev/null
# the cgroups the kubelet made
for c in cpu cpuacct cpuset memory devices freezer blkio pids systemd unified; do d=/sys/fs/cgroup/$c/kubepods; [ -d $d ] && find $d -depth -type d -exec rmdir {} \; 2>/dev/null; done
[ "${1:-}" = --wipe ] || exit 0
for p in $VAR/kubelet/pods/*/; do rm -rf /var/log/pods/*_$(basename $p); done   # what the kubelet writes outside of its folder
rm -rf $VAR/cni $VAR/kubelet $VAR/containerd $RUN/containerd
rmdir /tmp/hostpath_pv 2>/dev/null
exit 0
