//! The dry run of what people ask for, on hosts that cannot be had. What depends on the machine that runs the test
//! (QEMU's path, KVM, images) is left out.

use std::fmt::Write as _;

use serde_json::Value;

use crate::env::TestEnv;
use crate::hosts::{self, Host};

/// A guest that needs nothing of the machine that runs the test.
const GUEST: &str =
    "[machine]\naccel = 'tcg'\narch = 'x86_64'\ntype = 'q35'\n[hotplug]\nports = 0\n";
const ARM_GUEST: &str = "[machine]\naccel = 'tcg'\narch = 'aarch64'\n[firmware]\ntype = 'none'\n[boot]\nkernel = 'kernel'\n[hotplug]\nports = 0\n";

struct World {
    env: TestEnv,
    host: Host,
}

impl World {
    fn new(tree: &str) -> Self {
        let env = TestEnv::new();
        env.write("config/profiles/g.toml", GUEST);
        env.write("config/profiles/arm.toml", ARM_GUEST);
        env.write("state/images/kernel", "no kernel");
        env.write("state/images/vbios.rom", "no rom");
        Self {
            env,
            host: Host::new(tree),
        }
    }

    /// What a dry run with these flags says, as far as it is about devices of the host.
    fn dry_run(&self, line: &str) -> String {
        let mut out = format!("$ mvm run {line}\n");
        let mut words = vec!["run".to_owned()];
        words.extend(shlex::split(line).expect("words"));
        words.extend(["--dry-run", "--format", "json"].map(str::to_owned));
        let mut command = self.env.command(&words);
        command.env("MVM_SYSFS", self.host.sys());
        let ran = command.output().expect("mvm runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !ran.status.success() {
            let _ = writeln!(
                out,
                "{}exit {}",
                text(&ran.stderr),
                ran.status.code().unwrap_or(-1)
            );
            return out;
        }
        let plan: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
        for note in plan["notes"].as_array().expect("notes") {
            let note = note.as_str().expect("a text");
            if !note.contains("neither a kernel") && !note.contains("more than the") {
                let _ = writeln!(out, "note: {note}");
            }
        }
        let text = self.steps(&words);
        let devices = text.lines().filter_map(|line| line.strip_prefix("#   "));
        for device in devices.filter(|line| line.contains(": ")) {
            let _ = writeln!(out, "{device}");
        }
        for step in people(&text) {
            let _ = writeln!(out, "- {step}");
        }
        let args: Vec<&str> = plan["args"]
            .as_array()
            .expect("args")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        for pair in args.windows(2) {
            let about = match pair[0] {
                "-cpu" => pair[1].contains(','),
                "-object" => pair[1].contains("iommufd"),
                "-device" => true,
                _ => false,
            };
            if about {
                let _ = writeln!(out, "{} {}", pair[0], pair[1]);
            }
        }
        self.tame(&out)
    }

    /// The text form of the same.
    fn steps(&self, words: &[String]) -> String {
        let words: Vec<&String> = words
            .iter()
            .take_while(|word| *word != "--format")
            .collect();
        let mut command = self.env.command(&words);
        command.env("MVM_SYSFS", self.host.sys());
        let ran = command.output().expect("mvm runs");
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }

    fn tame(&self, text: &str) -> String {
        text.replace(&self.env.path("").display().to_string(), "$HOME/")
    }

    /// All of them, one after the other.
    fn all(&self, lines: &[&str]) -> String {
        let told: Vec<String> = lines.iter().map(|line| self.dry_run(line)).collect();
        told.join("\n")
    }
}

/// The steps about devices, without their numbers.
fn people(text: &str) -> Vec<String> {
    let steps = text
        .lines()
        .filter_map(|line| line.strip_prefix("# ")?.trim_start().split_once(". "));
    let other = [
        "make the directory",
        "take the guest's lock",
        "listen on",
        "copy ",
    ];
    steps
        .filter(|(number, step)| {
            number.parse::<u32>().is_ok() && !other.iter().any(|start| step.starts_with(start))
        })
        .map(|(_, step)| step.to_owned())
        .collect()
}

