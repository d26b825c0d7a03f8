//! A real guest for tests: 50 bytes of boot sector that say `up` on the serial console, echo what is
//! typed, and power off at the power button.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use super::start::OnReady;
use super::state::{Ended, GuestState};
use super::{Renewal, RunDir, StartError, start};
use crate::dirs::Dirs;
use crate::error::Report;
use crate::ids::Arch;
use crate::machine::*;
use crate::plan::Plan;
use crate::plan::step::Step;
use crate::profile::schema::DiskFormat;
use crate::qemu::command::{Arg, CommandLine, Fd, FdSource};
use crate::units::{Size, Span};

/// x86 real mode; the power management ports are where SeaBIOS puts them on `pc`.
const BOOT: [u8; 50] = [
    0xBA, 0x02, 0x06, // mov dx, 0x602
    0xB8, 0x00, 0x01, // mov ax, 0x100 (let the button be seen)
    0xEF, // out dx, ax
    0xBA, 0xF8, 0x03, // mov dx, 0x3f8
    0xB0, b'u', 0xEE, // mov al, 'u'; out dx, al
    0xB0, b'p', 0xEE, // mov al, 'p'; out dx, al
    0xB0, b'\n', 0xEE, // mov al, '\n'; out dx, al
    0xBA, 0xFD, 0x03, // loop: mov dx, 0x3fd
    0xEC, 0xA8, 0x01, // in al, dx; test al, 1
    0x74, 0x05, // jz +5
    0xBA, 0xF8, 0x03, // mov dx, 0x3f8
    0xEC, 0xEE, // in al, dx; out dx, al
    0xBA, 0x00, 0x06, // mov dx, 0x600
    0xED, 0xF6, 0xC4, 0x01, // in ax, dx; test ah, 1 (the button)
    0x74, 0xEA, // jz loop
    0xBA, 0x04, 0x06, // mov dx, 0x604
    0xB8, 0x00, 0x20, // mov ax, 0x2000 (sleep, S5)
    0xEF, // out dx, ax
    0xEB, 0xE1, // jmp loop
];

/// A place for guests.
pub(crate) struct Place {
    top: PathBuf,
    _folder: Option<tempfile::TempDir>,
    pub(crate) dirs: Dirs,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut place = Self::at(folder.path());
        place._folder = Some(folder);
        let mut image = vec![0; 1 << 20];
        image[..BOOT.len()].copy_from_slice(&BOOT);
        image[510..512].copy_from_slice(&[0x55, 0xAA]);
        std::fs::write(place.image(), image).unwrap();
        place
    }

    /// A place that is there already.
    pub(crate) fn at(top: &Path) -> Self {
        let at = |name: &str| top.join(name);
        let dirs = Dirs {
            config: at("config"),
            system_config: at("config"),
            state: at("state"),
            runtime: at("run"),
            cache: at("cache"),
            host: at("host"),
        };
        Self {
            top: top.to_owned(),
            _folder: None,
            dirs,
        }
    }

    pub(crate) fn run_dir(&self, name: &str) -> RunDir {
        RunDir::new(&self.dirs, &name.parse().unwrap())
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.top.join("boot.img")
    }

    /// The plan of a guest with one console and one read-only disk.
    pub(crate) fn plan(&self, name: &str) -> Plan {
        let run = self.run_dir(name);
        let machine = machine(&run, &self.image());
        let command = command(&run, &self.image());
        let mut steps = vec![
            Step::MakeDir {
                path: run.path().to_owned(),
                mode: 0o700,
                keep: false,
            },
            Step::Lock { path: run.lock() },
            Step::MakeDir {
                path: run.log_dir(),
                mode: 0o700,
                keep: true,
            },
        ];
        let ours = [run.qmp(), run.control(), run.console("main")];
        let theirs = command.fds.iter().filter_map(|fd| match &fd.source {
            FdSource::Listen(path) => Some(path.clone()),
            _ => None,
        });
        steps.extend(theirs.chain(ours).map(|path| Step::Listen { path }));
        Plan {
            machine,
            steps,
            command,
        }
    }

    /// Starts a supervisor that can be killed: this test program once more.
    pub(crate) fn supervisor(&self, name: &str) -> std::process::Child {
        self.supervisor_with(name, &[])
    }

    /// The same with an environment.
    pub(crate) fn supervisor_with(
        &self,
        name: &str,
        env: &[(&str, &std::ffi::OsStr)],
    ) -> std::process::Child {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "guest::orphan_tests::supervisor", "--ignored"])
            .env("MVM_TEST_PLACE", &self.top)
            .env("MVM_TEST_GUEST", name)
            .envs(env.iter().copied())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Starts a guest in a thread of its own; returns once it is ready or has failed.
    pub(crate) fn start(&self, plan: Plan) -> Guest {
        let (ready, when_ready) = mpsc::channel();
        let run = self.run_dir(plan.machine.name.as_str());
        let dirs = self.dirs.clone();
        let tell = Box::new(move |state: &GuestState| ready.send(state.clone()).unwrap());
        let thread = std::thread::spawn(move || {
            let renewal = Renewal::Here(&mut again);
            start::run(&dirs, plan, start::Options::default(), tell, renewal)
        });
        Guest {
            ready: when_ready.recv_timeout(Duration::from_secs(30)).ok(),
            run,
            thread,
        }
    }

    pub(crate) fn adopt(&self, name: &str) -> Guest {
        let (ready, when_ready) = mpsc::channel();
        let run = self.run_dir(name);
        let dirs = self.dirs.clone();
        let name = run.name().clone();
        let tell = Box::new(move |state: &GuestState| ready.send(state.clone()).unwrap());
        let thread =
            std::thread::spawn(move || start::adopt(&dirs, &name, tell, Renewal::Here(&mut again)));
        Guest {
            ready: when_ready.recv_timeout(Duration::from_secs(30)).ok(),
            run,
            thread,
        }
    }
}

