//! The crash sweep on hosts that are trees: devices are taken and given back, and the process is killed
//! before and after each write to the host and each line about it, in one run after the other until a run
//! passes through. After each, recovery must end in the tree from before.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests: a panic is a failed test, and how many points were swept is told"
)]

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use super::leftovers;
use super::recover::{Recovered, recover};
use super::{RunDir, claim};
use crate::dirs::Dirs;
use crate::handover::{ConsoleRef, Provision};
use crate::hosts::{self, Kernel, difference, snapshot};
use crate::ids::{GuestName, PciRef, UsbPort};
use crate::machine::{
    HostDevice, HostDeviceKind, HostMdev, HostPci, HostUsb, UsbAsk, VfSet, host_devices::GuestSide,
};
use crate::ops::hostdir::HostDir;
use crate::ops::{Host, STAND_IN, moment, set_stand_in};
use crate::plan::apply::{Prepared, apply};
use crate::plan::build::devices::{Wanted, steps};
use crate::plan::journal;
use crate::plan::step::{Step, User};
use crate::units::Size;

/// What a guest wants, in one form of asking for it.
#[derive(Default)]
pub(super) struct Form {
    pub(super) host: &'static str,
    devices: Vec<HostDevice>,
    vfs: Vec<VfSet>,
    companions: Vec<HostPci>,
    consoles: Vec<ConsoleRef>,
    /// USB interfaces that a killed QEMU leaves without drivers.
    lost: Vec<&'static str>,
    /// A write that the host itself did before: a file, and what.
    before: Option<(&'static str, &'static str)>,
    /// QEMU runs as another user, and reaches VFIO by the devices' own nodes.
    user: Option<bool>,
    /// Another guest has this virtual function all the time.
    sibling: Option<&'static str>,
}

/// A user who is not this one, where this one may give anything to others.
fn stranger() -> u32 {
    let us = nix::unistd::Uid::effective();
    if us.is_root() { 65534 } else { us.as_raw() }
}

fn device(kind: HostDeviceKind) -> HostDevice {
    HostDevice {
        id: "dev".parse().unwrap(),
        text: String::new(),
        kind,
        take_from_host: false,
        guest: GuestSide::default(),
    }
}

fn pci(name: &str) -> HostDevice {
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

pub(super) fn form(name: &str) -> Form {
    match name {
        "i915-vf" => Form {
            host: "intel-i915-7vf",
            devices: vec![pci("vf:1@0000:00:02.0")],
            vfs: vfs("0000:00:02.0", 0, Some(schedule())),
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
        other => panic!("no form `{other}`"),
    }
}

/// The directories of a sweep: all below one.
pub(super) fn dirs(top: &Path) -> Dirs {
    let mut dirs = Dirs::new(0, &|_| None);
    dirs.runtime = top.join("run");
    dirs.state = top.join("state");
    dirs.cache = top.join("cache");
    dirs.host = top.join("host");
    dirs
}

fn plan(run: &RunDir, wanted: &Wanted<'_>) -> Vec<Step> {
    let user = User {
        guest: run.name().to_string(),
        run_dir: run.path().to_owned(),
    };
    let mut all = vec![
        Step::MakeDir {
            path: run.path().to_owned(),
            mode: 0o700,
            keep: false,
        },
        Step::Lock { path: run.lock() },
    ];
    all.extend(steps(wanted, &user));
    all
}

pub(super) fn take(top: &Path, guest: &str, form: &Form) -> (Host, Prepared) {
    let run = RunDir::new(&dirs(top), &guest.parse().unwrap());
    let wanted = Wanted {
        devices: &form.devices,
        vfs: &form.vfs,
        companions: &form.companions,
        consoles: &form.consoles,
        user: form.user.map(|_| stranger()),
        iommufd: form.user == Some(true),
    };
    let host = Host::sharing(run.host());
    let prepared = apply(&host, &plan(&run, &wanted), &run.journal()).unwrap();
    (host, prepared)
}

/// What the process does that is killed: a start, a QEMU that is killed, and the end.
fn take_and_give_back(top: &Path, root: &Path, form: &Form) {
    let run = RunDir::new(&dirs(top), &"swept".parse().unwrap());
    let claim = claim::take(&run).unwrap();
    let (host, prepared) = take(top, "swept", form);
    if form.user.is_some() {
        let given = format!(", {} 600", stranger());
        let all = snapshot(root);
        let mut nodes = all.iter().filter(|line| line.starts_with("dev/"));
        assert!(nodes.any(|line| line.ends_with(&given)), "no node is given");
    }
    for interface in &form.lost {
        let unbind = format!("sys/bus/usb/devices/{interface}/driver/unbind");
        let file = root.join(unbind);
        Kernel::at(root).write(&file, interface.as_bytes()).unwrap();
        moment::pass();
    }
    let undo = journal::read(&run.journal()).unwrap();
    let left = journal::roll_back(&host, &undo, Some(&run.journal()));
    assert!(left.is_empty(), "{left:?}");
    drop(prepared);
    drop(claim);
}

/// Not a test by itself: the process that a sweep kills.
#[test]
#[ignore = "started by the sweep"]
fn swept_process() {
    let var = |name: &str| std::env::var(name).unwrap();
    let top = var("MVM_TEST_TOP");
    let top = Path::new(&top);
    moment::die_after(var("MVM_TEST_POINT").parse().unwrap());
    if var("MVM_TEST_WHAT") == "recover" {
        recovered(top);
    } else {
        let root = var(STAND_IN);
        take_and_give_back(top, Path::new(&root), &form(&var("MVM_TEST_WHAT")));
        println!("points: {}", moment::passed());
    }
}

fn child(top: &Path, root: &Path, what: &str, point: i64) -> (ExitStatus, String) {
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "guest::sweep_tests::swept_process"])
        .args(["--ignored", "--nocapture"])
        .env("MVM_TEST_TOP", top)
        .env("MVM_TEST_POINT", point.to_string())
        .env("MVM_TEST_WHAT", what)
        .env(STAND_IN, root)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = [done.stdout, done.stderr].concat();
    (done.status, String::from_utf8_lossy(&said).into_owned())
}

