# submit.sh CONDOR_SUBMIT OPTION...: runs condor_submit as whoever this runs as. The first line of standard input is the
# job's secret input, the rest the description, which names it as /proc/self/fd/3: a file of mode 0600 that has no name
# by then, so that nothing is left of it whatever happens. `-spool` sends it to the schedd.
umask 077
file=$(mktemp) && exec 3<>"$file" && rm -- "$file" && IFS= read -r line && printf '%s\n' "$line" >&3 || exit
exec "$@"
