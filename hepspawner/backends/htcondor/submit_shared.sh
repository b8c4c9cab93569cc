# submit_shared.sh LAUNCHER CONDOR_SUBMIT OPTION...: as submit.sh, for homes that all nodes share. Standard input has the
# session's name before the rest. What the job reads and says is in a directory of its own, mode 0700, in the user's home:
# nothing is spooled and nothing is sent. Those of a month ago are removed here, for nobody reads them any more.
umask 077
launcher=$1
shift
IFS= read -r name && IFS= read -r line || exit
case $name in '' | *[!0-9a-zA-Z]*) exit 2 ;; esac
jobs=$(getent passwd "$(id -u)" | cut -d: -f6)/.local/state/hepspawner/jobs
find "$jobs" -mindepth 1 -maxdepth 1 -type d -mtime +30 -exec rm -rf -- {} + 2>/dev/null
mkdir -p "$jobs/$name" && cd "$jobs/$name" && cat -- "$launcher" >launcher.py && printf '%s\n' "$line" >input || exit
exec "$@"
