#!/bin/sh
# Static binaries for both architectures: target/dist/mvm-x86_64 and target/dist/mvm-aarch64. The
# machine's own compiler is used where it has the target's standard library (and, for the other
# architecture, the cross linker is there), else Debian 13's (debian13.sh).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
mkdir -p target/dist
# Flags go to the target only, not to build scripts, since --target is given.
RUSTFLAGS="-C target-feature=+crt-static"
export RUSTFLAGS
for arch in x86_64 aarch64; do
    target=$arch-unknown-linux-gnu
    build="cargo build --locked --release --bin mvm --target $target"
    if [ -d "$(rustc --print target-libdir --target $target 2>/dev/null)" ] &&
        { [ "$(uname -m)" = $arch ] || command -v $arch-linux-gnu-gcc >/dev/null; }; then
        echo "building $target with $(rustc --version)"
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$([ "$(uname -m)" = aarch64 ] && echo cc || echo aarch64-linux-gnu-gcc) \
            $build
        made=target/$target/release/mvm
    else
        echo "building $target with Debian 13's compiler"
        "$here/debian13.sh" $build
        made=target/debian13/$target/release/mvm
    fi
    cp "$made" target/dist/mvm-$arch.new
    mv target/dist/mvm-$arch.new target/dist/mvm-$arch
done
ls -l target/dist