/// The same plan once more, and nobody to tell.
pub(crate) fn again(plan: &Plan) -> Result<(Plan, OnReady), Report> {
    Ok((plan.clone(), Box::new(|_| ())))
}

/// A guest that runs in a thread.
pub(crate) struct Guest {
    pub(crate) ready: Option<GuestState>,
    pub(crate) run: RunDir,
    thread: JoinHandle<Result<Ended, StartError>>,
}

impl Guest {
    pub(crate) fn end(self) -> Result<Ended, StartError> {
        self.thread.join().unwrap()
    }

    /// Asks the supervisor for something; its last answer.
    pub(crate) fn ask(&self, request: Value) -> Value {
        ask(&self.run.control(), request)
    }
}

pub(crate) fn ask(path: &Path, request: Value) -> Value {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream.write_all(format!("{request}\n").as_bytes()).unwrap();
    for line in BufReader::new(stream).lines() {
        let answer: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if answer.get("progress").is_none() {
            return answer;
        }
    }
    json!("no answer")
}

/// Reads a console until it says that.
pub(crate) fn read_until(stream: &mut std::os::unix::net::UnixStream, text: &str) -> String {
    use std::io::Read;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&seen).contains(text) {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{seen:?}");
        seen.push(byte[0]);
    }
    String::from_utf8(seen).unwrap()
}

