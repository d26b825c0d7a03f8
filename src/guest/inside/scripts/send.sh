# What a file to be read is. Word: its path. Prints its mode and its size, where the guest can tell.
[ -e "$1" ] || exit 20
[ -d "$1" ] && exit 21
[ -f "$1" ] || exit 24
[ -r "$1" ] || exit 26
stat -L -c '%a %s' "$1" 2>/dev/null
exit 0