/// What `mvm recover` does.
fn recovered(top: &Path) {
    let dirs = dirs(top);
    let name: GuestName = "swept".parse().unwrap();
    match recover(&dirs, &name).unwrap() {
        Recovered::Nothing | Recovered::CleanedUp { .. } => {}
        other => panic!("{other:?}"),
    }
    for leftover in leftovers::take_back_lost(&dirs).unwrap() {
        assert!(leftover.left.is_empty(), "{leftover:?}");
    }
}

/// What stands for the nodes that the kernel makes for USB devices and, with iommufd, the directory of
/// VFIO's.
fn nodes(root: &Path, own: bool) {
    if own {
        std::fs::create_dir_all(root.join("dev/vfio/devices")).unwrap();
    }
    let devices = root.join("sys/bus/usb/devices");
    for entry in std::fs::read_dir(devices).into_iter().flatten().flatten() {
        let number = |file| {
            let text = std::fs::read_to_string(entry.path().join(file)).ok()?;
            text.trim().parse::<u32>().ok()
        };
        if let (Some(bus), Some(device)) = (number("busnum"), number("devnum")) {
            let node = root.join(format!("dev/bus/usb/{bus:03}/{device:03}"));
            std::fs::create_dir_all(node.parent().unwrap()).unwrap();
            std::fs::write(node, "").unwrap();
        }
    }
}

/// Every point of a form; how many there are.
fn sweep(name: &str) -> i64 {
    use std::os::unix::process::ExitStatusExt;

    let wanted = form(name);
    let tree = hosts::Host::new(wanted.host);
    let root = tree.root().to_owned();
    let top = tempfile::tempdir().unwrap();
    let top = top.path();
    set_stand_in(Some(&root));
    if let Some(own) = wanted.user {
        nodes(&root, own);
    }
    if let Some((file, text)) = wanted.before {
        let file = root.join(file);
        Kernel::at(&root).write(&file, text.as_bytes()).unwrap();
    }
    let untouched = snapshot(&root);
    let sibling = wanted.sibling.map(|vf| {
        let form = Form {
            devices: vec![pci(vf)],
            vfs: wanted.vfs.clone(),
            ..Form::default()
        };
        take(top, "sibling", &form)
    });
    let before = snapshot(&root);
    let held = HostDir::new(&top.join("host"));
    let leases = held.leases().unwrap().len();
    let shared = held.shared().unwrap();
    let mut point = 0;
    loop {
        let (status, said) = child(top, &root, name, point);
        let killed = status.signal() == Some(9);
        assert!(killed || status.success(), "{name} at {point}: {said}");
        if killed && point % 3 == 0 {
            // Recovery may be killed as well.
            let (status, said) = child(top, &root, "recover", point % 17);
            let fine = status.success() || status.signal() == Some(9);
            assert!(fine, "{name}, recovery at {point}: {said}");
        }
        if killed {
            recovered(top);
        }
        let differs = difference(&before, &snapshot(&root));
        assert!(differs.is_empty(), "{name} at {point}: {differs:#?}");
        assert_eq!(held.leases().unwrap().len(), leases, "{name} at {point}");
        assert_eq!(held.shared().unwrap(), shared, "{name} at {point}");
        if killed && held.path().exists() {
            let all = snapshot(held.path());
            let litter = |line: &&String| {
                let name = line.split(" = ").next().unwrap_or_default();
                name.starts_with("busy/") && name.len() > 5 || name.contains("/.")
            };
            let litter: Vec<&String> = all.iter().filter(litter).collect();
            assert!(litter.is_empty(), "{name} at {point}: {litter:#?}");
        }
        if !killed {
            assert!(said.contains(&format!("points: {point}")), "{said}");
            break;
        }
        point += 1;
    }
    if let Some((host, prepared)) = sibling {
        assert!(journal::roll_back(&host, &prepared.undo, None).is_empty());
        let differs = difference(&untouched, &snapshot(&root));
        assert!(
            differs.is_empty(),
            "{name}, the sibling's end: {differs:#?}"
        );
    }
    set_stand_in(None);
    point
}

macro_rules! sweeps {
    ($($test:ident = $form:literal;)*) => {
        $(#[test]
        fn $test() {
            println!("{}: {} points swept", $form, sweep($form));
        })*
    };
}

sweeps! {
    i915_vf = "i915-vf";
    i915_whole = "i915-whole";
    xe_vf = "xe-vf";
    xe_vf_debugfs = "xe-vf-debugfs";
    arc_whole = "arc-whole";
    nvidia_whole = "nvidia-whole";
    gvtg_mdev = "gvtg-mdev";
    server_vf = "server-vf";
    host_made_vf = "host-made-vf";
    sibling_vf = "sibling-vf";
    usb_devices = "usb";
    two_vfs_and_usb = "two-vfs-and-usb";
    user_usb = "user-usb";
    user_iommufd = "user-iommufd";
    user_group = "user-group";
}
