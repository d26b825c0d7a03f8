#!/bin/sh
# Makes the guests that the tests and the demo boot, out of Debian's packages, without root.
#
#   tests/guest/make.sh x86_64 | x86_64-full | aarch64 | aarch64-full | all
#
# Prints the directory (one line per guest) with
#   kernel        bzImage (x86_64) or Image (aarch64)
#   vmlinux       the -full x86_64 kernel unpacked: starts seconds faster under TCG, but cannot
#                 come back from S3
#   initrd        initramfs with busybox, the drivers and the guest agent; root=/dev/vda on the
#                 kernel command line makes it go on in a disk
#   rootfs.ext4   the same as a disk
#   disk.raw, disk.qcow2   a second disk; its first line is "mvm-test-disk"
#   version       the packages it was made from
#
# x86_64 and aarch64 have Debian 12's cloud kernel, ready in 2 to 3 s under TCG. It lacks 9p, USB, SATA,
# e1000 and i6300esb (both), a power button without UEFI and virtio-iommu (aarch64). x86_64-full has
# Debian 12's ordinary kernel, aarch64-full that of Debian 13, with all of these.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../setup/apt.sh"
PATH=$PATH:/usr/sbin:/sbin # depmod, mke2fs for an ordinary user

[ $# -eq 1 ] || die "usage: make.sh x86_64|x86_64-full|aarch64|aarch64-full|all"
if [ "$1" = all ]; then
    for v in x86_64 x86_64-full aarch64 aarch64-full; do "$0" $v; done
    exit
fi
variant=$1
case $variant in
x86_64) suite=bookworm arch=amd64 meta=linux-image-cloud-amd64 ;;
x86_64-full) suite=bookworm arch=amd64 meta=linux-image-amd64 ;;
aarch64) suite=bookworm arch=arm64 meta=linux-image-cloud-arm64 ;;
aarch64-full) suite=trixie arch=arm64 meta=linux-image-arm64 ;;
*) die "no such guest: $variant" "one of x86_64, x86_64-full, aarch64, aarch64-full, all" ;;
esac

guests=$mvm_cache/guest
mkdir -p "$guests"
scripts=$(cat "$0" "$here/../setup/apt.sh" "$here/modules" "$here/applets" "$here/extract-vmlinux" $(find "$here/files" -type f | sort) | sha256sum | cut -c1-12)
# Looked at today with these very scripts: nothing to ask apt.
current=$guests/current-$variant-$scripts
if [ -n "$(find "$current" -maxdepth 0 -mtime -1 2>/dev/null)" ] && [ -e "$current/version" ]; then
    readlink -f "$current"
    exit
fi

need=
for t in cpio:cpio depmod:kmod mke2fs:e2fsprogs qemu-img:qemu-utils readelf:binutils xz:xz-utils; do
    command -v "${t%:*}" >/dev/null || need="$need ${t#*:}"
done
[ -z "$need" ] || die "missing for making the test guests:$need" "sudo apt-get install$need" "or run tests/setup/packages.sh"

# Two runs at once: the second waits and finds the first one's work.
exec 9>"$guests/lock"
flock 9

apt_root "$suite" $arch
kernel=$(apt-cache depends "$meta" | awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }')
[ -n "$kernel" ] || die "$meta of $suite depends on no kernel"
debs="$(apt_versions "$kernel" busybox-static qemu-guest-agent) $(apt_lib_closure qemu-guest-agent)"
key=$(echo "$scripts" $debs | sha256sum | cut -c1-12)
out=$guests/$variant-$key
finish() {
    touch "$out" # used: see the pruning below
    ln -sfn "$out" "$current.new" && mv -T "$current.new" "$current"
    touch -h "$current"
    echo "$out"
}
if [ -e "$out/version" ]; then
    finish
    exit
fi

say "making the $variant test guest ($kernel of Debian $suite)"
tmp=$guests/tmp.$$
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM HUP
rm -rf "$guests"/tmp.* # we hold the lock: left by a killed run
mkdir -p "$tmp/out" "$tmp/pkg"
# Word splitting is wanted here and below: one package per word.
unpack "$tmp/pkg" $(apt_get_debs $debs)
version=$(cd "$tmp/pkg/lib/modules" && echo *)

