//! Where a guest's threads run, how they are scheduled, and what its firmware says of the machine: of a real
//! guest, as the host's kernel and the guest's tell it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::env::{TestEnv, eventually, finish, has_program, kill};

/// What `/proc/PID/task/TID` says of a thread: its CPUs, its real-time priority, its policy.
#[derive(Debug, PartialEq, Eq)]
struct Thread {
    cpus: String,
    priority: u32,
    policy: u32,
}

const OTHER: u32 = 0;
const FIFO: u32 = 1;
const RR: u32 = 2;

fn thread(process: i64, thread: i64) -> Thread {
    let file = |name: &str| {
        let path = format!("/proc/{process}/task/{thread}/{name}");
        fs::read_to_string(path).expect("the thread is there")
    };
    let status = file("status");
    let cpus = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let stat = file("stat");
    // The name may hold anything; what follows its last bracket is fields 3 and up.
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |number: usize| fields[number - 3].parse().expect("a number");
    Thread {
        cpus: cpus.expect("its CPUs").trim().to_owned(),
        priority: field(40),
        policy: field(41),
    }
}

/// The threads of the guest's processors, by their numbers.
fn processors(env: &TestEnv, name: &str) -> BTreeMap<i64, i64> {
    let all = env
        .mvm(&format!("qmp {name} query-cpus-fast"))
        .exits(0)
        .json();
    let all = all.as_array().expect("an array").iter();
    let number = |cpu: &serde_json::Value, key: &str| cpu[key].as_i64().expect("a number");
    all.map(|cpu| (number(cpu, "cpu-index"), number(cpu, "thread-id")))
        .collect()
}

/// The I/O threads, by their names.
fn iothreads(env: &TestEnv, name: &str) -> BTreeMap<String, i64> {
    let all = env
        .mvm(&format!("qmp {name} query-iothreads"))
        .exits(0)
        .json();
    let one = |thread: &serde_json::Value| {
        let name = thread["id"].as_str().expect("a name").to_owned();
        (name, thread["thread-id"].as_i64().expect("a number"))
    };
    all.as_array().expect("an array").iter().map(one).collect()
}

fn threads(process: i64) -> BTreeSet<i64> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it is there");
    let id = |task: fs::DirEntry| task.file_name().to_str()?.parse().ok();
    tasks.flatten().filter_map(id).collect()
}

/// The first and the last CPU that this test may use; the same where there is one.
fn two_cpus() -> (u32, u32) {
    let status = fs::read_to_string("/proc/self/status").expect("a process");
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .expect("its CPUs");
    let numbers = list.trim().split([',', '-']);
    let numbers: Vec<u32> = numbers.filter_map(|cpu| cpu.parse().ok()).collect();
    (numbers[0], numbers[numbers.len() - 1])
}

fn realtime() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("a process");
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> 23 & 1 == 1)
}

