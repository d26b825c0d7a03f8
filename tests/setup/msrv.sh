#!/bin/sh
# Does mvm still build with the oldest compiler that it promises, for both architectures? Debian 13's
# own rustc is that compiler (rust-version in Cargo.toml).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
"$here/debian13.sh" rustc --version
"$here/debian13.sh" cargo check --locked --workspace --all-targets
"$here/debian13.sh" cargo check --locked --workspace --target aarch64-unknown-linux-gnu
