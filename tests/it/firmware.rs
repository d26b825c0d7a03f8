//! What UEFI tells its guests, and UEFI that starts signed software only.

use std::time::Duration;

use crate::env::{TestEnv, eventually, has_program};
use crate::shell::images;

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

/// What UEFI tells an Arm guest: SMBIOS, the SMMU and its groups, the TPM.
#[test]
fn an_arm_guest_finds_its_board_its_smmu_and_its_tpm() {
    if !["qemu-system-aarch64", "swtpm"]
        .iter()
        .all(|program| has_program(program))
    {
        return;
    }
    let env = TestEnv::new();
    let from = images("aarch64");
    env.write(
        "config/machines/arm.toml",
        format!(
            "extends = ['base']\n[machine]\narch = 'aarch64'\ntype = 'virt'\n[memory]\nsize = '512M'\n\
             [firmware]\ntype = 'uefi'\n\
             [boot]\nkernel = '{from}/kernel'\ninitrd = '{from}/initrd'\nappend = 'console=ttyAMA0 quiet'\n\
             [agent]\nenabled = true\n[iommu]\nmodel = 'smmuv3'\n[tpm]\nemulator = {{}}\n\
             [network.lan]\nuser = {{}}\niommu = true\n\
             [smbios.system]\nmanufacturer = 'Field Works'\nproduct = 'Board 7'\nserial = 'FW-7'\n\
             [smbios.baseboard]\nproduct = 'Carrier'\n",
            from = from.display()
        ),
    );
    let inside = |script: &str| {
        let ran = env.run(&["exec", "arm", "--", "sh", "-c", script]).exits(0);
        ran.stdout.trim().to_owned()
    };
    env.mvm("start arm").exits(0);
    eventually("it is up", Duration::from_secs(400), || {
        env.mvm("wait arm --for agent --timeout 100s").code == 0
    });
    assert_eq!(
        inside("cd /sys/class/dmi/id; cat sys_vendor product_name product_serial board_name"),
        "Field Works\nBoard 7\nFW-7\nCarrier"
    );
    // The card has a group of its own, behind its port.
    let groups = inside(
        "card=$(basename $(dirname $(readlink -f /sys/class/net/eth0/device))); \
         ls -d /sys/kernel/iommu_groups/*/devices/$card && ls $(readlink -f /sys/bus/pci/devices/$card/iommu_group)/devices",
    );
    assert_eq!(groups.lines().count(), 2, "{groups}");
    let ask = |bytes: &str| {
        inside(&format!(
            "modprobe tpm_tis; exec 3<>/dev/tpm0; printf '{bytes}' >&3; \
             dd bs=4096 count=1 <&3 2>/dev/null | od -An -v -tx1 | tr -d ' \\n'"
        ))
    };
    // Random numbers: what it answers is not all the same.
    let random = || ask("\\x80\\x01\\x00\\x00\\x00\\x0c\\x00\\x00\\x01\\x7b\\x00\\x08");
    let first = random();
    assert!(first.starts_with("800100000014000000000008"), "{first}");
    assert_ne!(first, random());
    let measured = inside("cat /sys/class/tpm/tpm0/pcr-sha256/0");
    assert!(measured.bytes().any(|byte| byte != b'0'), "{measured}");
    env.mvm("stop arm --timeout 60s").exits(0);
}
