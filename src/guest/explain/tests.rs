#![expect(clippy::unwrap_used, reason = "tests")]

//! Each entry is provoked with the real QEMU.

use super::*;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::ops::process::{find, wait};

const X86: &str = "qemu-system-x86_64";
const ARM: &str = "qemu-system-aarch64";
const BASE: [&str; 8] = [
    "-accel",
    "tcg",
    "-display",
    "none",
    "-nodefaults",
    "-no-user-config",
    "-m",
    "64",
];

struct Run {
    said: String,
    exit: Exit,
}

impl Run {
    fn explained(&self) -> Explained {
        explain(&Evidence {
            said: &self.said,
            exit: self.exit,
            dirs: None,
        })
    }
}

/// Runs a QEMU that fails.
fn run(mut command: Command) -> Run {
    let top = tempfile::tempdir().unwrap();
    let log = std::fs::File::create(top.path().join("log")).unwrap();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY")
        .spawn()
        .unwrap();
    let status = wait(&mut child, Duration::from_secs(20)).unwrap();
    let Some(status) = status else {
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("it did not fail: {command:?}");
    };
    Run {
        said: std::fs::read_to_string(top.path().join("log")).unwrap(),
        exit: Exit {
            status: status.code(),
            signal: status.signal(),
        },
    }
}

fn qemu(program: &str, args: &[&str]) -> Run {
    let mut command = Command::new(find(program, None).expect("QEMU is installed"));
    command.args(args);
    run(command)
}

fn x86(args: &[&str]) -> Run {
    qemu(X86, &[&BASE, args].concat())
}

fn expect(run: &Run, id: &str, words: &[&str]) {
    let explained = run.explained();
    assert_eq!(explained.id, id, "{}", run.said);
    let text = format!("{explained} / {}", explained.hints().join(" / "));
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
    assert!(!text.contains("exited with code"));
}

