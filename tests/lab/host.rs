//! An emulated host: how it is started, asked and ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::{Agent, Output};
use crate::devices::{self, Extras};
use crate::guest::Guest;
use crate::outer::{self, Board};
use crate::qmp::Qmp;
use crate::snapshot::Snapshot;

/// How long a host may take to start: on a busy machine many times the 5 s it usually takes.
const BOOT: Duration = Duration::from_secs(300);

/// A guest that takes no time: its kernel sleeps for ever. Its `--name` is to be added.
pub(crate) const SMALL: &str = "linux --kernel /usr/share/lab/idle --set boot.initrd= --cpus 1 --memory 64M --set network.lan.none={}";

/// What host to make.
#[derive(Clone)]
pub(crate) struct Builder {
    pub(crate) board: Board,
    pub(crate) extras: Extras,
    pub(crate) append: String,
    pub(crate) modules: String,
}

impl Builder {
    /// A second USB controller with a stick of its own: one to give away whole.
    pub(crate) fn second_xhci(mut self) -> Self {
        self.extras.second_xhci = true;
        self
    }

    /// A display that carries the host's console.
    pub(crate) fn gpu(mut self) -> Self {
        self.extras.gpu = true;
        self
    }

    /// A NIC with 7 VFs. The emulating QEMU is then version 10.
    pub(crate) fn igb(mut self) -> Self {
        self.extras.igb = true;
        self
    }

    /// Linux 6.12 with iommufd, and QEMU 10 in the host.
    pub(crate) fn iommufd(mut self) -> Self {
        self.extras.iommufd = true;
        self
    }

    /// An Arm host without firmware: Linux is told by a device tree what there is, not by ACPI.
    pub(crate) fn device_tree(mut self) -> Self {
        self.board = Board::Arm { acpi: false };
        self
    }

    /// Words for the kernel command line. The last one counts: `intel_iommu=off` takes the IOMMU away.
    pub(crate) fn append(mut self, words: &str) -> Self {
        self.append = format!("{} {words}", self.append);
        self
    }

    /// Another first process than busybox init: x86 hosts have systemd.
    pub(crate) fn init(self, program: &str) -> Self {
        self.append(&format!("lab.init={program}"))
    }

    /// Kernel modules to load at the start, beside the drivers of what there is: `mtty`, `mdpy`.
    pub(crate) fn modules(mut self, names: &str) -> Self {
        self.modules = format!("{},{}", self.modules, names.replace(' ', ","));
        self
    }

    /// Starts the host and waits until it takes commands.
    #[track_caller]
    pub(crate) fn boot(self) -> Host {
        Host::boot(&self)
    }
}

/// A host that is awake. Ended when dropped; a failed test then shows the end of its logs.
pub(crate) struct Host {
    qemu: Child,
    agent: Agent,
    qmp: Mutex<Qmp>,
    folder: TempDir,
    devices: Vec<Value>,
    count: AtomicU32,
    _turn: MutexGuard<'static, ()>,
}

/// nextest lets one test run at a time; cargo's own runner does not.
static TURN: Mutex<()> = Mutex::new(());

impl Host {
    /// An x86 host with VT-d, whose processor virtualises by SVM. See `devices.rs`.
    pub(crate) fn x86() -> Builder {
        Builder {
            board: Board::X86,
            extras: Extras::default(),
            append:
                "console=ttyS0 quiet panic=-1 nokaslr no_timer_check mitigations=off intel_iommu=on"
                    .to_owned(),
            modules: "kvm_amd,vfio-pci,vfio_iommu_type1,vhost_vsock,vhost_net,tun".to_owned(),
        }
    }

    /// An Arm host with SMMUv3, started by UEFI with ACPI, whose kernel runs at EL2. See `devices.rs`.
    pub(crate) fn arm() -> Builder {
        Builder {
            board: Board::Arm { acpi: true },
            extras: Extras::default(),
            append: "console=ttyAMA0 quiet panic=-1 nokaslr".to_owned(),
            // None of VFIO: mvm loads what it needs.
            modules: "vhost_vsock,vhost_net,tun".to_owned(),
        }
    }

