#!/bin/sh
# Makes a full Debian 12 guest with systemd, logind, D-Bus and udev, out of Debian's packages:
#
#   tests/guest/debian.sh
#
# Prints the directory with
#   kernel        Debian's ordinary kernel
#   initrd        loads the drivers, wakes a hibernated guest, mounts the root disk; two words on the kernel command
#                 line change that: `root=DEVICE`, and `noresume`
#   rootfs.ext4   the root disk (label mvm-root, found wherever it is); to be run over a throw-away layer
#   swap.raw      swap space (label mvm-swap), which systemd uses where it is there: with it the guest can hibernate
#   version       the packages it was made from
#
# The guest agent starts with its channel. A root shell with the prompt `guest# ` is on hvc0, where there is one,
# and on the serial console. Nobody runs the packages' scripts: what they would have made is in debian/ and below.
# Needs root or user namespaces, as files of the disk belong to root.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../setup/apt.sh"
PATH=$PATH:/usr/sbin:/sbin
[ $# -eq 0 ] || die "usage: debian.sh"

guests=$mvm_cache/guest
mkdir -p "$guests"
scripts=$(cat "$0" "$here/../setup/apt.sh" "$here/modules" $(find "$here/debian" -type f | sort) | sha256sum | cut -c1-12)
current=$guests/current-debian-$scripts
if [ -n "$(find "$current" -maxdepth 0 -mtime -1 2>/dev/null)" ] && [ -e "$current/version" ]; then
    readlink -f "$current"
    exit
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
else
    as_root="unshare --map-root-user"
    $as_root true 2>/dev/null || die "this needs root or user namespaces, which this system does not allow" \
        "run it with sudo, or set kernel.unprivileged_userns_clone=1 (on Ubuntu: kernel.apparmor_restrict_unprivileged_userns=0)"
fi
need=
for t in cpio:cpio depmod:kmod mke2fs:e2fsprogs xz:xz-utils mkswap:util-linux; do
    command -v "${t%:*}" >/dev/null || need="$need ${t#*:}"
done
[ -z "$need" ] || die "missing for making the Debian guest:$need" "sudo apt-get install$need"

exec 9>"$guests/lock-debian"
flock 9

apt_root bookworm amd64
kernel=$(apt-cache depends linux-image-amd64 | awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }')
[ -n "$kernel" ] || die "linux-image-amd64 depends on no kernel"
debs="$(apt_versions "$kernel" busybox-static) $(apt_closure base-files base-passwd bash dash coreutils grep sed mawk \
    findutils procps util-linux mount kmod systemd udev dbus libpam-systemd qemu-guest-agent iproute2 |
    grep -vE '^(debconf|perl|libperl|dpkg|adduser|passwd|libsemanage|libdb5)')"
key=$(echo "$scripts" $debs | sha256sum | cut -c1-12)
out=$guests/debian-$key
finish() {
    touch "$out"
    ln -sfn "$out" "$current.new" && mv -T "$current.new" "$current"
    touch -h "$current"
    echo "$out"
}
if [ -e "$out/version" ]; then
    finish
    exit
fi

say "making the Debian guest ($kernel)"
tmp=$guests/tmp-debian.$$
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM HUP
rm -rf "$guests"/tmp-debian.*
root=$tmp/root
mkdir -p "$tmp/out" "$root"
unpack "$root" $(apt_get_debs $debs)
version=$(cd "$root/lib/modules" && echo *)
mv "$root/boot/vmlinuz-$version" "$tmp/out/kernel"

# The drivers that the other guests have, with what systemd asks for.
find "$root/lib/modules" -name '*.ko.xz' -exec xz -d {} +
depmod -b "$root" "$version"
for m in $(sed 's/#.*//' "$here/modules") autofs4 efivarfs configfs; do
    modprobe -d "$root" -S "$version" --show-depends "$m" 2>/dev/null | awk '$1 == "insmod" { print $2 }' || :
