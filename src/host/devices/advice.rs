//! What to do about a missing IOMMU.

use super::iommu::{BootLoader, CpuVendor, IommuFacts};

/// Parameters that turn it off.
const OFF: [&str; 3] = ["iommu=off", "intel_iommu=off", "amd_iommu=off"];

impl IommuFacts {
    /// What turns the IOMMU on, on this processor and with this boot loader, one sentence each.
    pub fn advice(&self) -> Vec<String> {
        let place = place(self.boot_loader);
        let words = || self.cmdline.split_whitespace();
        if let Some(off) = words().find(|word| OFF.contains(word)) {
            return vec![format!(
                "take `{off}` from the kernel's parameters{place}, then reboot"
            )];
        }
        match self.cpu_vendor {
            Some(CpuVendor::Intel) => {
                let mut values = words().filter_map(|word| word.strip_prefix("intel_iommu="));
                if values.any(|values| values.split(',').any(|value| value == "on")) {
                    return vec![
                        "the kernel was started with `intel_iommu=on` and found none: turn VT-d on in the \
                         firmware's set-up"
                            .to_owned(),
                    ];
                }
                vec![
                    format!("add `intel_iommu=on` to the kernel's parameters{place}, then reboot"),
                    "VT-d has to be on in the firmware's set-up".to_owned(),
                ]
            }
            // On by default wherever the firmware describes it.
            Some(CpuVendor::Amd) => vec![
                "turn IOMMU (also AMD-Vi or SVM) on in the firmware's set-up: the kernel needs no parameter"
                    .to_owned(),
            ],
            Some(CpuVendor::Arm) | None => vec![
                "the IOMMU (SMMU) has to be in the hardware, and described by its firmware or device tree"
                    .to_owned(),
            ],
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_for_this_processor_and_boot_loader() {
        use BootLoader::*;
        use CpuVendor::*;
        for (vendor, loader, cmdline, words) in [
            (
                Intel,
                Some(Grub),
                "quiet",
                "add `intel_iommu=on` to the kernel's parameters (GRUB_CMDLINE_LINUX",
            ),
            (Intel, Some(SystemdBoot), "", "/boot/loader/entries"),
            (
                Intel,
                Some(Grub),
                "intel_iommu=on,sm_on",
                "with `intel_iommu=on` and found none",
            ),
            (Intel, None, "intel_iommu=igfx_off", "add `intel_iommu=on`"),
            (Intel, None, "quiet iommu=off", "take `iommu=off`"),
            (Amd, Some(Grub), "quiet", "AMD-Vi"),
            (
                Amd,
                Some(Extlinux),
                "amd_iommu=off",
                "take `amd_iommu=off` from the kernel's parameters (the `append` line",
            ),
            (Arm, Some(RaspberryPi), "", "SMMU"),
        ] {
            let iommu = IommuFacts {
                cpu_vendor: Some(vendor),
                boot_loader: loader,
                cmdline: cmdline.to_owned(),
                ..IommuFacts::default()
            };
            let advice = iommu.advice().join("; ");
            assert!(advice.contains(words), "{advice}");
        }
    }
}
