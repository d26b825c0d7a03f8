//! The QEMU that is the host: its command line, and the programs and folders that the host sees.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::host::Builder;

/// What kind of host.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Board {
    X86,
    Arm {
        /// Started by UEFI, with ACPI; otherwise by a device tree.
        acpi: bool,
    },
}

/// The disks that hosts have, with their sizes in MiB.
pub(crate) const DISKS: [(&str, u64); 4] =
    [("nvme", 64), ("nvme2", 64), ("stick", 16), ("stick2", 16)];

/// Puts mvm where the host finds it, and the test program (which runs on the machine's own architecture only).
#[track_caller]
pub(crate) fn share_programs(board: Board, folder: &Path) {
    let this = std::env::current_exe().expect("its path");
    share_program(&this, &folder.join("lab"));
    let mvm = match board {
        Board::X86 => PathBuf::from(env!("CARGO_BIN_EXE_mvm")),
        Board::Arm { .. } => made_by("tests/setup/static.sh", &["aarch64", "dev"]),
    };
    share_program(&mvm, &folder.join("mvm"));
}

/// The C library that this test program was linked with, where it is newer than that of the host (Debian 12):
/// a folder to lay over the host's root.
#[track_caller]
pub(crate) fn share_libc(board: Board, folder: &Path) -> bool {
    let told = Command::new("getconf")
        .arg("GNU_LIBC_VERSION")
        .output()
        .expect("getconf");
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    let minor = text.trim().strip_prefix("glibc 2.");
    let newer = minor.and_then(|minor| minor.parse().ok()) > Some(36);
    // The Arm host runs what is linked statically.
    if board != Board::X86 || !newer {
        return false;
    }
    let place = "lib/x86_64-linux-gnu";
    let to = folder.join("usr").join(place);
    fs::create_dir_all(&to).expect("a folder");
    let from = Path::new("/").join(place);
    let parts = "c.so.6 m.so.6 mvec.so.1 pthread.so.0 dl.so.2 rt.so.1 resolv.so.2 util.so.1 anl.so.1 gcc_s.so.1";
    let libraries = parts.split(' ').map(|part| format!("lib{part}"));
    for name in libraries.chain(["ld-linux-x86-64.so.2".to_owned()]) {
        fs::copy(from.join(&name), to.join(&name)).expect("a library of this machine");
    }
    true
}

fn share_program(from: &Path, to: &Path) {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).expect("a copy");
    }
}

/// What a script makes or has made: it prints the path.
#[track_caller]
fn made_by(script: &str, arguments: &[&str]) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let output = Command::new(&script)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .expect("the script can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    let path = PathBuf::from(text.trim().lines().last().unwrap_or_default());
    assert!(
        output.status.success() && path.exists(),
        "{} {arguments:?} failed",
        script.display()
    );
    path
}

/// QEMU 10's program, unpacked beside the machine's own.
#[track_caller]
fn qemu10() -> String {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup/qemu10.sh");
        let output = Command::new(script)
            .stderr(Stdio::inherit())
            .output()
            .expect("the script can be run");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix("export MVM_QEMU_X86_64="));
        found.expect("the script prints the path").to_owned()
    })
    .clone()
}

/// QEMU with all that the host has.
#[track_caller]
pub(crate) fn command(builder: &Builder, folder: &Path, devices: &[Value]) -> Command {
    let (arch, images, qemu) = match builder.board {
        Board::X86 if builder.extras.igb => ("x86_64", &["x86_64", "x86_64-full"][..], qemu10()),
        Board::X86 => (
            "x86_64",
            &["x86_64", "x86_64-full"][..],
            "qemu-system-x86_64".to_owned(),
        ),
        Board::Arm { .. } => (
            "aarch64",
            &["aarch64"][..],
            "qemu-system-aarch64".to_owned(),
        ),
    };
    let made = if builder.extras.iommufd {
        "iommufd"
    } else {
        arch
    };
    let lab = made_by("tests/lab/make.sh", &[made]);
    // Ends with the thread that runs the test, also where that is killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", &qemu]);
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]);
    command.args(match builder.board {
        Board::X86 => [
            "-machine",
            "q35,kernel-irqchip=split",
            "-cpu",
            "qemu64,+svm,+npt",
        ],
        Board::Arm { .. } => [
            "-machine",
            "virt,virtualization=on,gic-version=3,iommu=smmuv3",
            "-cpu",
            "cortex-a76",
        ],
    });
    if builder.board == (Board::Arm { acpi: true }) {
        command.args(["-bios", "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"]);
    }
    command.args([
        "-accel",
        "tcg,thread=multi,tb-size=1024",
        "-smp",
        "2",
        "-m",
        "2048",
    ]);
    command.arg("-kernel").arg(lab.join("kernel"));
    command.arg("-initrd").arg(lab.join("initrd"));
    let libc = share_libc(builder.board, &folder.join("libc"));
    command.args([
        "-append",
        &format!(
            "{} lab.modules={} lab.images={}{}",
            builder.append,
            builder.modules,
            images.join(","),
            if libc { " lab.libc" } else { "" }
        ),
    ]);
    let file = |name: &str| folder.join(name).display().to_string();
    command.args(["-serial", &format!("file:{}", file("console.log"))]);
    for name in ["qmp", "agent"] {
        let socket = file(&format!("{name}.sock"));
        command.args([
            "-chardev",
            &format!("socket,id={name},path={socket},server=on,wait=off"),
        ]);
    }
    command.args(["-mon", "chardev=qmp,mode=control"]);
    command.args([
        "-device",
        "virtio-serial-pci,id=ports,addr=1c.0,multifunction=on",
    ]);
    command.args([
        "-device",
        "virtserialport,bus=ports.0,chardev=agent,name=lab.agent",
    ]);
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/files/root");
    let mut shares = vec![
        ("root".to_owned(), lab.join("root"), true),
        ("files".to_owned(), files, true),
        ("mvm".to_owned(), folder.join("bin"), true),
        ("scratch".to_owned(), folder.join("scratch"), false),
    ];
    for kind in images {
        let made = made_by("tests/guest/make.sh", &[kind]);
        shares.push(((*kind).to_owned(), made, true));
    }
    if libc {
        shares.push(("libc".to_owned(), folder.join("libc"), true));
    }
    for (number, (tag, path, readonly)) in shares.into_iter().enumerate() {
        let readonly = if readonly { "on" } else { "off" };
        command.args([
            "-fsdev",
            &format!(
                "local,id=share{number},path={},security_model=none,readonly={readonly},multidevs=remap",
                path.display()
            ),
        ]);
        command.args([
            "-device",
            &format!("virtio-9p-pci,fsdev=share{number},mount_tag={tag},addr=1b.{number},multifunction=on"),
        ]);
    }
    for (name, _) in DISKS {
        let disk = json!({
            "driver": "raw", "node-name": name,
            "file": { "driver": "file", "filename": file(&format!("{name}.img")) }
        });
        command.args(["-blockdev", &disk.to_string()]);
    }
    let nics = ["uplink", "nic1", "nic2", "igb"];
    for name in &nics[..if builder.extras.igb { 4 } else { 3 }] {
        command.args(["-netdev", &format!("user,id={name}")]);
    }
    command.args(["-chardev", "null,id=usbserial"]);
    // Without it the first that wants a random number waits for seconds.
    command.args(["-device", "virtio-rng-pci,addr=1c.1"]);
    for device in devices {
        command.args(["-device", &device.to_string()]);
    }
    command
}
