//! Findings about giving devices to guests: the IOMMU and VFIO.

use super::{Finding, Level, finding};
use crate::host::devices::{BootLoader, CpuVendor, IommuFacts};
use crate::host::facts::HostFacts;
use crate::host::os::OsRelease;

/// Nothing where the host has no PCI devices at all: there is nothing to give.
pub(super) fn all(facts: &HostFacts) -> Vec<Finding> {
    let devices = &facts.devices;
    if devices.pci.is_empty() {
        return Vec::new();
    }
    if !devices.iommu.on {
        let text = "the IOMMU is off or missing: no PCI device can be given to a guest";
        return vec![finding("iommu", Level::Info, text).fix(turn_on(&devices.iommu, &facts.os))];
    }
    let width = devices.iommu.width.map_or_else(String::new, |width| {
        format!(", guests with devices can have {width} bits of addresses")
    });
    let text = format!(
        "IOMMU on: PCI devices are in {} groups{width}",
        devices.iommu.groups.len()
    );
    let mut all = vec![finding("iommu", Level::Ok, text)];
    all.push(vfio(facts));
    all
}

fn vfio(facts: &HostFacts) -> Finding {
    let vfio = &facts.devices.vfio;
    match vfio.pci_available {
        Some(false) => {
            let text = "this kernel has no vfio-pci: no PCI device can be given to a guest";
            let fix =
                "install the kernel's package of further modules, or a kernel with CONFIG_VFIO_PCI";
            finding("vfio", Level::Info, text).fix(fix)
        }
        _ if !vfio.pci_driver => {
            let text = "vfio-pci is not loaded: mvm loads it when it runs as root";
            finding("vfio", Level::Info, text).fix("`sudo modprobe vfio-pci`")
        }
        _ if !vfio.container && !vfio.iommufd => {
            let text = "vfio-pci is loaded and /dev/vfio/vfio is missing";
            let fix = "`sudo modprobe vfio vfio_iommu_type1`; in a container, /dev/vfio has to be given to it";
            finding("vfio", Level::Warn, text).fix(fix)
        }
        _ => {
            let more = if vfio.iommufd { ", and iommufd" } else { "" };
            let text = format!("VFIO can give devices to guests{more}");
            finding("vfio", Level::Ok, text)
        }
    }
}

/// What turns the IOMMU on, on a host of that kind: in the firmware, by a parameter of the kernel, or
/// not at all.
pub fn turn_on(iommu: &IommuFacts, os: &OsRelease) -> String {
    let word = |wanted: &str| iommu.cmdline.split_whitespace().any(|word| word == wanted);
    let off = ["intel_iommu=off", "amd_iommu=off", "iommu=off"];
    if let Some(parameter) = off.into_iter().find(|parameter| word(parameter)) {
        return change(iommu.boot_loader, os, &format!("remove `{parameter}` from"));
    }
    match iommu.cpu_vendor {
        Some(CpuVendor::Intel) => {
            let on = iommu.cmdline.split_whitespace().any(|word| {
                let values = word.strip_prefix("intel_iommu=").unwrap_or_default();
                values.split(',').any(|value| value == "on")
            });
            if on {
                return "turn on VT-d in the firmware's setup, where the processor has it: the kernel was \
                        told `intel_iommu=on` and found none"
                    .to_owned();
            }
            let change = change(iommu.boot_loader, os, "add `intel_iommu=on` to");
            format!("turn on VT-d in the firmware's setup, and {change}")
        }
        Some(CpuVendor::Amd) => {
            "turn on the IOMMU (AMD-Vi) in the firmware's setup; the kernel needs no parameter".to_owned()
        }
        Some(CpuVendor::Arm) => {
            "the host needs an SMMU between its PCI devices and the memory, and firmware or a device tree that \
             tells the kernel of it; no parameter makes up for one"
                .to_owned()
        }
        None => "turn on the IOMMU (VT-d, AMD-Vi) in the firmware's setup".to_owned(),
    }
}

/// How the kernel's command line is changed with that boot loader.
fn change(loader: Option<BootLoader>, os: &OsRelease, what: &str) -> String {
    let how = match loader {
        Some(BootLoader::Grub) if os.is_like("fedora") || os.is_like("rhel") => {
            format!(
                "{what} GRUB_CMDLINE_LINUX in /etc/default/grub, then `sudo grub2-mkconfig -o /boot/grub2/grub.cfg`"
            )
        }
        Some(BootLoader::Grub) if os.is_like("debian") => {
            format!("{what} GRUB_CMDLINE_LINUX in /etc/default/grub, then `sudo update-grub`")
        }
        Some(BootLoader::Grub) => {
            format!(
                "{what} GRUB_CMDLINE_LINUX in /etc/default/grub, then `sudo grub-mkconfig -o /boot/grub/grub.cfg`"
            )
        }
        Some(BootLoader::SystemdBoot) => format!(
            "{what} the `options` line of the entry in loader/entries on the boot partition, and \
             /etc/kernel/cmdline where there is one"
        ),
        Some(BootLoader::Extlinux) => {
            format!("{what} the `append` line in /boot/extlinux/extlinux.conf")
        }
        Some(BootLoader::RaspberryPi) => format!("{what} the line in /boot/firmware/cmdline.txt"),
        None => format!("{what} the kernel's command line in the boot loader's configuration"),
    };
    format!("{how}; then restart the host")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iommu(vendor: CpuVendor, loader: Option<BootLoader>, cmdline: &str) -> IommuFacts {
        IommuFacts {
            cpu_vendor: Some(vendor),
            boot_loader: loader,
            cmdline: cmdline.to_owned(),
            ..IommuFacts::default()
        }
    }

    #[test]
    fn the_fix_is_for_this_processor_and_boot_loader() {
        let debian = OsRelease::parse("ID=ubuntu\nID_LIKE=debian\n");
        let fix = |vendor, loader, cmdline| turn_on(&iommu(vendor, loader, cmdline), &debian);
        for (vendor, loader, cmdline, words) in [
            (
                CpuVendor::Intel,
                Some(BootLoader::Grub),
                "quiet",
                "add `intel_iommu=on` to GRUB_CMDLINE_LINUX in /etc/default/grub, then `sudo update-grub`",
            ),
            (
                CpuVendor::Intel,
                Some(BootLoader::SystemdBoot),
                "",
                "loader/entries",
            ),
            (
                CpuVendor::Intel,
                Some(BootLoader::Grub),
                "intel_iommu=on,sm_on",
                "told `intel_iommu=on` and found none",
            ),
            (
                CpuVendor::Intel,
                None,
                "intel_iommu=igfx_off",
                "add `intel_iommu=on`",
            ),
            (CpuVendor::Amd, Some(BootLoader::Grub), "quiet", "AMD-Vi"),
            (
                CpuVendor::Amd,
                Some(BootLoader::Grub),
                "amd_iommu=off",
                "remove `amd_iommu=off` from GRUB_CMDLINE_LINUX",
            ),
            (CpuVendor::Arm, Some(BootLoader::Extlinux), "", "SMMU"),
        ] {
            let fix = fix(vendor, loader, cmdline);
            assert!(fix.contains(words), "{fix}");
        }
        let fedora = OsRelease::parse("ID=fedora\n");
        let fix = turn_on(
            &iommu(CpuVendor::Intel, Some(BootLoader::Grub), ""),
            &fedora,
        );
        assert!(fix.contains("grub2-mkconfig"), "{fix}");
    }
}
