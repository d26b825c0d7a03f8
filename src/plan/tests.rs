//! Plans and command lines as a whole, on a made-up host.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::step::Step;
use super::{Plan, build, render};
use crate::machine::testing::{dirs, facts, images, machine, resolve_all};
use crate::profile::{Choices, list, load};
use crate::qemu::command::FdSource;
use crate::qemu::command_line;

fn plan(text: &str) -> Plan {
    let machine = machine(text).unwrap();
    let line = command_line(&machine);
    build::build(machine, line, &facts().links)
}

#[test]
fn built_in_profiles() {
    let mut dirs = dirs();
    // Not the profiles of whoever runs the test.
    dirs.config = "/nonexistent/mvm".into();
    dirs.system_config = dirs.config.clone();
    for listed in list(&dirs).unwrap() {
        let layer = load(&dirs, &listed.name, &Choices::default())
            .unwrap()
            .layer;
        let images = images(&layer, &dirs);
        let mut facts = facts();
        facts.memory.hugepages = vec![crate::host::memory::HugepagePool {
            size: 2 << 20,
            total: 0,
            free: 0,
        }];
        let machine = match resolve_all(&layer, &facts, &images, &dirs) {
            Ok(machine) => machine,
            // It is nothing without a GPU of the host.
            Err(error) if listed.name == "win10-gvtg" => {
                assert!(error.to_string().contains("mediated"), "{error}");
                continue;
            }
            Err(error) => panic!("{}: {error}", listed.name),
        };
        let line = command_line(&machine);
        let plan = build::build(machine, line, &facts.links);
        insta::assert_snapshot!(listed.name.as_str(), render::text(&plan));
    }
}

const EVERYTHING: &str = r#"
trace = ["virtio*", "a,b"]
qemu-args = ["-rtc", "base=localtime"]
[machine]
type = "q35"
[cpu]
sockets = 1
cores = 2
threads = 2
[memory]
size = "2G"
[firmware]
type = "uefi"
[disk.system]
file.path = "it's, a disk.qcow2"
cache = "none"
aio = "native"
discard = true
boot = 1
[disk.block]
file.path = "/dev/sdx1"
bus = "scsi"
serial = "S 1"
cache = "directsync"
[disk.throwaway]
file.path = "base.qcow2"
bus = "nvme"
ephemeral = true
[disk.cd]
media = "cdrom"
empty = true
[disk.stick]
file.path = "stick.img"
bus = "usb"
read-only = true
[network.lan]
user = { forward = ["2222:22", "udp:0.0.0.0:5353:53"], restrict = true }
[network.old]
tap.name = "mytap"
model = "e1000"
mac = "52:54:00:00:00:01"
[network.wire]
tap = { name = "mvm-new", bridge = "br0" }
[console.main]
[console.hvc]
[console.pts]
backend = "pty"
[channel.app]
port = "com.example.app"
[agent]
[share.data]
path = "/srv/data, more"
tag = "d"
read-only = true
[rng]
[balloon]
[watchdog]
action = "poweroff"
[tpm]
emulator = {}
[vsock]
cid = 73
[iommu]
model = "virtio"
"#;

#[test]
fn everything_for_people() {
    insta::assert_snapshot!(render::text(&plan(EVERYTHING)));
}

#[test]
fn everything_for_scripts() {
    let json = serde_json::to_string_pretty(&render::json(&plan(EVERYTHING))).unwrap();
    insta::assert_snapshot!(json);
}

