//! The steps that take devices of the host.

use crate::handover::{ConsoleRef, Extent};
use crate::ids::PciRef;
use crate::machine::{HostDevice, HostDeviceKind, HostPci, Machine, VfSet};
use crate::plan::step::{Bound, Interface, Node, Owner, Step, User, VfNetState, VfioDevice};

/// What is taken together: with a start, or with a device that a running guest gets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// The devices.
    pub devices: &'a [HostDevice],
    /// The virtual functions that must exist for them.
    pub vfs: &'a [VfSet],
    /// What is taken beside them: the rest of an IOMMU group.
    pub companions: &'a [HostPci],
    /// The consoles that let go first.
    pub consoles: &'a [ConsoleRef],
    /// The user as whom QEMU runs, where that is another one.
    pub user: Option<u32>,
    /// Whether QEMU reaches VFIO through `/dev/iommu`.
    pub iommufd: bool,
}

impl<'a> Wanted<'a> {
    /// What a machine wants.
    pub fn of(machine: &'a Machine) -> Self {
        Self {
            devices: &machine.host_devices,
            vfs: &machine.vfs,
            companions: &machine.companions,
            consoles: &machine.detach_consoles,
            user: machine.run_as.as_ref().map(|user| user.uid),
            iommufd: machine.iommufd,
        }
    }
}

/// The guest as one that takes devices.
pub fn user(machine: &Machine) -> User {
    User {
        guest: machine.name.to_string(),
        run_dir: machine.run_dir.clone(),
    }
}

/// The steps, in an order in which each has what it needs, and in whose reverse each can be taken back:
/// leases, virtual functions, mediated devices, consoles, drivers, the nodes that drivers make, and at last
/// a look whether it works.
pub fn steps(wanted: &Wanted<'_>, user: &User) -> Vec<Step> {
    let mut steps = Vec::new();
    let lease = |of: Extent, device: String| Step::TakeLease {
        key: of.key,
        device,
        part_of: of.part_of,
        user: user.clone(),
    };
    for device in wanted.devices {
        let name = match &device.kind {
            HostDeviceKind::Pci(pci) => pci.function.to_string(),
            HostDeviceKind::Mdev(mdev) => format!("the mediated device {}", mdev.uuid),
            HostDeviceKind::Usb(usb) => format!("the USB device at {}", usb.port),
        };
        steps.push(lease(device.kind.extent(), name));
    }
    for companion in wanted.companions {
        let function = companion.function;
        steps.push(lease(Extent::pci(function), function.to_string()));
    }
    for set in wanted.vfs {
        steps.push(Step::MakeVfs {
            pf: set.pf,
            count: set.count,
            user: user.clone(),
            keep: set.keep,
            provision: set.provision.clone(),
        });
        steps.extend(set.net.iter().map(|net| Step::SetVfNet {
            pf: set.pf,
            index: net.index,
            to: VfNetState::wanted(net.mac.clone(), net.vlan),
            from: VfNetState::default(),
        }));
    }
    let mut vfio = Vec::new();
    for device in wanted.devices {
        let HostDeviceKind::Mdev(mdev) = &device.kind else {
            continue;
        };
        if let (true, Some(type_id)) = (mdev.create, &mdev.type_id) {
            steps.push(Step::MakeMdev {
                parent: mdev.parent.clone(),
                type_id: type_id.clone(),
                uuid: mdev.uuid,
                keep: mdev.keep,
            });
        }
        vfio.push(VfioDevice::Mdev(mdev.uuid));
    }
    steps.extend(wanted.consoles.iter().map(|console| Step::DetachConsole {
        console: console.clone(),
        user: user.clone(),
    }));
    for device in wanted.devices {
        match &device.kind {
            HostDeviceKind::Pci(pci) => {
                steps.push(bind(pci.function, &pci.driver, pci.had.clone()));
                vfio.push(VfioDevice::Pci(pci.function));
            }
            HostDeviceKind::Usb(usb) => steps.push(Step::TakeUsb {
                port: usb.port.clone(),
                interfaces: usb
                    .interfaces
                    .iter()
                    .map(|(name, driver)| Interface {
                        name: name.clone(),
                        driver: driver.clone(),
                    })
                    .collect(),
            }),
            HostDeviceKind::Mdev(_) => {}
        }
    }
    for companion in wanted.companions {
        steps.push(bind(
            companion.function,
            &companion.driver,
            companion.had.clone(),
        ));
    }
    if let Some(uid) = wanted.user {
        let devices = wanted.devices.iter();
        steps.extend(devices.map(|device| give_node(device, uid, wanted.iommufd)));
    }
    if !vfio.is_empty() {
        steps.push(Step::ConfirmVfio { devices: vfio });
    }
    steps
}

/// The step that gives a device's node to the user as whom QEMU runs.
pub fn give_node(device: &HostDevice, uid: u32, iommufd: bool) -> Step {
    Step::GiveNode {
        node: node(device, iommufd),
        to: Owner::alone(uid),
        from: None,
    }
}

/// The node by which QEMU opens a device.
fn node(device: &HostDevice, iommufd: bool) -> Node {
    let vfio = match &device.kind {
        HostDeviceKind::Pci(pci) => VfioDevice::Pci(pci.function),
        HostDeviceKind::Mdev(mdev) => VfioDevice::Mdev(mdev.uuid),
        HostDeviceKind::Usb(usb) => {
            return Node::Usb {
                port: usb.port.clone(),
                name: format!("{}-{}", usb.bus, usb.hostport),
            };
        }
    };
    if iommufd {
        Node::Own(vfio)
    } else {
        Node::Group(vfio)
    }
}

fn bind(device: PciRef, driver: &str, had: Option<String>) -> Step {
    Step::BindDriver {
        device,
        driver: driver.to_owned(),
        from: Bound {
            driver: had,
            ..Bound::default()
        },
    }
}