    #[track_caller]
    fn boot(builder: &Builder) -> Self {
        let turn = TURN.lock().unwrap_or_else(|failed| failed.into_inner());
        remove_old(Path::new(env!("CARGO_TARGET_TMPDIR")));
        let folder = tempfile::Builder::new()
            .prefix("lab-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["scratch", "bin"] {
            fs::create_dir(path(name)).expect("a folder");
        }
        outer::share_programs(builder.board, &path("bin"));
        for (name, mib) in outer::DISKS {
            let file = fs::File::create(path(&format!("{name}.img"))).expect("a disk");
            file.set_len(mib << 20).expect("a sparse file");
        }
        let devices = match builder.board {
            Board::X86 => devices::x86(builder.extras),
            Board::Arm { .. } => devices::arm(),
        };
        let mut command = outer::command(builder, folder.path(), &devices);
        // Making what it needs may have taken minutes.
        let begin = Instant::now();
        let log = fs::File::create(path("qemu.log")).expect("a file");
        let qemu = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second descriptor"))
            .stderr(log)
            .spawn()
            .expect("the outer QEMU starts");
        let mut starting = Starting(Some(qemu), folder.path().to_owned());
        let agent = starting.until("agent.sock", |path| {
            Agent::connect(path, &folder.path().join("scratch"))
        });
        let qmp = starting.until("qmp.sock", Qmp::connect);
        while !agent.is_ready(Duration::from_millis(500)) {
            starting.check(begin);
        }
        println!(
            "the host is up after {:.1} s",
            begin.elapsed().as_secs_f32()
        );
        Self {
            qemu: starting.0.take().expect("it was just started"),
            agent,
            qmp: Mutex::new(qmp),
            devices,
            folder,
            count: AtomicU32::new(1),
            _turn: turn,
        }
    }

    /// Runs a shell script as root. After `limit` it is ended, with status 137.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str, limit: Duration) -> Output {
        match self.agent.run(script, limit) {
            Some(output) => output,
            None => panic!("the host does not answer: {script}"),
        }
    }

    /// Runs a script that must succeed, within three minutes (on a busy machine all is slow); what it printed,
    /// without the last line's end.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> String {
        let output = self.sh(script, Duration::from_secs(180));
        assert_eq!(output.status, 0, "{script}\n{output}");
        output.stdout.trim_end().to_owned()
    }

    /// Waits until the host has switched itself off.
    #[track_caller]
    pub(crate) fn goes_off(&mut self, limit: Duration) {
        let begin = Instant::now();
        while self.qemu.try_wait().expect("it is our child").is_none() {
            assert!(begin.elapsed() < limit, "the host does not go off");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The host's state that mvm changes and must give back.
    #[track_caller]
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::parse(&self.run("lab-snapshot"))
    }

    /// Fails unless the host comes to be as it was, within 20 seconds.
    #[track_caller]
    pub(crate) fn settles_to(&self, before: &Snapshot) {
        let begin = Instant::now();
        loop {
            let diff = before.diff(&self.snapshot());
            if diff.is_empty() {
                return;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "the host is not as it was (- before, + now):\n{diff}"
            );
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// A guest of this host, once there is a shell on its console.
    #[track_caller]
    pub(crate) fn guest(&self, name: &str) -> Guest<'_> {
        Guest::open(self, name)
    }

    /// A folder that the host sees as `/lab`.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.folder.path().join("scratch")
    }

    /// Pulls a device out: one of USB at once, one of PCI by asking the host's kernel.
    #[track_caller]
    pub(crate) fn unplug(&self, id: &str) {
        let mut qmp = self.qmp.lock().expect("no panic inside");
        qmp.ask("device_del", json!({ "id": id }));
        assert!(
            qmp.event("DEVICE_DELETED", id, Duration::from_secs(30)),
            "{id} has not gone"
        );
    }

    /// Plugs a device in again.
    #[track_caller]
    pub(crate) fn plug(&self, id: &str) {
        let device = self.devices.iter().find(|device| device["id"] == id);
        let device = device.unwrap_or_else(|| panic!("no device {id}"));
        let mut qmp = self.qmp.lock().expect("no panic inside");
        qmp.ask("device_add", device.clone());
    }

    /// Holds back requests to the disk of the NVMe device (all but the first), or lets them go on. While one is,
    /// taking the driver away from the device waits in the kernel (at most 30 s, then the driver gives the
    /// request up).
    #[track_caller]
    pub(crate) fn stall_nvme(&self, stall: bool) {
        self.slow_nvme(u32::from(stall));
    }

    /// Lets that many bytes a second go to and from the disk of the NVMe device; 0 for as many as can. What takes
    /// the driver away from the device waits for the requests that are on their way.
    #[track_caller]
    pub(crate) fn slow_nvme(&self, rate: u32) {
        let mut qmp = self.qmp.lock().expect("no panic inside");
        qmp.ask(
            "block_set_io_throttle",
            json!({
                "id": "namespace", "bps": rate, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0
            }),
        );
    }

    /// Presses those keys of the host's keyboard together.
    #[track_caller]
    pub(crate) fn press(&self, keys: &[&str]) {
        let keys: Vec<Value> = keys
            .iter()
            .map(|key| json!({ "type": "qcode", "data": key }))
            .collect();
        let mut qmp = self.qmp.lock().expect("no panic inside");
        qmp.ask("send-key", json!({ "keys": keys }));
        // It holds them for a tenth of a second.
        std::thread::sleep(Duration::from_millis(500));
    }

    /// Runs a command that starts that guest, and waits for the shell on its console. An emulated KVM is not
    /// without faults: a guest that panics in an interrupt is started once more.
    #[track_caller]
    pub(crate) fn start(&self, name: &str, command: &str) -> Guest<'_> {
        self.run(command);
        if let Some(guest) = Guest::unless_panicked(self, name) {
            return guest;
        }
        println!("{name} panicked in an interrupt: once more");
        self.run(&format!("mvm kill {name}"));
        self.run(command);
        self.guest(name)
    }

    /// Plugs a USB device in at another port of its controller.
    #[track_caller]
    pub(crate) fn plug_at(&self, id: &str, port: &str) {
        let device = self.devices.iter().find(|device| device["id"] == id);
        let mut device = device.unwrap_or_else(|| panic!("no device {id}")).clone();
        device["port"] = json!(port);
        let mut qmp = self.qmp.lock().expect("no panic inside");
        qmp.ask("device_add", device);
    }

    /// Gives the NVMe device's VFs the queues that they have not by themselves. To be asked while there is no
    /// VF yet; `nvme_vf_online` is for when there is.
    #[track_caller]
    pub(crate) fn nvme_give_vfs_queues(&self) {
        self.run(
            "nvme virt-mgmt /dev/nvme0 -c 0 -r 1 -a 1 -n 0 && \
             nvme virt-mgmt /dev/nvme0 -c 0 -r 0 -a 1 -n 0 && \
             echo 1 >/sys/bus/pci/devices/0000:01:00.0/reset && \
             for vf in $(seq $(cat /sys/bus/pci/devices/0000:01:00.0/sriov_totalvfs)); do \
               nvme virt-mgmt /dev/nvme0 -c $vf -r 1 -a 8 -n 1 && \
               nvme virt-mgmt /dev/nvme0 -c $vf -r 0 -a 8 -n 2 || exit 1; \
             done",
        );
    }

    /// Brings a VF of the NVMe device (from 1; it must exist) online.
    #[track_caller]
    pub(crate) fn nvme_vf_online(&self, number: u32) {
        self.run(&format!(
            "nvme virt-mgmt /dev/nvme0 -c {number} -r 0 -a 9 -n 0"
        ));
    }

    /// A number that was not given before.
    pub(crate) fn number(&self) -> u32 {
        self.count.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let script = "dmesg | tail -n 60; ps -o pid,ppid,stat,args | grep -v '\\['; \
                tail -n 20 /var/lib/mvm/*/log/*.log /run/mvm/*/events.log";
            // Prints what it gets.
            let _ = self.agent.run(script, Duration::from_secs(10));
            show_logs(self.folder.path());
        }
        end(&mut self.qemu);
    }
}