#[test]
fn intel_on_i915() {
    let told = World::new("intel-i915-7vf").all(&[
        "g --gpu vf:1",
        "g --gpu sriov",
        "g --gpu vf:8",
        "g --gpu vf:5 --set gpu.count=4",
        "g --gpu whole",
        "g --gpu gvtd --set gpu.gms=2 --set machine.type=pc",
        "g --gpu upt --set gpu.rom=vbios.rom",
        "g --gpu virtio",
        "g --gpu mdev:i915-GVTg_V5_4",
        "g --gpu whole --pci vf:1@00:02.0",
        "g --gpu vf:1 --pci vf:auto@00:02.0",
        "g --gpu vf:1@00:1f.3",
        "g --set gpu.upt=true --set cpu.hide-hypervisor=true --set cpu.phys-bits-limit=36",
    ]);
    insta::assert_snapshot!(told);
}

#[test]
fn intel_on_xe() {
    let told = World::new("intel-xe-7vf").all(&[
        "g --gpu vf:auto",
        "g --gpu vf:2 --set gpu.provision.exec-quantum-ms=25 --set gpu.provision.ggtt-quota=400M",
        "g --gpu whole",
        "g --gpu upt",
    ]);
    insta::assert_snapshot!(told);
    let told = World::new("intel-xe-7vf-debugfs").all(&["g --gpu vf:1", "g --gpu whole"]);
    insta::assert_snapshot!("intel_on_xe_debugfs", told);
}

#[test]
fn an_arc_card() {
    let told = World::new("arc").all(&[
        "g --gpu whole",
        "g --gpu whole@03:00.0",
        "g --gpu whole@03:00.0 --pci 04:00.0",
        "g --gpu whole@00:02.0",
        "g --gpu vf:auto",
        "g --gpu upt",
        "g --gpu upt@03:00.0",
        "g --gpu virtio --usb mouse --usb keyboard",
    ]);
    insta::assert_snapshot!(told);
}

#[test]
fn nvidia() {
    let told = World::new("nvidia-desktop").all(&[
        "g --gpu whole",
        "g --gpu whole@01:00.0",
        "g --gpu whole@01:00.0 --set gpu.functions=all --set gpu.x-vga=true --set gpu.rom=vbios.rom --set cpu.hide-hypervisor=true",
        "g --gpu whole@01:00.0 --set gpu.functions=all --set gpu.multifunction=false --set gpu.rom-bar=false",
        "g --gpu whole@01:00.0 --set gpu.group=all",
        "g --gpu vf:1",
        "g --gpu upt",
        "g --gpu whole@01:00.0 --set gpu.gms=2",
        "g --pci nvidia:2",
        "g --pci 'usb controller:2'",
    ]);
    insta::assert_snapshot!(told);
    let told = World::new("nvidia-second-gpu").all(&[
        "g --gpu whole@01:00.0",
        "g --gpu whole@01:00.0 --set gpu.functions=all",
    ]);
    insta::assert_snapshot!("nvidia_second_gpu", told);
}

#[test]
fn a_server_with_virtual_functions() {
    let told = World::new("server-nics").all(&[
        "g --gpu whole",
        "g --gpu vf",
        "g --pci 3b:00.0",
        "g --pci 3b:00.0 --take-from-host",
        "g --pci 3b:00.1",
        "g --pci vf:1@3b:00.1",
        "g --pci vf:auto@3b:00.1 --pci vf:auto@3b:00.1 --set 'pci.\"pci-vf-auto-3b-00-1\".vf.mac=02:00:00:00:00:01' --set 'pci.\"pci-vf-auto-3b-00-1\".vf.vlan=7'",
        "g --pci vf:1@xl710",
        "g --pci vf:auto@x710",
        "g --pci vf:auto@connectx",
        "g --pci vf:9999@3b:00.1",
        "g --pci vf:1@mgag200",
        "g --pci vf:1@matrox",
        "g --pci 00:1f.0",
        "g --set 'pci.v.vf={of=\"3b:00.1\",count=2,keep=true}'",
    ]);
    insta::assert_snapshot!(told);
}

