#!/bin/sh
# QEMU 10 beside the machine's QEMU 7.2: unpacks it from Debian 12's backports into the cache. The
# system stays as it is. Prints lines for the shell:
#
#   eval "$(tests/setup/qemu10.sh)"; cargo test      # MVM_QEMU_X86_64, MVM_QEMU_AARCH64 and so on
#
# Where the machine's own QEMU is 10 or newer already (Debian 13), these are its paths. With --present
# it fails where there would be something to download.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/apt.sh"

report() {
    echo "export MVM_QEMU_X86_64=$1/qemu-system-x86_64"
    echo "export MVM_QEMU_AARCH64=$1/qemu-system-aarch64"
    echo "export MVM_QEMU_IMG=$1/qemu-img"
    echo "export MVM_QEMU=$1/qemu-system-x86_64" # what the tests of mvm-qmp take
}
own=$(command -v qemu-system-x86_64 || :)
if [ -n "$own" ] && [ "$("$own" --version | sed -n 's/.*version \([0-9]*\).*/\1/p')" -ge 10 ]; then
    report "$(dirname "$own")"
    exit
fi

qemus=$mvm_cache/qemu10
mkdir -p "$qemus"
script=$(cat "$0" "$here/apt.sh" | sha256sum | cut -c1-12)
# Looked at this week with this very script.
current=$qemus/current-$script
if [ -n "$(find "$current" -maxdepth 0 -mtime -7 2>/dev/null)" ] && [ -x "$current/bin/qemu-img" ]; then
    report "$(readlink -f "$current")/bin"
    exit
fi
[ "${1:-}" != --present ] || exit 1

exec 9>"$qemus/lock"
flock 9
arch=$(dpkg --print-architecture)
triple=$(uname -m)-linux-gnu
apt_root "bookworm bookworm-backports" "$arch"
# A module that is not in its own folder QEMU takes from the system's, and dies of the other version.
names="qemu-system-x86 qemu-system-arm qemu-system-common qemu-system-data qemu-system-gui
    qemu-system-modules-opengl qemu-system-modules-spice qemu-utils seabios ipxe-qemu"
debs=
for n in $names; do
    # The plain suite's pin beats that of backports: ask for the version by suite.
    v=$(apt-cache -t bookworm-backports policy "$n" | awk '$1 == "Candidate:" { print $2 }')
    debs="$debs $n=$v"
done
key=$(echo "$script" $debs | sha256sum | cut -c1-12)
out=$qemus/$key
if [ ! -x "$out/bin/qemu-img" ]; then
    say "unpacking QEMU 10 of bookworm-backports into $qemus"
    tmp=$qemus/tmp.$$
    trap 'rm -rf "$tmp"' EXIT
    trap 'exit 1' INT TERM HUP
    rm -rf "$qemus"/tmp.*
    mkdir -p "$tmp/root" "$tmp/bin"
    unpack "$tmp/root" $(apt_get_debs $debs)

    bins="$tmp/root/usr/bin/qemu-system-x86_64 $tmp/root/usr/bin/qemu-system-aarch64 $tmp/root/usr/bin/qemu-img"
    missing() { ldd $bins | grep 'not found' || :; }
    if [ -n "$(missing)" ]; then
        # The machine's own libc stays in charge.
        libs=$(apt_lib_closure -t bookworm-backports qemu-system-x86 qemu-system-arm qemu-utils | grep -v '^libc6=')
        unpack "$tmp/root" $(apt_get_debs $libs)
        lib=$tmp/root/usr/lib/$triple
        left=$(LD_LIBRARY_PATH=$lib ldd $bins | grep 'not found' || :)
        [ -z "$left" ] || die "QEMU 10 of Debian 12 does not run on this system: $left"
    fi
    for b in qemu-system-x86_64 qemu-system-aarch64 qemu-img; do
        case $b in
        qemu-img) dirs= ;;
        *) dirs="-L $out/root/usr/share/qemu -L $out/root/usr/share/seabios -L $out/root/usr/lib/ipxe/qemu" ;;
        esac
        cat >"$tmp/bin/$b" <<X
#!/bin/sh
export LD_LIBRARY_PATH=$out/root/usr/lib/$triple\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
export QEMU_MODULE_DIR=$out/root/usr/lib/$triple/qemu
exec $out/root/usr/bin/$b $dirs "\$@"
X
        chmod +x "$tmp/bin/$b"
    done
    rm -rf "$out"
    mv -T "$tmp" "$out"
    "$out/bin/qemu-system-x86_64" --version >&2
fi
ln -sfn "$out" "$current.new" && mv -T "$current.new" "$current"
touch -h "$current"
report "$out/bin"
