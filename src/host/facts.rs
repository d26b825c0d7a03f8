//! One snapshot of the host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cpu::CpuFacts;
use super::devices::DeviceFacts;
use super::dmi::DmiFacts;
use super::firmware::FirmwareFacts;
use super::graphical::{self, Session};
use super::kvm::KvmFacts;
use super::links::LinkFacts;
use super::listening;
use super::memory::MemoryFacts;
use super::node::DeviceNode;
use super::os::OsRelease;
use super::programs::Programs;
use super::qemu::QemuFacts;
use super::realtime::RealtimeFacts;
use super::sysfs::Sysfs;
use super::tpm::TpmFacts;
use super::users::UserFacts;
use crate::dirs::Dirs;
use crate::ids::Arch;

/// What is known about the host: a user's machine in this form can become a test case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostFacts {
    /// The architecture this mvm was built for and runs on.
    pub arch: Arch,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// The distribution.
    pub os: OsRelease,
    /// The processor.
    pub cpu: CpuFacts,
    /// Whether threads may be scheduled in real time.
    #[serde(default)]
    pub realtime: RealtimeFacts,
    /// What the host's firmware says of the machine; empty if it was not asked for.
    #[serde(default)]
    pub dmi: DmiFacts,
    /// The memory.
    pub memory: MemoryFacts,
    /// `/dev/kvm`, and whether it is good for anything.
    pub kvm: KvmFacts,
    /// `/dev/vhost-net`: the network data path in the kernel.
    pub vhost_net: DeviceNode,
    /// `/dev/vhost-vsock`: sockets between host and guest.
    pub vhost_vsock: DeviceNode,
    /// `/dev/net/tun`: tap devices.
    pub tun: DeviceNode,
    /// Network devices.
    #[serde(default)]
    pub links: LinkFacts,
    /// Devices that a guest can be given; empty if they were not asked for.
    #[serde(default)]
    pub devices: DeviceFacts,
    /// Who runs mvm, and the user as whom QEMU is to run.
    #[serde(default)]
    pub users: UserFacts,
    /// Programs that serve guests beside QEMU.
    #[serde(default)]
    pub programs: Programs,
    /// The host's TPM that was asked for.
    #[serde(default)]
    pub tpm: Option<TpmFacts>,
    /// Whose desktops are there; empty if they were not asked for.
    #[serde(default)]
    pub sessions: Vec<Session>,
    /// TCP ports that somebody listens on; empty if they were not asked for.
    #[serde(default)]
    pub ports: BTreeSet<u16>,
    /// QEMU, for the architectures that were asked for.
    pub qemu: BTreeMap<Arch, QemuFacts>,
    /// UEFI and other firmware images with a descriptor; empty if it was not asked for.
    pub firmware: FirmwareFacts,
}

/// What a reader of the facts is going to use. What is not needed is not looked at.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// Probe KVM.
    pub kvm: bool,
    /// Ask the QEMU of these architectures what it can do.
    pub qemu: Vec<Arch>,
    /// The binary that `mvm.toml` names for an architecture. The environment
    /// (`MVM_QEMU_X86_64`, `MVM_QEMU_AARCH64`) goes before it, `PATH` after it.
    pub qemu_binary: BTreeMap<Arch, PathBuf>,
    /// The binary that the guest's own profile names. It goes before the environment.
    pub profile_binary: BTreeMap<Arch, PathBuf>,
    /// Properties of device types beyond those mvm uses itself (see [`super::qemu::PROBED_DEVICES`]).
    pub device_properties: Vec<String>,
    /// Read the firmware descriptors.
    pub firmware: bool,
    /// Read what can be given to a guest: PCI, mediated and USB devices, and who has which.
    pub devices: bool,
    /// Read what the host's firmware says of the machine.
    pub dmi: bool,
    /// Look at that TPM of the host's.
    pub tpm: Option<String>,
    /// Look for virtiofsd.
    pub virtiofsd: bool,
    /// Read whose desktops are there, and which ports are taken.
    pub displays: bool,
    /// Look that user up.
    pub user: Option<String>,
    /// Do not believe cached results (`mvm doctor --fresh`).
    pub fresh: bool,
}