done | sort -u >"$tmp/list"
mkdir -p "$tmp/modules"
while read -r f; do cp "$f" "$tmp/modules/"; done <"$tmp/list"
cp "$root/lib/modules/$version/modules.builtin" "$root/lib/modules/$version/modules.order" "$tmp/"
rm -rf "$root/usr/lib/modules/$version" "$root/boot"/*
mkdir -p "$root/usr/lib/modules/$version/kernel"
mv "$tmp/modules"/* "$root/usr/lib/modules/$version/kernel/"
mv "$tmp/modules.builtin" "$tmp/modules.order" "$root/usr/lib/modules/$version/"
depmod -b "$root" "$version"
rm -rf "$root/usr/share/doc" "$root/usr/share/man" "$root/usr/share/locale" "$root/usr/share/info" "$root/usr/lib/udev/hwdb.d"

# What the packages' scripts would have made.
cp -a "$here/debian/." "$root/"
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
sed -i 's/^root:[^:]*:/root::/; s#^\(root:.*\):[^:]*$#\1:/bin/sh#' "$root/etc/passwd"
id=100
for u in messagebus systemd-network systemd-timesync systemd-resolve; do
    echo "$u:x:$id:$id::/:/usr/sbin/nologin" >>"$root/etc/passwd"
    echo "$u:x:$id:" >>"$root/etc/group"
    id=$((id + 1))
done
for g in render kvm input sgx systemd-journal; do
    grep -q "^$g:" "$root/etc/group" || echo "$g:x:$id:" >>"$root/etc/group"
    id=$((id + 1))
done
echo 6d766d2d64656269616e2d6775657374 >"$root/etc/machine-id"
echo mvm-debian >"$root/etc/hostname"
echo 'LABEL=mvm-swap none swap nofail,x-systemd.device-timeout=90s 0 0' >"$root/etc/fstab"
mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp" "$root/root" "$root/mnt" "$root/var/log/journal"
chmod 1777 "$root/tmp"
ln -sf /proc/self/mounts "$root/etc/mtab"
[ -e "$root/usr/bin/sh" ] || ln -s dash "$root/usr/bin/sh"
[ -e "$root/usr/bin/awk" ] || ln -s mawk "$root/usr/bin/awk"
# Consoles of our own instead of logins; time and network are of no use here.
for unit in getty@.service serial-getty@.service systemd-timesyncd.service systemd-networkd.service \
    systemd-resolved.service systemd-pstore.service systemd-firstboot.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
[ "$(dpkg --print-architecture)" != amd64 ] || ldconfig -r "$root" || die "ldconfig cannot work on $root"

ird=$tmp/initrd
mkdir -p "$ird/bin" "$ird/proc" "$ird/sys" "$ird/dev" "$ird/newroot" "$ird/modules"
cp "$root/usr/bin/busybox" "$ird/bin/busybox"
for a in sh mount insmod cat dd sleep switch_root findfs; do ln -s busybox "$ird/bin/$a"; done
mv "$root/initrd-init" "$ird/init"
for m in virtio_pci virtio_blk virtio_scsi sd_mod nvme ahci ext4 crc32c_generic; do
    modprobe -d "$root" -S "$version" --show-depends $m 2>/dev/null | awk '$1 == "insmod" { print $2 }'
done | awk '!seen[$0]++' | while read -r f; do
    cp "$f" "$ird/modules/"
    echo "${f##*/}"
done >"$tmp/order"
cp "$tmp/order" "$ird/modules/list"
(cd "$ird" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$tmp/out/initrd"

truncate -s 768M "$tmp/out/rootfs.ext4"
# As root of a namespace, all files are root's.
$as_root mke2fs -q -t ext4 -L mvm-root -E root_owner=0:0 -d "$root" "$tmp/out/rootfs.ext4"
truncate -s 1G "$tmp/out/swap.raw"
mkswap -q -L mvm-swap "$tmp/out/swap.raw" >&2
printf '%s\n' $debs >"$tmp/out/version"
chmod -R a-w "$tmp/out" && chmod u+w "$tmp/out"
mv -T "$tmp/out" "$out"
find "$guests" -maxdepth 1 \( -name "debian-*" -o -name "current-debian-*" \) -mtime +7 ! -path "$out" -exec chmod -R u+w {} + -exec rm -rf {} + 2>/dev/null || :
finish
