//! What a guest gets while it runs, and what it gives back: parts of a machine.

use serde::{Deserialize, Serialize};

use super::host_devices::gpu::id as gpu_id;
use super::host_devices::{self, GuestPlace, HostDeviceKind, HostDevices, HostPci};
use super::resolve::{Inputs, ids, no_nul};
use super::{
    BalloonDoes, BoardKind, Bus, Disk, Firmware, HostDevice, Machine, Nic, NicBackend,
    ResolveError, board, check, disk, net,
};
use crate::error::{ExitCode, Hint};
use crate::ids::{Bdf, Id, PciRef};
use crate::profile::schema::{DiskBus, Layer, Media};

/// Devices on their way into a guest that runs, or out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Addition {
    /// Disks and drives.
    pub disks: Vec<Disk>,
    /// Network cards.
    pub nics: Vec<Nic>,
    /// Devices of the host, and what they need there.
    pub host: HostDevices,
    /// Whether VFIO is reached through `/dev/iommu`.
    pub iommufd: bool,
}

/// Why a device cannot come to a guest that runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdditionError {
    /// virtio-mmio.
    #[error("the board {0} has no bus that takes devices while the guest runs")]
    NoBus(String),
    /// `hotplug.ports` on a board without PCI Express.
    #[error("`hotplug.ports` is for the boards q35 and virt, not for {0}")]
    NoPorts(String),
    /// Neither AHCI nor IDE ports nor floppy controllers take disks at run time.
    #[error("disk `{id}`: the bus {bus} takes no disk while the guest runs")]
    DiskBus {
        /// The disk.
        id: Id,
        /// The bus.
        bus: DiskBus,
    },
    /// The device would have to be put together in the guest.
    #[error("drive `{0}`: a CD-ROM drive on USB cannot come while the guest runs")]
    UsbCdrom(Id),
    /// Its socket and the memory that it shares are there from the start.
    #[error("`{0}` is another program's (`vhost-user`), which a guest has from its start only")]
    VhostUser(Id),
    /// The guest has booted.
    #[error("`{0}`: the guest runs already, and boots from no further device")]
    Boot(Id),
    /// The guest has the device already.
    #[error("`{second}` is what the guest has already as `{first}`, as a whole or in part")]
    Twice {
        /// The name that it has.
        first: Id,
        /// The name that it was to have.
        second: Id,
    },
    /// It has a place of its own, which is there from the start.
    #[error("`{0}` has a fixed place in the guest, which it can have from the start only")]
    FixedPlace(Id),
    /// Something else than devices.
    #[error("`{0}` cannot be changed while the guest runs")]
    Key(String),
    /// Nothing at all.
    #[error("nothing is asked for")]
    Nothing,
}

impl Hint for AdditionError {
    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::NoBus(_) => "the boards q35, pc and virt have one",
            Self::NoPorts(_) => "leave it out: devices of `pc` come to its bus without ports",
            Self::DiskBus { .. } => "virtio, scsi, nvme and usb do",
            Self::UsbCdrom(_) => "`bus=scsi` can",
            Self::Boot(_) => "leave `boot` out",
            Self::Key(_) => {
                "[disk.NAME], [network.NAME], [pci.NAME], [usb.NAME] and [mdev.NAME] can be attached"
            }
            Self::Twice { .. } | Self::FixedPlace(_) | Self::VhostUser(_) => return Vec::new(),
            Self::Nothing => "`mvm attach --help` shows what there is",
        };
        vec![hint.to_owned()]
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoBus(_) => ExitCode::Failed,
            Self::Nothing => ExitCode::Usage,
            _ => ExitCode::Profile,
        }
    }
}

/// The tables whose devices can come while the guest runs.
const TABLES: [&str; 6] = ["disk", "network", "pci", "usb", "mdev", "take-from-host"];

impl Addition {
    /// The devices' names.
    pub fn ids(&self) -> impl Iterator<Item = &Id> {
        let disks = self.disks.iter().map(|disk| &disk.id);
        let nics = self.nics.iter().map(|nic| &nic.id);
        let host = self.host.devices.iter().map(|device| &device.id);
        disks.chain(nics).chain(host)
    }

    /// A machine of these devices alone, on the board of the one that runs.
    pub fn alone(&self, running: &Machine) -> Machine {
        Machine {
            disks: self.disks.clone(),
            iothreads: Vec::new(),
            controllers: Vec::new(),
            nics: self.nics.clone(),
            host_devices: self.host.devices.clone(),
            vfs: self.host.vfs.clone(),
            companions: self.host.companions.clone(),
            detach_consoles: self.host.detach_consoles.clone(),
            iommufd: self.iommufd,
            virtio_gpu: false,
            desktop: super::Desktop::default(),
            firmware: Firmware::Builtin,
            consoles: Vec::new(),
            channels: Vec::new(),
            agent: false,
            shares: Vec::new(),
            rng: None,
            balloon: false,
            balloon_does: BalloonDoes::default(),
            watchdog: None,
            vsock: None,
            trace: Vec::new(),
            qemu_args: Vec::new(),
            notes: Vec::new(),
            ..running.clone()
        }
    }
}