#[test]
fn pci_and_usb_by_words() {
    let told = World::new("intel-i915-7vf").all(&[
        "g --pci wi-fi",
        "g --pci i225:2",
        "g --pci i225",
        "g --pci 'Ethernet Controller:2'",
        "g --pci 8086:15f3:3",
        "g --pci wify",
        "g --pci 00:1f.3",
        "g --pci 00:1f.3 --set pci.pci-00-1f-3.functions=all",
        "g --pci 00:1f.3 --set pci.pci-00-1f-3.group=all",
        "g --pci 02:00.0",
        "g --pci 00:14.0",
        "g --pci 1a:00.0",
        "g --pci 04:00.0 --pci 4:00.0",
        "g --usb 1-3 --usb bluetooth --usb serial:4C530001230915116391 --usb 0bda:8153",
        "g --usb storage:2",
        "g --usb storage:3",
        "g --usb 1-7",
        "g --usb 2-7.4 --usb 1-7.4",
        "g --usb camera",
    ]);
    insta::assert_snapshot!(told);
}

#[test]
fn gvt_g() {
    let told = World::new("intel-i915-gvtg").all(&[
        "g --gpu mdev:i915-GVTg_V5_4",
        "g --gpu mdev:i915-GVTg_V5_8",
        "g --gpu mdev:i915-GVTg_V5_8 --set gpu.opregion=true --set gpu.keep=true",
        "g --gpu mdev:nothing",
        "g --mdev i915-GVTg_V5_8",
        "g --mdev i915-GVTg_V5_8@00:02.0",
        "g --mdev 00000000-1111-2222-3333-444444444444",
        "g --gpu vf:1",
        "g --gpu whole",
    ]);
    insta::assert_snapshot!(told);
}

#[test]
fn arm_with_smmu() {
    let told = World::new("arm-smmu").all(&[
        "arm --gpu whole",
        "arm --gpu virtio",
        "arm --pci 5:01:00.0",
        "arm --pci i226 --usb storage",
        "arm --pci 4:01:00.0 --set cpu.hide-hypervisor=true",
        "arm --pci nvme",
    ]);
    insta::assert_snapshot!(told);
}

#[test]
fn a_domain_of_vmd() {
    let told = World::new("vmd").all(&[
        "g --gpu whole",
        "g --gpu vf:1",
        "g --pci 10000:e1:00.0",
        "g --pci 10000:e2:00.0 --set pci.pci-10000-e2-00-0.group=all",
        "g --pci 10000:e0:06.0",
    ]);
    insta::assert_snapshot!(told);
}

#[test]
fn no_iommu() {
    let mut told = World::new("no-iommu").all(&[
        "g --gpu whole@01:00.0",
        "g --gpu virtio",
        "g --usb keyboard",
    ]);
    told.push('\n');
    told.push_str(&World::new("no-iommu-amd").all(&["g --gpu whole"]));
    insta::assert_snapshot!(told);
}

/// Every way to ask for a GPU on every host, whether it can be had there or not.
#[test]
fn every_form_of_gpu_on_every_host() {
    for tree in hosts::names() {
        let world = World::new(&tree);
        let guest = if tree == "arm-smmu" { "arm" } else { "g" };
        let forms = [
            "vf:1",
            "vf:auto",
            "vf",
            "sriov",
            "whole",
            "gvtd",
            "upt",
            "mdev:i915-GVTg_V5_8",
            "mdev:00000000-1111-2222-3333-444444444444",
            "virtio",
            "none",
        ];
        let told: Vec<String> = forms
            .iter()
            .map(|form| world.dry_run(&format!("{guest} --gpu {form}")))
            .collect();
        insta::assert_snapshot!(format!("gpu_forms_{tree}"), told.join("\n"));
    }
}
