//! One change to the host, as data, with the inverse that takes it back.

mod device;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::handover::{ConsoleRef, Extent, Provision};
use crate::hook::Hook;
use crate::ids::{Bdf, PciRef, UsbPort};
use crate::machine::Positions;
use crate::profile::schema::DiskFormat;
use crate::sidecar::Sidecar;
use crate::units::Size;
pub use device::{Attribute, Bound, Interface, Node, Owner, User, VfNetState, VfioDevice};

/// A change to the host. Steps are idempotent: each compares before it writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Makes a directory and its missing parents.
    MakeDir {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Whether it is removed, with all that mvm put there, when the guest is gone.
        keep: bool,
    },
    /// Takes the guest's lock, which QEMU inherits: held as long as any of the two lives.
    Lock {
        /// The lock file.
        path: PathBuf,
    },
    /// Copies a file where there is none yet (the UEFI variable store). It is kept.
    CopyFile {
        /// The template.
        from: PathBuf,
        /// The copy.
        to: PathBuf,
        /// The copy's mode.
        mode: u32,
    },
    /// Keeps where the guest's devices sit, for its next starts.
    KeepPlaces {
        /// The file.
        path: PathBuf,
        /// Where they sit.
        places: Positions,
    },
    /// Makes a throw-away qcow2 overlay with `qemu-img`.
    CreateOverlay {
        /// The overlay.
        path: PathBuf,
        /// The image below it.
        backing: PathBuf,
        /// That image's format.
        backing_format: DiskFormat,
    },
    /// Makes a persistent tap device. It is in the plan only where the host has none of that name.
    CreateTap {
        /// Its name.
        name: String,
        /// The bridge it joins.
        bridge: Option<String>,
        /// Its address on the host, with prefix length.
        address: Option<String>,
        /// Whether it has a virtio-net header (`IFF_VNET_HDR`).
        vnet_hdr: bool,
        /// Whether it can have several queues (`IFF_MULTI_QUEUE`).
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        multi_queue: bool,
        /// The largest packet.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        mtu: Option<u16>,
    },
    /// Binds a listening Unix socket, mode 0600, which QEMU or the supervisor gets.
    Listen {
        /// The socket.
        path: PathBuf,
    },
    /// Lets the user as whom QEMU runs go through one of mvm's own directories; he can neither look into it
    /// nor change anything in it.
    OpenDir {
        /// The directory.
        path: PathBuf,
        /// His group; without one everybody may go through.
        group: Option<u32>,
    },
    /// Gives one of mvm's own files to the user as whom QEMU runs; an empty one where there is none.
    GiveFile {
        /// The file.
        path: PathBuf,
        /// The user.
        uid: u32,
        /// His group.
        gid: u32,
    },
    /// Runs a program of the user's, unless it was begun before in this life of the guest.
    RunHook {
        /// The program.
        hook: Box<Hook>,
    },
    /// Does nothing by itself: a program of the user's runs when it is taken back.
    PromiseHook {
        /// The program.
        hook: Box<Hook>,
    },
    /// Starts a program that serves the guest beside QEMU.
    StartSidecar {
        /// The program.
        sidecar: Box<Sidecar>,
    },
    /// Ends a program that an earlier step started, if it has not ended.
    EndSidecar {
        /// Its name.
        name: String,
        /// The lock that it holds.
        lock: PathBuf,
        /// The socket that it serves.
        socket: PathBuf,
    },
    /// Removes a file that an earlier step made.
    RemoveFile {
        /// The file.
        path: PathBuf,
    },
    /// Removes a directory that an earlier step made, with the files that mvm itself puts there.
    RemoveDir {
        /// The directory.
        path: PathBuf,
    },
    /// Removes a tap device that an earlier step made.
    DeleteTap {
        /// Its name.
        name: String,
    },
    /// Takes a device for a guest: nobody else gets it until it is released.
    TakeLease {
        /// The lease's name (that of [`Extent`]).
        key: String,
        /// The device as people name it.
        device: String,
        /// The PCI function that it comes and goes with: a USB device's controller, what a mediated
        /// device is made of.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        part_of: Option<PciRef>,
        /// Who takes it.
        user: User,
    },
    /// Gives up a lease.
    ReleaseLease {
        /// The lease's name.
        key: String,
        /// Who had it.
        user: User,
    },
    /// Makes virtual functions where there are none. Those that are there are used, and counted where
    /// mvm made them.
    MakeVfs {
        /// The physical function.
        pf: Bdf,
        /// How many; 0 for as many as it can have.
        count: u32,
        /// Who uses them.
        user: User,
        /// Whether they stay when their last user is gone.
        keep: bool,
        /// What each of them gets.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        provision: Option<Provision>,
    },
    /// Gives up the use of virtual functions; the last user removes them.
    DropVfs {
        /// The physical function.
        pf: Bdf,
        /// Who used them.
        user: User,
    },
    /// Puts a physical function back as it was before its virtual ones were made. It is in the record
    /// that the users share.
    RestoreVfs {
        /// The physical function.
        pf: Bdf,
        /// Its driver.
        driver: Option<String>,
        /// `sriov_drivers_autoprobe`.
        autoprobe: Option<bool>,
        /// Whether the virtual functions are removed.
        remove: bool,
        /// What else was changed, oldest first.
        attributes: Vec<Attribute>,
    },
    /// Sets what the host's network driver holds about a virtual function.
    SetVfNet {
        /// The physical function.
        pf: Bdf,
        /// The virtual function's number, from 1.
        index: u32,
        /// What is set.
        to: VfNetState,
        /// What was there before.
        from: VfNetState,
    },
    /// Makes a mediated device.
    MakeMdev {
        /// The device that it is a part of, by its name in `/sys/class/mdev_bus`.
        parent: String,
        /// Its type.
        type_id: String,
        /// Its name.
        uuid: Uuid,
        /// Whether it stays when the guest is gone, as one that was there before does.
        keep: bool,
    },
    /// Removes a mediated device.
    RemoveMdev {
        /// Its name.
        uuid: Uuid,
    },
    /// Takes the host's console off a GPU.
    DetachConsole {
        /// The console.
        console: ConsoleRef,
        /// Who needs the GPU.
        user: User,
    },
    /// Gives up the need; the last one brings the host's console back.
    AttachConsole {
        /// The console.
        console: ConsoleRef,
        /// Who needed the GPU.
        user: User,
    },
    /// Sees to it that so many huge pages are free for a guest; what is missing is added to the host's pool.
    ClaimHugepages {
        /// The size of each.
        size: Size,
        /// The NUMA node that they must be of.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        node: Option<u32>,
        /// How many.
        pages: u64,
        /// Who needs them.
        user: User,
    },
    /// Takes what was added for a guest off the host's pool.
    ReturnHugepages {
        /// The size of each.
        size: Size,
        /// The NUMA node.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        node: Option<u32>,
        /// Who had them.
        user: User,
    },
    /// Gives a PCI function to a driver, as a rule `vfio-pci`.
    BindDriver {
        /// The function.
        device: PciRef,
        /// The driver.
        driver: String,
        /// How it stood before.
        from: Bound,
    },
    /// Puts a PCI function back as it was.
    GiveBack {
        /// The function.
        device: PciRef,
        /// The driver that it was given to.
        driver: String,
        /// How it stood before.
        from: Bound,
    },
    /// Notes which drivers a USB device has; it is QEMU that takes it from them.
    TakeUsb {
        /// The port.
        port: UsbPort,
        /// Its interfaces.
        interfaces: Vec<Interface>,
    },
    /// Gives a USB device's interfaces back to their drivers, where QEMU could not.
    GiveBackUsb {
        /// The port.
        port: UsbPort,
        /// Its interfaces.
        interfaces: Vec<Interface>,
    },
    /// Gives a device node to the user as whom QEMU runs.
    GiveNode {
        /// The node.
        node: Node,
        /// Who gets it.
        to: Owner,
        /// Who had it before.
        from: Option<Owner>,
    },
    /// Puts the owner of a device node back, where the node is still that user's.
    TakeNodeBack {
        /// The node.
        node: Node,
        /// Who got it.
        to: Owner,
        /// Who had it before.
        from: Option<Owner>,
    },
    /// Opens devices through VFIO as QEMU will, and closes them again.
    ConfirmVfio {
        /// The devices.
        devices: Vec<VfioDevice>,
    },
}

