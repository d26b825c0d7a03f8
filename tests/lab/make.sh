#!/bin/sh
# Makes what an emulated host of the lab boots, out of Debian 12's packages, without root:
#
#   tests/lab/make.sh x86_64 | aarch64 | iommufd
#
# iommufd is an x86_64 host with the kernel and the QEMU of bookworm-backports. Debian builds that kernel
# without iommufd: its module, and VFIO's with it, are built out of tree.
#
# Prints the directory with
#   kernel     the ordinary Debian kernel; on x86_64 as ELF (starts seconds sooner under TCG)
#   initrd     mounts the root directory over 9p, with a RAM disk over it
#   root/      the root directory: busybox, all modules of that kernel, QEMU with its modules and
#              firmware, nvme-cli, lspci, lsusb, strace; mtty.ko and mdpy.ko, the kernel's samples of
#              mediated devices, built out of tree; on x86_64 systemd, OpenRC and runit as well, which only
#              `lab.init=PROGRAM` on the kernel command line or a test brings to life
#              and kernels for guests in /usr/share/lab: `off` switches off at once, `idle` never does
#   version    the packages it was made from
#
# files/root/ beside this script is laid over root/ when a host boots: what changes there needs no
# making anew.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../setup/apt.sh"
PATH=$PATH:/usr/sbin:/sbin # depmod for an ordinary user

case ${1:-} in
x86_64 | iommufd) arch=amd64 meta=linux-image-amd64 qemu=qemu-system-x86 kmod=kmod ;;
# With busybox' modprobe, which knows less than kmod's: no soft dependencies, for one.
aarch64) arch=arm64 meta=linux-image-arm64 qemu=qemu-system-arm kmod= ;;
*) die "usage: make.sh x86_64|aarch64|iommufd" ;;
esac
variant=$1
suites=bookworm from=
[ $variant != iommufd ] || suites="bookworm bookworm-backports" from="-t bookworm-backports"

labs=$mvm_cache/lab
mkdir -p "$labs"
scripts=$(cat "$0" "$here/../setup/apt.sh" "$here/../guest/extract-vmlinux" "$here/files/init" "$here/../guest/applets" | sha256sum | cut -c1-12)
# Looked at this week with these very scripts: nothing to ask apt.
current=$labs/current-$variant-$scripts
if [ -n "$(find "$current" -maxdepth 0 -mtime -7 2>/dev/null)" ] && [ -e "$current/version" ]; then
    readlink -f "$current"
    exit
fi
need=
for t in cpio:cpio depmod:kmod xz:xz-utils gcc:gcc ld:binutils make:make; do
    command -v "${t%:*}" >/dev/null || need="$need ${t#*:}"
done
[ -z "$need" ] || die "missing for making the lab:$need" "sudo apt-get install$need" "or run tests/setup/packages.sh test"

exec 9>"$labs/lock"
flock 9

apt_root "$suites" $arch
depends_on() { apt-cache $from depends "$1" | awk -v want="$2" '$1 == "Depends:" && $2 ~ want { print $2; exit }'; }
kernel=$(depends_on $meta '^linux-image-[0-9]')
[ -n "$kernel" ] || die "$meta depends on no kernel"
# Installing is not what happens here: what only the packages' scripts want stays away.
programs=$(apt_closure $from busybox-static $qemu qemu-utils ipxe-qemu nvme-cli strace pciutils usbutils $kmod e2fsprogs iproute2 dash socat |
    grep -vE '^(perl|libperl|dpkg|debconf|usrmerge|iso-codes|libpam|passwd|adduser|libfile-find|libnumber|libtext|init-system|libsemanage)')
