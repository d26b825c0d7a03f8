use super::super::testing::facts;
use super::super::{AccelKind, Firmware, Iommu};
use super::{error, machine, machine_on, message};
use crate::error::ExitCode;
use crate::host::KvmState;
use crate::host::qemu::{Names, Properties, PropertyKind};
use crate::profile::schema::Irqchip;

fn flash(text: &str) -> (String, String, bool) {
    match machine(text).unwrap().firmware {
        Firmware::Flash {
            code,
            vars: Some(vars),
            smm,
            ..
        } => (
            code.display().to_string(),
            vars.path.display().to_string(),
            smm,
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn secure_boot_takes_enrolled_keys_and_what_guards_them() {
    let (code, vars, smm) = flash("firmware.secure-boot = true");
    assert!(code.ends_with("OVMF_CODE_4M.secboot.fd"), "{code}");
    assert!(vars.ends_with("nvram.fd") && smm);
    let (code, _, smm) = flash("firmware.type = \"uefi\"\nfirmware.secure-boot = false");
    assert!(code.ends_with("OVMF_CODE_4M.fd") && !smm, "{code}");
    let own = "firmware = { file = \"c.fd\", nvram-template = \"v.fd\"";
    assert!(flash(&format!("{own}, secure-boot = true }}")).2);
    assert!(flash(&format!("{own}, smm = true }}")).2);
    assert!(!flash(&format!("{own}, secure-boot = true, smm = false }}")).2);
    assert!(!flash(&format!("{own} }}")).2);
    let (_, vars, _) = flash(&format!("{own}, nvram = \"/srv/v.fd\" }}"));
    assert_eq!(vars, "/srv/v.fd");
    for (text, says) in [
        (
            "firmware = { type = \"bios\", secure-boot = true }",
            "is for `firmware.type",
        ),
        ("firmware.smm = true", "belongs to `firmware.file`"),
        (
            "firmware = { type = \"uefi\", file = \"c.fd\", secure-boot = true }",
            "nvram-template",
        ),
        ("firmware.nvram = \"/srv/v.fd\"", "keeps no variables"),
        (
            "firmware = { type = \"uefi\", nvram = \"v.fd\" }",
            "not an absolute path",
        ),
        (
            "machine.type = \"pc\"\nfirmware = { file = \"c.fd\", nvram-template = \"v.fd\", smm = true }",
            "no System Management Mode",
        ),
        (
            "machine.type = \"pc\"\nfirmware.secure-boot = true",
            "not for pc-i440fx",
        ),
        ("boot.menu-timeout = \"70s\"", "65 s"),
    ] {
        assert!(message(text).contains(says), "{text}: {}", message(text));
    }
}

#[test]
fn an_iommu_fits_its_board() {
    let intel = |text: &str| match machine(&format!("iommu.model = \"intel\"\n{text}"))
        .unwrap()
        .board
        .iommu
    {
        Some(Iommu::Intel(intel)) => intel,
        other => panic!("{other:?}"),
    };
    assert!(!intel("").caching_mode);
    assert_eq!(intel("iommu.aw-bits = 48").aw_bits, Some(48));
    let arm = "machine.arch = \"aarch64\"\nboot.kernel = \"k\"\n";
    let smmu = machine(&format!("{arm}iommu.model = \"smmuv3\"")).unwrap();
    assert_eq!(smmu.board.iommu, Some(Iommu::Smmuv3));
    assert!(smmu.board.translates());
    for (text, says) in [
        ("iommu.model = \"smmuv3\"", "for the board virt"),
        (
            "machine.type = \"pc\"\niommu.model = \"intel\"",
            "for the board q35",
        ),
        (
            "iommu = { model = \"virtio\", aw-bits = 39 }",
            "is for `iommu.model = \"intel\"`",
        ),
        ("iommu = { model = \"intel\", aw-bits = 40 }", "39 and 48"),
    ] {
        assert!(message(text).contains(says), "{text}: {}", message(text));
        assert_eq!(error(text).code, ExitCode::Profile);
    }
    // Under KVM interrupts are translated by QEMU's half of the controllers.
    let mut facts = facts();
    facts.kvm.state = KvmState::Healthy;
    let remap = "iommu = { model = \"intel\", interrupt-remapping = true }\n";
    let split = machine_on(remap, &facts).unwrap();
    assert_eq!(split.accel.chosen, AccelKind::Kvm);
    assert_eq!(split.board.irqchip, Some(Irqchip::Split));
    let kernel = format!("{remap}machine.irqchip = \"kernel\"");
    assert!(machine_on(&kernel, &facts).is_err());
}

#[test]
fn properties_are_what_this_qemu_says_they_are() {
    let mut caps = super::super::testing::caps(crate::ids::Arch::X86_64);
    let names = |names: &[&str]| names.iter().copied().collect::<Names>();
    let known = Properties(
        [
            (PropertyKind::Bool, names(&["write-cache-is", "share-rw"])),
            (PropertyKind::Unsigned, names(&["queue-size"])),
            (PropertyKind::Text, names(&["serial", "iommu_platform"])),
        ]
        .into(),
    );
    caps.properties.insert("virtio-blk-pci".into(), known);
    let settled = |text: &str| {
        let text = format!("[disk.a]\nfile.path = \"a\"\n[override.a]\n{text}");
        let mut machine = machine(&text).unwrap();
        let drivers = crate::qemu::device_types(&crate::qemu::command_line(&machine));
        let done = machine.settle_overrides(&drivers, &caps);
        done.map(|()| serde_json::to_string(&machine.overrides["a"]).unwrap())
            .map_err(|error| error.to_string())
    };
    for (text, value) in [
        ("share-rw = true", "{\"share-rw\":true}"),
        ("share-rw = \"on\"", "{\"share-rw\":true}"),
        ("queue-size = \"0x40\"", "{\"queue-size\":64}"),
        ("iommu_platform = true", "{\"iommu_platform\":\"on\"}"),
        ("serial = 7", "{\"serial\":\"7\"}"),
    ] {
        assert_eq!(settled(text).as_deref(), Ok(value), "{text}");
    }
    assert!(
        settled("queue-size = -1")
            .unwrap_err()
            .contains("0 or more")
    );
    assert!(
        settled("share-rw = \"maybe\"")
            .unwrap_err()
            .contains("`true` or `false`")
    );
    assert!(
        settled("shared-rw = true")
            .unwrap_err()
            .contains("virtio-blk-pci has no such")
    );
    assert!(message("env.\"1A\" = \"x\"").contains("not a name"));
    assert!(message("env.NOTIFY_SOCKET = \"x\"").contains("NOTIFY_SOCKET"));
}
