//! Findings about giving devices to guests: the IOMMU and VFIO.

use super::{Finding, Level, finding};
use crate::host::facts::HostFacts;

/// Nothing where the host has no PCI devices at all: there is nothing to give.
pub(super) fn all(facts: &HostFacts) -> Vec<Finding> {
    let devices = &facts.devices;
    let mut all = leases(facts);
    if devices.pci.is_empty() {
        return all;
    }
    if !devices.iommu.on {
        let text = "the IOMMU is off or missing: no PCI device can be given to a guest";
        all.push(finding("iommu", Level::Info, text).fix(devices.iommu.advice().join("; ")));
        return all;
    }
    let width = devices.iommu.width.map_or_else(String::new, |width| {
        format!(", guests with devices can have {width} bits of addresses")
    });
    let text = format!(
        "IOMMU on: PCI devices are in {} groups{width}",
        devices.iommu.groups.len()
    );
    all.push(finding("iommu", Level::Ok, text));
    all.push(vfio(facts));
    all
}

/// What keeps devices from everybody without a guest that has them.
fn leases(facts: &HostFacts) -> Vec<Finding> {
    let damaged = facts.devices.leases.iter().filter_map(|lease| {
        let path = lease.damaged.as_ref()?.display();
        let owner = lease.owner.as_ref();
        let owner = owner.map_or_else(String::new, |owner| format!(", which is {owner}'s,"));
        let what = lease.shown();
        let text = format!("the lease {path}{owner} cannot be read: {what} counts as taken");
        let fix = "`sudo mvm recover` removes it when nobody has the device open";
        Some(finding("lease", Level::Warn, text).fix(fix))
    });
    damaged.collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::devices::Lease;
    use crate::host::testing::roots;
    use crate::host::{DeviceFacts, Needs};
    use crate::hosts::Host;

    /// The findings of a host, as lines.
    fn of(name: &str, change: impl Fn(&mut DeviceFacts)) -> String {
        let host = Host::new(name);
        let needs = Needs {
            devices: true,
            ..Needs::default()
        };
        let mut facts = HostFacts::read(&roots(host.root()), &needs);
        change(&mut facts.devices);
        let lines = all(&facts).into_iter().map(|finding| {
            let fix = finding
                .fix
                .map_or_else(String::new, |fix| format!(" | {fix}"));
            format!("{:?} {}: {}{fix}", finding.level, finding.id, finding.text)
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_giving_devices_takes() {
        let hosts = [
            of("intel-i915-7vf", |_| ()),
            of("no-iommu", |_| ()),
            of("no-iommu-amd", |_| ()),
            of("arm-smmu", |facts| facts.vfio.pci_available = Some(false)),
            of("arc", |facts| facts.vfio.pci_driver = false),
            of("arc", |facts| {
                facts.vfio.container = false;
                facts.vfio.iommufd = false;
            }),
            of("arc", |facts| {
                facts.pci.clear();
                facts.leases.push(Lease {
                    key: "usb-1-3".to_owned(),
                    damaged: Some("/run/mvm-host/leases/usb-1-3".into()),
                    ..Lease::default()
                });
            }),
        ];
        insta::assert_snapshot!(hosts.join("\n"), @r#"
        Ok iommu: IOMMU on: PCI devices are in 15 groups, guests with devices can have 39 bits of addresses
        Ok vfio: VFIO can give devices to guests, and iommufd
        Info iommu: the IOMMU is off or missing: no PCI device can be given to a guest | add `intel_iommu=on` to the kernel's parameters (GRUB_CMDLINE_LINUX in /etc/default/grub, then `update-grub` or `grub2-mkconfig -o /boot/grub2/grub.cfg`), then reboot; VT-d has to be on in the firmware's set-up
        Info iommu: the IOMMU is off or missing: no PCI device can be given to a guest | turn IOMMU (also AMD-Vi or SVM) on in the firmware's set-up: the kernel needs no parameter
        Ok iommu: IOMMU on: PCI devices are in 6 groups
        Info vfio: this kernel has no vfio-pci: no PCI device can be given to a guest | install the kernel's package of further modules, or a kernel with CONFIG_VFIO_PCI
        Ok iommu: IOMMU on: PCI devices are in 13 groups, guests with devices can have 39 bits of addresses
        Info vfio: vfio-pci is not loaded: mvm loads it when it runs as root | `sudo modprobe vfio-pci`
        Ok iommu: IOMMU on: PCI devices are in 13 groups, guests with devices can have 39 bits of addresses
        Warn vfio: vfio-pci is loaded and /dev/vfio/vfio is missing | `sudo modprobe vfio vfio_iommu_type1`; in a container, /dev/vfio has to be given to it
        Warn lease: the lease /run/mvm-host/leases/usb-1-3 cannot be read: usb 1-3 counts as taken | `sudo mvm recover` removes it when nobody has the device open
        "#);
    }
}
