#!/bin/sh
# The lab: all tests in emulated hosts (tests/lab), with what they need. Words are names of tests: only
# those that hold one of them run.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
begin=$(date +%s)
step() { printf '=== %s (after %s s)\n' "$1" $(($(date +%s) - begin)); }
export MVM_TEST_ALL=1

step "test guests"
tests/guest/make.sh x86_64
tests/guest/make.sh x86_64-full
tests/guest/make.sh aarch64
step "hosts"
tests/lab/make.sh x86_64
tests/lab/make.sh aarch64
tests/lab/make.sh iommufd
"$here/qemu10.sh" >/dev/null
step "build"
cargo test --locked --test lab --no-run
# What the Arm host runs.
"$here/static.sh" aarch64 dev
step "tests"
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --test lab --ignore-default-filter --no-fail-fast "$@"
else
    cargo test --locked --test lab -- "$@"
fi
step "done"
