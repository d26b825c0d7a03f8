//! Why a device could not be taken or given back.

use std::io;
use std::path::{Path, PathBuf};

use nix::libc;

use crate::error::{ExitCode, Hint};
use crate::owner::Owner;
use crate::units::Size;

/// A device that could not be taken or given back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The kernel refused a write.
    #[error("cannot write `{text}` to {}{}", path.display(), because(cause.as_deref()))]
    Write {
        /// What was written, without line ends.
        text: String,
        /// To which file.
        path: PathBuf,
        /// What the refusal means there.
        cause: Option<String>,
        /// What helps.
        hint: Option<String>,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of the device cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The owner of a device node cannot be changed.
    #[error("cannot change owner and mode of {}", path.display())]
    Node {
        /// The node.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A write is still under way after its deadline: the device's driver hangs.
    #[error("writing `{text}` to {} is not done after {seconds} s: the device is stuck and left alone", path.display())]
    Stuck {
        /// What is being written.
        text: String,
        /// To which file.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// An earlier operation on the device is still under way.
    #[error("an earlier operation on {device} is not done yet: {what}")]
    Busy {
        /// The device.
        device: String,
        /// The operation, and its process.
        what: String,
    },
    /// Another guest has it.
    #[error("{device} is guest `{guest}`'s{}", owner.as_ref().map(|owner| format!(", of {owner}")).unwrap_or_default())]
    Leased {
        /// The device.
        device: String,
        /// Who has it.
        guest: String,
        /// Its user, if another than root and this one.
        owner: Option<Owner>,
    },
    /// Somebody may have it.
    #[error("whose the device is cannot be read from {}", path.display())]
    BadLease {
        /// The lease.
        path: PathBuf,
        /// The file's user, if another than root and this one.
        owner: Option<Owner>,
    },
    /// A guest that is gone has not given it back.
    #[error("{device} was guest `{guest}`'s, which is gone and has not given it back")]
    LeftBehind {
        /// The device.
        device: String,
        /// Who had it.
        guest: String,
        /// Where that guest's journal is.
        run_dir: PathBuf,
    },
    /// A process has it open.
    #[error("{device} is in use by {by}")]
    InUse {
        /// The device.
        device: String,
        /// The processes.
        by: String,
    },
    /// Something is made of it that somebody else may have.
    #[error("{device} has {parts}, which would go with its driver")]
    InParts {
        /// The device.
        device: String,
        /// What is made of it.
        parts: String,
    },
    /// It is not there.
    #[error("this host has no {device}")]
    Gone {
        /// The device.
        device: String,
    },
    /// The directory that guests share may hold what anybody put there.
    #[error("{} is not safe to use: {why}", path.display())]
    Unsafe {
        /// The directory, or a folder of it.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// What is said to be a driver, an interface or the like leads elsewhere.
    #[error("`{name}` is no name of anything in /sys")]
    BadName {
        /// The name.
        name: String,
    },
    /// The driver is not there and cannot be loaded.
    #[error("this kernel has no driver `{driver}`")]
    NoDriver {
        /// The driver.
        driver: String,
        /// Why its module could not be loaded.
        why: Option<String>,
    },
    /// The wrong driver has it after all.
    #[error("{device} has {} instead of the driver `{wanted}`", got.as_deref().map_or_else(|| "no driver".to_owned(), |got| format!("the driver `{got}`")))]
    NotBound {
        /// The device.
        device: String,
        /// The driver that should have it.
        wanted: String,
        /// The driver that has it.
        got: Option<String>,
        /// Why, where that is known.
        hint: Option<String>,
    },
    /// The function has no SR-IOV.
    #[error("{pf} cannot make virtual functions")]
    NoSriov {
        /// The function.
        pf: String,
    },
    /// There is no such virtual function.
    #[error("{pf} has no virtual function {index}: it has {count}")]
    NoVf {
        /// The physical function.
        pf: String,
        /// The number that was asked for.
        index: u32,
        /// How many there are.
        count: u32,
    },
    /// More virtual functions than it can have.
    #[error("{pf} can have {total} virtual functions, not {count}")]
    TooManyVfs {
        /// The physical function.
        pf: String,
        /// How many were asked for.
        count: u32,
        /// How many it can have.
        total: u32,
    },
    /// The kernel has no pool of such pages.
    #[error("this host has no huge pages of {size}{}", on(*node))]
    NoHugepages {
        /// The page's size.
        size: Size,
        /// The NUMA node.
        node: Option<u32>,
    },
    /// The kernel cannot make that many.
    #[error("of the {pages} huge pages of {size}{} that the guest needs, the kernel can make {had}", on(*node))]
    FewHugepages {
        /// The page's size.
        size: Size,
        /// The NUMA node.
        node: Option<u32>,
        /// How many are needed.
        pages: u64,
        /// How many there are.
        had: u64,
    },
    /// The GPU's driver has no such setting.
    #[error("the driver of {pf} has no setting `{setting}` for virtual functions")]
    NoSetting {
        /// The physical function.
        pf: String,
        /// The setting.
        setting: &'static str,
    },
    /// The directory that guests share cannot be used.
    #[error("the directory {} of the leases cannot be used", path.display())]
    HostDir {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others have the host's lock for very long.
    #[error("another mvm{} has been changing devices for {seconds} s", pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    HostBusy {
        /// The process.
        pid: Option<u32>,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A record that is not in the form it should be.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The record.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// VFIO refuses.
    #[error("{device} cannot be opened through VFIO: {what}")]
    Vfio {
        /// The device.
        device: String,
        /// Which step of it fails, and what that means.
        what: String,
        /// What helps.
        hint: Option<String>,
    },
    /// The limit of memory that may not be swapped out is too low.
    #[error(
        "a guest with this device needs {needed} MiB of memory that stays in place, and this user may have {limit} MiB"
    )]
    LockedMemory {
        /// How much is needed, in MiB.
        needed: u64,
        /// The hard limit, in MiB.
        limit: u64,
    },
    /// The network driver refused.
    #[error("the driver of {link} does not take {what} for virtual function {index}")]
    Net {
        /// The physical function's network device.
        link: String,
        /// What was to be set.
        what: String,
        /// The virtual function.
        index: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The physical function has no network device.
    #[error("{pf} has no network device that could set the address of its virtual functions")]
    NoLink {
        /// The physical function.
        pf: String,
    },
}

fn because(cause: Option<&str>) -> String {
    cause.map(|cause| format!(" ({cause})")).unwrap_or_default()
}

impl DeviceError {
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }

    pub(crate) fn host_dir(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::HostDir { path, source }
    }

    /// Whether another guest was faster: another choice of `auto` may be free.
    pub const fn is_lost_race(&self) -> bool {
        matches!(self, Self::Leased { .. })
    }

    /// The system's error number behind it, if any.
    pub fn os_error(&self) -> Option<i32> {
        match self {
            Self::Write { source, .. }
            | Self::Read { source, .. }
            | Self::Node { source, .. }
            | Self::HostDir { source, .. }
            | Self::Net { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

impl Hint for DeviceError {
    fn hints(&self) -> Vec<String> {
        let number = self.os_error();
        let refused = matches!(number, Some(libc::EPERM | libc::EACCES));
        let hint = match self {
            Self::Write { .. } | Self::Read { .. } | Self::Node { .. } if refused => {
                "taking devices from the host needs root".to_owned()
            }
            Self::Write { hint, .. } | Self::NotBound { hint, .. } | Self::Vfio { hint, .. } => {
                return hint.iter().cloned().collect();
            }
            Self::Stuck { .. } | Self::Busy { .. } => {
                "see `dmesg`; `mvm recover` tries again when the operation has ended, which may need a restart of the host".to_owned()
            }
            Self::Leased { guest, owner: Some(owner), .. } => owner.advice(guest),
            Self::BadLease { owner, .. } => {
                let whose = owner.as_ref().map(|owner| format!("the file is {owner}'s: "));
                format!(
                    "{}root's `mvm recover` removes it when nobody has the device open",
                    whose.unwrap_or_default()
                )
            }
            Self::Leased { guest, .. } => format!("end it first (`mvm stop {guest}`), or take another device"),
            Self::LeftBehind { run_dir, .. } => format!(
                "`mvm recover` of the user who owns {} gives it back",
                run_dir.display()
            ),
            Self::InParts { device, .. } => format!(
                "`mvm devices pci {device}` and `mvm devices mdev` show who has them; they have to be removed first"
            ),
            Self::InUse { .. } => "end those processes".to_owned(),
            Self::Gone { .. } => "`mvm devices` lists what there is".to_owned(),
            Self::NoDriver { driver, why } => {
                let why = why.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
                if driver.contains("vfio") && driver != "vfio-pci" {
                    return vec![format!(
                        "`driver = \"vfio-pci\"` in the device's table takes the one for all devices{why}"
                    )];
                }
                format!("a kernel with VFIO has it as a module: `modprobe {driver}`{why}")
            }
            Self::NoSriov { .. } => "its driver must support SR-IOV; `mvm devices pci` shows what does".to_owned(),
            Self::NoVf { count: 0, .. } => "let mvm make them: leave out what makes it use existing ones".to_owned(),
            Self::NoVf { count, .. } => format!("ask for one from 1 to {count}"),
            Self::TooManyVfs { total, .. } => format!("ask for at most {total}"),
            Self::NoHugepages { .. } => "`ls /sys/kernel/mm/hugepages` shows the sizes there are".to_owned(),
            Self::FewHugepages { size, pages, .. } => format!(
                "its memory is full or in pieces: end other programs, give the guest less (`memory.size`), or have them set aside at boot, where they are always found (`hugepagesz={size} hugepages={pages}` on the kernel's command line)"
            ),
            Self::NoSetting { .. } => "leave it out: the driver then divides by itself".to_owned(),
            Self::HostDir { .. } if refused || number == Some(libc::ENOENT) => {
                "it is the same for root and users, and only root changes what guests share; `docs/devices.md` (What guests share) tells how root makes it for users".to_owned()
            }
            Self::Unsafe { .. } => {
                "it must be root's or yours, and nobody else's to write to; while no guest has devices, remove it as root: `docs/devices.md` (What guests share) tells how it is made".to_owned()
            }
            Self::HostBusy { .. } => "wait for it, or see what it waits for".to_owned(),
            Self::LockedMemory { needed, .. } => format!(
                "run it as root, or allow it: `memlock` in /etc/security/limits.conf (in KiB, at least {}), or LimitMEMLOCK= in a systemd unit",
                needed * 1024
            ),
            Self::Net { .. } if refused => "this needs root or CAP_NET_ADMIN".to_owned(),
            Self::Net { link, .. } => format!(
                "some drivers take it only while the link is up: `ip link set {link} up`; else leave out `mac` or `vlan`, or set it inside the guest"
            ),
            Self::BadName { .. } | Self::HostDir { .. } | Self::Damaged { .. } | Self::NoLink { .. } | Self::Read { .. } | Self::Node { .. } => {
                return Vec::new();
            }
        };
        vec![hint]
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Gone { .. }
            | Self::NoDriver { .. }
            | Self::NoSriov { .. }
            | Self::NoVf { .. }
            | Self::TooManyVfs { .. }
            | Self::NoSetting { .. }
            | Self::NoHugepages { .. }
            | Self::FewHugepages { .. }
            | Self::Vfio { .. }
            | Self::LockedMemory { .. }
            | Self::NoLink { .. } => ExitCode::Host,
            _ => ExitCode::Failed,
        }
    }
}

fn on(node: Option<u32>) -> String {
    node.map_or_else(String::new, |node| format!(" on node {node}"))
}
