//! Command lines tried on the QEMU that is installed: it must take each of them, and have the devices.
//! Where there is no QEMU of an architecture its tests say so and pass.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod boards;
mod cpu;
mod desktop;
mod desktop_devices;
mod devices;
mod firmware;
mod memory;
mod net;
mod portfolio;
mod ports;
mod session;
mod shares;
mod storage;
mod tpm;

use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use self::session::{DEADLINE, Session, installed, prepare, program};
use super::command_line;
use crate::machine::{Machine, testing};

/// Resolves the profile against files in a folder of its own, starts it, and checks that every device
/// of the machine is there under its name.
fn runs(text: &str, files: &[&str]) -> Option<(Session, Machine)> {
    let dir = tempfile::Builder::new().prefix("mvm").tempdir().unwrap();
    for file in files {
        let path: PathBuf = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    }
    let text = text.replace("@", dir.path().to_str().unwrap());
    let machine = testing::real(dir.path(), &text, &testing::facts()).unwrap();
    if !installed(&machine) {
        eprintln!(
            "skipped: {} is not installed",
            machine.qemu.binary.display()
        );
        return None;
    }
    let mut session = Session::start(&machine, dir);
    let there = session.names("/machine/peripheral");
    let mut named: Vec<String> = Vec::new();
    named.extend(machine.disks.iter().map(|disk| disk.id.to_string()));
    named.extend(machine.nics.iter().map(|nic| nic.id.to_string()));
    named.extend(machine.shares.iter().map(|share| share.id.to_string()));
    for name in named {
        assert!(there.contains(&name), "{name} is not among {there:?}");
    }
    Some((session, machine))
}

fn runs_and_ends(text: &str, files: &[&str]) {
    if let Some((session, _)) = runs(text, files) {
        session.quit();
    }
}

const DISKS: &[&str] = &["a.img", "b.img", "c.img", "d.img", "e.img", "f.img"];

/// Each kind of disk that a board has.
fn disks(buses: &[&str]) -> String {
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut text = String::new();
    for (name, bus) in names.iter().zip(buses) {
        text.push_str(&format!(
            "[disk.{name}]\nfile.path = \"{name}.img\"\nbus = \"{bus}\"\nserial = \"S{name}\"\n"
        ));
    }
    text
}

const EVERYTHING: &str = r#"
[agent]
[balloon]
[rng]
[console.hvc]
[console.second]
[console.p]
backend = "pty"
[channel.app]
port = "com.example.app"
[network.lan]
user.restrict = true
[share.data]
path = "@"
[share.more]
path = "@"
read-only = true
"#;

#[test]
fn disks_are_opened_as_the_profile_says() {
    let text = r#"
        [disk.a]
        file.path = "a.img"
        cache = "none"
        aio = "native"
        discard = true
        [disk.b]
        file.path = "b.img"
        cache = "directsync"
        [disk.c]
        file.path = "c.img"
        ephemeral = true
        cache = "none"
        [disk.d]
        file.path = "d.img"
        cache = "unsafe"
        aio = "io_uring"
        [disk.e]
        file.path = "e.img"
        cache = "writethrough"
        read-only = true
    "#;
    let Some((mut session, machine)) = runs(text, DISKS) else {
        return;
    };
    let blocks = session.call("query-block", json!({}));
    let inserted = |id: &str| {
        let entry = blocks.as_array().unwrap().iter().find(|block| {
            let qdev = block["qdev"].as_str().unwrap_or_default();
            qdev.contains(&format!("/{id}/"))
        });
        entry.unwrap_or_else(|| panic!("{id} in {blocks}"))["inserted"].clone()
    };
    let cache = |id: &str| {
        let cache = &inserted(id)["cache"];
        let flag = |name: &str| cache[name].as_bool().unwrap();
        (flag("direct"), flag("no-flush"), flag("writeback"))
    };
    assert_eq!(cache("a"), (true, false, true));
    assert_eq!(cache("b"), (true, false, false));
    assert_eq!(cache("c"), (false, true, true));
    assert_eq!(cache("d"), (false, true, true));
    assert_eq!(cache("e"), (false, false, false));
    assert_eq!(inserted("a")["detect_zeroes"], "unmap");
    assert_eq!(inserted("e")["ro"], true);
    let overlay = machine.run_dir.join("disk-c.overlay.qcow2");
    assert_eq!(inserted("c")["image"]["filename"], json!(overlay));
    assert_eq!(inserted("c")["ro"], false);
    let nodes = session.call("query-named-block-nodes", json!({}));
    let base = nodes
        .as_array()
        .unwrap()
        .iter()
        .find(|node| node["node-name"] == "c-base");
    assert_eq!(base.unwrap()["ro"], true);
    session.quit();
}

