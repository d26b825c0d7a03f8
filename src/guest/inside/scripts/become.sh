# Makes the temporary file the destination. Words: the temporary path, the destination, the mode or nothing
# for that of the file that is replaced.
mode=$3
if [ -e "$2" ]; then
    owner=$(stat -c %u:%g "$2" 2>/dev/null) && chown "$owner" "$1" 2>/dev/null
    [ -n "$mode" ] || mode=$(stat -c %a "$2" 2>/dev/null)
fi
chmod "${mode:-644}" "$1" && [ ! -d "$2" ] && mv -f "$1" "$2"
