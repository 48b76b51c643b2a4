# Holds one PostgreSQL server for as long as its owner lives.
#
#   sh -c SCRIPT NAME bin_dir data_dir socket_dir locale scratch [server option...]
#
# stdin is a pipe whose other end only the owner holds: its end means that the owner closed it or is
# gone, however it went. stdout is the project's lock, held by being open. stderr is the log.
# `scratch` is the directory to remove at the end, or empty.
bin=$1 data=$2 socket=$3 locale=$4 scratch=$5
shift 5

# fd 3, because a shell without job control gives its background children /dev/null as stdin.
exec 3<&0 </dev/null
server=

# INT is the fast shutdown: sessions are ended, a checkpoint is written. It is repeated because it
# is ignored until PostgreSQL has set its handlers; one that hangs for a minute gets QUIT.
bring_down() {
    signal=INT
    tries=0
    while [ "$tries" -lt 600 ] && kill -s "$signal" "$server" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 60 ] || signal=QUIT
        # Not our stdout: the lock must not outlive us for the rest of a second.
        sleep 1 >/dev/null
    done
}

remove_scratch() {
    [ -z "$scratch" ] || rm -rf "$scratch" "$socket"
}

trap '[ -z "$server" ] || bring_down >/dev/null &
interrupted=yes' HUP INT TERM

(
    if [ ! -f "$data/PG_VERSION" ]; then
        # A new data directory appears whole or not at all.
        rm -rf "$data.new"
        "$bin/initdb" -D "$data.new" -U postgres --auth=trust --encoding=UTF8 \
            --locale="$locale" --no-instructions || exit 1
        mv "$data.new" "$data" || exit 1
    fi
    exec "$bin/postgres" -D "$data" "$@"
) 3<&- >&2 &
server=$!

(
    while read -r _; do :; done
    bring_down
    # Only reached if the other half was killed; else that ends this one.
    remove_scratch
) <&3 &
watcher=$!
exec 3<&-

while :; do
    interrupted=
    wait "$server"
    status=$?
    [ -n "$interrupted" ] || break
done

kill "$watcher" 2>/dev/null
rm -f "$socket/.s.PGSQL.5432" "$socket/.s.PGSQL.5432.lock"
rmdir "$socket" 2>/dev/null
remove_scratch
exit "$status"
