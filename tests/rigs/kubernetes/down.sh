#!/bin/bash
# stops only what up.sh / node-up.sh started (pid and start time recorded in run/); --wipe drops the state too
. "$(dirname "$0")/env.sh"
"$HERE/node-down.sh" "$@"
"$HERE/hollow-down.sh"
for n in scheduler controller-manager apiserver etcd; do stop $n; done
[ "${1:-}" = --wipe ] && rm -rf $VAR/etcd $PKI
exit 0
