#!/bin/sh
# Installs what is missing from the distribution's packages, after saying so:
#
#   tests/setup/packages.sh build   a compiler
#   tests/setup/packages.sh demo    that, QEMU and what makes the demo guest
#   tests/setup/packages.sh test    that, QEMU for Arm, firmware, swtpm, mtools
#
# Does nothing where nothing is missing. Works as root or with sudo; says what to install otherwise.
set -eu
level=${1:-demo}
say() { printf '%s\n' "$*" >&2; }
die() { say "error: $1"; shift; for l in "$@"; do say "hint: $l"; done; exit 1; }
case $level in build | demo | test) ;; *) die "usage: packages.sh build|demo|test" ;; esac
PATH=$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin

msrv=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../../Cargo.toml")
# at_least VERSION WANTED
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }
rust_ok() {
    for tool in rustc cargo; do
        v=$($tool --version 2>/dev/null | awk '{ print $2 }')
        [ -n "$v" ] && at_least "$v" "$msrv" || return 1
    done
}

missing=
command_from() { command -v "$1" >/dev/null || missing="$missing $2"; }
file_from() { [ -e "$1" ] || missing="$missing $2"; }
command_from cc gcc
command_from make make
file_from /usr/include/stdio.h libc6-dev
if [ $level != build ]; then
    command_from qemu-system-x86_64 qemu-system-x86
    command_from qemu-img qemu-utils
    command_from cpio cpio
    command_from depmod kmod
    command_from mke2fs e2fsprogs
    command_from readelf binutils
    command_from xz xz-utils
    file_from /etc/ssl/certs/ca-certificates.crt ca-certificates
    [ -n "$(ls /usr/share/keyrings/debian-archive-keyring.* 2>/dev/null)" ] || missing="$missing debian-archive-keyring"
fi
if [ $level = test ]; then
    command_from qemu-system-aarch64 qemu-system-arm
    file_from /usr/share/OVMF ovmf
    file_from /usr/share/AAVMF qemu-efi-aarch64
    file_from /usr/lib/ipxe/qemu ipxe-qemu
    file_from /usr/share/seabios seabios
    # A SPICE client, an X server and QEMU's windows, for the tests of displays.
    command_from spicy-screenshot spice-client-gtk
    command_from Xvfb xvfb
    file_from "/usr/lib/$(uname -m)-linux-gnu/qemu/ui-gtk.so" qemu-system-gui
    command_from openssl openssl
    command_from ip iproute2
    command_from swtpm swtpm
    command_from mcopy mtools
fi
rust=
rust_ok || rust=wanted
[ -n "$missing$rust" ] || exit 0

command -v apt-get >/dev/null ||
    die "missing:$missing${rust:+ rustc and cargo >= $msrv} (these are Debian's names), and this system has no apt-get to install them with" \
        "install them with the system's own package manager, the compiler perhaps from https://rustup.rs"

if [ "$(id -u)" = 0 ]; then
    root=
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    root=sudo
else
    die "missing:$missing${rust:+ rustc and cargo >= $msrv}; installing them takes root" \
        "as root: tests/setup/packages.sh $level"
fi
# sudo drops the environment.
apt="$root env DEBIAN_FRONTEND=noninteractive apt-get"

say "reading the package lists (apt-get update)"
# A third party's source that fails need not matter.
$apt -qq -o Acquire::Retries=3 update >&2 || say "warning: not every list could be read"

candidate() { apt-cache policy "$1" | awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }'; }
if [ -n "$rust" ]; then
    for p in "rustc cargo" "rustc-web cargo-web"; do
        v=$(candidate "${p% *}")
        if [ -n "$v" ] && at_least "$v" "$msrv"; then
            rust=$p
            break
        fi
    done
    [ "$rust" != wanted ] ||
        die "this distribution has no Rust compiler of at least version $msrv" "install one from https://rustup.rs and run this again"
    missing="$missing $rust"
fi

# Without --no-remove apt makes room by taking away what somebody installed (a newer qemu-utils, say).
try() { $apt install -s --no-install-recommends --no-remove "$@" >/dev/null 2>&1; }
options=
if ! try $missing; then
    # QEMU's packages go together: Debian 12's qemu-system (7.2) does not install beside a qemu-utils
    # that came from backports (10). Ask for all of them in one version.
    want=$(candidate qemu-system-x86)
    installed=$(dpkg-query -W -f '${source:Package} ${Package} ${db:Status-Abbrev}\n' | awk '$1 == "qemu" && $3 == "ii" { print $2 }')
    same=
    for p in $installed; do same="$same $p=$want"; done
    backports=$(. /etc/os-release && echo "${VERSION_CODENAME:-}-backports")
    if [ -z "$installed" ]; then
        $apt install -s --no-install-recommends $missing >&2 || :
        die "apt cannot install:$missing" "see its reasons above"
    fi
    # NAME/SUITE takes that package, and no other, from that suite.
    newer=$(for p in $missing; do case $p in qemu-*) echo "$p/$backports" ;; *) echo "$p" ;; esac; done)
    if [ "${CI:-}" = true ] && try --allow-downgrades $missing $same; then
        say "QEMU's packages are of two versions here: taking all of them in version $want"
        missing="$missing$same"
        options=--allow-downgrades
    elif try $newer; then
        say "QEMU's packages are from $backports here: so are the missing ones"
        missing=" $(echo $newer)"
    else
        die "apt cannot install:$missing" \
            "QEMU's packages must be of one version; these are installed in another than $want:" \
            "$(echo $installed)" \
            "sudo apt-get install --allow-downgrades$missing$same" \
            "or, to have QEMU 10: add $backports to the apt sources and run this again"
    fi
fi
say "installing from the distribution:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
$apt install -y -qq -o Acquire::Retries=3 $options --no-install-recommends --no-remove $missing >"$log" 2>&1 </dev/null || {
    tail -n 40 "$log" >&2
    die "apt could not install these packages" "see its last lines above"
}
[ -z "$rust" ] || rust_ok || die "the compiler in PATH is still older than $msrv: $(command -v rustc)" "put /usr/bin first in PATH, or update it (rustup update)"
