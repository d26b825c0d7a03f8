//! What guests want in the sweeps.

use crate::handover::{ConsoleRef, Provision};
use crate::ids::{PciRef, UsbPort};
use crate::machine::{
    HostDevice, HostDeviceKind, HostMdev, HostPci, HostUsb, UsbAsk, VfSet, host_devices::GuestSide,
};
use crate::units::Size;

/// What a guest wants, in one form of asking for it.
#[derive(Default)]
pub(in crate::guest) struct Form {
    pub(in crate::guest) host: &'static str,
    pub(super) devices: Vec<HostDevice>,
    pub(super) vfs: Vec<VfSet>,
    pub(super) companions: Vec<HostPci>,
    pub(super) consoles: Vec<ConsoleRef>,
    /// USB interfaces that a killed QEMU leaves without drivers.
    pub(super) lost: Vec<&'static str>,
    /// A write that the host itself did before: a file, and what.
    pub(super) before: Option<(&'static str, &'static str)>,
    /// QEMU runs as another user, and reaches VFIO by the devices' own nodes.
    pub(super) user: Option<bool>,
    /// Functions that the guest lets go while it runs, one after another.
    pub(super) leave: Vec<&'static str>,
    /// Huge pages of 2 MiB, where the pool has 10 of which 4 are free.
    pub(super) hugepages: Option<u64>,
    /// Another guest has this virtual function all the time.
    pub(super) sibling: Option<&'static str>,
}

fn device(kind: HostDeviceKind) -> HostDevice {
    HostDevice {
        id: "dev".parse().unwrap(),
        text: String::new(),
        kind,
        take_from_host: false,
        park: false,
        guest: GuestSide::default(),
    }
}

pub(super) fn pci(name: &str) -> HostDevice {
    device(HostDeviceKind::Pci(function(name)))
}

fn function(name: &str) -> HostPci {
    let function: PciRef = name.parse().unwrap();
    HostPci {
        function,
        address: function.physical(),
        predicted: true,
        group: None,
        driver: "vfio-pci".to_owned(),
        had: None,
    }
}

fn usb(port: &str, interfaces: &[&str]) -> HostDevice {
    let port: UsbPort = port.parse().unwrap();
    let interfaces = interfaces.iter().map(|name| ((*name).to_owned(), None));
    device(HostDeviceKind::Usb(HostUsb {
        part_of: Some("0000:00:14.0".parse().unwrap()),
        bus: 1,
        address: 1,
        hostport: port.path().to_owned(),
        vendor: 0,
        product: 0,
        serial: None,
        interfaces: interfaces.collect(),
        ask: UsbAsk::Port(port.clone()),
        port,
    }))
}

fn vfs(pf: &str, count: u32, provision: Option<Provision>) -> Vec<VfSet> {
    vec![VfSet {
        pf: pf.parse().unwrap(),
        count,
        existing: false,
        keep: false,
        provision,
        net: Vec::new(),
    }]
}

fn vt(name: &str) -> ConsoleRef {
    ConsoleRef::Vt(name.to_owned())
}

fn schedule() -> Provision {
    Provision {
        exec_quantum_ms: Some(25),
        preempt_timeout_us: Some(500_000),
        ..Provision::default()
    }
}

