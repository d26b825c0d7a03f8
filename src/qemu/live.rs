//! Command lines tried on the QEMU that is installed: it must take each of them, and have the devices.
//! Where there is no QEMU of an architecture its tests say so and pass.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::command_line;
use crate::machine::{Firmware, Machine, drivers, testing};

const DEADLINE: Duration = Duration::from_secs(60);

/// A QEMU that has taken the command line and waits for its first instruction.
struct Session {
    child: Child,
    monitor: BufReader<UnixStream>,
    _dir: tempfile::TempDir,
}

/// The QEMU that `MVM_QEMU_X86_64` or `MVM_QEMU_AARCH64` names, else the one in PATH.
fn program(machine: &Machine) -> PathBuf {
    let name = machine.qemu.binary.file_name().unwrap();
    let variable = crate::host::qemu::find::variable(machine.arch);
    std::env::var_os(variable).map_or_else(|| name.into(), PathBuf::from)
}

fn installed(machine: &Machine) -> bool {
    let program = program(machine);
    let name = program.as_path();
    if name.is_absolute() {
        return name.exists();
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|dir| dir.join(name).is_file())
}

/// Does by hand what the plan's steps would.
fn prepare(machine: &Machine) {
    std::fs::create_dir_all(&machine.run_dir).unwrap();
    std::fs::create_dir_all(machine.state_dir.join("log")).unwrap();
    if let Firmware::Flash {
        vars: Some(vars), ..
    } = &machine.firmware
    {
        std::fs::copy(&vars.template, &vars.path).unwrap();
    }
    for disk in &machine.disks {
        if let (Some(overlay), Some(image)) = (&disk.overlay, &disk.image) {
            let made = Command::new("qemu-img")
                .args(["create", "-q", "-f", "qcow2", "-F", image.format.as_str()])
                .arg("-b")
                .arg(&image.path)
                .arg(overlay)
                .status()
                .unwrap();
            assert!(made.success());
        }
    }
}

