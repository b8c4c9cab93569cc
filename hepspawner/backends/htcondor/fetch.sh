# fetch.sh SIZE CONDOR_TRANSFER_DATA OPTION...: prints the last bytes of what a job wrote, which the schedd keeps for a
# while. The job's directory is /proc/self/cwd: files come to where the command runs.
umask 077
size=$1
shift
directory=$(mktemp -d) && cd "$directory" || exit
"$@" >&2
code=$?
[ ! -f log ] || tail -c "$size" log
cd / && rm -rf -- "$directory"
exit $code