#[test]
fn a_guest_is_pinned_scheduled_and_described() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let (first, last) = two_cpus();
    env.write(
        "config/machines/pinned.toml",
        format!(
            "extends = [\"demo\"]\n\
             [cpu]\ncores = 2\nfeatures = {{ aes = false, sse4_1 = true }}\n\
             [pin]\nvcpu = {{ \"0\" = \"{first}\", \"1\" = \"{last}\" }}\nemulator = \"{last}\"\n\
             iothread = {{ disks = \"{first}\" }}\n\
             [iothread.disks]\n[iothread.more]\n\
             [clock]\nbase = \"localtime\"\n\
             [smbios]\nhost = true\noem-strings = [\"one, two\", \"three\"]\n\
             [smbios.bios]\nversion = \"7.7\"\n\
             [smbios.system]\nproduct = \"Pinned, Inc.\"\nserial = \"S-1\"\nsku = \"K-1\"\n\
             uuid = \"01234567-89ab-cdef-0123-456789abcdef\"\n\
             [smbios.baseboard]\nlocation = \"under the desk\"\n\
             [smbios.chassis]\nsku = \"K-2\"\n"
        ),
    );
    // A host that has something to say of itself; this one may be a machine without.
    let online = fs::read_to_string("/sys/devices/system/cpu/online").expect("CPUs");
    env.write("tree/sys/devices/system/cpu/online", online);
    for (name, text) in [
        ("sys_vendor", "LENOVO"),
        ("product_name", "20XX"),
        ("product_family", "ThinkPad"),
        ("bios_vendor", "Phoenix"),
        ("bios_version", "1.0"),
        ("bios_date", "11/28/2026"),
        ("bios_release", "5.27"),
        ("board_vendor", "Board & Co."),
        ("board_name", "20XXS1"),
        ("board_asset_tag", "A-1"),
        ("chassis_vendor", "Case"),
        ("chassis_serial", "C-1"),
    ] {
        env.write(format!("tree/sys/class/dmi/id/{name}"), format!("{text}\n"));
    }
    let mut start = env.command(&["start", "pinned"]);
    start
        .env("MVM_SYSFS", env.path("tree/sys"))
        .env("TZ", "XXX-5");
    finish(start).exits(0);
    let pid = env.row("pinned")["pid"].as_i64().expect("a process");
    let as_wanted = || {
        let processors = processors(&env, "pinned");
        assert_eq!(processors.len(), 2);
        for (number, id) in &processors {
            let cpus = if *number == 0 { first } else { last };
            let wanted = Thread {
                cpus: cpus.to_string(),
                priority: 0,
                policy: OTHER,
            };
            assert_eq!(thread(pid, *id), wanted, "processor {number}");
        }
        let io = iothreads(&env, "pinned");
        // What is not pinned does not go where the rest of QEMU is.
        let free = |list: &str| {
            if first == last {
                list == last.to_string()
            } else {
                list != last.to_string()
            }
        };
        assert_eq!(thread(pid, io["disks"]).cpus, first.to_string());
        assert!(free(&thread(pid, io["more"]).cpus));
        let rest = threads(pid);
        let rest = rest.iter().filter(|id| {
            !processors
                .values()
                .chain(io.values())
                .any(|known| known == *id)
        });
        for id in rest {
            if fs::read_link(format!("/proc/{pid}/task/{id}/exe")).is_err() {
                // A worker that has ended meanwhile.
                continue;
            }
            let found = thread(pid, *id);
            assert_eq!(found.cpus, last.to_string(), "thread {id}");
        }
        processors
    };
    let ids = as_wanted();

    let shown = env.mvm("show pinned").exits(0).stdout;
    let pins = format!(
        "processor 0 on {first}, processor 1 on {last}, I/O thread disks on {first}, the rest of QEMU on {last}"
    );
    assert!(shown.contains(&pins), "{shown}");
    local_time(&env);
    described(&env);

    // Moved by somebody, with nobody there to see it: who adopts it puts it right.
    let supervisor = env.mvm("show pinned --format json").exits(0).json()["supervisor"].as_i64();
    kill(
        supervisor.expect("a supervisor").try_into().expect("an id"),
        Signal::SIGKILL,
    );
    let mut all = CpuSet::new();
    for cpu in [first, last] {
        all.set(cpu as usize).expect("a CPU");
    }
    sched_setaffinity(Pid::from_raw(ids[&0].try_into().expect("an id")), &all).expect("moved");
    eventually("the supervisor is gone", Duration::from_secs(10), || {
        env.row("pinned")["state"] == "unsupervised"
    });
    env.mvm("recover pinned").exits(0);
    assert_eq!(as_wanted(), ids);
    env.mvm("kill pinned").exits(0);
}