#[test]
fn a_plan_comes_back_from_its_file() {
    let plan = plan(EVERYTHING);
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

/// A profile with any number of each kind of device.
fn profile() -> impl Strategy<Value = String> {
    let board = prop::sample::select(vec!["q35", "pc", "microvm", "virt"]);
    let counts = prop::array::uniform5(0usize..4);
    (board, counts, any::<[bool; 6]>()).prop_map(
        |(board, [disks, nics, consoles, channels, shares], on)| {
            let mut text = match board {
                "virt" => "machine.arch = \"aarch64\"\n".to_owned(),
                _ => format!("machine.type = \"{board}\"\n"),
            };
            for n in 0..disks {
                text.push_str(&format!(
                    "[disk.d{n}]\nfile.path = \"d{n}.qcow2\"\nephemeral = {}\n",
                    n % 2 == 1
                ));
            }
            for n in 0..nics {
                let kind = match n {
                    0 => "user = {}".to_owned(),
                    1 => "tap.name = \"mytap\"".to_owned(),
                    _ => format!("tap.name = \"new{n}\""),
                };
                text.push_str(&format!("[network.n{n}]\n{kind}\n"));
            }
            for n in 0..consoles {
                let backend = if n % 2 == 1 { "pty" } else { "mvm" };
                text.push_str(&format!("[console.c{n}]\nbackend = \"{backend}\"\n"));
            }
            for n in 0..channels {
                text.push_str(&format!("[channel.c{n}]\n"));
            }
            for n in 0..shares {
                let kind = if n % 2 == 1 { "virtiofs = {}\n" } else { "" };
                text.push_str(&format!("[share.s{n}]\npath = \"/srv/{n}\"\n{kind}"));
            }
            for (table, on) in ["agent", "rng", "balloon", "vsock"].iter().zip(on) {
                if on {
                    text.push_str(&format!("[{table}]\n"));
                }
            }
            if on[4] && board != "microvm" {
                text.push_str("[watchdog]\n");
            }
            if on[5] && matches!(board, "q35" | "virt") {
                text.push_str("[iommu]\nmodel = \"virtio\"\n");
            }
            text
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_hold_together(text in profile()) {
        let plan = plan(&text);
        let run = &plan.machine.run_dir;

        // Nothing of another start is touched before the lock is taken.
        let is_run_dir = matches!(&plan.steps[0], Step::MakeDir { path, keep: false, .. } if path == run);
        prop_assert!(is_run_dir, "{:?}", plan.steps[0]);
        let is_lock = matches!(&plan.steps[1], Step::Lock { path } if path.starts_with(run));
        prop_assert!(is_lock, "{:?}", plan.steps[1]);

        // Whatever a step makes outside of what is kept, its inverse takes away.
        let mut made = BTreeSet::new();
        for step in &plan.steps {
            let kept = matches!(
                step,
                Step::MakeDir { keep: true, .. }
                    | Step::Lock { .. }
                    | Step::CopyFile { .. }
                    | Step::KeepPlaces { .. }
            );
            let inverse = step.inverse();
            prop_assert_eq!(inverse.is_none(), kept, "{:?}", step);
            // Taking back is final.
            prop_assert!(inverse.iter().all(|inverse| inverse.inverse().is_none()));
            prop_assert!(made.insert(format!("{step:?}")), "twice: {step:?}");
        }

        // What QEMU inherits has been made by a step, or is there already.
        for fd in &plan.command.fds {
            let there = match &fd.source {
                FdSource::Listen(path) => plan.steps.contains(&Step::Listen { path: path.clone() }),
                FdSource::Lock(path) => plan.steps.contains(&Step::Lock { path: path.clone() }),
                FdSource::Tap(name) => {
                    let new = |step: &Step| matches!(step, Step::CreateTap { name: made, .. } if made == name);
                    name == "mytap" || plan.steps.iter().any(new)
                }
                FdSource::Device(path) => path.starts_with("/dev"),
                FdSource::Connect(path) => {
                    let serves = |step: &Step| matches!(step, Step::StartSidecar { sidecar } if sidecar.socket == *path);
                    plan.steps.iter().any(serves)
                }
                FdSource::Secret(path) => path.is_absolute(),
            };
            prop_assert!(there, "{fd:?}");
        }

        // The real command line names numbers, the shown one paths, and neither names the other.
        let argv = plan.command.argv();
        prop_assert!(argv.iter().all(|arg| !arg.contains("{fd:")), "{argv:?}");
        let shown = plan.command.shown();
        prop_assert!(shown.iter().all(|arg| !arg.contains("fd=") && !arg.contains("{fd")), "{shown:?}");
        for args in [&argv, &shown] {
            let ids: Vec<String> = args
                .iter()
                .zip(args.iter().skip(1))
                .filter(|(switch, _)| *switch == "-device")
                .map(|(_, json)| serde_json::from_str::<serde_json::Value>(json).unwrap()["id"].to_string())
                .collect();
            let unique: BTreeSet<&String> = ids.iter().collect();
            prop_assert_eq!(unique.len(), ids.len(), "{:?}", ids);
        }
    }
}