/// A QEMU that is not a host yet: ended where the test fails before.
struct Starting(Option<Child>, PathBuf);

impl Starting {
    #[track_caller]
    fn until<T>(&mut self, name: &str, open: impl Fn(&Path) -> std::io::Result<T>) -> T {
        let begin = Instant::now();
        loop {
            match open(&self.1.join(name)) {
                Ok(opened) => return opened,
                Err(_) => self.check(begin),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn check(&mut self, begin: Instant) {
        let qemu = self.0.as_mut().expect("it was just started");
        let ended = qemu.try_wait().expect("it is our child");
        assert!(ended.is_none(), "the outer QEMU ended: {ended:?}");
        assert!(begin.elapsed() < BOOT, "the host does not start");
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(mut qemu) = self.0.take() {
            show_logs(&self.1);
            end(&mut qemu);
        }
    }
}

/// What tests left that were killed: a day later nobody looks at it any more.
fn remove_old(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("lab-")) {
        let age = entry.metadata().and_then(|meta| meta.modified());
        let age = age.ok().and_then(|time| time.elapsed().ok());
        if age > Some(Duration::from_secs(24 * 3600)) {
            // Another test may be faster.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn end(qemu: &mut Child) {
    // It may have ended by itself.
    let _ = qemu.kill();
    let _ = qemu.wait();
}

fn show_logs(folder: &Path) {
    for name in ["qemu.log", "console.log"] {
        let bytes = fs::read(folder.join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(40)..];
        println!("--- the end of {name}:\n{}", tail.join("\n"));
    }
}