impl Session {
    /// Starts QEMU with the command line that people would paste, paused.
    fn start(machine: &Machine, dir: tempfile::TempDir) -> Self {
        prepare(machine);
        let line = command_line(machine);
        let log = dir.path().join("stderr");
        let mut child = Command::new(program(machine))
            .args(line.shown())
            .arg("-S")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let started = Instant::now();
        let socket = machine.run_dir.join("monitor.sock");
        let monitor = loop {
            if let Ok(stream) = UnixStream::connect(&socket) {
                break stream;
            }
            if let Some(status) = child.try_wait().unwrap() {
                let said = std::fs::read_to_string(&log).unwrap();
                panic!("{status}: {said}\n{}", line.shown().join("\n"));
            }
            assert!(started.elapsed() < DEADLINE, "no monitor");
            std::thread::sleep(Duration::from_millis(10));
        };
        monitor.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut session = Self {
            child,
            monitor: BufReader::new(monitor),
            _dir: dir,
        };
        let greeting = session.line();
        assert!(greeting["QMP"].is_object(), "{greeting}");
        session.call("qmp_capabilities", json!({}));
        let said = std::fs::read_to_string(&log).unwrap();
        assert_eq!(said, "", "QEMU has something to say");
        session
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.monitor.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn call(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments });
        let stream = self.monitor.get_mut();
        stream.write_all(format!("{request}\n").as_bytes()).unwrap();
        loop {
            let mut answer = self.line();
            if answer.get("event").is_none() {
                assert!(answer.get("return").is_some(), "{command}: {answer}");
                return answer["return"].take();
            }
        }
    }

    fn names(&mut self, path: &str) -> BTreeSet<String> {
        let list = self.call("qom-list", json!({ "path": path }));
        let entries = list.as_array().unwrap().iter();
        entries
            .map(|entry| entry["name"].as_str().unwrap().to_owned())
            .collect()
    }

    fn quit(mut self) {
        self.call("quit", json!({}));
        let started = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < DEADLINE, "QEMU does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Nothing is left to do where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

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
fn q35_takes_every_device() {
    let text = format!(
        "{}{}{}",
        EVERYTHING,
        "[network.old]\nuser = {}\nmodel = \"e1000\"\n[watchdog]\n[disk.cd]\nmedia = \"cdrom\"\nempty = true\n\
         [disk.ucd]\nmedia = \"cdrom\"\nbus = \"usb\"\nfile.path = \"f.img\"\n",
        disks(&["virtio", "scsi", "sata", "nvme", "usb"])
    );
    runs_and_ends(&text, DISKS);
}

#[test]
fn pc_takes_every_device() {
    let text = format!(
        "machine.type = \"pc\"\n{}{}{}",
        EVERYTHING,
        "[network.old]\nuser = {}\nmodel = \"e1000\"\n[watchdog]\naction = \"inject-nmi\"\n\
         [disk.cd]\nmedia = \"cdrom\"\nbus = \"ide\"\nempty = true\n",
        disks(&["virtio", "scsi", "sata", "nvme", "usb", "ide"])
    );
    runs_and_ends(&text, DISKS);
}

#[test]
fn virt_takes_every_device() {
    let text = format!(
        "machine.arch = \"aarch64\"\nfirmware.type = \"uefi\"\n{}{}{}",
        EVERYTHING,
        "[network.old]\nuser = {}\nmodel = \"e1000\"\n[watchdog]\n[disk.cd]\nmedia = \"cdrom\"\nempty = true\n",
        disks(&["virtio", "scsi", "sata", "nvme", "usb"])
    );
    if Path::new("/usr/share/AAVMF/AAVMF_CODE.fd").exists() {
        runs_and_ends(&text, DISKS);
    }
}

#[test]
fn microvm_takes_every_device_that_it_has() {
    let text = format!(
        "machine.type = \"microvm\"\n{EVERYTHING}{}",
        disks(&["virtio", "scsi", "virtio"])
    );
    runs_and_ends(&text, DISKS);
}

#[test]
fn boards_take_as_many_devices_as_mvm_lets_them_have() {
    let cards = |count: usize| -> String {
        (0..count)
            .map(|n| format!("[network.n{n}]\nuser = {{}}\n"))
            .collect()
    };
    let names: Vec<String> = (0..15).map(|n| format!("d{n}.img")).collect();
    let files: Vec<&str> = names.iter().map(String::as_str).collect();
    let disks = |count: usize| -> String {
        (0..count)
            .map(|n| format!("[disk.d{n}]\nfile.path = \"d{n}.img\"\n"))
            .collect()
    };
    let shares = |count: usize| -> String {
        (0..count)
            .map(|n| format!("[share.s{n}]\npath = \"@\"\n"))
            .collect()
    };
    runs_and_ends(&format!("{}{}{}", cards(11), disks(15), shares(11)), &files);
    runs_and_ends(
        &format!("machine.type = \"pc\"\n{}{}", cards(10), disks(10)),
        &files,
    );
    runs_and_ends(
        &format!("machine.type = \"microvm\"\n{}{}", cards(9), disks(10)),
        &files,
    );
}

#[test]
fn an_iommu_translates_every_virtio_device() {
    for arch in ["x86_64", "aarch64"] {
        let text = format!(
            "machine.arch = \"{arch}\"\niommu.model = \"virtio\"\nfirmware.type = \"uefi\"\n{}{}",
            EVERYTHING,
            disks(&["virtio", "scsi", "nvme"])
        );
        if !Path::new("/usr/share/AAVMF/AAVMF_CODE.fd").exists() {
            continue;
        }
        let Some((mut session, _)) = runs(&text, DISKS) else {
            continue;
        };
        for device in ["a", "lan", "data", "mvm-rng", "mvm-serial", "mvm-scsi"] {
            let path = format!("/machine/peripheral/{device}");
            let on = session.call(
                "qom-get",
                json!({ "path": path, "property": "iommu_platform" }),
            );
            assert_eq!(on, json!(true), "{device}");
        }
        session.quit();
    }
}

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
        let iso = session._dir.path().join("a.img");
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
    let plan = crate::plan::build::build(
        machine.clone(),
        command_line(&machine),
        &testing::facts().links,
    );
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
        _dir: dir,
    };
    session.line();
    session.call("qmp_capabilities", json!({}));
    let status = session.call("query-status", json!({}));
    assert_eq!(status["status"], "running");
    session.quit();
}

#[test]
fn needed_devices_are_those_of_the_command_line() {
    let text = format!(
        "{}[network.old]\nuser = {{}}\nmodel = \"e1000\"\n[watchdog]\n[vsock]\n[iommu]\nmodel = \"virtio\"\n\
         [disk.ucd]\nmedia = \"cdrom\"\nbus = \"usb\"\nempty = true\n",
        EVERYTHING.replace('@', "/srv")
    );
    for (board, buses) in [
        ("q35", ["virtio", "scsi", "sata", "nvme", "usb"].as_slice()),
        ("pc", &["virtio", "scsi", "sata", "ide", "usb"]),
        ("microvm", &["virtio", "scsi"]),
    ] {
        let mut text = format!("machine.type = \"{board}\"\n{text}{}", disks(buses));
        if board != "q35" {
            text = text.replace("[iommu]\nmodel = \"virtio\"", "");
        }
        if board == "microvm" {
            text = text
                .replace("[watchdog]", "")
                .replace("model = \"e1000\"", "")
                .replace("bus = \"usb\"\nempty", "bus = \"scsi\"\nempty");
        }
        let machine = testing::machine(&text).unwrap();
        let line = command_line(&machine);
        let shown = line.shown();
        let on_the_line: BTreeSet<String> = shown
            .iter()
            .zip(shown.iter().skip(1))
            .filter(|(switch, _)| *switch == "-device")
            .map(|(_, json)| {
                let json: Value = serde_json::from_str(json).unwrap();
                json["driver"].as_str().unwrap().to_owned()
            })
            .collect();
        let needed: BTreeSet<String> = drivers::needed(&machine)
            .iter()
            .map(|needed| needed.driver.to_owned())
            .collect();
        assert_eq!(on_the_line, needed, "{board}");
    }
}
