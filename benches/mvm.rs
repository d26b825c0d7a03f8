//! `make bench`: what mvm costs, beside the same QEMU started bare, as a table.
//!
//! Everything runs in one go on one machine, so that the columns can be compared; the figures are
//! medians. Needs the demo guest (`make demo-guest`), whose folder is given in `MVM_DEMO_GUEST`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Hosts as trees of files, of which a bench needs little.
#[path = "../tests/hosts/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests use the rest of it")]
mod hosts;

const MVM: &str = env!("CARGO_BIN_EXE_mvm");
const LIMIT: Duration = Duration::from_secs(30);

/// Directories of mvm's own in one temporary folder.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        // The run-time directory is in memory, as /run is; so is the rest, for all columns alike.
        let root = tempfile::Builder::new()
            .prefix("mvm-bench")
            .tempdir_in("/dev/shm")
            .expect("a temporary folder in memory");
        Self { root }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn mvm(&self, args: &[&str]) -> Command {
        let mut command = Command::new(MVM);
        command.args(args);
        for name in ["CONFIG", "STATE", "RUNTIME", "CACHE", "HOST"] {
            command.env(format!("MVM_{name}_DIR"), self.dir(&name.to_lowercase()));
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs mvm to its end and tells how long that took.
    fn time(&self, args: &[&str]) -> Duration {
        let begin = Instant::now();
        let output = self.mvm(args).output().expect("mvm starts");
        let took = begin.elapsed();
        assert!(
            output.status.success(),
            "mvm {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        took
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.mvm(args).output().expect("mvm starts");
        assert!(
            output.status.success(),
            "mvm {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).expect("mvm prints JSON")
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn row(what: &str, mvm: &str, beside: &str) {
    let mut out = std::io::stdout().lock();
    // The table is this program's output; there is nobody left to tell when it cannot be written.
    let _ = writeln!(out, "{what:<52} {mvm:>14}   {beside}");
}

/// A QMP connection of the plainest kind.
struct Plain {
    reader: BufReader<UnixStream>,
}

impl Plain {
    fn connect(path: &Path) -> Self {
        let begin = Instant::now();
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(_) if begin.elapsed() < LIMIT => std::thread::sleep(Duration::from_micros(200)),
                Err(error) => panic!("{}: {error}", path.display()),
            }
        };
        stream.set_read_timeout(Some(LIMIT)).expect("a deadline");
        let mut plain = Self {
            reader: BufReader::new(stream),
        };
        let mut greeting = String::new();
        plain.reader.read_line(&mut greeting).expect("a greeting");
        plain.call("{\"execute\":\"qmp_capabilities\"}\n");
        plain
    }

    fn call(&mut self, line: &str) {
        self.reader
            .get_mut()
            .write_all(line.as_bytes())
            .expect("a command is written");
        let mut answer = String::new();
        loop {
            answer.clear();
            assert!(
                self.reader.read_line(&mut answer).expect("an answer") > 0,
                "QMP ended"
            );
            if answer.starts_with("{\"return\"") || answer.contains("\"return\":") {
                return;
            }
        }
    }

    fn rate(&mut self, rounds: u32) -> f64 {
        let begin = Instant::now();
        for _ in 0..rounds {
            self.call("{\"execute\":\"query-status\"}\n");
        }
        f64::from(rounds) / begin.elapsed().as_secs_f64()
    }
}

/// The dry run's QEMU with paths in place of passed descriptors: what one would start by hand.
fn bare(plan: &Value, run: &Path, count: usize) -> (Child, PathBuf) {
    let program = plan["program"]
        .as_str()
        .expect("the plan names its program");
    let socket = run.join(format!("bare-{count}.sock"));
    let mut args: Vec<String> = Vec::new();
    for arg in plan["args"].as_array().expect("the plan has arguments") {
        args.push(arg.as_str().expect("arguments are text").to_owned());
    }
    // The event log would lie in mvm's run-time directory, which is there only while mvm's guest runs.
    let theirs = plan["machine"]["run_dir"]
        .as_str()
        .expect("the guest's directory");
    for arg in &mut args {
        *arg = arg.replace(theirs, &run.display().to_string());
    }
    // Every passed socket becomes one that QEMU makes itself.
    for fd in plan["fds"]
        .as_array()
        .expect("the plan has its descriptors")
    {
        let number = fd["fd"].as_i64().expect("a number");
        let name = fd["name"].as_str().expect("a name");
        let path = if name == "monitor" {
            socket.clone()
        } else {
            run.join(format!("bare-{count}-{name}.sock"))
        };
        let from = format!("fd={number}");
        for arg in &mut args {
            if arg.starts_with("socket,") && arg.split(',').any(|part| part == from) {
                *arg = arg.replace(&from, &format!("path={}", path.display()));
            }
        }
    }
    let child = Command::new(program)
        .args(&args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("QEMU starts");
    (child, socket)
}

fn pss(pid: i64) -> u64 {
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the supervisor lives");
    text.lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .expect("smaps_rollup has a Pss line")
}

/// Reading all devices of a host with a GPU of seven virtual functions, and planning with one of them.
fn with_devices(place: &Place, dry: &[&str]) {
    let host = hosts::Host::new("intel-i915-7vf");
    let time = |args: &[&str]| {
        let mut command = place.mvm(args);
        command.env("MVM_SYSFS", host.sys());
        let begin = Instant::now();
        let output = command.output().expect("mvm starts");
        let took = begin.elapsed();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "mvm {args:?}: {said}");
        took
    };
    let devices = (0..15).map(|_| time(&["devices"])).collect();
    row("devices, on a recorded desktop", &ms(median(devices)), "");
    let vf = [dry, &["--gpu", "vf:1"]].concat();
    let planned = (0..15).map(|_| time(&vf)).collect();
    row(
        "run --gpu vf:1 --dry-run",
        &ms(median(planned)),
        "aim: 30 ms",
    );
}

fn main() {
    let guest = PathBuf::from(
        std::env::var_os("MVM_DEMO_GUEST").expect("MVM_DEMO_GUEST names the demo guest"),
    );
    let place = Place::new();
    let kernel = format!("boot.kernel={}", guest.join("kernel").display());
    let initrd = format!("boot.initrd={}", guest.join("initrd").display());
    let sets = ["--set", kernel.as_str(), "--set", initrd.as_str()];
    let with = |args: &[&str]| -> Vec<String> {
        args.iter()
            .chain(&sets)
            .map(|arg| (*arg).to_owned())
            .collect()
    };
    let start = with(&["start", "demo"]);
    let start: Vec<&str> = start.iter().map(String::as_str).collect();
    let dry = with(&["run", "demo", "--dry-run", "--format", "json"]);
    let dry: Vec<&str> = dry.iter().map(String::as_str).collect();

    row("", "mvm", "beside it");

    // The first start fills the caches: the KVM probe and QEMU's capabilities are per boot and binary.
    place.time(&start);
    place.time(&["kill", "demo"]);

    let plan = place.json(&dry);
    let (mut starts, mut kills, mut bares) = (Vec::new(), Vec::new(), Vec::new());
    for count in 0..15 {
        starts.push(place.time(&start));
        kills.push(place.time(&["kill", "demo"]));
        let begin = Instant::now();
        let (mut child, socket) = bare(&plan, place.root.path(), count);
        let mut qmp = Plain::connect(&socket);
        bares.push(begin.elapsed());
        qmp.call("{\"execute\":\"query-status\"}\n");
        child.kill().expect("QEMU is ours to end");
        child.wait().expect("QEMU is reaped");
    }
    let (start_time, bare_time) = (median(starts), median(bares));
    row(
        "start, until QEMU answers QMP",
        &ms(start_time),
        &format!("{} bare QEMU", ms(bare_time)),
    );
    row(
        "  above bare QEMU",
        &ms(start_time.saturating_sub(bare_time)),
        "aim: 15 ms; virsh start 362 ms where bare took 51",
    );
    row("kill", &ms(median(kills)), "virsh destroy: 239 ms");

    let dry_times = (0..15).map(|_| place.time(&dry)).collect();
    row("run --dry-run", &ms(median(dry_times)), "");
    with_devices(&place, &dry);

    // One guest runs from here on.
    place.time(&start);
    let shown = place.json(&["list", "--format", "json"]);
    let state = std::fs::read_to_string(place.dir("runtime").join("demo/state.json"))
        .expect("a state file");
    let state: Value = serde_json::from_str(&state).expect("the state is JSON");
    assert_eq!(shown[0]["name"], "demo");

    let socket = place.dir("runtime").join("demo/qmp.sock");
    let (mut child, own) = bare(&plan, place.root.path(), 999);
    let (mut shared, mut direct) = (Plain::connect(&socket), Plain::connect(&own));
    let (mut best_shared, mut best_direct) = (0f64, 0f64);
    for _ in 0..5 {
        best_direct = best_direct.max(direct.rate(4000));
        best_shared = best_shared.max(shared.rate(4000));
    }
    child.kill().expect("QEMU is ours to end");
    child.wait().expect("QEMU is reaped");
    row(
        "QMP round trips a second, shared socket",
        &format!("{best_shared:.0}"),
        &format!(
            "{best_direct:.0} QEMU's own, {:.0} % (aim: 90 %)",
            100.0 * best_shared / best_direct
        ),
    );
    let supervisor = state["supervisor"].as_i64().expect("the supervisor's pid");
    // What the bursts mapped is given back once the supervisor is idle.
    std::thread::sleep(Duration::from_secs(15));
    row(
        "supervisor's PSS, idle",
        &format!("{} kB", pss(supervisor)),
        "aim: 1500 kB; libvirtd + virtlogd 25 MB",
    );
    place.time(&["kill", "demo"]);

    let machines = place.dir("config").join("machines");
    std::fs::create_dir_all(&machines).expect("a folder of machines");
    let virsh = ["13 ms", "27 ms", "61 ms"];
    for (count, virsh) in [1, 100, 500].into_iter().zip(virsh) {
        for index in 0..count {
            let file = machines.join(format!("m{index}.toml"));
            std::fs::write(file, "extends = [\"linux\"]\n").expect("a machine file");
        }
        let times = (0..15).map(|_| place.time(&["list", "--all"])).collect();
        row(
            &format!("list --all, {count} machines defined"),
            &ms(median(times)),
            &format!("virsh list --all: {virsh}"),
        );
    }
    let size = std::fs::metadata(MVM).expect("the binary is there").len();
    row(
        "binary (dynamic)",
        &format!("{:.2} MB", size as f64 / 1e6),
        "",
    );
    for arch in ["x86_64", "aarch64"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/dist/mvm-{arch}"));
        if let Ok(meta) = std::fs::metadata(&path) {
            row(
                &format!("static binary, {arch}"),
                &format!("{:.2} MB", meta.len() as f64 / 1e6),
                "aim: 6 MB",
            );
        }
    }
}
