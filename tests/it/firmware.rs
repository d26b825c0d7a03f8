//! UEFI that starts signed software only.

use std::time::Duration;

use crate::env::{TestEnv, eventually};

const SECURE_BOOT: &str =
    "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

#[test]
fn a_guest_knows_that_it_was_booted_securely() {
    let Some(env) = TestEnv::with_secure_boot("safe") else {
        return;
    };
    env.mvm("start safe").exits(0);
    eventually("it is up", Duration::from_secs(400), || {
        env.mvm("wait safe --for agent --timeout 100s").code == 0
    });
    let script = format!(
        "modprobe efivarfs; mount -t efivarfs efivarfs /sys/firmware/efi/efivars; \
         od -An -v -tu1 {SECURE_BOOT}; cat /sys/class/tpm/tpm0/pcr-sha256/7"
    );
    let ran = env
        .run(&["exec", "safe", "--", "sh", "-c", &script])
        .exits(0);
    let mut lines = ran.stdout.lines();
    // Four bytes of attributes, then the value.
    let variable: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(variable.last(), Some(&"1"), "{}", ran.stdout);
    // The firmware has measured its keys into the TPM.
    let measured = lines.next().unwrap_or_default().trim();
    assert_eq!(measured.len(), 64, "{}", ran.stdout);
    assert!(measured.bytes().any(|byte| byte != b'0'), "{measured}");
    env.mvm("stop safe --timeout 60s").exits(0);
}
