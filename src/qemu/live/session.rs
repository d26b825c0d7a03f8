//! A QEMU that is started and asked.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use serde_json::{Value, json};

use crate::machine::{Firmware, Machine};
use crate::ops::{Host, Ops};
use crate::plan::step::Step;
use crate::qemu::command_line;

pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// A QEMU that has taken the command line and waits for its first instruction.
pub(super) struct Session {
    pub(super) child: Child,
    pub(super) monitor: BufReader<UnixStream>,
    pub(super) dir: tempfile::TempDir,
}

/// The QEMU that `MVM_QEMU_X86_64` or `MVM_QEMU_AARCH64` names, else the one in PATH.
pub(super) fn program(machine: &Machine) -> PathBuf {
    let name = machine.qemu.binary.file_name().unwrap();
    let variable = crate::host::qemu::find::variable(machine.arch);
    std::env::var_os(variable).map_or_else(|| name.into(), PathBuf::from)
}

pub(super) fn installed(machine: &Machine) -> bool {
    let program = program(machine);
    let name = program.as_path();
    if name.is_absolute() {
        return name.exists();
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|dir| dir.join(name).is_file())
}

/// Does by hand what the plan's steps would.
pub(super) fn prepare(machine: &Machine) {
    std::fs::create_dir_all(&machine.run_dir).unwrap();
    std::fs::create_dir_all(machine.state_dir.join("log")).unwrap();
    if let Firmware::Flash {
        vars: Some(vars), ..
    } = &machine.firmware
    {
        std::fs::copy(&vars.template, &vars.path).unwrap();
    }
    for sidecar in machine.sidecars() {
        let sidecar = Box::new(sidecar);
        Host::default()
            .run(&Step::StartSidecar { sidecar })
            .unwrap();
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
    pub(super) fn start(machine: &Machine, dir: tempfile::TempDir) -> Self {
        Self::start_with(machine, command_line(machine).shown(), dir)
    }

    /// The same with other arguments.
    pub(super) fn start_with(machine: &Machine, args: Vec<String>, dir: tempfile::TempDir) -> Self {
        Self::start_inheriting(machine, args, None, dir)
    }

    /// The same with a descriptor that QEMU inherits under that number.
    pub(super) fn start_inheriting(
        machine: &Machine,
        args: Vec<String>,
        fd: Option<(i32, OwnedFd)>,
        dir: tempfile::TempDir,
    ) -> Self {
        prepare(machine);
        let log = dir.path().join("stderr");
        let mut command = Command::new(program(machine));
        let mapped = fd.map(|(child_fd, parent_fd)| FdMapping {
            parent_fd,
            child_fd,
        });
        command.fd_mappings(mapped.into_iter().collect()).unwrap();
        let mut child = command
            .args(&args)
            .arg("-S")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        drop(command);
        let started = Instant::now();
        let socket = machine.run_dir.join("monitor.sock");
        let monitor = loop {
            if let Ok(stream) = UnixStream::connect(&socket) {
                break stream;
            }
            if let Some(status) = child.try_wait().unwrap() {
                let said = std::fs::read_to_string(&log).unwrap();
                panic!("{status}: {said}\n{}", args.join("\n"));
            }
            assert!(started.elapsed() < DEADLINE, "no monitor");
            std::thread::sleep(Duration::from_millis(10));
        };
        monitor.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut session = Self {
            child,
            monitor: BufReader::new(monitor),
            dir,
        };
        let greeting = session.line();
        assert!(greeting["QMP"].is_object(), "{greeting}");
        session.call("qmp_capabilities", json!({}));
        let said = std::fs::read_to_string(&log).unwrap();
        // Of an unencrypted VNC server QEMU tells by itself, and of each connection that it is to try again.
        let by_itself = [
            "VNC server running on ",
            "Unable to connect character device",
        ];
        let said: Vec<&str> = said
            .lines()
            .filter(|line| !by_itself.iter().any(|known| line.contains(known)))
            .collect();
        assert_eq!(said, Vec::<&str>::new(), "QEMU has something to say");
        session
    }

    pub(super) fn line(&mut self) -> Value {
        let mut line = String::new();
        match self.monitor.read_line(&mut line) {
            Ok(1..) => serde_json::from_str(&line).unwrap(),
            ended => {
                let said = std::fs::read_to_string(self.dir.path().join("stderr"));
                panic!("{ended:?}: {}", said.unwrap_or_default());
            }
        }
    }

    pub(super) fn call(&mut self, command: &str, arguments: Value) -> Value {
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

    pub(super) fn names(&mut self, path: &str) -> BTreeSet<String> {
        let list = self.call("qom-list", json!({ "path": path }));
        let entries = list.as_array().unwrap().iter();
        entries
            .map(|entry| entry["name"].as_str().unwrap().to_owned())
            .collect()
    }

    pub(super) fn quit(mut self) {
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
