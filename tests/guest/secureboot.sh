#!/bin/sh
# Makes a disk that a UEFI with Debian's and Microsoft's keys starts under secure boot, out of Debian's signed packages:
#
#   tests/guest/secureboot.sh
#
# Prints the directory with
#   esp.img       a FAT file system: shim, which Microsoft signed; GRUB and the kernel, which Debian signed; the initrd of
#                 the x86_64 test guest
#   version       the packages it was made from
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../setup/apt.sh"
[ $# -eq 0 ] || die "usage: secureboot.sh"

guest=$("$here/make.sh" x86_64)
guests=$mvm_cache/guest
scripts=$({ cat "$0" "$here/../setup/apt.sh" && echo "$guest"; } | sha256sum | cut -c1-12)
out=$guests/secureboot-$scripts
if [ -n "$(find "$out" -maxdepth 0 -mtime -7 2>/dev/null)" ] && [ -e "$out/version" ]; then
    echo "$out"
    exit
fi
command -v mformat >/dev/null || die "missing for making the disk: mtools" "sudo apt-get install mtools"

exec 9>"$guests/lock-secureboot"
flock 9
if [ -e "$out/version" ]; then
    touch "$out"
    echo "$out"
    exit
fi
apt_root bookworm amd64
debs=$(apt_versions shim-signed grub-efi-amd64-signed)
say "making the disk for secure boot"
tmp=$guests/tmp-secureboot.$$
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM HUP
rm -rf "$guests"/tmp-secureboot.*
mkdir -p "$tmp/out" "$tmp/pkg"
unpack "$tmp/pkg" $(apt_get_debs $debs)
cat >"$tmp/grub.cfg" <<'EOF'
set timeout=0
linux /vmlinuz console=ttyS0 quiet no_timer_check nohz=off highres=off
initrd /initrd
boot
EOF
esp=$tmp/out/esp.img
truncate -s 96M "$esp"
mformat -i "$esp" -F ::
mmd -i "$esp" ::/EFI ::/EFI/BOOT ::/EFI/debian
mcopy -i "$esp" "$tmp/pkg/usr/lib/shim/shimx64.efi.signed" ::/EFI/BOOT/BOOTX64.EFI
mcopy -i "$esp" "$tmp/pkg/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed" ::/EFI/BOOT/grubx64.efi
mcopy -i "$esp" "$tmp/grub.cfg" ::/EFI/debian/grub.cfg
mcopy -i "$esp" "$guest/kernel" ::/vmlinuz
mcopy -i "$esp" "$guest/initrd" ::/initrd
printf '%s\n' $debs >"$tmp/out/version"
chmod -R a-w "$tmp/out" && chmod u+w "$tmp/out"
mv -T "$tmp/out" "$out"
find "$guests" -maxdepth 1 -name "secureboot-*" -mtime +7 ! -path "$out" -exec chmod -R u+w {} + -exec rm -rf {} + 2>/dev/null || :
echo "$out"
