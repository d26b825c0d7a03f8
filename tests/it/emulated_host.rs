//! A host whose KVM works, emulated where the machine's own may not: a guest with a processor that can
//! virtualise, in which this machine's programs run (its root directory is shared over 9p).

use std::time::Duration;

use crate::env::{TestEnv, has_program};
use crate::shell::{Shell, images};

#[test]
#[cfg(target_arch = "x86_64")]
fn qemu_a_kvm_that_works_is_found_healthy_and_chosen() {
    if !has_program("qemu-system-x86_64") {
        return;
    }
    let env = TestEnv::new();
    let from = images("x86_64-full");
    let file = |name: &str| from.join(name).display().to_string();
    env.run(&[
        "start",
        "linux",
        "--name",
        "host",
        "--kernel",
        &file("vmlinux"),
        "--initrd",
        &file("initrd"),
        "--append",
        "console=ttyS0 quiet no_timer_check mitigations=off",
        "--set",
        "machine.accel=tcg",
        "--set",
        "cpu.model=EPYC",
        "--set",
        "share.root={ path = \"/\", read-only = true, security-model = \"none\" }",
    ])
    .exits(0);
    let mut shell = Shell::open(&env.path("run/host/console-main.sock"));
    shell.run("modprobe kvm_amd");
    // Cached: programs are read again and again.
    shell.run("modprobe -a 9p 9pnet_virtio; mkdir /mnt/root; mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=512000 root /mnt/root");
    shell.run("for d in dev proc sys; do mount -o bind /$d /mnt/root/$d; done");
    // mvm's own folders: nothing of the machine's is used.
    shell.run("mount -t tmpfs tmp /mnt/root/mnt");
    let mvm = format!(
        "chroot /mnt/root env -i HOME=/mnt PATH=/usr/bin:/bin MVM_CONFIG_DIR=/mnt/config \
         MVM_STATE_DIR=/mnt/state MVM_RUNTIME_DIR=/mnt/run MVM_CACHE_DIR=/mnt/cache {} {} {}",
        std::env::var("MVM_QEMU_X86_64")
            .map(|path| format!("MVM_QEMU_X86_64={path}"))
            .unwrap_or_default(),
        env!("CARGO_BIN_EXE_mvm"),
        "run linux --kernel /proc/version --set boot.initrd= --dry-run --format json"
    );
    // On a busy machine the emulated QEMU is slow to load the first time, and mvm waits for it in vain;
    // and the emulated processor may stand still while the probe runs, whose answer is then thrown away.
    let ask = format!(
        "for i in 1 2 3 4; do {mvm} >/plan && grep -q '\"chosen\": \"kvm\"' /plan && break; \
         rm -f /mnt/root/mnt/cache/kvm.json; done; \
         grep -A 2 '\"accel\": {{' /plan | head -n 3"
    );
    let (said, _) = shell
        .try_run(&ask, Duration::from_secs(180))
        .expect("mvm comes to an end");
    assert!(
        said.contains("\"chosen\": \"kvm\"") && said.contains("as long as natively"),
        "{said}"
    );
    env.mvm("kill host").exits(0);
}
