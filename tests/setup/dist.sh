#!/bin/sh
# Static binaries for both architectures: target/dist/mvm-x86_64 and target/dist/mvm-aarch64.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
mkdir -p target/dist
for arch in x86_64 aarch64; do
    made=$("$here/static.sh" $arch release)
    cp "$made" target/dist/mvm-$arch.new
    mv target/dist/mvm-$arch.new target/dist/mvm-$arch
done
ls -l target/dist