/// Where the host is read from. Tests point these at a recorded tree.
#[derive(Debug, Clone)]
pub struct Roots {
    /// `/sys`.
    pub sysfs: Sysfs,
    /// The directory that holds `proc`, `dev`, `etc`, `usr`: `/` but for tests.
    pub root: PathBuf,
    /// Where results of slow probes are kept; `None`: nowhere.
    pub cache: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`, where a user's own firmware descriptors are.
    pub user_config: Option<PathBuf>,
    /// The directory whose `proc`, `dev`, `etc`, `boot` and `usr` belong to the devices of `sysfs`: `/`,
    /// the folder that holds a recorded tree, or none where a recorded tree is alone.
    pub around_devices: Option<PathBuf>,
    /// Who has which device of this host ([`crate::dirs::Dirs::host`]).
    pub leases: PathBuf,
}

impl Roots {
    /// The real host, with `MVM_SYSFS` honoured, and `cache` as the cache directory.
    pub fn host(cache: Option<PathBuf>) -> Self {
        let user_config = std::env::var_os("XDG_CONFIG_HOME")
            .filter(|d| Path::new(d).is_absolute())
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|h| Path::new(&h).join(".config")));
        let sysfs = Sysfs::from_env();
        Self {
            around_devices: around(&sysfs),
            sysfs,
            root: PathBuf::from("/"),
            cache,
            user_config,
            leases: Dirs::from_env().host,
        }
    }

    /// `path` (absolute) under the root.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// What belongs to the devices of that `/sys`. The real host's files tell nothing about a recorded one.
fn around(sysfs: &Sysfs) -> Option<PathBuf> {
    if sysfs.root() == Path::new("/sys") {
        return Some(PathBuf::from("/"));
    }
    let parent = sysfs.root().parent()?;
    parent.join("proc").is_dir().then(|| parent.to_owned())
}

impl HostFacts {
    /// Reads what `needs` names. Never fails: what could not be read is told in its place.
    pub fn read(roots: &Roots, needs: &Needs) -> Self {
        let cpu = CpuFacts::read(roots);
        let kernel = kernel_release(roots);
        Self {
            arch: Arch::host(),
            os: OsRelease::read(roots),
            realtime: RealtimeFacts::read(roots),
            dmi: if needs.dmi {
                DmiFacts::read(&roots.sysfs)
            } else {
                DmiFacts::default()
            },
            memory: MemoryFacts::read(roots),
            kvm: if needs.kvm {
                KvmFacts::read(roots, &cpu, &kernel, needs.fresh)
            } else {
                KvmFacts::not_asked()
            },
            vhost_net: DeviceNode::probe(roots, "/dev/vhost-net"),
            vhost_vsock: DeviceNode::probe(roots, "/dev/vhost-vsock"),
            links: LinkFacts::read(&roots.sysfs),
            devices: if needs.devices {
                DeviceFacts::read(roots)
            } else {
                DeviceFacts::default()
            },
            tun: DeviceNode::probe(roots, "/dev/net/tun"),
            users: UserFacts::read(roots, needs.user.as_deref()),
            programs: Programs::read(roots, needs.virtiofsd),
            tpm: needs.tpm.as_deref().map(|path| TpmFacts::read(roots, path)),
            sessions: if needs.displays {
                graphical::read(roots)
            } else {
                Vec::new()
            },
            ports: if needs.displays {
                listening::read(roots)
            } else {
                BTreeSet::new()
            },
            qemu: needs
                .qemu
                .iter()
                .map(|&arch| (arch, QemuFacts::read(roots, needs, arch, &kernel, &cpu)))
                .collect(),
            firmware: if needs.firmware {
                FirmwareFacts::read(roots)
            } else {
                FirmwareFacts::default()
            },
            cpu,
            kernel,
        }
    }
}

fn kernel_release(roots: &Roots) -> String {
    std::fs::read_to_string(roots.path("/proc/sys/kernel/osrelease"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}