version_debs="$(apt_versions "$kernel") $programs"
inits=
# Init systems that tests boot, or run beside busybox; without what only their packages' scripts want.
[ $variant != x86_64 ] || inits=$(apt_closure systemd openrc runit | grep -vE '^(debconf|insserv|passwd|runit-helper|sysuser-helper|libpam-modules|libsemanage|libdb|libsepol)')
build_debs=
if [ $arch = amd64 ]; then
    headers=linux-headers-${kernel#linux-image-}
    source=$(echo "$kernel" | sed 's/linux-image-\([0-9]*\.[0-9]*\).*/linux-source-\1/')
    build_debs=$(apt_versions "$headers" "$(depends_on "$headers" '^linux-headers-.*-common$')" \
        "$(depends_on "$headers" '^linux-kbuild')" "$source")
fi
key=$(echo "$scripts" $version_debs $inits $build_debs | sha256sum | cut -c1-12)
out=$labs/$variant-$key
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

say "making the $variant host of the lab ($kernel)"
tmp=$labs/tmp.$$
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM HUP
rm -rf "$labs"/tmp.*
root=$tmp/out/root
mkdir -p "$root" "$tmp/boot"
unpack "$root" $(apt_get_debs $programs $inits)
unpack "$tmp/boot" $(apt_get_debs $(apt_versions "$kernel"))
release=$(cd "$tmp/boot/lib/modules" && echo *)
mv "$tmp/boot/usr/lib/modules" "$root/usr/lib/modules"
# Seconds of depmod and half the space, and no host of the lab has such hardware.
for d in drivers/gpu/drm/amd drivers/gpu/drm/nouveau drivers/gpu/drm/radeon drivers/media drivers/net/wireless sound \
    drivers/infiniband drivers/iio drivers/staging; do
    rm -rf "$root/usr/lib/modules/$release/kernel/$d"
done

# The mediated devices of the kernel's own samples, against its headers where they lie.
if [ -n "$build_debs" ]; then
    build=$tmp/build
    mkdir -p "$build" "$tmp/mdev"
    unpack "$build" $(apt_get_debs $build_debs)
    headers_dir=$build/usr/src/$headers
    # The headers name the common ones by their installed place.
    sed -i "s# /usr/src/# $build/usr/src/#; s#^include /usr/src/#include $build/usr/src/#" "$headers_dir/Makefile"
    archive=$build/usr/src/$source.tar.xz
    tar -xJf "$archive" -C "$tmp/mdev" --strip-components=3 $source/samples/vfio-mdev
    mkdir -p "$root/usr/lib/modules/$release/extra"
    # SWITCH…: what the kernel's own configuration lacks. Types of modules need a tool that is not here.
    modules() {
        modules_in=$1
        shift
        make -s -C "$headers_dir" M="$modules_in" CONFIG_DEBUG_INFO_BTF_MODULES= "$@" modules >"$tmp/modules.log" 2>&1 || {
            cat "$tmp/modules.log" >&2
            die "modules in $modules_in do not build"
        }
        find "$modules_in" -name '*.ko' | while read -r m; do
            strip -g "$m"
            cp "$m" "$root/usr/lib/modules/$release/extra/"
        done
    }
    defines=
    if [ $variant = iommufd ]; then
        mkdir "$tmp/iommufd"
        tar -xJf "$archive" -C "$tmp/iommufd" --strip-components=2 \
            $source/drivers/iommu/iommufd $source/drivers/iommu/iommu-priv.h $source/drivers/vfio
        # A part of the kernel's interval trees that nothing else of it uses.
        {
            printf '#include <linux/%s.h>\n' interval_tree export compiler bug
            tar -xJOf "$archive" $source/lib/interval_tree.c | sed -n '/^#ifdef CONFIG_INTERVAL_TREE_SPAN_ITER/,$p'
        } >"$tmp/iommufd/iommu/iommufd/span.c"
        echo 'iommufd-y += span.o' >>"$tmp/iommufd/iommu/iommufd/Makefile"
        echo 'obj-m := iommu/iommufd/ vfio/' >"$tmp/iommufd/Makefile"
        defines="-DCONFIG_IOMMUFD_MODULE=1 -DCONFIG_VFIO_DEVICE_CDEV=1 -DCONFIG_INTERVAL_TREE_SPAN_ITER=1"
        modules "$tmp/iommufd" CONFIG_IOMMUFD=m CONFIG_VFIO_DEVICE_CDEV=y KCFLAGS="$defines"
        # They are in the place of the kernel's own.
        for m in "$root/usr/lib/modules/$release/extra/"*.ko; do
            m=${m##*/}
            find "$root/usr/lib/modules/$release/kernel" -name "${m%.ko}.ko*" -exec rm {} +
        done
    fi
    printf 'obj-m := mtty.o mdpy.o\n' >"$tmp/mdev/Makefile"
    modules "$tmp/mdev" KCFLAGS="$defines" ${defines:+"KBUILD_EXTRA_SYMBOLS=$tmp/iommufd/Module.symvers"}
fi
depmod -b "$root" "$release"

# Guests that cost no time. `out 0x604, 0x2000` is S5 of q35's power management.
if [ $arch = amd64 ]; then
    mkdir -p "$root/usr/share/lab"
    for k in off idle; do
        cat >"$tmp/$k.S" <<X
        .text
        .long 0x1badb002, 0, -0x1badb002 /* multiboot */
        .globl _start
_start: movw \$0x604, %dx
        movw \$0x2000, %ax
        $([ $k = off ] && echo outw %ax, %dx || echo cli)
1:      hlt
        jmp 1b
X
        gcc -m32 -c -o "$tmp/$k.o" "$tmp/$k.S"
        ld -m elf_i386 -n -Ttext 0x100000 -o "$root/usr/share/lab/$k" "$tmp/$k.o"
    done
fi

rm -rf "$root/usr/share/doc" "$root/usr/share/man" "$root/usr/share/locale" "$root/usr/share/info"
mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp" "$root/root" "$root/mnt" "$root/lab" \
    "$root/images" "$root/var/lib" "$root/var/cache" "$root/etc"
[ -e "$root/var/run" ] || ln -s /run "$root/var/run"
# busybox for all that no package brought.
for a in $(cat "$here/../guest/applets"); do
    a=${a##*/}
    [ -e "$root/usr/bin/$a" ] || [ -e "$root/usr/sbin/$a" ] || ln -s busybox "$root/usr/bin/$a"
done
ln -sf ../bin/busybox "$root/usr/sbin/init"
# Where the kernel looks for it.
[ -e "$root/usr/sbin/modprobe" ] || ln -s ../bin/busybox "$root/usr/sbin/modprobe"
# For libraries in folders of their own. It knows the machine's architecture only; the loader finds the
# folder of its architecture without it.
if [ "$(dpkg --print-architecture)" = $arch ]; then
    ldconfig -r "$root" 2>/dev/null || die "ldconfig cannot work on $root"
fi

ird=$tmp/initrd
mkdir -p "$ird/bin" "$ird/proc" "$ird/dev" "$ird/lower" "$ird/files" "$ird/libc" "$ird/upper" "$ird/newroot" "$ird/modules"
cp "$root/usr/bin/busybox" "$ird/bin/busybox"
for a in sh mount insmod mkdir cat switch_root; do ln -s busybox "$ird/bin/$a"; done
cp "$here/files/init" "$ird/init"
for m in virtio_pci 9pnet_virtio 9p overlay virtio_console; do
    modprobe -d "$root" -S "$release" --show-depends $m | awk '$1 == "insmod" { print $2 }'
done | awk '!seen[$0]++' | while read -r f; do
    m=${f##*/}
    case $m in
    *.xz) xz -dc "$f" >"$ird/modules/${m%.xz}" ;;
    *) cp "$f" "$ird/modules/" ;;
    esac
    echo "${m%.xz}"
done >"$tmp/list"
cp "$tmp/list" "$ird/modules/list"
(cd "$ird" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$tmp/out/initrd"
# A kernel started as ELF beside many devices finds the last pages of its initrd overwritten.
truncate -s +2M "$tmp/out/initrd"

# That of iommufd is packed in another way.
if [ $variant = x86_64 ]; then
    "$here/../guest/extract-vmlinux" "$tmp/boot/boot/vmlinuz-$release" >"$tmp/out/kernel"
else
    cp "$tmp/boot/boot/vmlinuz-$release" "$tmp/out/kernel"
fi
printf '%s\n' $version_debs $inits $build_debs >"$tmp/out/version"
mv -T "$tmp/out" "$out"
find "$labs" -maxdepth 1 \( -name "$variant-*" -o -name "current-$variant-*" \) -mtime +7 ! -path "$out" -exec rm -rf {} + 2>/dev/null || :
finish
