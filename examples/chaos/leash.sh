# Runs a program for as long as its owner lives.
#
#   sh -c SCRIPT NAME signal scratch program [argument...]
#
# stdin is a pipe whose other end only the owner holds; when it ends, however the owner went, the
# program gets the signal, and `scratch` (a directory, or empty) is removed once it is gone. The first
# line on stdout is the program's process id; what it says itself goes to stderr.
exec 3<&0 </dev/null
signal=$1 scratch=$2
shift 2

gone=
trap 'gone=yes' USR1
"$@" 3<&- >&2 &
child=$!
echo "$child"
exec >&2

(
    while read -r _; do :; done
    kill -s USR1 "$$"
    kill -s "$signal" "$child"
) <&3 &
watcher=$!
exec 3<&-

while :; do
    wait "$child"
    status=$?
    kill -s 0 "$child" 2>/dev/null || break
done
kill "$watcher" 2>/dev/null

if [ -n "$gone" ] && [ -n "$scratch" ]; then
    rm -rf "$scratch"
    rm -f "${scratch%/*}/current"
    rmdir "${scratch%/*}" 2>/dev/null
fi
exit "$status"