/// The hardware clock shows the time of the zone that mvm was started in.
fn local_time(env: &TestEnv) {
    let question = r#"{"path": "/machine", "property": "rtc-time"}"#;
    let time = env
        .run(&["qmp", "pinned", "qom-get", question])
        .exits(0)
        .json();
    let part = |key: &str| time[key].as_u64().expect("a number");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let ahead = part("tm_hour") * 60 + part("tm_min") + 24 * 60 - now.as_secs() / 60 % (24 * 60);
    assert!((299..=301).contains(&(ahead % (24 * 60))), "{time}");
}

/// What the guest's kernel reads of its firmware.
fn described(env: &TestEnv) {
    env.mvm("wait pinned --for agent --timeout 120s").exits(0);
    let inside = |line: &str| {
        let said = env
            .run(&["exec", "pinned", "--", "sh", "-c", line])
            .exits(0)
            .stdout;
        said.trim_end().to_owned()
    };
    let read = inside("cd /sys/class/dmi/id && grep '' *_* 2>/dev/null");
    let read: BTreeMap<&str, &str> = read
        .lines()
        .filter_map(|line| line.split_once(':'))
        .collect();
    for (name, text) in [
        ("sys_vendor", "LENOVO"),
        ("product_name", "Pinned, Inc."),
        ("product_family", "ThinkPad"),
        ("product_serial", "S-1"),
        ("product_sku", "K-1"),
        ("product_uuid", "01234567-89ab-cdef-0123-456789abcdef"),
        ("bios_vendor", "Phoenix"),
        ("bios_version", "7.7"),
        ("bios_date", "11/28/2026"),
        ("bios_release", "5.27"),
        ("board_vendor", "Board & Co."),
        ("board_name", "20XXS1"),
        ("board_asset_tag", "A-1"),
        ("chassis_vendor", "Case"),
        ("chassis_serial", "C-1"),
    ] {
        assert_eq!(read.get(name), Some(&text), "{name}: {read:?}");
    }
    // What Linux has no file for is in the tables themselves.
    for text in ["one, two", "three", "under the desk", "K-2"] {
        let found = inside(&format!("grep -c '{text}' /sys/firmware/dmi/tables/DMI"));
        assert_ne!(found, "0", "{text}");
    }
    let flags = inside("grep -m1 flags /proc/cpuinfo");
    let flags: BTreeSet<&str> = flags.split_whitespace().collect();
    assert!(
        flags.contains("sse4_1") && !flags.contains("aes"),
        "{flags:?}"
    );
}

#[test]
fn what_cannot_be_is_said_before_anything_is_touched() {
    let env = TestEnv::new();
    let told = |settings: &[&str]| {
        let mut args = vec!["start", "empty"];
        for setting in settings {
            args.extend(["--set", setting]);
        }
        env.run(&args)
    };
    env.write("config/machines/empty.toml", "summary = \"x\"\n");
    told(&["pin.emulator=60000"])
        .exits(4)
        .says("`pin.emulator` is `60000`, and this host's CPUs are ");
    told(&["pin.vcpu.1=0"])
        .exits(3)
        .says("the guest has 1 processors");
    told(&["pin.vcpu.0=x"])
        .exits(2)
        .says("is not a list of CPUs");
    told(&["scheduler.vcpu.policy=fifo", "scheduler.vcpu.priority=100"])
        .exits(3)
        .says("in real time it is 1 to 99");
    told(&["pin.iothread.fast=0"])
        .exits(3)
        .says("there is no `[iothread.fast]`");
    told(&["hyperv.stimer=true", "hyperv.vpindex=true"])
        .exits(3)
        .says("`hyperv.stimer` needs `hyperv.synic` and `hyperv.time`");
    told(&["cpu.features.waitpgk=false"])
        .exits(4)
        .says("did you mean `waitpkg`?");
    assert!(!env.path("state/empty").exists() && env.row("empty").is_null());
}