root=$tmp/root
mkdir -p "$root/bin" "$root/sbin" "$root/usr/bin" "$root/usr/sbin" "$root/lib" "$root/proc" "$root/sys" "$root/dev" \
    "$root/run" "$root/tmp" "$root/root" "$root/mnt" "$root/newroot" "$root/var/log"
ln -s /run "$root/var/run"
cp -a "$here/files/." "$root/"

# busybox cannot be asked for its applets where it is of another architecture.
cp "$tmp/pkg/bin/busybox" "$root/bin/busybox"
for a in $(cat "$here/applets"); do
    case $a in */*) ln -s ../bin/busybox "$root/$a" ;; *) ln -s busybox "$root/bin/$a" ;; esac
done

# The agent with the libraries it needs and theirs.
cp "$tmp/pkg/usr/sbin/qemu-ga" "$root/usr/sbin/qemu-ga"
libs() { readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'; }
add_libs() {
    for l in $(libs "$1"); do
        [ ! -e "$root/lib/$l" ] || continue
        f=$(find "$tmp/pkg/usr/lib" -name "$l" -not -path '*/modules/*' | head -n 1)
        [ -n "$f" ] || die "qemu-ga needs $l, which is in none of its packages"
        cp -L "$f" "$root/lib/$l"
        add_libs "$root/lib/$l"
    done
}
add_libs "$root/usr/sbin/qemu-ga"
loader=$(readelf -l "$root/usr/sbin/qemu-ga" | sed -n 's/.*interpreter: \(.*\)]/\1/p')
mkdir -p "$root/$(dirname "$loader")"
[ -e "$root/$loader" ] || cp -L "$tmp/pkg/usr/lib/$(find "$tmp/pkg/usr/lib" -name "${loader##*/}" -printf '%P\n' | head -n 1)" "$root/$loader"

# Modules, unpacked: busybox loads no .xz.
find "$tmp/pkg/lib/modules" -name '*.ko.xz' -exec xz -d {} +
depmod -b "$tmp/pkg" "$version"
for m in $(sed 's/#.*//' "$here/modules"); do
    modprobe -d "$tmp/pkg" -S "$version" --show-depends "$m" 2>/dev/null | awk '$1 == "insmod" { print $2 }' || :
done | sort -u >"$tmp/list"
mkdir -p "$root/lib/modules/$version"
while read -r f; do cp "$f" "$root/lib/modules/$version/"; done <"$tmp/list"
depmod -b "$root" "$version" 2>/dev/null
(cd "$root/lib/modules/$version" && rm -f modules.*.bin modules.symbols modules.devname modules.softdep)

cp "$tmp/pkg/boot/vmlinuz-$version" "$tmp/out/kernel"
if [ $variant = x86_64-full ]; then
    "$here/extract-vmlinux" "$tmp/out/kernel" >"$tmp/out/vmlinux"
fi
# Not compressed: the guest would take longer to unpack it than QEMU takes to load it.
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$tmp/out/initrd"
rm "$root/init"
truncate -s 48M "$tmp/out/rootfs.ext4" # an existing file: mke2fs would announce a new one on stdout
mke2fs -q -t ext4 -L mvm-rootfs -E root_owner=0:0 -d "$root" "$tmp/out/rootfs.ext4"
truncate -s 8M "$tmp/out/disk.raw"
printf 'mvm-test-disk\n' | dd of="$tmp/out/disk.raw" conv=notrunc status=none
qemu-img convert -q -f raw -O qcow2 "$tmp/out/disk.raw" "$tmp/out/disk.qcow2"
printf '%s\n' $debs >"$tmp/out/version"
chmod -R a-w "$tmp/out" && chmod u+w "$tmp/out"

mv -T "$tmp/out" "$out"
# What no run has used for a week.
find "$guests" -maxdepth 1 \( -name "$variant-*" -o -name "current-$variant-*" \) -mtime +7 ! -path "$out" -exec chmod -R u+w {} + -exec rm -rf {} + 2>/dev/null || :
finish
