# Runs a command whose output goes into files: the agent keeps 16 MiB at most, and only until the end.
# Words: token, 1 for standard input from a file that grows, bytes of output to be handed over at once,
# the inner script, and the inner script's words. The first line of what the agent gets tells the rest.
t=$1 fed=$2 max=$3 inner=$4
shift 4
d=
for p in /var/tmp /tmp /run /data/local/tmp; do
    (umask 077 && mkdir "$p/$t") 2>/dev/null && d=$p/$t && break
done
if [ -z "$d" ]; then
    echo "$t no-place"
    exit
fi
# What the shell itself has to say is nobody's output.
exec 3>&1 4>&2 >/dev/null 2>&1
: >"$d/out" >"$d/err"
group=
command -v setsid && group=setsid
go() { $group /bin/sh -c "$inner" sh "$d" "$@"; }
# The end is looked for before the bytes: what was written before it is read.
feed() {
    while [ ! -e "$d/eof" ]; do
        [ -e "$d/done" ] && return
        cat <&5
        sleep 0.05 || sleep 1
    done
    cat <&5
}
if [ "$fed" = 1 ]; then
    : >"$d/in"
    exec 5<"$d/in"
    feed | {
        exec 5<&-
        go "$@"
        s=$?
        : >"$d/done"
        exit $s
    }
    s=$?
else
    go "$@"
    s=$?
fi
# Its number may soon be another's.
: >"$d/pid"
# An agent that died meanwhile takes nothing.
trap '' PIPE
if [ -e "$d/no-cwd" ]; then
    echo "$t no-cwd" >&3
    rm -rf "$d"
    exit
fi
n=0
if [ -s "$d/out" ] || [ -s "$d/err" ]; then
    n=$(cat "$d/out" "$d/err" | head -c $((max + 1)) | wc -c)
fi
if [ "$n" -le "$max" ]; then
    echo "$t given $s" >&3
    [ -s "$d/out" ] && cat "$d/out" >&3
    [ -s "$d/err" ] && cat "$d/err" >&4
    rm -rf "$d"
else
    echo "$t kept $s" >&3 || rm -rf "$d"
fi