fn file(top: &tempfile::TempDir, name: &str, content: &[u8]) -> String {
    let path = top.path().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

fn blockdev(path: &str) -> String {
    format!(r#"{{"driver":"file","node-name":"f","filename":"{path}"}}"#)
}

const QCOW2: &str = r#"{"driver":"qcow2","node-name":"q","file":"f"}"#;

#[test]
fn disks() {
    let top = tempfile::tempdir().unwrap();
    let missing = blockdev("/nowhere/x.img");
    expect(
        &x86(&["-blockdev", &missing]),
        "missing",
        &["/nowhere/x.img", "mvm disk create"],
    );
    let junk = blockdev(&file(&top, "junk", b"junk"));
    expect(
        &x86(&["-blockdev", &junk, "-blockdev", QCOW2]),
        "format",
        &["qcow2"],
    );
    let at = r#"{"driver":"https","node-name":"f","url":"https://127.0.0.1:1/x"}"#;
    let curl = x86(&["-blockdev", at]);
    if curl.said.contains("module") {
        expect(&curl, "module", &["block-curl", "qemu-block-extra"]);
    }
}

#[test]
fn an_image_in_use_names_who_has_it() {
    let top = tempfile::tempdir().unwrap();
    let path = file(&top, "raw", &[0; 1 << 16]);
    let node = blockdev(&path);
    let device = ["-blockdev", &node, "-device", "virtio-blk-pci,drive=f"];
    let mut first = Command::new(find(X86, None).unwrap());
    let mut first = first
        .args(BASE)
        .args(["-S"])
        .args(device)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    // It locks the image a moment after it opened it.
    use std::os::unix::fs::MetadataExt;
    let inode = format!(":{} ", std::fs::metadata(&path).unwrap().ino());
    for _ in 0..1000 {
        if std::fs::read_to_string("/proc/locks")
            .unwrap()
            .contains(&inode)
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let second = x86(&device);
    let explained = second.explained();
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(explained.id, "image-locked", "{}", second.said);
    assert!(
        explained.cause.contains(&format!("process {}", first.id())),
        "{explained}"
    );
    assert!(explained.cause.contains(&path), "{explained}");
}

#[test]
fn memory_and_processors() {
    expect(
        &qemu(
            X86,
            &[
                "-M", "q35", "-accel", "tcg", "-display", "none", "-m", "100T",
            ],
        ),
        "memory",
        &["memory.size"],
    );
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    if free.is_ok_and(|free| free.trim() == "0") {
        let object = "memory-backend-memfd,id=m,size=64M,hugetlb=on,hugetlbsize=2M,prealloc=on";
        expect(&x86(&["-object", object]), "hugepages", &["nr_hugepages"]);
    }
    expect(
        &x86(&["-smp", "10000"]),
        "cpu-count",
        &["10000", "cpu.count"],
    );
    let virt = [
        "-M",
        "virt,gic-version=2",
        "-display",
        "none",
        "-cpu",
        "cortex-a57",
        "-smp",
        "10",
    ];
    expect(&qemu(ARM, &virt), "cpu-count", &["machine.gic"]);
    expect(&x86(&["-cpu", "Foo"]), "cpu-model", &["Foo"]);
    expect(&x86(&["-cpu", "host"]), "cpu-host", &["auto"]);
}

#[test]
fn machines_devices_and_options() {
    expect(
        &qemu(X86, &["-M", "q36"]),
        "machine-type",
        &["-machine help"],
    );
    expect(
        &x86(&["-device", r#"{"driver":"foo"}"#]),
        "device",
        &["`foo`"],
    );
    let device = r#"{"driver":"virtio-rng-pci","frob":1}"#;
    expect(
        &x86(&["-device", device]),
        "property",
        &["virtio-rng-pci.frob"],
    );
    expect(&x86(&["-frobnicate"]), "option", &["-frobnicate"]);
    let vsock = x86(&["-device", "vhost-vsock-pci,guest-cid=4"]);
    if !Path::new("/dev/vhost-vsock").exists() {
        expect(&vsock, "vsock-missing", &["modprobe vhost_vsock"]);
    }
    if !Path::new("/dev/udmabuf").exists() {
        let blob = x86(&["-device", "virtio-vga,blob=on"]);
        expect(&blob, "udmabuf", &["modprobe udmabuf"]);
    }
    if !Path::new("/dev/dri").exists() {
        let egl = qemu(
            X86,
            &["-accel", "tcg", "-nodefaults", "-display", "egl-headless"],
        );
        if !egl.said.contains("module") {
            expect(&egl, "render-node", &["renderD128"]);
        }
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let spice = format!("addr=127.0.0.1,port={port},disable-ticketing=on");
    let spice = x86(&["-spice", &spice]);
    if spice.said.contains("binding socket") {
        expect(&spice, "port-display", &["ss -ltnp"]);
    }
    // Debian has it in a package of its own.
    let gtk = x86(&["-display", "gtk"]);
    if gtk.said.contains("module ui-ui-gtk not found") {
        expect(&gtk, "module", &["qemu-system-gui"]);
    } else {
        expect(&gtk, "no-display", &["graphical session"]);
    }
    expect(&x86(&["-display", "foo"]), "module-display", &["`foo`"]);
}

#[test]
fn firmware_and_kernels() {
    let top = tempfile::tempdir().unwrap();
    expect(
        &x86(&["-bios", "/nowhere.bin"]),
        "firmware",
        &["/nowhere.bin"],
    );
    let virt = [
        "-M",
        "virt",
        "-cpu",
        "cortex-a57",
        "-display",
        "none",
        "-bios",
        "nowhere.fd",
    ];
    expect(
        &qemu(ARM, &virt),
        "firmware",
        &["nowhere.fd", "qemu-efi-aarch64"],
    );
    let odd = format!(
        "if=pflash,format=raw,file={}",
        file(&top, "odd", &[0; 1000])
    );
    expect(&x86(&["-drive", &odd]), "firmware-size", &["pflash0"]);
    expect(&x86(&["-kernel", "/nowhere"]), "missing", &["/nowhere"]);
    let kernel = file(&top, "kernel", b"this is not a kernel");
    expect(&x86(&["-kernel", &kernel]), "kernel", &["bzImage"]);
}

#[test]
fn saved_states() {
    let top = tempfile::tempdir().unwrap();
    let image = file(&top, "saved", &[0xff; 1000]);
    let incoming = format!("exec:cat {image}");
    expect(
        &x86(&["-S", "-incoming", &incoming]),
        "saved-state",
        &["is kept", "--discard-hibernation"],
    );
}

#[test]
fn ports() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let forward = format!("user,id=n,hostfwd=tcp:127.0.0.1:{port}-:22");
    expect(&x86(&["-netdev", &forward]), "port", &[&port.to_string()]);
}

#[test]
fn ports_of_displays() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    if port < 5900 {
        return;
    }
    let vnc = format!("127.0.0.1:{}", port - 5900);
    let args = ["-M", "none", "-nodefaults", "-vnc", &vnc];
    expect(&qemu(X86, &args), "port-display", &["taken"]);
}

#[test]
fn accelerators() {
    // A guest of another architecture than the host's.
    let foreign = if cfg!(target_arch = "aarch64") {
        X86
    } else {
        ARM
    };
    let run = qemu(
        foreign,
        &["-M", "none", "-accel", "kvm", "-display", "none"],
    );
    expect(&run, "kvm-missing", &["mvm doctor"]);
}

#[test]
fn taps() {
    use crate::ops::{Host, Ops, open_source};
    use crate::plan::step::Step;
    let name = format!("mvmx{}", std::process::id() % 100_000);
    let tap = Step::CreateTap {
        name: name.clone(),
        bridge: None,
        address: None,
        vnet_hdr: true,
        multi_queue: false,
        mtu: None,
    };
    if Host::default().run(&tap).is_err() {
        // Only who may make network devices can see this one fail.
        return;
    }
    let source = crate::qemu::command::FdSource::Tap(name.clone());
    let held = open_source(&source).unwrap();
    let second = x86(&[
        "-netdev",
        &format!("tap,id=t,ifname={name},script=no,downscript=no"),
    ]);
    drop(held);
    Host::default()
        .run(&Step::DeleteTap { name: name.clone() })
        .unwrap();
    expect(&second, "tap-busy", &[&name]);
}

#[test]
fn full_file_systems() {
    let Some(unshare) = find("unshare", None) else {
        return;
    };
    let top = tempfile::tempdir().unwrap();
    let image = file(&top, "image", &[0; 1 << 16]);
    let small = top.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let drive = format!("file={image},format=raw");
    let mount = r#"mount -t tmpfs -o size=16k none "$TMPDIR" || exit 99; exec "$@""#;
    let mut command = Command::new(unshare);
    command
        .args(["-m", "sh", "-c", mount, "sh", X86])
        .args(BASE)
        .args(["-snapshot", "-drive", &drive])
        .env("TMPDIR", &small);
    let run = run(command);
    if run.exit.status != Some(99) && !run.said.contains("unshare:") {
        expect(&run, "disk-full", &["make room"]);
    }
}

#[test]
fn a_context_id_in_use_is_known_by_its_text() {
    // `hw/virtio/vhost-vsock.c`; the device is not everywhere.
    let text = "vhost-vsock: unable to set guest cid: Address already in use";
    assert_eq!(explain_text(text, None).unwrap().id, "vsock-cid");
}

#[test]
fn permissions() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    use std::os::unix::process::CommandExt;
    let nobody = |args: &[&str]| {
        let mut command = Command::new(find(X86, None).unwrap());
        command.args(args).uid(65534).gid(65534);
        run(command)
    };
    let kvm = Path::new("/dev/kvm");
    if kvm.exists() {
        use std::os::unix::fs::MetadataExt;
        if std::fs::metadata(kvm).unwrap().mode() & 0o006 == 0 {
            let run = nobody(&["-M", "none", "-accel", "kvm", "-display", "none"]);
            expect(&run, "kvm-permission", &["/dev/kvm", "usermod"]);
        }
    }
    let top = tempfile::tempdir().unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(top.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = file(&top, "secret", b"x");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let node = blockdev(&path);
    let args = [&BASE[..], &["-blockdev", &node]].concat();
    expect(&nobody(&args), "permission", &["/secret"]);
}

#[test]
fn ends_by_signal() {
    // The filter forbids the program that this back end would run.
    let script = "tap,id=t,ifname=mvmsandbox,script=/bin/true,downscript=no";
    let sandbox = x86(&["-sandbox", "on,spawn=deny", "-netdev", script]);
    if sandbox.exit.signal == Some(nix::libc::SIGSYS) {
        expect(&sandbox, "seccomp", &["qemu.sandbox"]);
    }
    let killed = Run {
        said: String::new(),
        exit: Exit {
            status: None,
            signal: Some(9),
        },
    };
    expect(&killed, "killed", &["out of memory"]);
}

#[test]
fn what_is_not_known_is_quoted() {
    let run = x86(&["-device", "usb-redir"]);
    let explained = run.explained();
    assert_eq!(explained.id, "unknown");
    assert_eq!(
        explained.cause,
        "QEMU ended with exit status 1: No 'usb-bus' bus found for device 'usb-redir'"
    );
    let line = "qemu-system-x86_64: terminating on signal 15 from pid 1 (init)";
    assert!(who_signalled(line).unwrap().ends_with("from pid 1 (init)"));
}

#[test]
fn patterns_capture_what_they_stand_for() {
    assert_eq!(capture("a 'x y' b", "'*' b"), Some("x y"));
    assert_eq!(capture("ends: here", "ends: *"), Some("here"));
    assert_eq!(capture("nothing", "no*ng else"), None);
    assert_eq!(capture("plain text", "lain"), Some(""));
    assert!(explain_text("Device 'foo' not found", None).is_some());
    assert!(explain_text("something", None).is_none());
}

/// What needs hardware to be provoked, in the words of QEMU 7.2 and 10.0 (`hw/vfio`), seen on emulated hosts or in
/// its sources.
#[test]
fn devices_of_the_host() {
    let vfio = "qemu-system-x86_64: -device {\"driver\":\"vfio-pci\",\"host\":\"0000:03:01.0\"}: vfio 0000:03:01.0: ";
    for (said, id, word) in [
        ("group 9 is not viable", "vfio-group", "group 9"),
        (
            "failed to open /dev/vfio/10: No such file or directory",
            "vfio-node",
            "mvm devices",
        ),
        (
            "failed to open /dev/vfio/10: Permission denied",
            "vfio-permission",
            "chown $USER /dev/vfio/10",
        ),
        (
            "failed to open /dev/vfio/10: Device or resource busy",
            "vfio-busy",
            "in use by another process",
        ),
        (
            "failed to setup container for group 9: memory listener initialization failed: Region pc.ram: vfio_dma_map(0x55, 0x0, 0xa0000, 0x7f) = -12 (Cannot allocate memory)",
            "vfio-memory",
            "memlock",
        ),
        (
            "failed to setup container for group 9: memory listener initialization failed: Region mem: vfio_container_dma_map(0x55, 0x8000000000, 0x1000, 0x7f) = -22 (Invalid argument)",
            "vfio-address",
            "host-phys-bits-limit",
        ),
        (
            "failed to set iommu for container: Operation not permitted",
            "vfio-interrupts",
            "allow_unsafe_interrupts",
        ),
        (
            "Cannot reset device 0000:03:01.0, no available reset mechanism.",
            "vfio-reset",
            "functions = \"all\"",
        ),
    ] {
        let run = Run {
            said: format!("{vfio}{said}\n"),
            exit: Exit::default(),
        };
        expect(&run, id, &[word]);
    }
}

#[test]
fn a_device_that_the_host_does_not_have() {
    // No host has a function at the end of its last bus.
    let run = x86(&["-device", "vfio-pci,host=ffff:ff:1f.7"]);
    expect(&run, "vfio-node", &["mvm doctor"]);
}