fn machine(run: &RunDir, image: &Path) -> Machine {
    Machine {
        name: run.name().clone(),
        profile: "test".to_owned(),
        uuid: uuid::Uuid::nil(),
        arch: Arch::X86_64,
        board: Board {
            machine_type: "pc".to_owned(),
            kind: BoardKind::Pc,
            gic: None,
            virtio_iommu: false,
            vmport: false,
            irqchip: None,
            iommu: None,
        },
        accel: Accel {
            chosen: AccelKind::Tcg,
            reason: "a test".to_owned(),
        },
        cpu: Cpu {
            model: "qemu64".to_owned(),
            count: 1,
            sockets: 1,
            dies: 1,
            clusters: 1,
            cores: 1,
            threads: 1,
            features: std::collections::BTreeMap::new(),
        },
        threads: Threads::default(),
        clock: Clock::default(),
        smbios: Smbios::default(),
        memory: Size::mib(16),
        ram: crate::machine::memory::Ram::default(),
        kernel: None,
        firmware: Firmware::Builtin,
        disks: vec![Disk {
            id: "boot".parse().unwrap(),
            image: Some(Image {
                path: image.to_owned(),
                format: DiskFormat::Raw,
                block_device: false,
            }),
            overlay: None,
            bus: crate::profile::schema::DiskBus::Ide,
            media: crate::profile::schema::Media::Disk,
            cache: crate::profile::schema::Cache::Writeback,
            aio: crate::profile::schema::Aio::Threads,
            discard: false,
            read_only: true,
            boot: None,
            serial: None,
            options: crate::machine::DiskOptions::default(),
        }],
        iothreads: Vec::new(),
        controllers: Vec::new(),
        nics: vec![],
        consoles: vec![Console {
            id: "main".parse().unwrap(),
            virtio: false,
            pty: false,
            isa: None,
            end: None,
            unlogged: false,
        }],
        channels: vec![],
        agent: false,
        shares: vec![],
        rng: None,
        balloon: false,
        balloon_does: crate::machine::BalloonDoes::default(),
        watchdog: None,
        panic: false,
        tpm: None,
        vsock: None,
        host_devices: Vec::new(),
        vfs: Vec::new(),
        companions: Vec::new(),
        detach_consoles: Vec::new(),
        iommufd: false,
        virtio_gpu: false,
        desktop: crate::machine::Desktop::default(),
        trace: vec![],
        hotplug_ports: 0,
        positions: crate::machine::Positions::default(),
        boot_menu: crate::machine::BootMenu::default(),
        hooks: Vec::new(),
        env: std::collections::BTreeMap::new(),
        overrides: std::collections::BTreeMap::new(),
        qemu_args: vec![],
        stop_timeout: Span::secs(20),
        power: crate::machine::Power::default(),
        lifecycle: Lifecycle::default(),
        run_as: None,
        qemu: Qemu {
            binary: "qemu-system-x86_64".into(),
            version: (7, 2, 0),
            sandbox: false,
        },
        notes: vec![],
        run_dir: run.path().to_owned(),
        state_dir: run.log_dir().parent().unwrap().to_owned(),
    }
}

fn command(run: &RunDir, image: &Path) -> CommandLine {
    let text = |text: &str| Arg::Text(text.to_owned());
    let log =
        |path: PathBuf, append: &str| format!(",logfile={},logappend={append}", path.display());
    let chardev = |name: &str, more: &str| Arg::Fd {
        real: format!("socket,id={name},server=on,wait=off,fd={{fd:{name}}}{more}"),
        shown: String::new(),
    };
    let events = log(run.events_log(), "on");
    let console = log(run.console_log("main"), "off");
    let mut args: Vec<Arg> = "-S -M pc -accel tcg -m 16 -display none -nodefaults -no-user-config"
        .split(' ')
        .map(text)
        .collect();
    args.extend([text("-chardev"), chardev("monitor", "")]);
    args.extend([text("-mon"), text("chardev=monitor,mode=control")]);
    args.extend([text("-chardev"), chardev("events", &events)]);
    args.extend([text("-mon"), text("chardev=events,mode=control")]);
    args.extend([text("-chardev"), chardev("console-main", &console)]);
    args.extend([text("-serial"), text("chardev:console-main")]);
    let drive = format!("file={},if=ide,format=raw,readonly=on", image.display());
    args.extend([
        text("-drive"),
        text(&drive.replace("if=ide", "if=none,id=d")),
    ]);
    args.extend([text("-device"), text("virtio-blk-pci,drive=d")]);
    let fd = |name: &str, source| Fd {
        name: name.to_owned(),
        source,
    };
    CommandLine {
        program: crate::ops::process::find("qemu-system-x86_64", None).unwrap(),
        args,
        env: vec![],
        fds: vec![
            fd("lock", FdSource::Lock(run.lock())),
            fd("monitor", FdSource::Listen(run.monitor())),
            fd("events", FdSource::Listen(run.events())),
            fd("console-main", FdSource::Listen(run.console_qemu("main"))),
        ],
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A test that failed must not leave a QEMU behind.
        if self._folder.is_none() {
            return;
        }
        for (name, _) in super::list(&self.dirs).unwrap_or_default() {
            kill_qemu(&self.run_dir(name.as_str()));
        }
    }
}

/// Kills whoever has the guest's lock, this process aside.
pub(crate) fn kill_qemu(run: &RunDir) {
    for holder in super::holders::of(&run.lock()) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(holder.pid).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
}