impl Step {
    /// The step that takes this one back; `None` where there is nothing to take back.
    pub fn inverse(&self) -> Option<Self> {
        match self {
            Self::MakeDir {
                path, keep: false, ..
            } => Some(Self::RemoveDir { path: path.clone() }),
            Self::CreateOverlay { path, .. } | Self::Listen { path } => {
                Some(Self::RemoveFile { path: path.clone() })
            }
            Self::CreateTap { name, .. } => Some(Self::DeleteTap { name: name.clone() }),
            Self::PromiseHook { hook } => Some(Self::RunHook { hook: hook.clone() }),
            Self::StartSidecar { sidecar } => Some(Self::EndSidecar {
                name: sidecar.name.clone(),
                lock: sidecar.lock.clone(),
                socket: sidecar.socket.clone(),
            }),
            Self::TakeLease { key, user, .. } => Some(Self::ReleaseLease {
                key: key.clone(),
                user: user.clone(),
            }),
            Self::MakeVfs { pf, user, .. } => Some(Self::DropVfs {
                pf: *pf,
                user: user.clone(),
            }),
            Self::SetVfNet {
                pf,
                index,
                to,
                from,
            } => Some(Self::SetVfNet {
                pf: *pf,
                index: *index,
                to: from.clone(),
                from: to.clone(),
            }),
            Self::MakeMdev {
                uuid, keep: false, ..
            } => Some(Self::RemoveMdev { uuid: *uuid }),
            Self::DetachConsole { console, user } => Some(Self::AttachConsole {
                console: console.clone(),
                user: user.clone(),
            }),
            Self::ClaimHugepages {
                size, node, user, ..
            } => Some(Self::ReturnHugepages {
                size: *size,
                node: *node,
                user: user.clone(),
            }),
            Self::BindDriver {
                device,
                driver,
                from,
            } => Some(Self::GiveBack {
                device: *device,
                driver: driver.clone(),
                from: from.clone(),
            }),
            Self::TakeUsb { port, interfaces } => Some(Self::GiveBackUsb {
                port: port.clone(),
                interfaces: interfaces.clone(),
            }),
            Self::GiveNode { node, to, from } => Some(Self::TakeNodeBack {
                node: node.clone(),
                to: *to,
                from: *from,
            }),
            // The lock goes with the processes that hold it; the file stays, or two starts could
            // lock two files of one name. A variable store belongs to the guest. What is given to
            // QEMU's user lies in directories that only mvm can change.
            Self::MakeDir { keep: true, .. }
            | Self::Lock { .. }
            | Self::CopyFile { .. }
            | Self::KeepPlaces { .. }
            | Self::RunHook { .. }
            | Self::EndSidecar { .. }
            | Self::RemoveFile { .. }
            | Self::RemoveDir { .. }
            | Self::DeleteTap { .. }
            | Self::ReleaseLease { .. }
            | Self::DropVfs { .. }
            | Self::RestoreVfs { .. }
            | Self::MakeMdev { keep: true, .. }
            | Self::RemoveMdev { .. }
            | Self::AttachConsole { .. }
            | Self::GiveBack { .. }
            | Self::ReturnHugepages { .. }
            | Self::GiveBackUsb { .. }
            | Self::OpenDir { .. }
            | Self::GiveFile { .. }
            | Self::TakeNodeBack { .. }
            | Self::ConfirmVfio { .. } => None,
        }
    }

