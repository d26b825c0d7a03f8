//! The guests of the documents that people come from, as profiles: what each of them is, on a host that has what it
//! asks for. What depends on the machine that runs the test (the path of QEMU, KVM) is left out.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::env::TestEnv;
use crate::hosts::Host;

struct World {
    env: TestEnv,
    host: Host,
}

impl World {
    /// The host of that tree, with a pool of huge pages and with the images of all guests.
    fn new(tree: &str) -> Self {
        let (env, host) = (TestEnv::new(), Host::new(tree));
        for image in [
            "ubuntu",
            "windows10",
            "windows11",
            "ubuntu-rt",
            "android",
            "redhat",
            "centos",
            "win10-gvtg",
            "gaming",
            "retro",
        ] {
            let path = env.image(format!("{image}.qcow2"));
            let made = std::process::Command::new("qemu-img")
                .args(["create", "-q", "-f", "qcow2"])
                .arg(&path)
                .arg("1G")
                .status();
            assert!(made.expect("qemu-img").success());
        }
        for file in [
            "arm-virt/Image",
            "arm-virt/rootfs.cpio.gz",
            "arm-virt/rootfs.ext4",
            "arm-virt/disk.img",
        ] {
            env.write(format!("state/images/{file}"), vec![0; 4096]);
        }
        env.write("xdg/pulse/native", "no socket");
        let pool = host.sys().join("kernel/mm/hugepages/hugepages-2048kB");
        std::fs::create_dir_all(&pool).expect("a folder");
        for file in [
            "nr_hugepages",
            "free_hugepages",
            "resv_hugepages",
            "surplus_hugepages",
        ] {
            std::fs::write(pool.join(file), "0\n").expect("a file");
        }
        Self { env, host }
    }

    /// The plan of a guest: its steps that are about the host, and QEMU's command line.
    fn plan(&self, line: &str) -> Result<Value, String> {
        let mut words = vec!["run".to_owned()];
        words.extend(shlex::split(line).expect("words"));
        words.extend(["--dry-run", "--format", "json"].map(str::to_owned));
        let mut command = self.env.command(&words);
        command
            .env("MVM_SYSFS", self.host.sys())
            // A session of this user, as far as a dry run looks at it.
            .env("DISPLAY", "desk:0")
            .env("XDG_RUNTIME_DIR", self.env.path("xdg"));
        let ran = command.output().expect("mvm runs");
        if !ran.status.success() {
            return Err(String::from_utf8_lossy(&ran.stderr).into_owned());
        }
        Ok(serde_json::from_slice(&ran.stdout).expect("JSON"))
    }

    fn told(&self, name: &str, line: &str) -> String {
        let mut out = format!("# {name}: mvm run {line}\n");
        let plan = match self.plan(line) {
            Ok(plan) => plan,
            Err(error) => {
                out.push_str(&error);
                return self.tame(&out);
            }
        };
        for note in plan["notes"].as_array().expect("notes") {
            let note = note.as_str().expect("a text");
            if !note.contains("more than the") {
                let _ = writeln!(out, "note: {note}");
            }
        }
        for step in plan["steps"].as_array().expect("steps") {
            let what = step["do"].as_str().expect("a word");
            let of_the_host = [
                "make-vfs",
                "make-mdev",
                "bind-driver",
                "claim-hugepages",
                "start-sidecar",
                "detach-console",
            ];
            if of_the_host.contains(&what) {
                let _ = writeln!(out, "- {what}{}", about(step));
            }
        }
        let mut args = plan["args"].as_array().expect("args").iter();
        let mut text = || args.next().and_then(Value::as_str);
        let mut pending = text();
        while let Some(switch) = pending {
            pending = text();
            let value = pending.filter(|value| !value.starts_with('-'));
            if value.is_some() {
                pending = text();
            }
            if !is_plumbing(switch, value.unwrap_or_default()) {
                let _ = writeln!(out, "{switch} {}", value.unwrap_or_default());
            }
        }
        self.tame(&out)
    }

    fn tame(&self, text: &str) -> String {
        text.replace(&self.env.path("").display().to_string(), "$HOME/")
    }
}

/// Which QEMU it is.
fn without_version(line: &str) -> String {
    let Some((before, after)) = line.split_once("this QEMU (") else {
        return line.to_owned();
    };
    let rest = after.split_once(')').map_or("", |(_, rest)| rest);
    format!("{before}this QEMU{rest}")
}

/// What every guest has, whatever its profile.
fn is_plumbing(switch: &str, value: &str) -> bool {
    let sockets = ["monitor", "events", "console-", "agent", "mvm-tpm"];
    match switch {
        "-S" | "-name" | "-uuid" | "-nodefaults" | "-no-user-config" | "-sandbox" | "-accel"
        | "-mon" | "-serial" | "-add-fd" => true,
        "-device" => value.contains("pcie-root-port"),
        "-chardev" => sockets.iter().any(|id| value.contains(&format!("id={id}"))),
        _ => false,
    }
}

/// The parts of a step that a reader looks for.
fn about(step: &Value) -> String {
    let mut out = String::new();
    for key in [
        "pf", "count", "device", "driver", "type_id", "size", "pages", "console",
    ] {
        if let Some(value) = step.get(key).filter(|value| !value.is_null()) {
            let _ = write!(out, " {key}={value}");
        }
    }
    if let Some(program) = step["sidecar"]["program"].as_str() {
        let name = Path::new(program).file_name().unwrap_or_default();
        let _ = write!(out, " {}", name.to_string_lossy());
    }
    out
}

