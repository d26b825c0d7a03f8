//! What to do about a missing IOMMU.

use crate::host::devices::{BootLoader, CpuVendor, IommuFacts};

/// What turns the IOMMU on, one sentence each.
pub(super) fn advice(iommu: &IommuFacts) -> Vec<String> {
    let (parameter, setting) = match iommu.cpu_vendor {
        Some(CpuVendor::Intel) => (Some("intel_iommu=on"), "VT-d"),
        // On by default wherever the firmware describes it.
        Some(CpuVendor::Amd) => (None, "IOMMU (also AMD-Vi or SVM)"),
        Some(CpuVendor::Arm) | None => (None, "the IOMMU (SMMU)"),
    };
    let said = |parameter: &str| {
        iommu
            .cmdline
            .split_whitespace()
            .any(|word| word == parameter || word.starts_with(&format!("{parameter},")))
    };
    let off = iommu.cmdline.split_whitespace().find(|word| {
        matches!(
            *word,
            "iommu=off" | "intel_iommu=off" | "amd_iommu=off" | "arm-smmu.disable_bypass=0"
        )
    });
    if let Some(off) = off {
        let place = place(iommu.boot_loader);
        return vec![format!(
            "take `{off}` from the kernel's parameters{place}, then reboot"
        )];
    }
    match parameter {
        Some(parameter) if !said(parameter) => vec![
            format!(
                "add `{parameter}` to the kernel's parameters{}, then reboot",
                place(iommu.boot_loader)
            ),
            format!("{setting} has to be on in the firmware's set-up"),
        ],
        Some(parameter) => vec![format!(
            "the kernel was started with `{parameter}` and found none: turn {setting} on in the firmware's set-up"
        )],
        None if matches!(iommu.cpu_vendor, Some(CpuVendor::Amd)) => {
            vec![format!(
                "turn {setting} on in the firmware's set-up: the kernel needs no parameter"
            )]
        }
        None => vec![format!(
            "{setting} has to be in the hardware, and described by its firmware or device tree"
        )],
    }
}

/// Where that boot loader has the kernel's parameters.
fn place(loader: Option<BootLoader>) -> &'static str {
    match loader {
        Some(BootLoader::Grub) => {
            " (GRUB_CMDLINE_LINUX in /etc/default/grub, then `update-grub` or `grub2-mkconfig -o /boot/grub2/grub.cfg`)"
        }
        Some(BootLoader::SystemdBoot) => {
            " (/etc/kernel/cmdline, or the `options` line in /boot/loader/entries)"
        }
        Some(BootLoader::Extlinux) => " (the `append` line in /boot/extlinux/extlinux.conf)",
        Some(BootLoader::RaspberryPi) => " (/boot/firmware/cmdline.txt)",
        None => "",
    }
}