    /// The lease that covers the device that this step is about; `None` for steps about no device.
    pub fn lease(&self) -> Option<String> {
        match self {
            Self::TakeLease { key, .. } | Self::ReleaseLease { key, .. } => Some(key.clone()),
            Self::BindDriver { device, .. } | Self::GiveBack { device, .. } => Some(device.key()),
            Self::GiveNode { node, .. } | Self::TakeNodeBack { node, .. } => match node {
                Node::Group(VfioDevice::Pci(pci)) | Node::Own(VfioDevice::Pci(pci)) => {
                    Some(pci.key())
                }
                Node::Group(VfioDevice::Mdev(uuid)) | Node::Own(VfioDevice::Mdev(uuid)) => {
                    Some(Extent::mdev(*uuid, None).key)
                }
                Node::Usb { port, .. } => Some(port.key()),
                // Guests and host take turns in having it.
                Node::Input(_) => None,
            },
            Self::SetVfNet { pf, index, .. } => Some(
                PciRef::Vf {
                    pf: *pf,
                    index: *index,
                }
                .key(),
            ),
            Self::MakeMdev { uuid, .. } | Self::RemoveMdev { uuid } => {
                Some(Extent::mdev(*uuid, None).key)
            }
            Self::TakeUsb { port, .. } | Self::GiveBackUsb { port, .. } => Some(port.key()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_readable_json() {
        let step = Step::Listen {
            path: "/run/mvm/a/qmp.sock".into(),
        };
        let json = serde_json::to_string(&step).expect("a step is plain data");
        assert_eq!(json, r#"{"do":"listen","path":"/run/mvm/a/qmp.sock"}"#);
        assert_eq!(
            step.inverse(),
            Some(Step::RemoveFile {
                path: "/run/mvm/a/qmp.sock".into()
            })
        );
    }
}
