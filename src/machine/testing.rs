//! A made-up host for tests: the same everywhere, whatever it runs on.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Inputs, Machine, Positions, ResolveError, resolve, wanted};
use crate::dirs::Dirs;
use crate::host::firmware::{
    Descriptor, FirmwareFacts, FlashFile, FlashMode, Interface, Mapping, Target,
};
use crate::host::images::{Content, FileKind, ImageFacts, Images, Look};
use crate::host::links::{LinkFacts, LinkKind};
use crate::host::qemu::{CpuModel, MachineType, Version};
use crate::host::{
    CpuFacts, DeviceNode, DmiFacts, HostFacts, KvmFacts, KvmState, MemoryFacts, OsRelease,
    QemuCaps, QemuFacts, RealtimeFacts,
};
use crate::ids::Arch;
use crate::profile::schema::Layer;

/// The device types of QEMU that mvm makes.
const DEVICES: &[&str] = &[
    "AC97",
    "ES1370",
    "VGA",
    "bochs-display",
    "cirrus-vga",
    "hda-duplex",
    "hda-micro",
    "hda-output",
    "ich9-intel-hda",
    "intel-hda",
    "ivshmem-plain",
    "nec-usb-xhci",
    "pci-bridge",
    "pcie-pci-bridge",
    "piix3-usb-uhci",
    "qxl",
    "qxl-vga",
    "ramfb",
    "sb16",
    "secondary-vga",
    "usb-audio",
    "usb-ehci",
    "usb-kbd",
    "usb-mouse",
    "usb-redir",
    "usb-tablet",
    "e1000",
    "e1000e",
    "igb",
    "i82550",
    "i82559er",
    "isa-serial",
    "ne2k_pci",
    "pcnet",
    "rtl8139",
    "tulip",
    "vhost-user-blk-device",
    "vhost-user-blk-pci",
    "vmxnet3",
    "i6300esb",
    "pvpanic",
    "pvpanic-pci",
    "ich9-ahci",
    "am53c974",
    "floppy",
    "isa-fdc",
    "lsi53c895a",
    "megasas",
    "mptsas1068",
    "pvscsi",
    "intel-iommu",
    "ide-cd",
    "ide-hd",
    "nvme",
    "pcie-root-port",
    "qemu-xhci",
    "scsi-cd",
    "scsi-hd",
    "tpm-crb",
    "tpm-tis",
    "tpm-tis-device",
    "usb-bot",
    "usb-host",
    "usb-storage",
    "vfio-pci",
    "vfio-pci-nohotplug",
    "vhost-user-fs-device",
    "vhost-user-fs-pci",
    "vhost-vsock-device",
    "vhost-vsock-pci",
    "virtconsole",
    "virtio-9p-device",
    "virtio-9p-pci",
    "virtio-balloon-device",
    "virtio-balloon-pci",
    "virtio-blk-device",
    "virtio-blk-pci",
    "virtio-iommu-pci",
    "virtio-gpu-device",
    "virtio-gpu-gl-pci",
    "virtio-keyboard-device",
    "virtio-keyboard-pci",
    "virtio-mouse-device",
    "virtio-mouse-pci",
    "virtio-tablet-device",
    "virtio-tablet-pci",
    "virtio-vga-gl",
    "virtio-gpu-pci",
    "virtio-net-device",
    "virtio-net-pci",
    "virtio-rng-device",
    "virtio-rng-pci",
    "virtio-scsi-device",
    "virtio-scsi-pci",
    "virtio-serial-device",
    "virtio-serial-pci",
    "virtio-vga",
    "virtserialport",
];

