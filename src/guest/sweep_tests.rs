//! The crash sweep on hosts that are trees: devices are taken and given back, and the process is killed
//! before and after each write to the host and each line about it, in one run after the other until a run
//! passes through. After each, recovery must end in the tree from before.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests: a panic is a failed test, and how many points were swept is told"
)]

mod forms;

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use super::leftovers;
use super::recover::{Recovered, recover};
use super::{RunDir, claim};
use crate::dirs::Dirs;
use crate::hosts::{self, Kernel, difference, snapshot};
use crate::ids::{GuestName, PciRef};
use crate::ops::hostdir::HostDir;
use crate::ops::{Host, STAND_IN, moment, set_stand_in};
use crate::plan::apply::{Prepared, apply};
use crate::plan::build::devices::{Wanted, steps};
use crate::plan::journal::{self, Entry, Leases, take_back_entries};
use crate::plan::step::{Step, User};
use crate::units::Size;
pub(super) use forms::form;
use forms::{Form, pci};

/// A user who is not this one, where this one may give anything to others.
fn stranger() -> u32 {
    let us = nix::unistd::Uid::effective();
    if us.is_root() { 65534 } else { us.as_raw() }
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

fn plan(run: &RunDir, wanted: &Wanted<'_>, hugepages: Option<u64>) -> Vec<Step> {
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
    all.extend(hugepages.map(|pages| Step::ClaimHugepages {
        size: Size::mib(2),
        node: None,
        pages,
        user: user.clone(),
    }));
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
    let prepared = apply(&host, &plan(&run, &wanted, form.hugepages), &run.journal()).unwrap();
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
    for (at, name) in form.leave.iter().enumerate() {
        let gone: PciRef = name.parse().unwrap();
        let left: Vec<PciRef> = form.leave[..=at]
            .iter()
            .map(|one| one.parse().unwrap())
            .collect();
        let chosen = |entry: &Entry| entry.undo.lease() == Some(gone.key());
        let keeps = |function| {
            let mut devices = form.devices.iter();
            let has = devices.any(|device| device.kind.function() == Some(function));
            has && !left.contains(&function)
        };
        let back =
            take_back_entries(&host, &run.journal(), chosen, keeps, Leases::Release).unwrap();
        assert!(back.errors.is_empty(), "{:?}", back.errors);
        assert_eq!(back.held.is_empty(), left.len() == form.devices.len());
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

/// A pool of huge pages of 2 MiB: 10, of which 6 are somebody's.
fn pool(root: &Path) {
    let dir = root.join("sys/kernel/mm/hugepages/hugepages-2048kB");
    std::fs::create_dir_all(&dir).unwrap();
    for (file, count) in [
        ("nr_hugepages", 10),
        ("free_hugepages", 4),
        ("resv_hugepages", 1),
        ("surplus_hugepages", 0),
    ] {
        std::fs::write(dir.join(file), format!("{count}\n")).unwrap();
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
    if wanted.hugepages.is_some() {
        pool(&root);
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
        assert!(held.pools().unwrap().is_empty(), "{name} at {point}");
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
    hugepages = "hugepages";
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
    group = "group";
    user_leaves = "user-leaves";
    two_vfs_and_usb = "two-vfs-and-usb";
    user_usb = "user-usb";
    user_iommufd = "user-iommufd";
    user_group = "user-group";
}
