#!/bin/sh
# A static binary for one architecture, whose path is printed:
#
#   tests/setup/static.sh x86_64|aarch64 release|dev
#
# The machine's own compiler is used where it has the target's standard library (and, for the other
# architecture, the cross linker is there), else Debian 13's (debian13.sh).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
arch=$1 profile=$2
target=$arch-unknown-linux-gnu
# Flags go to the target only, not to build scripts, since --target is given.
RUSTFLAGS="-C target-feature=+crt-static"
export RUSTFLAGS
build="cargo build --locked --profile $profile --bin mvm --target $target"
if [ -d "$(rustc --print target-libdir --target $target 2>/dev/null)" ] &&
    { [ "$(uname -m)" = $arch ] || command -v $arch-linux-gnu-gcc >/dev/null; }; then
    echo "building $target with $(rustc --version)" >&2
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$([ "$(uname -m)" = aarch64 ] && echo cc || echo aarch64-linux-gnu-gcc) \
        $build >&2
    made=target
else
    echo "building $target with Debian 13's compiler" >&2
    "$here/debian13.sh" $build >&2
    made=target/debian13
fi
case $profile in dev) folder=debug ;; *) folder=$profile ;; esac
echo "$PWD/$made/$target/$folder/mvm"