#[test]
fn a_drive_takes_and_gives_back_its_medium() {
    for bus in ["sata", "scsi", "usb"] {
        let text = format!("[disk.cd]\nmedia = \"cdrom\"\nempty = true\nbus = \"{bus}\"");
        let Some((mut session, _)) = runs(&text, DISKS) else {
            return;
        };
        let iso = session.dir.path().join("a.img");
        session.call(
            "blockdev-change-medium",
            json!({ "id": "cd", "filename": iso, "format": "raw", "read-only-mode": "read-only" }),
        );
        let blocks = session.call("query-block", json!({}));
        assert!(blocks.to_string().contains("a.img"), "{blocks}");
        session.call("eject", json!({ "id": "cd", "force": true }));
        session.quit();
    }
}

#[test]
fn uefi_has_its_flash() {
    for (text, code) in [
        (
            "firmware.type = \"uefi\"",
            "/usr/share/OVMF/OVMF_CODE_4M.fd",
        ),
        (
            "machine.arch = \"aarch64\"",
            "/usr/share/AAVMF/AAVMF_CODE.fd",
        ),
    ] {
        if !Path::new(code).exists() {
            eprintln!("skipped: no {code}");
            continue;
        }
        let Some((mut session, machine)) = runs(text, &[]) else {
            continue;
        };
        let nodes = session.call("query-named-block-nodes", json!({}));
        let file = |node: &str| {
            let nodes = nodes.as_array().unwrap();
            let node = nodes.iter().find(|found| found["node-name"] == node);
            (node.unwrap()["file"].clone(), node.unwrap()["ro"].clone())
        };
        assert_eq!(file("mvm-firmware-code"), (json!(code), json!(true)));
        let nvram = machine.state_dir.join("nvram.fd");
        assert_eq!(file("mvm-firmware-vars"), (json!(nvram), json!(false)));
        session.quit();
    }
}

#[test]
fn secure_boot_firmware_has_its_management_mode() {
    let code = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
    let dir = tempfile::tempdir().unwrap();
    let mut facts = testing::facts();
    facts.firmware.descriptors.truncate(1);
    facts.firmware.descriptors[0].features = vec!["requires-smm".into()];
    let machine = testing::real(dir.path(), "firmware.type = \"uefi\"", &facts).unwrap();
    if !Path::new(code).exists() || !installed(&machine) {
        eprintln!("skipped: no {code}");
        return;
    }
    let mut session = Session::start(&machine, dir);
    let smm = session.call("qom-get", json!({ "path": "/machine", "property": "smm" }));
    assert_eq!(smm, "on");
    session.quit();
}