pub(in crate::guest) fn form(name: &str) -> Form {
    match name {
        "i915-vf" => Form {
            host: "intel-i915-7vf",
            devices: vec![pci("vf:1@0000:00:02.0")],
            vfs: vfs("0000:00:02.0", 0, Some(schedule())),
            ..Form::default()
        },
        "hugepages" => Form {
            host: "intel-i915-7vf",
            hugepages: Some(100),
            ..Form::default()
        },
        "i915-whole" => Form {
            host: "intel-i915-7vf",
            devices: vec![pci("0000:00:02.0")],
            consoles: vec![vt("vtcon1")],
            ..Form::default()
        },
        "xe-vf" => Form {
            host: "intel-xe-7vf",
            devices: vec![pci("vf:2@0000:00:02.0")],
            vfs: vfs("0000:00:02.0", 3, Some(schedule())),
            ..Form::default()
        },
        "xe-vf-debugfs" => Form {
            host: "intel-xe-7vf-debugfs",
            devices: vec![pci("vf:1@0000:00:02.0")],
            vfs: vfs(
                "0000:00:02.0",
                2,
                Some(Provision {
                    ggtt_quota: Some(Size::mib(512)),
                    contexts_quota: Some(1024),
                    contexts_spare: Some(9216),
                    ..schedule()
                }),
            ),
            ..Form::default()
        },
        "arc-whole" => Form {
            host: "arc",
            devices: vec![pci("0000:03:00.0"), pci("0000:04:00.0")],
            ..Form::default()
        },
        "nvidia-whole" => Form {
            host: "nvidia-desktop",
            devices: vec![pci("0000:01:00.0"), pci("0000:01:00.1")],
            companions: vec![function("0000:01:00.2"), function("0000:01:00.3")],
            consoles: vec![
                vt("vtcon1"),
                ConsoleRef::Platform {
                    device: "efi-framebuffer.0".to_owned(),
                    driver: "efi-framebuffer".to_owned(),
                },
            ],
            ..Form::default()
        },
        "gvtg-mdev" => Form {
            host: "intel-i915-gvtg",
            devices: vec![device(HostDeviceKind::Mdev(HostMdev {
                uuid: uuid::Uuid::from_u128(7),
                parent: "0000:00:02.0".to_owned(),
                part_of: Some("0000:00:02.0".parse().unwrap()),
                type_id: Some("i915-GVTg_V5_8".to_owned()),
                create: true,
                keep: false,
            }))],
            ..Form::default()
        },
        "server-vf" => Form {
            host: "server-nics",
            devices: vec![pci("vf:2@0000:3b:00.0")],
            vfs: vfs("0000:3b:00.0", 4, None),
            ..Form::default()
        },
        "host-made-vf" => Form {
            before: Some(("sys/bus/pci/devices/0000:3b:00.1/sriov_numvfs", "2\n")),
            devices: vec![pci("vf:2@0000:3b:00.1")],
            vfs: vfs("0000:3b:00.1", 2, None),
            ..form("server-vf")
        },
        "sibling-vf" => Form {
            sibling: Some("vf:1@0000:3b:00.0"),
            ..form("server-vf")
        },
        "usb" => Form {
            host: "intel-i915-7vf",
            devices: vec![
                usb("1-3", &["1-3:1.0", "1-3:1.1", "1-3:1.2"]),
                usb("1-5", &["1-5:1.0"]),
            ],
            lost: vec!["1-3:1.0", "1-3:1.2", "1-5:1.0"],
            ..Form::default()
        },
        "two-vfs-and-usb" => Form {
            devices: vec![
                pci("vf:1@0000:00:02.0"),
                pci("vf:3@0000:00:02.0"),
                usb("1-5", &["1-5:1.0"]),
            ],
            lost: vec!["1-5:1.0"],
            ..form("i915-vf")
        },
        "user-usb" => Form {
            user: Some(false),
            ..form("usb")
        },
        "user-iommufd" => Form {
            user: Some(true),
            ..form("i915-whole")
        },
        "user-group" => Form {
            user: Some(false),
            ..form("nvidia-whole")
        },
        // One group: sound and bus for the guest, the flash goes along.
        "group" => Form {
            host: "intel-i915-7vf",
            devices: vec![pci("0000:00:1f.3"), pci("0000:00:1f.4")],
            companions: vec![function("0000:00:1f.5")],
            leave: vec!["0000:00:1f.4", "0000:00:1f.3"],
            ..Form::default()
        },
        "user-leaves" => Form {
            user: Some(false),
            leave: vec!["0000:00:1f.3"],
            ..form("group")
        },
        other => panic!("no form `{other}`"),
    }
}
