//! Why the guest cannot get a device of the host.

mod hints;

use std::path::PathBuf;

use crate::host::devices::find::FindError;
use crate::ids::Bdf;
use crate::machine::BoardKind;
use crate::owner::Owner;

/// What stands in the way in a group: a function, as people know it, and the driver that has it.
pub type Obstacle = (Bdf, String, String);

/// Why the guest cannot get a device of the host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is no such device.
    #[error("{what}: {error}")]
    Find {
        /// The table.
        what: String,
        /// What was looked for.
        error: FindError,
        /// The USB controllers that guests have whole, where what was looked for may be: guest and controller.
        gone: Vec<(String, Bdf)>,
    },
    /// The board has no PCI.
    #[error("{what}: the board {board} has no PCI")]
    NoPci {
        /// The table.
        what: String,
        /// The board.
        board: BoardKind,
    },
    /// No IOMMU, so no way to give a device away safely.
    #[error(
        "{what}: this host has no IOMMU that is on, without which no PCI device can be given to a guest"
    )]
    NoIommu {
        /// The table.
        what: String,
        /// What to do about it.
        advice: Vec<String>,
    },
    /// The kernel's IOMMU leaves it out.
    #[error("{what}: {device} is in no IOMMU group, although this host's IOMMU is on")]
    NoGroup {
        /// The table.
        what: String,
        /// The device.
        device: String,
    },
    /// The kernel has no vfio-pci.
    #[error("{what}: this host's kernel has no driver vfio-pci")]
    NoVfio {
        /// The table.
        what: String,
    },
    /// A part of the host's buses.
    #[error("{what}: {device} is a bridge, a part of the host's own buses")]
    Bridge {
        /// The table.
        what: String,
        /// The device.
        device: String,
    },
    /// Others in the group are the host's.
    #[error("{what}: {device} shares IOMMU group {group} with {}", listed(members))]
    Group {
        /// The table.
        what: String,
        /// The key's path, as in `pci.nic`.
        key: String,
        /// The device.
        device: String,
        /// The group.
        group: u32,
        /// The others.
        members: Vec<Obstacle>,
        /// Whether they are all functions of the same device.
        functions: bool,
    },
    /// Another guest has a part of the group.
    #[error("{what}: {device} shares IOMMU group {group} with {member}, which guest {guest}{} has", of(owner.as_deref()))]
    GroupOfGuest {
        /// The table.
        what: String,
        /// The device.
        device: String,
        /// The group.
        group: u32,
        /// The other function.
        member: Bdf,
        /// The guest.
        guest: String,
        /// Its user, if another than root and this one.
        owner: Option<Box<Owner>>,
    },
    /// Another guest has it.
    #[error("{what}: guest {guest}{} has {device}", of(owner.as_deref()))]
    Guest {
        /// The table.
        what: String,
        /// The device, or the part of it.
        device: String,
        /// The guest.
        guest: String,
        /// Its user, if another than root and this one.
        owner: Option<Box<Owner>>,
    },
    /// Somebody may have it.
    #[error("{what}: whose {device} is cannot be read from {}", path.display())]
    BadLease {
        /// The table.
        what: String,
        /// The device, or the part of it.
        device: String,
        /// The lease.
        path: PathBuf,
        /// The file's user, if another than root and this one.
        owner: Option<Box<Owner>>,
    },
    /// The host uses it.
    #[error("{what}: the host uses {device}: {}", uses.join("; "))]
    Host {
        /// The table.
        what: String,
        /// The device.
        device: String,
        /// What for.
        uses: Vec<String>,
    },
    /// It has virtual functions.
    #[error("{what}: {device} has {count} virtual functions, which would go with it")]
    LiveVfs {
        /// The table.
        what: String,
        /// The device.
        device: String,
        /// Its address.
        pf: Bdf,
        /// How many.
        count: u32,
        /// The guests that have some.
        guests: Vec<String>,
    },
    /// It has mediated devices.
    #[error("{what}: {device} has {count} mediated device{}, which would go with it", if *count == 1 { "" } else { "s" })]
    LiveMdevs {
        /// The table.
        what: String,
        /// The device.
        device: String,
        /// How many.
        count: u32,
    },
    /// A function and what is a part of it cannot both be the guest's.
    #[error("{first} is the whole of {device}, and {second} a {part} of it")]
    WholeAndPart {
        /// The one.
        first: String,
        /// The other.
        second: String,
        /// What the other is.
        part: &'static str,
        /// The device.
        device: String,
    },
    /// One device, two tables.
    #[error("{first} and {second} are both {device}")]
    Twice {
        /// The one.
        first: String,
        /// The other.
        second: String,
        /// The device.
        device: String,
    },
    /// The device has no virtual functions.
    #[error("{what}: {device} cannot have virtual functions")]
    NoSriov {
        /// The table.
        what: String,
        /// The device.
        device: String,
        /// Those of the host that can.
        can: Vec<String>,
    },
    /// A number that there is none of.
    #[error("{what}: there is no virtual function {index} of {device}: it can have {total}")]
    VfRange {
        /// The table.
        what: String,
        /// The number.
        index: u32,
        /// The device.
        device: String,
        /// How many it can have.
        total: u32,
    },
    /// There are virtual functions already, and too few.
    #[error("{what}: {device} has {current} virtual function{} already, and {wanted} are wanted", if *current == 1 { "" } else { "s" })]
    VfCount {
        /// The table.
        what: String,
        /// The device.
        device: String,
        /// Its address.
        pf: Bdf,
        /// How many there are.
        current: u32,
        /// How many are wanted.
        wanted: u32,
        /// The guests that have some.
        guests: Vec<String>,
    },
    /// No virtual function is free.
    #[error("{what}: no virtual function of {} is free", devices.join(" or "))]
    NoFreeVf {
        /// The table.
        what: String,
        /// The devices.
        devices: Vec<String>,
        /// Why each is not, one sentence each.
        why: Vec<String>,
    },
    /// Its driver makes the virtual functions.
    #[error("{what}: {device} has {}, and it is its own driver that makes virtual functions",
        driver.as_ref().map_or_else(|| "no driver".to_owned(), |driver| format!("the driver {driver}")))]
    NoPfDriver {
        /// The table.
        what: String,
        /// The device.
        device: String,
        /// The driver it has.
        driver: Option<String>,
    },
    /// MAC and VLAN are a network card's.
    #[error(
        "{what}: {device} is no network card with a driver of the host, which could be told a MAC address or a VLAN"
    )]
    NoNet {
        /// The table.
        what: String,
        /// The device.
        device: String,
    },
    /// The host has no GPU that could be given.
    #[error("`[gpu]`: this host has no {kind}")]
    NoGpu {
        /// What kind is wanted, in words.
        kind: String,
        /// The GPUs that there are.
        has: Vec<String>,
    },
    /// Which one?
    #[error("`[gpu]`: this host has {} GPUs", gpus.len())]
    WhichGpu {
        /// How it was asked for, as `--gpu` has it.
        kind: &'static str,
        /// The GPUs.
        gpus: Vec<String>,
    },
    /// The address is not that of a GPU.
    #[error("`[gpu]`: {device} is no GPU")]
    NotAGpu {
        /// The device.
        device: String,
    },
    /// Universal pass-through is Intel's.
    #[error("`gpu.{key}` is for Intel's integrated GPUs, and {device} is none")]
    NotIgd {
        /// The key.
        key: &'static str,
        /// The device.
        device: String,
    },
    /// Keys that go with another board.
    #[error("`gpu.{key}`: the board {board} has no place for it")]
    NoPlace {
        /// The key.
        key: &'static str,
        /// The board.
        board: BoardKind,
    },
    /// No mediated device of that name.
    #[error("{what}: there is no mediated device {uuid}")]
    NoMdev {
        /// The table.
        what: String,
        /// The name.
        uuid: String,
        /// Those that exist.
        has: Vec<String>,
    },
    /// No such type.
    #[error("{what}: {} no mediated devices of the type `{kind}`", parent.as_ref().map_or_else(|| "this host makes".to_owned(), |parent| format!("{parent} makes")))]
    NoMdevType {
        /// The table.
        what: String,
        /// The type.
        kind: String,
        /// The parent that was asked for.
        parent: Option<String>,
        /// The types that there are, with their parents.
        types: Vec<String>,
        /// Whether only GPUs count.
        gpu: bool,
        /// The device that makes them and is no GPU, where one is asked for.
        elsewhere: Option<String>,
    },
    /// All have been made.
    #[error("{what}: no more mediated devices of the type {kind} can be made on {parent}")]
    NoInstances {
        /// The table.
        what: String,
        /// The type.
        kind: String,
        /// The parents.
        parent: String,
        /// Who has those that exist.
        users: Vec<String>,
    },
    /// A hub is no device of its own.
    #[error("{what}: {device} is a hub")]
    Hub {
        /// The table.
        what: String,
        /// The hub.
        device: String,
    },
    /// The kernel or QEMU lacks iommufd.
    #[error("`vfio.backend = \"iommufd\"`: {who} has no iommufd{}", if *node { ": there is no /dev/iommu" } else { "" })]
    NoIommufd {
        /// The kernel, or QEMU with its version.
        who: String,
        /// Whether it is the node that is missing.
        node: bool,
    },
}

/// `A, which d is using, and with B, which e is using`
fn listed(members: &[Obstacle]) -> String {
    let each = members
        .iter()
        .map(|(bdf, name, driver)| format!("{bdf} {name}, which {driver} is using"));
    each.collect::<Vec<_>>().join(", and with ")
}

fn of(owner: Option<&Owner>) -> String {
    owner.map_or_else(String::new, |owner| format!(" of {owner}"))
}
