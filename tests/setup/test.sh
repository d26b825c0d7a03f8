#!/bin/sh
# All tests: with the machine's QEMU, then those with guests once more with QEMU 10 (where it is
# unpacked already, or MVM_TEST_QEMU10=1 or CI=true ask for it; MVM_TEST_QEMU10=0 leaves it out).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
begin=$(date +%s)
step() { printf '=== %s (after %s s)\n' "$1" $(($(date +%s) - begin)); }

# packages.sh was there: a test that lacks something fails, rather than passing as skipped.
export MVM_TEST_ALL=1
step "test guests"
tests/guest/make.sh all

# nextest ends a hanging test and runs the slow ones beside each other; cargo's own runner will do.
if cargo nextest --version >/dev/null 2>&1; then
    run() { cargo nextest run --locked --no-fail-fast "$@"; }
    run_all() { run --workspace; }
    run_lab() { run --test lab --ignore-default-filter -E 'test(/(^|::)ci_/)'; }
    run_live() { run --lib -E 'test(/(^|::)live::/)'; }
else
    run() { cargo test --locked --no-fail-fast "$@"; }
    run_all() { run --workspace --lib --bins --test it && run -p mvm-qmp; }
    run_lab() { run --test lab -- ci_; }
    run_live() { run --lib -- live::; }
fi

step "build"
cargo test --locked --workspace --no-run
step "all tests, $(qemu-system-x86_64 --version | head -n 1)"
status=0
run_all || status=1
if [ "$(uname -m)" = x86_64 ]; then
    step "emulated hosts (make lab runs more of them)"
    tests/lab/make.sh x86_64
    run_lab || status=1
fi

case ${MVM_TEST_QEMU10:-} in
0) qemu10= ;;
1) qemu10=$($here/qemu10.sh) ;;
*) if [ "${CI:-}" = true ]; then qemu10=$($here/qemu10.sh); else qemu10=$($here/qemu10.sh --present || :); fi ;;
esac
if [ -n "$qemu10" ]; then
    eval "$qemu10"
    # Debian 13's own QEMU is 10: that was the first run.
    if [ "$MVM_QEMU_X86_64" != "$(command -v qemu-system-x86_64)" ]; then
        step "tests with guests, $("$MVM_QEMU_X86_64" --version | head -n 1)"
        run_live || status=1
        run --test it || status=1
        run -p mvm-qmp || status=1
    fi
fi
[ $status = 0 ] && step "done" || step "failed"
exit $status