/// The name of the portfolio's file, and the words for `mvm run`.
const EIGHTEEN: [(&str, &str); 22] = [
    ("ubuntu_vnc_spice, VNC", "ubuntu --display vnc"),
    ("ubuntu_vnc_spice, SPICE", "ubuntu --display spice"),
    ("ubuntu_gvtd", "ubuntu --gpu gvtd"),
    ("ubuntu_sriov", "ubuntu --gpu sriov"),
    ("ubuntu_rt_headless", "ubuntu_rt"),
    ("windows_vnc_spice_ovmf, VNC", "windows --display vnc"),
    ("windows_vnc_spice_ovmf, SPICE", "windows --display spice"),
    ("windows_gvtd_ovmf", "windows --gpu gvtd"),
    ("windows_gvtd_upt_ovmf", "windows --gpu upt"),
    (
        "windows_gvtd_upt_seabios",
        "windows --gpu upt --firmware bios",
    ),
    ("windows_sriov_ovmf", "windows --gpu sriov"),
    (
        "windows_sriov_seabios",
        "windows --gpu sriov --firmware bios",
    ),
    (
        "android_virtio-gpu",
        "android --gpu virtio --set vsock.enabled=false",
    ),
    (
        "android_gvtd",
        "android --gpu gvtd --set vsock.enabled=false",
    ),
    (
        "android_sriov",
        "android --gpu sriov --set vsock.enabled=false",
    ),
    ("centos_vnc_spice", "centos --display vnc"),
    ("redhat_vnc_spice", "redhat --display vnc"),
    ("windows11_vnc_spice_ovmf, VNC", "windows11 --display vnc"),
    (
        "windows11_vnc_spice_ovmf, SPICE",
        "windows11 --display spice",
    ),
    ("windows11_sriov_ovmf", "windows11 --gpu sriov"),
    (
        "windows11_sriov_seabios",
        "windows11 --gpu sriov --firmware bios",
    ),
    ("spice-gst", "ubuntu --gpu sriov --display spice"),
];

#[test]
fn the_guests_of_the_portfolio() {
    let world = World::new("intel-i915-7vf");
    for (name, line) in EIGHTEEN {
        let file = name.replace([',', ' '], "_").replace("__", "_");
        insta::assert_snapshot!(
            format!("portfolio_{file}"),
            world.told(name, &format!("{line} --set machine.accel=tcg"))
        );
    }
}

#[test]
fn the_guests_of_the_other_documents() {
    let gvtg = World::new("intel-i915-gvtg");
    let nvidia = World::new("nvidia-desktop");
    for (file, world, line) in [
        ("gvtg_first", &gvtg, "win10-gvtg --gpu mdev:i915-GVTg_V5_8"),
        (
            "gvtg_second",
            &gvtg,
            "win10-gvtg --gpu mdev:i915-GVTg_V5_8 --variant gpu-alone",
        ),
        (
            "gaming",
            &nvidia,
            "gaming-vfio --gpu whole@0000:01:00.0 --variant nvidia --variant scream --set memory.size=4G",
        ),
        (
            "looking_glass",
            &nvidia,
            "gaming-vfio --gpu whole@0000:01:00.0 --variant amd --variant looking-glass --set memory.size=4G",
        ),
        ("retro_98", &nvidia, "retro-pc --display vnc"),
        (
            "retro_xp",
            &nvidia,
            "retro-pc --display vnc --variant winxp",
        ),
        ("arm_initrd", &nvidia, "arm-initrd"),
        (
            "arm_rootfs",
            &nvidia,
            "arm-rootfs --variant watchdog --variant iommu",
        ),
    ] {
        insta::assert_snapshot!(
            format!("guest_{file}"),
            world.told(file, &format!("{line} --set machine.accel=tcg"))
        );
    }
}

/// Every example of the portfolio's guide, as the page that translates it has it: what mvm makes of it on a host that
/// lacks some of the devices, and with a QEMU that is not Intel's.
#[test]
fn the_guides_examples_are_understood() {
    let world = World::new("intel-i915-7vf");
    for name in ["ubuntu", "windows"] {
        let text = format!("extends = [\"{name}\"]\n[machine]\naccel = \"tcg\"\n");
        world
            .env
            .write(format!("config/machines/{name}.toml"), text);
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/coming-from-multios.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let (_, examples) = page
        .split_once("## The guide's examples")
        .expect("its part");
    let (examples, _) = examples.split_once("\n## ").expect("its end");
    let lines: Vec<&str> = examples
        .lines()
        .filter_map(|line| line.split("| `mvm ").nth(1)?.strip_suffix("` |"))
        .collect();
    assert_eq!(lines.len(), 17, "{lines:?}");
    let device = "<hostdev mode='subsystem' type='usb'><source><vendor id='0x0bda'/><product id='0x8153'/></source></hostdev>";
    world.env.write("xxxx.xml", device);
    let mut out = String::new();
    for line in lines {
        let mut words = shlex::split(line).expect("words");
        words.push("--dry-run".to_owned());
        let mut command = world.env.command(&words);
        command
            .current_dir(world.env.path(""))
            .env("MVM_SYSFS", world.host.sys())
            .env("DISPLAY", "desk:0")
            .env("XDG_RUNTIME_DIR", world.env.path("xdg"));
        let ran = command.output().expect("mvm runs");
        let _ = writeln!(
            out,
            "$ mvm {line}\nexit {}",
            ran.status.code().unwrap_or(-1)
        );
        let said = [ran.stdout, ran.stderr].concat();
        for line in String::from_utf8_lossy(&said).lines() {
            let device = line.starts_with("#   ") && line.contains(": ");
            if device || line.starts_with("error: ") {
                let _ = writeln!(out, "{}", without_version(line));
            }
        }
    }
    insta::assert_snapshot!(world.tame(&out));
}