#[test]
fn hard_names_are_only_names() {
    let name = "-S, \"q\" 'x'\n\\ ,,id=x,ü\t{}.img";
    let toml_name = toml::Value::String(name.to_owned()).to_string();
    for arch in ["x86_64", "aarch64"] {
        let text = format!(
            "machine.arch = \"{arch}\"\nfirmware.type = \"bios\"\nfirmware.file = {toml_name}\n\
             [disk.a]\nfile.path = {toml_name}\nread-only = true\n\
             [disk.b]\nfile.path = {toml_name}\nephemeral = true\n\
             [share.s]\npath = \"@/-d, 'ü'\\n,x\"\ntag = \"-t, \\\"x\\\"\"\n\
             [channel.c]\nport = \"-p,\\\"x\\\",nr=3\"\n\
             [disk.cd]\nfile.path = {toml_name}\nmedia = \"cdrom\"\nserial = \"-a, \\\"b\\\"\"\n",
        );
        let Some((mut session, machine)) = runs(&text, &[name, "-d, 'ü'\n,x/file"]) else {
            continue;
        };
        let blocks = session.call("query-block", json!({}));
        let blocks = blocks.as_array().unwrap();
        let path = &machine.disks[0].image.as_ref().unwrap().path;
        assert!(path.to_str().unwrap().ends_with(name));
        let found = blocks.iter().filter(|block| {
            let file = &block["inserted"]["image"];
            file["filename"] == json!(path) || file["backing-image"]["filename"] == json!(path)
        });
        assert_eq!(found.count(), 3, "{blocks:?}");
        session.quit();
    }
}

#[test]
fn hard_directories_are_only_directories() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a,b=c \"d\" 'e'\nü");
    std::fs::create_dir(&root).unwrap();
    let machine = testing::real(&root, "[agent]\n[channel.x]", &testing::facts()).unwrap();
    if !installed(&machine) {
        eprintln!("skipped: QEMU is not installed");
        return;
    }
    let log = machine.state_dir.join("log/console-main.log");
    let events = machine.run_dir.join("events.log");
    let session = Session::start(&machine, dir);
    assert!(log.exists() && events.exists());
    session.quit();
}

#[test]
fn the_pasted_command_line_starts_a_guest() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("it's a disk.img"), vec![0; 1 << 20]).unwrap();
    let text = "trace = [\"none*\"]\n[disk.a]\nfile.path = \"it's a disk.img\"\n[agent]";
    let machine = testing::real(dir.path(), text, &testing::facts()).unwrap();
    if !installed(&machine) {
        eprintln!("skipped: QEMU is not installed");
        return;
    }
    prepare(&machine);
    let mut line = command_line(&machine);
    line.program = program(&machine);
    let plan = crate::plan::build::build(machine.clone(), line, &testing::facts().links);
    let pasted = crate::plan::render::command(&plan);
    // What follows a pasted command runs when it has ended: `exec` makes the shell QEMU itself.
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(format!("exec {pasted}"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let socket = machine.run_dir.join("monitor.sock");
    let started = Instant::now();
    let stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(error) => assert!(started.elapsed() < DEADLINE, "{error}"),
        }
        assert!(child.try_wait().unwrap().is_none(), "{pasted}");
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut session = Session {
        child,
        monitor: BufReader::new(stream),
        dir,
    };
    session.line();
    session.call("qmp_capabilities", json!({}));
    let status = session.call("query-status", json!({}));
    assert_eq!(status["status"], "running");
    session.quit();
}

/// QEMU of all versions takes the words, and lives by them.
#[test]
fn what_follows_the_guests_end_is_told_to_qemu() {
    let text = "[lifecycle]\non-poweroff = \"preserve\"\non-crash = \"preserve\"\non-reboot = \"stop\"\n\
                [watchdog]\naction = \"debug\"\n";
    let Some((mut session, machine)) = runs(text, &[]) else {
        return;
    };
    let shown = command_line(&machine).shown();
    let actions: Vec<&str> = shown
        .windows(2)
        .filter(|pair| pair[0] == "-action")
        .map(|pair| pair[1].as_str())
        .collect();
    assert_eq!(
        actions,
        [
            "watchdog=debug",
            "reboot=shutdown,shutdown=pause,panic=pause"
        ]
    );
    assert!(session.names("/machine/peripheral").contains("mvm-panic"));
    // A reset is an end now, and an end leaves QEMU there.
    session.call("cont", json!({}));
    session.call("system_reset", json!({}));
    let started = Instant::now();
    loop {
        let status = session.call("query-status", json!({}));
        if status["status"] == "shutdown" {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{status}");
        std::thread::sleep(Duration::from_millis(20));
    }
    session.quit();
}