/// Resolves what is asked for against the machine that runs. The notes are what the user should know.
///
/// # Errors
/// What is wrong with it, and what the machine has already.
pub fn addition(
    inputs: &Inputs,
    running: &Machine,
) -> Result<(Addition, Vec<String>), ResolveError> {
    no_nul(inputs.layer)?;
    let layer = only_devices(inputs.layer)?;
    let board = running.board.kind;
    if board.bus() == Bus::Mmio {
        return Err(AdditionError::NoBus(board.to_string()).into());
    }
    let table = crate::profile::schema::MachineTable {
        arch: Some(running.arch),
        ..Default::default()
    };
    let (_, caps) = board::qemu(&table, inputs.facts)?;
    let mut notes = Vec::new();
    let around = disk::Around {
        board,
        caps,
        images: inputs.images,
        run_dir: &running.run_dir,
        boots_from_disk: false,
        iothreads: &running.iothreads,
        controllers: &running.controllers,
        taken: &[],
        there: &running.disks,
    };
    let disks = disk::disks(&layer, &around, &mut notes)?;
    disks.iter().try_for_each(|disk| can_come(disk, board))?;
    let host = host_devices::resolve(
        host_devices::Asked {
            name: inputs.name,
            layer: &layer,
            board,
            caps,
            facts: inputs.facts,
            images: inputs.images,
        },
        &mut notes,
    )?;
    if board.bus() == Bus::Pcie {
        let fixed =
            |device: &&HostDevice| matches!(device.guest.place, Some(GuestPlace::Root { .. }));
        if let Some(device) = host.devices.iter().find(fixed) {
            return Err(AdditionError::FixedPlace(device.id.clone()).into());
        }
    }
    // One guest has one way to VFIO.
    let iommufd = if running.host_devices.iter().any(is_vfio) {
        running.iommufd
    } else {
        host_devices::backend(&layer, &host.devices, caps, &inputs.facts.devices)?
    };
    let nics = net::nics(&layer, inputs.name, board, inputs.facts, inputs.images)?;
    nics.iter().try_for_each(|nic| card_can_come(nic, board))?;
    let addition = Addition {
        disks,
        nics,
        iommufd: iommufd && host.devices.iter().any(is_vfio),
        host,
    };
    if addition.ids().next().is_none() {
        return Err(AdditionError::Nothing.into());
    }
    running.with(&addition)?;
    check::check(&addition.alone(running), caps)?;
    Ok((addition, notes))
}

/// The layer, with the buses that drives can come on.
fn only_devices(layer: &Layer) -> Result<Layer, AdditionError> {
    // A layer is plain data; if it could not be written, there would be nothing in it.
    let value = serde_json::to_value(layer).unwrap_or_default();
    let keys = value.as_object().into_iter().flatten();
    for (key, _) in keys {
        if !TABLES.contains(&key.as_str()) {
            return Err(AdditionError::Key(key.clone()));
        }
    }
    let mut layer = layer.clone();
    for table in layer.disk.iter_mut().flat_map(|disks| disks.values_mut()) {
        if table.media == Some(Media::Cdrom) && table.bus.is_none() {
            table.bus = Some(DiskBus::Scsi);
        }
    }
    Ok(layer)
}

fn can_come(disk: &Disk, board: BoardKind) -> Result<(), AdditionError> {
    let id = disk.id.clone();
    match (disk.bus, disk.media) {
        _ if disk.options.vhost_user.is_some() => Err(AdditionError::VhostUser(id)),
        (bus @ (DiskBus::Sata | DiskBus::Ide | DiskBus::Floppy), _) => {
            Err(AdditionError::DiskBus { id, bus })
        }
        (DiskBus::Usb, Media::Cdrom) => Err(AdditionError::UsbCdrom(id)),
        _ if disk.boot.is_some() => Err(AdditionError::Boot(id)),
        // A port takes what comes, and the root bus of PCI Express has none.
        _ if disk.options.address.is_some() && board.bus() == Bus::Pcie => {
            Err(AdditionError::FixedPlace(id))
        }
        _ => Ok(()),
    }
}

fn card_can_come(nic: &Nic, board: BoardKind) -> Result<(), AdditionError> {
    let id = || nic.id.clone();
    let fixed = nic.options.address.is_some() || nic.model.is_conventional();
    match &nic.backend {
        NicBackend::VhostUser { .. } => Err(AdditionError::VhostUser(id())),
        _ if nic.options.boot.is_some() => Err(AdditionError::Boot(id())),
        _ if fixed && board.bus() == Bus::Pcie => Err(AdditionError::FixedPlace(id())),
        _ => Ok(()),
    }
}