pub(crate) fn caps(arch: Arch) -> QemuCaps {
    let names = |names: &[&str]| names.iter().copied().collect();
    let machine = |alias: Option<&str>, cpu_max| MachineType {
        alias_of: alias.map(str::to_owned),
        cpu_max,
        deprecated: false,
        default_cpu: None,
    };
    let machines = match arch {
        Arch::X86_64 => vec![
            ("q35", machine(Some("pc-q35-7.2"), 288)),
            ("pc-q35-7.2", machine(None, 288)),
            ("pc-q35-7.1", machine(None, 288)),
            ("pc-q35-2.12", machine(None, 288)),
            ("pc", machine(Some("pc-i440fx-7.2"), 255)),
            ("pc-i440fx-7.2", machine(None, 255)),
            ("microvm", machine(None, 288)),
            ("isapc", machine(None, 1)),
        ],
        Arch::Aarch64 => vec![
            ("virt", machine(Some("virt-7.2"), 512)),
            ("virt-7.2", machine(None, 512)),
            ("raspi3b", machine(None, 4)),
        ],
    };
    let cpu = |needs_kvm| CpuModel {
        needs_kvm,
        deprecated: false,
    };
    let cpus = match arch {
        Arch::X86_64 => vec![
            ("host", cpu(true)),
            ("max", cpu(false)),
            ("qemu64", cpu(false)),
            ("pentium2", cpu(false)),
            ("pentium3", cpu(false)),
        ],
        Arch::Aarch64 => vec![
            ("host", cpu(true)),
            ("max", cpu(false)),
            ("cortex-a57", cpu(false)),
        ],
    };
    QemuCaps {
        binary: format!("/usr/bin/qemu-system-{arch}").into(),
        arch,
        version: Version(7, 2, 22),
        package: "Debian 1:7.2+dfsg-7".into(),
        machines: owned(machines),
        cpus: owned(cpus),
        devices: names(DEVICES),
        objects: names(&[
            "rng-random",
            "input-linux",
            "memory-backend-ram",
            "memory-backend-memfd",
            "memory-backend-file",
        ]),
        properties: BTreeMap::new(),
        netdevs: names(&["user", "tap", "vhost-user"]),
        netdev_options: names(&[]),
        chardevs: names(&[
            "socket",
            "pty",
            "serial",
            "file",
            "udp",
            "null",
            "qemu-vdagent",
            "spicevmc",
            "spiceport",
        ]),
        displays: names(&[]),
        display_options: names(&[]),
        audiodevs: names(&[]),
        blockdevs: names(&["file", "host_device", "qcow2", "raw"]),
        aio: names(&["threads", "native", "io_uring"]),
        accels: names(&["kvm", "tcg"]),
        options: owned(vec![("sandbox", names(&["enable", "spawn"]))]),
        commands: names(&[]),
        json_device: true,
        unloadable: BTreeMap::new(),
    }
}

