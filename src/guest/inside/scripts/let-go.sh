# Looks what is mounted from PCI functions (the first word is `look`) and unmounts it (`go`). Further words: their
# addresses. Prints a line for each mount, the first
# one first: the disk, the mount point, the type and the options, as /proc/self/mountinfo has them. Where something is
# in use, says so, leaves all as it was and ends with 1.
# By this the script is known among the guest's processes.
mvm_letting_go=1
what=$1
shift
fail() {
    echo "$*" >&2
    exit 1
}
# The parts of paths in /sys under which a function's disks are. Namespaces of an NVMe device that can have more
# than one path are not below it.
roots() {
    echo "/$1/"
    for c in /sys/class/nvme/nvme*; do
        case $(readlink -f "$c") in */"$1"/*) ;; *) continue ;; esac
        for s in /sys/class/nvme-subsystem/nvme-subsys*; do
            [ -e "$s/${c##*/}" ] || continue
            [ "$(ls -d "$s"/nvme*/transport 2>/dev/null | wc -l)" -eq 1 ] && echo "/${s##*/}/"
        done
    done
}
who() {
    for p in /proc/[0-9]*; do
        ls -l "$p/cwd" "$p/root" "$p/fd" 2>/dev/null | grep -qF -e "-> $1" && echo "$(cat "$p/comm") (${p##*/})"
    done | head -n 3 | tr '\n' ' '
}
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
paths=
for a; do
    [ -e "/sys/bus/pci/devices/$a" ] || fail "the guest has no PCI device $a"
    paths="$paths $(roots "$a")"
done
all=
for b in /sys/class/block/*; do
    r=$(readlink -f "$b")/
    for p in $paths; do
        case $r in *"$p"*) [ -e "$b/dev" ] && all="$all ${b##*/}" ;; esac
    done
done
for b in $all; do
    for h in "/sys/class/block/$b/holders"/*; do
        [ -e "$h" ] && fail "$b is used by ${h##*/} in the guest"
    done
    grep -q "^/dev/$b " /proc/swaps 2>/dev/null && fail "$b is swap in use in the guest: \`swapoff /dev/$b\` there"
    for f in /sys/fs/btrfs/*/devices/"$b"; do
        [ -e "$f" ] || continue
        [ "$(ls "${f%/*}" | wc -l)" -eq 1 ] || fail "$b is one of several devices of a btrfs file system in the guest"
    done
    case $(blkid "/dev/$b" 2>/dev/null) in
    *'"zfs_member"'* | *'"bcachefs"'*) fail "$b is a part of a pool of disks in the guest" ;;
    esac
    w=$(who "/dev/$b")
    [ -n "$w" ] && fail "/dev/$b is open in the guest: $w"
done
list=
while read -r _ _ number root point options rest; do
    rest=${rest#*- }
    kind=${rest%% *}
    source=${rest#* }
    source=${source%% *}
    for b in $all; do
        [ "$number" = "$(cat "/sys/class/block/$b/dev")" ] || [ "$source" = "/dev/$b" ] || continue
        case $root:$kind in
        /:* | *:btrfs) ;;
        *) fail "$point in the guest is a part of another mount: unmount it there first" ;;
        esac
        super=$(echo "${rest##* }" | sed 's/,seclabel//')
        list="$list$b $(disk "$b") $point $kind $options,$super
"
        break
    done
done </proc/self/mountinfo
if [ "$what" = look ]; then
    printf '%s' "$list" | cut -d ' ' -f 2-
    exit
fi
down=
back() {
    printf '%s' "$down" | while read -r b _ point kind options; do
        mount -t "$kind" -o "$options" "/dev/$b" "$(plain "$point")"
    done
}
# What was mounted last goes first.
order=$(printf '%s' "$list" | sed '1!G;h;$!d')
while read -r b disk point kind options; do
    [ -n "$point" ] || continue
    p=$(plain "$point")
    if ! e=$(umount "$p" 2>&1); then
        w=$(who "$p")
        back
        fail "$p is in use in the guest: ${w:-$e}"
    fi
    down="$b $disk $point $kind $options
$down"
done <<END
$order
END
# Containers and the like have mounts of their own, by which a file system stays in use.
for b in $all; do
    n=$(cat "/sys/class/block/$b/dev")
    p=$(grep -lF -e " $n " /proc/[0-9]*/mountinfo 2>/dev/null | head -n 1)
    [ -n "$p" ] || continue
    p=${p#/proc/}
    p=${p%%/*}
    back
    fail "/dev/$b is still mounted for $(cat "/proc/$p/comm") ($p) in the guest"
done
printf '%s' "$down" | cut -d ' ' -f 2-
