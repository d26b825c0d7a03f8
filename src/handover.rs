//! What the machine, the steps and the host's own files say about devices that change hands: plain data.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{MacAddr, PciRef, UsbPort};
use crate::units::Size;

/// A console of the host that holds a GPU and is let go before the GPU is taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsoleRef {
    /// A console of `/sys/class/vtconsole` that is bound: `vtcon1`.
    Vt(String),
    /// A device of the platform bus with a frame buffer that the firmware set up.
    Platform {
        /// The device: `efi-framebuffer.0`.
        device: String,
        /// The driver that holds it: `efi-framebuffer`, `simple-framebuffer`.
        driver: String,
    },
}

impl ConsoleRef {
    /// The kernel's name of it.
    pub fn name(&self) -> &str {
        match self {
            Self::Vt(name) | Self::Platform { device: name, .. } => name,
        }
    }
}

impl fmt::Display for ConsoleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What each virtual function of a GPU gets of it. What is not said the driver's own provisioning decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Provision {
    /// The time slice of each virtual function, in milliseconds.
    pub exec_quantum_ms: Option<u32>,
    /// How long work that is to make room may go on, in microseconds.
    pub preempt_timeout_us: Option<u32>,
    /// The GPU's address space of each.
    pub ggtt_quota: Option<Size>,
    /// The GPU's own memory of each.
    pub lmem_quota: Option<Size>,
    /// The contexts of each.
    pub contexts_quota: Option<u32>,
    /// The doorbells of each.
    pub doorbells_quota: Option<u32>,
    /// What stays with the physical function of its address space.
    pub ggtt_spare: Option<Size>,
    /// What stays of its contexts.
    pub contexts_spare: Option<u32>,
    /// What stays of its doorbells.
    pub doorbells_spare: Option<u32>,
}

/// The network side of a virtual function of a network card.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VfNet {
    /// The virtual function, 1 first.
    pub index: u32,
    /// Its address.
    pub mac: Option<MacAddr>,
    /// Its VLAN, 1 to 4094.
    pub vlan: Option<u16>,
}

/// Which device a lease is of, as far as it matters to other leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The lease's name: `pci-0000:01:00.0`, `pci-0000:01:00.0-vf1`, `mdev-UUID`, `usb-1-3.2`.
    pub key: String,
    /// The PCI function that it comes and goes with: a USB device's controller, what a mediated device is
    /// made of. That a virtual function belongs to its physical one its name says.
    pub part_of: Option<PciRef>,
}

impl Extent {
    /// A PCI function's.
    pub fn pci(function: PciRef) -> Self {
        Self {
            key: function.key(),
            part_of: None,
        }
    }

    /// A USB device's, by its port and its controller.
    pub fn usb(port: &UsbPort, controller: Option<PciRef>) -> Self {
        Self {
            key: port.key(),
            part_of: controller,
        }
    }

    /// A mediated device's, by the function that it is made of, where that is one.
    pub fn mdev(uuid: Uuid, parent: Option<PciRef>) -> Self {
        Self {
            key: format!("mdev-{uuid}"),
            part_of: parent,
        }
    }

    /// Whether two guests cannot have the two: they are one device, or one is a part of the other.
    pub fn excludes(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    fn covers(&self, other: &Self) -> bool {
        let Some(this) = PciRef::from_key(&self.key) else {
            return self.key == other.key;
        };
        let named = [PciRef::from_key(&other.key), other.part_of];
        let mut wholes = named.into_iter().flatten();
        wholes.any(|whole| this == whole || this == PciRef::Function(whole.physical()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(key: &str, part_of: &str) -> Extent {
        let key = key.to_owned();
        let part_of = part_of.parse().ok();
        Extent { key, part_of }
    }

    #[test]
    fn a_part_and_its_whole_are_no_two_guests() {
        let pf = extent("pci-0000:01:00.0", "");
        let vf = extent("pci-0000:01:00.0-vf1", "");
        let stick = extent("usb-1-3", "0000:00:14.0");
        let hub = extent("usb-1-3.2", "0000:00:14.0");
        let xhci = extent("pci-0000:00:14.0", "");
        let mdev = extent("mdev-a", "0000:01:00.0");
        let of_vf = extent("mdev-b", "vf:1@0000:01:00.0");
        let virtual_parent = extent("mdev-c", "");
        let pairs = [
            (&pf, &vf),
            (&stick, &xhci),
            (&hub, &xhci),
            (&pf, &mdev),
            (&pf, &of_vf),
            (&vf, &of_vf),
        ];
        let all = [
            &pf,
            &vf,
            &stick,
            &hub,
            &xhci,
            &mdev,
            &of_vf,
            &virtual_parent,
        ];
        for one in all {
            for other in all {
                let related = pairs.contains(&(one, other)) || pairs.contains(&(other, one));
                let same = one == other;
                assert_eq!(one.excludes(other), same || related, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn names_that_begin_alike_are_different_devices() {
        let vf = |index| format!("pci-0000:01:00.0-vf{index}");
        assert!(!extent(&vf(1), "").excludes(&extent(&vf(11), "")));
        assert!(extent("pci-0000:01:00.0", "").excludes(&extent(&vf(11), "")));
        assert!(!extent("usb-1-3", "").excludes(&extent("usb-1-3.2", "")));
    }
}
