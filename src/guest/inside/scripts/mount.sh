# Looks for devices that have come back, and mounts again what was unmounted. Words: for each mount the disk, the mount point, the type and the options.
plain() {
    printf "$(printf '%s' "$1" | sed 's/%/%%/g')"
}
disk() {
    d=$(readlink -f "/sys/class/block/$1")
    n=$(cat "$d/partition" 2>/dev/null || echo 0)
    [ "$n" = 0 ] || d=${d%/*}
    w=$(cat "$d/wwid" "$d/device/wwid" "$d/serial" 2>/dev/null | head -n 1 | tr -cd 'A-Za-z0-9._:-')
    echo "${w:-${d##*/}}/$n"
}
find_disk() {
    for b in /sys/class/block/*; do
        b=${b##*/}
        [ -e "/dev/$b" ] && [ "$(disk "$b")" = "$1" ] && echo "$b" && return
    done
    return 1
}
# On q35 with SeaBIOS the chipset tells a guest that has woken nothing of new devices.
echo 1 2>/dev/null >/sys/bus/pci/rescan
# One that unmounts may still be at it, though nobody waits for it any more.
tries=0
while grep -q '[m]vm_letting_go=1' /proc/[0-9]*/cmdline 2>/dev/null && [ $tries -lt 30 ]; do
    tries=$((tries + 1))
    sleep 1
done
wrong=0
while [ $# -ge 4 ]; do
    if grep -qF -e " $2 " /proc/self/mountinfo; then
        shift 4
        continue
    fi
    p=$(plain "$2")
    tries=0
    until b=$(find_disk "$1"); do
        tries=$((tries + 1))
        [ $tries -ge 20 ] && break
        sleep 1
    done
    if [ -z "$b" ]; then
        echo "the disk of $p has not come back in the guest" >&2
        wrong=1
    elif ! e=$(mount -t "$3" -o "$4" "/dev/$b" "$p" 2>&1); then
        echo "/dev/$b cannot be mounted on $p in the guest: $e" >&2
        wrong=1
    fi
    shift 4
done
exit $wrong
