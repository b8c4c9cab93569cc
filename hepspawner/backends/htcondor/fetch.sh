# fetch.sh SIZE CONDOR_TRANSFER_DATA OPTION...: prints the last bytes of what a job wrote, which the schedd keeps for a
# while. The job's directory is /proc/self/cwd: files come to where the command runs. It ends in time to clean up, before
# the hub ends all of this.
umask 077
size=$1
shift
directory=$(mktemp -d) && cd "$directory" || exit
timeout --foreground 10 "$@" >&2
code=$?
[ ! -f log ] || tail -c "$size" log
cd / && rm -rf -- "$directory"
exit $code