impl Machine {
    /// The machine with these devices too.
    ///
    /// # Errors
    /// What it has already.
    pub fn with(&self, addition: &Addition) -> Result<Self, ResolveError> {
        let mut with = self.clone();
        with.disks.extend(addition.disks.iter().cloned());
        with.nics.extend(addition.nics.iter().cloned());
        let host = addition.host.clone();
        with.host_devices.extend(host.devices);
        with.vfs.extend(host.vfs);
        with.companions.extend(host.companions);
        with.detach_consoles.extend(host.detach_consoles);
        with.iommufd |= addition.iommufd;
        for (at, device) in with.host_devices.iter().enumerate() {
            let twin = with.host_devices[..at]
                .iter()
                .find(|other| other.kind.extent().excludes(&device.kind.extent()));
            if let Some(twin) = twin {
                return Err(AdditionError::Twice {
                    first: twin.id.clone(),
                    second: device.id.clone(),
                }
                .into());
            }
        }
        ids(&with)?;
        for (at, nic) in with.nics.iter().enumerate().skip(self.nics.len()) {
            let mut others = with.nics[..at].iter();
            others.try_for_each(|other| net::conflict(other, nic))?;
        }
        Ok(with)
    }

    /// The machine without these devices.
    #[must_use]
    pub fn without(&self, addition: &Addition) -> Self {
        let mut without = self.clone();
        let gone = |id: &Id| addition.ids().any(|other| other == id);
        without.disks.retain(|disk| !gone(&disk.id));
        without.nics.retain(|nic| !gone(&nic.id));
        without.host_devices.retain(|device| !gone(&device.id));
        let host = &addition.host;
        without.vfs.retain(|set| !host.vfs.contains(set));
        without
            .companions
            .retain(|one| !host.companions.contains(one));
        without
            .detach_consoles
            .retain(|console| !host.detach_consoles.contains(console));
        without
    }

    /// The device of that name as a part of its own.
    pub fn part(&self, id: &Id) -> Option<Addition> {
        let part = Addition {
            disks: pick(&self.disks, |disk| &disk.id == id),
            nics: pick(&self.nics, |nic| &nic.id == id),
            host: HostDevices {
                devices: pick(&self.host_devices, |device| &device.id == id),
                ..HostDevices::default()
            },
            iommufd: self.iommufd,
        };
        let some = part.ids().next().is_some();
        some.then_some(part)
    }

    /// The same with what the host has to do for it: it is to come back as it is now.
    pub fn part_to_return(&self, id: &Id) -> Option<Addition> {
        let mut part = self.part(id)?;
        let pci: Vec<&HostPci> = part.host.devices.iter().filter_map(pci).collect();
        let is_pf = |wanted: Bdf| {
            let mut all = pci.iter();
            all.any(|pci| matches!(pci.function, PciRef::Vf { pf, .. } if pf == wanted))
        };
        let in_group =
            |group: Option<u32>| group.is_some() && pci.iter().any(|pci| pci.group == group);
        let whole = pci
            .iter()
            .any(|pci| matches!(pci.function, PciRef::Function(_)));
        let vfs = pick(&self.vfs, |set| is_pf(set.pf));
        let companions = pick(&self.companions, |other| in_group(other.group));
        let screen = whole && *id == gpu_id();
        let detach_consoles = pick(&self.detach_consoles, |_| screen);
        part.host = HostDevices {
            vfs,
            companions,
            detach_consoles,
            ..part.host
        };
        Some(part)
    }

    /// The PCI functions of the host that the guest has.
    pub fn functions(&self) -> impl Iterator<Item = PciRef> {
        let devices = self.host_devices.iter();
        devices.filter_map(|device| device.kind.function())
    }

    /// The names of all that could be detached.
    pub fn parts(&self) -> impl Iterator<Item = &Id> {
        let disks = self.disks.iter().map(|disk| &disk.id);
        let nics = self.nics.iter().map(|nic| &nic.id);
        let host = self.host_devices.iter().map(|device| &device.id);
        disks.chain(nics).chain(host)
    }
}

fn pci(device: &HostDevice) -> Option<&HostPci> {
    match &device.kind {
        HostDeviceKind::Pci(pci) => Some(pci),
        _ => None,
    }
}

fn is_vfio(device: &HostDevice) -> bool {
    !matches!(device.kind, HostDeviceKind::Usb(_))
}

fn pick<T: Clone>(all: &[T], wanted: impl Fn(&T) -> bool) -> Vec<T> {
    all.iter().filter(|one| wanted(one)).cloned().collect()
}
