#!/bin/sh
# Runs a command in a small Debian 13 with that Debian's own Rust compiler (1.85, the oldest that mvm
# supports) and its arm64 standard library and cross linker:
#
#   tests/setup/debian13.sh cargo check --workspace --target aarch64-unknown-linux-gnu
#
# The project is mounted on /src; what is built there lands in target/debian13. Debian 13 is unpacked
# into the cache (1 GB) from its packages; nothing is installed. Needs root or user namespaces. The
# mounts are in a mount namespace of their own: they are gone with the command, however it ends.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
. "$here/apt.sh"
[ $# -gt 0 ] || die "usage: debian13.sh COMMAND [ARGUMENT…]"

if [ "$(id -u)" = 0 ]; then
    ns="unshare --mount"
else
    ns="unshare --map-root-user --mount"
    $ns true 2>/dev/null || die "this needs root or user namespaces, which this system does not allow" \
        "run it with sudo, or set kernel.unprivileged_userns_clone=1 (on Ubuntu: kernel.apparmor_restrict_unprivileged_userns=0)"
fi

roots=$mvm_cache/debian13
mkdir -p "$roots"
script=$(cat "$0" "$here/apt.sh" | sha256sum | cut -c1-12)
root=$roots/$script
[ -e "$root/complete" ] || (
    exec 9>"$roots/lock"
    flock 9
    [ ! -e "$root/complete" ] || exit 0
    say "unpacking Debian 13 with its Rust compiler into $roots (a minute, 1 GB)"
    tmp=$roots/tmp.$$
    trap 'rm -rf "$tmp"' EXIT
    trap 'exit 1' INT TERM HUP
    rm -rf "$roots"/tmp.* "$root"
    find "$roots" -maxdepth 1 -name '[0-9a-f]*[0-9a-f]' ! -name cargo -mtime +7 -exec rm -rf {} + # of older scripts
    mkdir -p "$tmp"
    host=$(dpkg --print-architecture)
    apt_root trixie "$host"
    cross="gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
    [ "$host" != arm64 ] || cross=
    unpack "$tmp" $(apt_get_debs $(apt_closure base-files dash coreutils rustc cargo gcc libc6-dev make $cross))
    if [ "$host" != arm64 ]; then
        apt_root trixie arm64
        unpack "$tmp" $(apt_get_debs $(apt_versions libstd-rust-dev))
    fi
    # What the packages' own scripts would have made.
    ln -sf gcc "$tmp/usr/bin/cc"
    mkdir -p "$tmp/src" "$tmp/cargo" "$tmp/proc" "$tmp/dev" "$tmp/tmp" "$tmp/etc/ssl" "$tmp/root"
    : >"$tmp/etc/resolv.conf"
    touch "$tmp/complete"
    mv -T "$tmp" "$root"
) || exit 1

mkdir -p "$roots/cargo" "$project/target"
exec $ns --propagation private sh -euc '
    root=$1 project=$2 cargo=$3
    shift 3
    mount --bind "$project" "$root/src"
    mount --bind "$cargo" "$root/cargo"
    mount --rbind /proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount --bind /etc/ssl "$root/etc/ssl"
    mount --bind "$(readlink -f /etc/resolv.conf)" "$root/etc/resolv.conf"
    exec /usr/sbin/chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin HOME=/root TERM="${TERM:-dumb}" LANG=C.UTF-8 \
        CARGO_HOME=/cargo CARGO_TARGET_DIR=/src/target/debian13 RUSTFLAGS="${RUSTFLAGS:-}" \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
        CARGO_HTTP_CAINFO=/etc/ssl/certs/ca-certificates.crt \
        sh -c "cd /src && exec \"\$@\"" sh "$@"
' sh "$root" "$project" "$roots/cargo" "$@"
