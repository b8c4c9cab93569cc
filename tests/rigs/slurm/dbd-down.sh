# dbd-down.sh: read by down.sh. slurmdbd first: it writes what it still has.
stop "$RUN/dbd/pid" 20
stop "$RUN/db/pid" 20
