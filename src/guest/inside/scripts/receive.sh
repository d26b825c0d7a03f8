# Makes an empty file beside the destination, to become it later. Words: the destination, the source's
# name or nothing, the temporary file's name. Prints the temporary path, a NUL, and the destination's.
d=$1
[ -d "$d" ] && case $2 in
'') exit 21 ;;
*) d=${d%/}/$2 ;;
esac
case $d in */) exit 22 ;; esac
if [ -L "$d" ]; then
    r=$(readlink -f "$d" && echo x) || exit 23
    d=${r%?x}
fi
[ -d "$d" ] && exit 21
[ -e "$d" ] && [ ! -f "$d" ] && exit 24
t=${d%/*}/$3
[ -d "${d%/*}/" ] || exit 22
(umask 077 && set -C && : >"$t") 2>/dev/null || exit 25
printf '%s\0%s' "$t" "$d"
