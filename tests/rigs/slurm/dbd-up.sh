# dbd-up.sh: read by up.sh where DBD=1. mariadbd, on a socket alone, and slurmdbd.
DB=$RIG/db
sql() { mariadb --no-defaults --socket="$RUN/db/socket" -uroot "$@"; }
mkdir -p "$DB" "$RUN/db" "$RUN/db/tmp" "$RUN/dbd" "$LOG/db" "$LOG/dbd"
chown mysql: "$DB" "$RUN/db" "$RUN/db/tmp" "$LOG/db"
# in a tmpdir that two share, the one that starts removes the other's tables
DB_TMP=--tmpdir=$RUN/db/tmp
chown slurm: "$RUN/dbd" "$LOG/dbd"
if ! alive "$RUN/db/pid"; then
  [ -d "$DB/mysql" ] || mariadb-install-db --no-defaults --user=mysql --datadir="$DB" "$DB_TMP" --skip-test-db \
    --auth-root-authentication-method=normal --skip-name-resolve >"$LOG/db/install.log" 2>&1
  setsid mariadbd --no-defaults --user=mysql --datadir="$DB" "$DB_TMP" --socket="$RUN/db/socket" --pid-file="$RUN/db/pid" \
    --skip-networking --innodb-buffer-pool-size=128M --innodb-flush-log-at-trx-commit=0 \
    --innodb-lock-wait-timeout=900 >"$LOG/db/log" 2>&1 </dev/null &
  waitfor 30 sql -e "select 1"
  sql -e "create database if not exists slurm; create user if not exists slurm@localhost identified by 'rig';
    grant all on slurm.* to slurm@localhost;"
fi
cat >"$ETC/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$SOCKET
DbdHost=$HOST
DbdAddr=127.0.0.1
DbdPort=$((BASE_PORT + 1))
CommunicationParameters=NoInAddrAny
SlurmUser=slurm
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=rig
StorageLoc=slurm
PidFile=$RUN/dbd/pid
LogFile=$LOG/dbd/log
CONF
chown slurm: "$ETC/slurmdbd.conf"
chmod 600 "$ETC/slurmdbd.conf"  # slurmdbd demands both
# the client of localhost takes the socket that it was built with, unless it is told this
alive "$RUN/dbd/pid" || { rm -f "$RUN/dbd/pid"; MYSQL_UNIX_PORT=$RUN/db/socket slurmdbd; }
waitfor 30 eval 'clusters=$(sacctmgr -n -P show cluster format=cluster)'
if ! grep -qx "$CLUSTER" <<<"$clusters"; then
  users=$(for user in alice bob; do ! id $user >/dev/null 2>&1 || printf "User - '%s'\n" $user; done)
  printf '%s\n' "Cluster - '$CLUSTER'" "Parent - 'root'" "Account - 'physics'" "Parent - 'physics'" "$users" >"$ETC/accounts"
  sacctmgr -i -Q load "$ETC/accounts" >"$LOG/dbd/load" 2>&1
fi
