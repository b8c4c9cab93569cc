#!/bin/bash
# test.sh PART ARGUMENT…: sets PART up (tests/rigs/setup.sh) and runs pytest with the arguments
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$CHECKOUT"
part=$1 rc=0
shift
tests/rigs/setup.sh "$part"
t0=$SECONDS
# These tests wait for hubs and schedulers most of their time. Those of a file stay together: they share them.
[ "$part" != all ] || set -- -n 4 --dist loadfile "$@"
"$RIGS/venv-hub6/bin/python" -m pytest "$@" || rc=$?
say "tests: $((SECONDS - t0)) s; with set-up: $SECONDS s"
exit $rc