#[test]
fn a_guest_stays_on_its_cpus() {
    if !has_program("qemu-system-x86_64") {
        return;
    }
    let env = TestEnv::new();
    let (first, _) = two_cpus();
    env.write(
        "config/machines/kept.toml",
        format!(
            "[machine]\narch = \"x86_64\"\naccel = \"tcg\"\n[memory]\nsize = \"64M\"\n\
             [cpu]\ncount = 2\nhost-cpus = \"{first}\"\n[iothread.io]\n\
             [scheduler]\nvcpu = {{ policy = \"other\" }}\n"
        ),
    );
    env.mvm("start kept").exits(0);
    let pid = env.row("kept")["pid"].as_i64().expect("a process");
    for id in threads(pid) {
        if fs::metadata(format!("/proc/{pid}/task/{id}")).is_ok() {
            let found = thread(pid, id);
            assert_eq!(
                (found.cpus, found.policy),
                (first.to_string(), OTHER),
                "thread {id}"
            );
        }
    }
    let shown = env.mvm("show kept").exits(0).stdout;
    let pinned = format!("all threads on {first}");
    assert!(shown.contains(&pinned), "{shown}");
    env.mvm("kill kept").exits(0);
}

/// Of a guest with nothing to do: one that works in real time leaves others nothing.
#[test]
fn threads_are_scheduled_in_real_time() {
    if !has_program("qemu-system-x86_64") || !realtime() {
        eprintln!("skipped: no CAP_SYS_NICE");
        return;
    }
    let env = TestEnv::new();
    env.write(
        "config/machines/quick.toml",
        "[machine]\narch = \"x86_64\"\naccel = \"tcg\"\n[cpu]\ncount = 2\n[memory]\nsize = \"64M\"\n\
         [scheduler]\nvcpu = { policy = \"rr\", priority = 2 }\nemulator = { policy = \"fifo\", priority = 3 }\n\
         iothread = { policy = \"fifo\", priority = 2 }\n[iothread.io]\n",
    );
    env.mvm("start quick")
        .exits(0)
        .says("without a CPU of their own");
    let pid = env.row("quick")["pid"].as_i64().expect("a process");
    let processors = processors(&env, "quick");
    let how = |id: i64| {
        let thread = thread(pid, id);
        (thread.policy, thread.priority)
    };
    for (number, id) in &processors {
        assert_eq!(how(*id), (RR, 2), "processor {number}");
    }
    assert_eq!(how(pid), (FIFO, 3));
    assert_eq!(how(iothreads(&env, "quick")["io"]), (FIFO, 2));
    let shown = env.mvm("show quick").exits(0).stdout;
    assert!(
        shown.contains("processors rr 2, I/O threads fifo 2, the rest of QEMU fifo 3"),
        "{shown}"
    );
    env.mvm("kill quick").exits(0);

    // As a user who may not: it is said before anything is touched.
    let mut weak = std::process::Command::new("setpriv");
    weak.args(["--bounding-set=-sys_nice", "--inh-caps=-sys_nice"]);
    weak.arg(env!("CARGO_BIN_EXE_mvm")).args(["start", "quick"]);
    let of_mvm = env.command(&["start"]);
    weak.env_clear();
    for (name, value) in of_mvm.get_envs() {
        weak.envs(value.map(|value| (name, value)));
    }
    if has_program("setpriv") {
        finish(weak)
            .exits(4)
            .says("`scheduler.vcpu` asks for the priority 2 in real time, and this user may have no thread")
            .says("LimitRTPRIO=");
    }
    assert!(env.row("quick").is_null());
}

/// A feature that QEMU drops with no more than a warning ends the start, with the cause.
#[test]
fn a_feature_that_is_not_there_is_no_start() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    env.mvm("start demo --set machine.accel=tcg --set cpu.features.invtsc=true")
        .exits(4)
        .says("`cpu.features.invtsc = true`: the guest's processor has it off")
        .says("mvm log demo --qemu");
    assert!(env.row("demo").is_null());
}
