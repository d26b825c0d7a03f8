#!/bin/sh
# The tour of `make demo`: boots the demo guest with `mvm run`, its console on the screen, and drives
# it from outside. Ends the guest again, also when a step fails.
#
#   tests/demo.sh [MVM]
set -eu
mvm=${1:-mvm}
guest=demo-tour

# Everything on one screen, in order: the guest's console, the commands and what they say.
exec 2>&1
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold= plain=; fi
show() {
    printf '\n%s$ mvm %s%s\n' "$bold" "$*" "$plain"
    "$mvm" "$@" </dev/null
}
say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }

running=
finish() {
    [ -z "$running" ] || "$mvm" kill "$guest" >/dev/null 2>&1 || :
}
trap finish EXIT
trap 'exit 130' INT TERM

# Left by a tour that was killed.
"$mvm" kill "$guest" >/dev/null 2>&1 || :

say "the guest boots; what follows is its own console"
printf '%s$ mvm run demo --name %s%s\n' "$bold" "$guest" "$plain"
"$mvm" run demo --name "$guest" </dev/null &
running=$!
# A guest that does not even start is told by its own exit, not by a deadline.
(
    until "$mvm" wait "$guest" --for agent --timeout 5s >/dev/null 2>&1; do
        kill -0 $running 2>/dev/null || exit 1
    done
) || { running=; exit 1; }

say "the agent inside answers: the guest is up, and can be driven from any other terminal"
show list
show qmp "$guest" query-status
show pause "$guest"
show list
show resume "$guest"

say "memory is taken from the running guest, and given back"
show memory "$guest" 256M
show memory "$guest" 512M

say "the guest is asked to shut down"
show stop "$guest"
status=0
wait $running || status=$?
running=
show list --all
[ $status = 0 ] || exit $status
say "that was all: \`$mvm run demo\` for a console of your own, \`$mvm --help\` for the rest"