fn owned<T>(pairs: Vec<(&str, T)>) -> BTreeMap<String, T> {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// An x86_64 host whose KVM is of no use, as that of the machines mvm is made on.
pub(crate) fn facts() -> HostFacts {
    let node = |path: &str| DeviceNode {
        path: path.to_owned(),
        usable: true,
        why_not: None,
    };
    let uefi = |arch: &str, machines: &str, code: &str, vars: &str, features: &[&str]| {
        let flash = |file: &str| FlashFile {
            filename: file.into(),
            format: "raw".into(),
        };
        Descriptor {
            origin: "/usr/share/qemu/firmware/60-test.json".into(),
            description: "UEFI".into(),
            interfaces: vec![Interface::Uefi],
            mapping: Mapping::Flash {
                executable: flash(code),
                nvram_template: Some(flash(vars)),
                mode: FlashMode::Split,
            },
            targets: vec![Target {
                architecture: arch.into(),
                machines: vec![machines.into()],
            }],
            features: features.iter().map(|f| (*f).to_owned()).collect(),
        }
    };
    HostFacts {
        arch: Arch::X86_64,
        kernel: "6.1.0-test".into(),
        os: OsRelease::default(),
        cpu: CpuFacts {
            online: 8,
            ..CpuFacts::default()
        },
        realtime: RealtimeFacts::default(),
        dmi: DmiFacts::default(),
        memory: MemoryFacts {
            total: 16 << 30,
            available: 12 << 30,
            hugepages: vec![],
        },
        kvm: KvmFacts {
            state: KvmState::Slow,
            reason: "this host's KVM is 900 times slower than the host itself".into(),
            measured: None,
            abilities: None,
            cached: false,
        },
        vhost_net: node("/dev/vhost-net"),
        vhost_vsock: node("/dev/vhost-vsock"),
        tun: node("/dev/net/tun"),
        links: LinkFacts(owned(vec![
            ("br0", LinkKind::Bridge),
            ("eth0", LinkKind::Other),
            (
                "mytap",
                LinkKind::Tap {
                    vnet_hdr: true,
                    multi_queue: false,
                    mtu: Some(1500),
                },
            ),
        ])),
        devices: crate::host::DeviceFacts::default(),
        users: crate::host::UserFacts::default(),
        programs: crate::host::Programs {
            swtpm: Some("/usr/bin/swtpm".into()),
            virtiofsd: Some(crate::host::Virtiofsd {
                path: "/usr/lib/qemu/virtiofsd".into(),
                kind: crate::host::VirtiofsdKind::Qemu,
                readonly: false,
            }),
        },
        tpm: None,
        sessions: Vec::new(),
        ports: std::collections::BTreeSet::new(),
        qemu: Arch::ALL
            .into_iter()
            .map(|arch| (arch, QemuFacts::Found(Box::new(caps(arch)))))
            .collect(),
        firmware: FirmwareFacts {
            descriptors: vec![
                uefi(
                    "x86_64",
                    "pc-q35-*",
                    "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
                    "/usr/share/OVMF/OVMF_VARS_4M.ms.fd",
                    &["secure-boot", "enrolled-keys", "requires-smm"],
                ),
                uefi(
                    "x86_64",
                    "pc-q35-*",
                    "/usr/share/OVMF/OVMF_CODE_4M.fd",
                    "/usr/share/OVMF/OVMF_VARS_4M.fd",
                    &[],
                ),
                uefi(
                    "aarch64",
                    "virt-*",
                    "/usr/share/AAVMF/AAVMF_CODE.fd",
                    "/usr/share/AAVMF/AAVMF_VARS.fd",
                    &[],
                ),
            ],
            notes: vec![],
        },
    }
}

/// Directories that nobody looks into.
pub(crate) fn dirs() -> Dirs {
    Dirs::new(0, &|_| None)
}

/// Facts that say of every file that `layer` names that it is there: folders for shares, block devices and
/// few others under `/dev`, qcow2 by its name, all else regular and raw.
pub(crate) fn images(layer: &Layer, dirs: &Dirs) -> Images {
    let folder = dirs.images();
    let shares: Vec<&str> = layer
        .share
        .iter()
        .flatten()
        .filter_map(|(_, share)| share.path.as_deref())
        .collect();
    let files = wanted(layer)
        .into_iter()
        .enumerate()
        .map(|(number, text)| {
            let kind = match text {
                _ if shares.contains(&text) => FileKind::Dir,
                "/dev/urandom" | "/dev/hwrng" | "/dev/ttyS0" => FileKind::Char,
                _ if text.starts_with("/dev/") => FileKind::Block,
                _ => FileKind::File,
            };
            let content = if text.ends_with(".qcow2") {
                Content::Qcow2 {
                    virtual_size: 20 << 30,
                    backing: None,
                }
            } else {
                Content::Unknown
            };
            let facts = ImageFacts {
                path: folder.join(text),
                kind,
                identity: (1, number as u64),
                size: 1 << 20,
                readable: true,
                writable: true,
                content: Some(content),
            };
            (text.to_owned(), Look::Found(facts))
        })
        .collect();
    Images {
        folders: vec![folder],
        files,
    }
}

/// The layer that a TOML text is.
pub(crate) fn layer(text: &str) -> Layer {
    toml::from_str(text).unwrap()
}

/// The machine called `test` that a TOML text makes on the made-up host.
pub(crate) fn machine_on(text: &str, facts: &HostFacts) -> Result<Machine, ResolveError> {
    let (layer, dirs) = (layer(text), dirs());
    let images = images(&layer, &dirs);
    resolve_all(&layer, facts, &images, &dirs)
}

/// The same, of a guest whose devices have been somewhere at earlier starts.
pub(crate) fn machine_kept(
    text: &str,
    facts: &HostFacts,
    kept: &Positions,
) -> Result<Machine, ResolveError> {
    let (layer, dirs) = (layer(text), dirs());
    let images = images(&layer, &dirs);
    resolve(&Inputs {
        name: &"test".parse().unwrap(),
        profile: "test",
        layer: &layer,
        facts,
        images: &images,
        dirs: &dirs,
        kept,
    })
}

/// The machine called `test` that a TOML text makes on the made-up host.
pub(crate) fn machine(text: &str) -> Result<Machine, ResolveError> {
    machine_on(text, &facts())
}

pub(crate) fn resolve_all(
    layer: &Layer,
    facts: &HostFacts,
    images: &Images,
    dirs: &Dirs,
) -> Result<Machine, ResolveError> {
    resolve(&Inputs {
        name: &"test".parse().unwrap(),
        profile: "test",
        layer,
        facts,
        images,
        dirs,
        kept: &Positions::default(),
    })
}

/// Directories of a test's own, and the facts about files that are really there.
pub(crate) fn real(root: &Path, text: &str, facts: &HostFacts) -> Result<Machine, ResolveError> {
    let dirs = dirs_in(root);
    real_layer(root, &dirs, &layer(text), facts)
}

/// The same of a layer that is there already.
pub(crate) fn real_layer(
    root: &Path,
    dirs: &Dirs,
    layer: &Layer,
    facts: &HostFacts,
) -> Result<Machine, ResolveError> {
    let folders: Vec<PathBuf> = vec![root.to_owned()];
    let images = crate::host::images::look(wanted(layer), &folders);
    resolve_all(layer, facts, &images, dirs)
}

/// Directories below that one.
pub(crate) fn dirs_in(root: &Path) -> Dirs {
    Dirs {
        config: root.join("config"),
        system_config: root.join("config"),
        state: root.join("state"),
        runtime: root.join("run"),
        cache: root.join("cache"),
        host: root.join("host"),
    }
}
