//! Guests on a KVM that is real: where their threads run, what memory they are on, what they see of Hyper-V.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::guest::Guest;
use crate::host::Host;

const KERNEL: &str = "[boot]\nkernel = \"/images/x86_64-full/vmlinux\"\ninitrd = \"/images/x86_64-full/initrd\"\n\
    append = \"console=ttyS0 quiet\"\n[network.lan]\nnone = {}\n[machine]\naccel = \"kvm\"\n";

/// A number of what `cpuid` says from 40000000h on: its leaf, and EAX, EBX, ECX or EDX of it.
type Place = (usize, usize);
const FEATURES: Place = (3, 0);
const MORE_FEATURES: Place = (3, 3);
const ADVICE: Place = (4, 0);
const SPINLOCKS: Place = (4, 1);

/// Where the guest sees each of them: Hyper-V's functional specification, "feature discovery". `stimer` and the
/// like need one another, but each has a bit of its own.
const SEEN: &[(&str, Place, u32)] = &[
    ("runtime", FEATURES, 0),
    ("time", FEATURES, 1),
    ("synic", FEATURES, 2),
    ("stimer", FEATURES, 3),
    ("vapic", FEATURES, 4),
    ("vpindex", FEATURES, 6),
    ("reset", FEATURES, 7),
    ("frequencies", FEATURES, 11),
    ("reenlightenment", FEATURES, 13),
    ("stimer-direct", MORE_FEATURES, 19),
    ("tlbflush", ADVICE, 2),
    ("relaxed", ADVICE, 5),
    ("ipi", ADVICE, 10),
];

/// A thread of QEMU's: its CPUs, its real-time priority, its policy.
#[derive(Debug, PartialEq, Eq)]
struct Thread {
    cpus: String,
    priority: u32,
    policy: u32,
}

const OTHER: u32 = 0;
const FIFO: u32 = 1;

impl Thread {
    fn new(cpus: &str, policy: u32) -> Self {
        Self {
            cpus: cpus.to_owned(),
            priority: u32::from(policy == FIFO),
            policy,
        }
    }
}

/// All threads of a process, as its kernel tells of them: fields 40 and 41 of `stat` are the last but eleven and ten,
/// counted behind the name, which may hold anything.
fn threads(host: &Host, pid: &str) -> BTreeMap<i64, Thread> {
    let text = host.run(&format!(
        "for t in /proc/{pid}/task/*; do \
           echo ${{t##*/}} $(sed -n 's/^Cpus_allowed_list://p' $t/status) $(sed 's/.*) //' $t/stat | cut -d ' ' -f 38,39); \
         done 2>/dev/null"
    ));
    // One that ended meanwhile has a number and no more.
    let one = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [id, cpus, priority, policy] = words[..] else {
            return None;
        };
        let thread = Thread {
            cpus: cpus.to_owned(),
            priority: priority.parse().ok()?,
            policy: policy.parse().ok()?,
        };
        Some((id.parse().ok()?, thread))
    };
    text.lines().filter_map(one).collect()
}

fn json(host: &Host, command: &str) -> Value {
    serde_json::from_str(&host.run(command)).expect("JSON")
}

fn process(host: &Host, key: &str) -> String {
    json(host, "mvm show inner --format json")[key].to_string()
}

/// Takes the threads of the guest's processors out of all, in their order.
fn processors(host: &Host, threads: &mut BTreeMap<i64, Thread>) -> Vec<Thread> {
    let told = json(host, "mvm qmp inner query-cpus-fast");
    let mut all = told.as_array().expect("an array").clone();
    all.sort_by_key(|cpu| cpu["cpu-index"].as_i64());
    let id = |cpu: &Value| cpu["thread-id"].as_i64().expect("an id");
    all.iter()
        .map(|cpu| threads.remove(&id(cpu)).expect("its thread"))
        .collect()
}

/// Pages of 2 MiB: how many the host has, and how many of them are free.
fn pages(host: &Host) -> (u64, u64) {
    let text =
        host.run("cd /sys/kernel/mm/hugepages/hugepages-2048kB && cat nr_hugepages free_hugepages");
    let numbers = text.lines().map(|line| line.parse().expect("a number"));
    let numbers: Vec<u64> = numbers.collect();
    (numbers[0], numbers[1])
}

/// The six leaves from 40000000h on, as the guest's processor answers.
fn cpuid(guest: &Guest) -> Vec<u32> {
    // The device's place is the leaf, and it goes on by one with each 16 bytes.
    let text = guest.run(
        "modprobe cpuid && dd if=/dev/cpu/0/cpuid bs=16 skip=$((0x4000000)) count=6 2>/dev/null | od -A n -v -t x4",
    );
    let words = text.split_whitespace();
    let words: Vec<u32> = words
        .map(|word| u32::from_str_radix(word, 16).expect("a number"))
        .collect();
    assert_eq!(words.len(), 24, "{text}");
    words
}

fn vendor(cpuid: &[u32]) -> String {
    let bytes = cpuid[1..4].iter().flat_map(|word| word.to_le_bytes());
    let bytes: Vec<u8> = bytes.filter(|byte| *byte != 0).collect();
    String::from_utf8(bytes).expect("a name")
}

/// Those that the guest sees.
fn seen(cpuid: &[u32]) -> Vec<&'static str> {
    let at = |(leaf, register): Place| cpuid[leaf * 4 + register];
    let all = SEEN.iter();
    all.filter(|(_, place, bit)| at(*place) >> bit & 1 == 1)
        .map(|(key, ..)| *key)
        .collect()
}

fn write(host: &Host, text: &str) {
    host.run(&format!(
        "mkdir -p /etc/mvm/machines && cat >/etc/mvm/machines/inner.toml <<'END'\n\
         extends = [\"linux\"]\n{KERNEL}{text}END"
    ));
    // Where both are busy, KVM answers too late the first time. What it answers is kept.
    host.run("for i in $(seq 5); do mvm start inner --dry-run && break; done");
}

#[test]
fn guests_on_kvm_are_pinned_have_huge_pages_and_see_hyper_v() {
    let host = Host::x86().boot();
    // Some that are not mvm's.
    host.run("echo 16 >/proc/sys/vm/nr_hugepages");
    let before = host.snapshot();
    pinned(&host);
    host.settles_to(&before);
    in_real_time(&host);
    host.settles_to(&before);
    // One without anything of KVM's but its processor.
    let small = crate::host::SMALL;
    host.run(&format!(
        "mvm start {small} --name inner --set machine.accel=kvm --set machine.irqchip=off"
    ));
    assert_eq!(
        json(&host, "mvm qmp inner query-status")["status"],
        "running"
    );
    host.run("mvm kill inner");
    host.settles_to(&before);
}

/// A guest of two processors with all of Hyper-V that there is.
fn pinned(host: &Host) {
    let switches: Vec<String> = SEEN
        .iter()
        .map(|(key, ..)| format!("{key} = true\n"))
        .collect();
    write(
        host,
        &format!(
            "[cpu]\ncount = 2\nhide-hypervisor = true\n\
             [memory]\nsize = \"256M\"\nhugepages = \"2M\"\n\
             [iothread.disks]\n\
             [pin]\nvcpu = {{ \"0\" = \"0\", \"1\" = \"1\" }}\nemulator = \"1\"\niothread = {{ disks = \"0\" }}\n\
             [hyperv]\nspinlocks = 8191\n{}",
            switches.concat()
        ),
    );
    let said = host.sh(
        "mvm start inner --set hyperv.evmcs=true",
        Duration::from_secs(180),
    );
    assert_eq!(said.status, 4, "{said}");
    assert!(
        said.stderr
            .contains("`hyperv.evmcs` is for Intel's processors, and this host's is AuthenticAMD"),
        "{said}"
    );
    assert_eq!(pages(host), (16, 16), "nothing was touched");

    let guest = host.start("inner", "mvm start inner");
    let shown = host.run("mvm show inner");
    let accel = shown.lines().find(|line| line.starts_with("accel "));
    assert!(accel.is_some_and(|line| line.contains(" KVM: ")), "{shown}");

    let pid = process(host, "pid");
    let mut threads = threads(host, &pid);
    assert_eq!(
        processors(host, &mut threads),
        [Thread::new("0", OTHER), Thread::new("1", OTHER)]
    );
    let io = json(host, "mvm qmp inner query-iothreads");
    let io = io.as_array().expect("an array").iter();
    for thread in io.filter(|thread| thread["id"] == "disks") {
        let id = thread["thread-id"].as_i64().expect("an id");
        assert_eq!(threads.remove(&id), Some(Thread::new("0", OTHER)));
    }
    assert!(threads.len() > 1, "{threads:?}");
    for (id, thread) in &threads {
        assert_eq!(*thread, Thread::new("1", OTHER), "{id}");
    }

    // 112 more than there were, and all of the guest's memory is on them.
    assert_eq!(pages(host), (128, 0));
    let on_them = "awk '/^Size:/ { size = $2 } /^KernelPageSize: *2048 kB/ { all += size } \
                   /_Hugetlb:/ { used += $2 } END { print all, used }'";
    assert_eq!(
        host.run(&format!("{on_them} /proc/{pid}/smaps")),
        "262144 262144"
    );

    let cpuid = cpuid(&guest);
    assert_eq!(vendor(&cpuid), "Microsoft Hv");
    let all: Vec<&str> = SEEN.iter().map(|(key, ..)| *key).collect();
    assert_eq!(seen(&cpuid), all);
    assert_eq!(cpuid[SPINLOCKS.0 * 4 + SPINLOCKS.1], 8191);
    // The guest's kernel uses them: KVM itself is hidden from it.
    let log = guest.run("dmesg | grep -i -e hyper-v -e kvm");
    assert!(
        log.contains("Hypervisor detected: Microsoft Hyper-V"),
        "{log}"
    );
    assert!(!log.to_lowercase().contains("kvm"), "{log}");
    assert_eq!(
        guest.run("cat /sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "hyperv_clocksource_tsc_page"
    );
    let ticks = guest.run("awk '$1 == \"HVS:\" { print ($2 > 0 && $3 > 0) }' /proc/interrupts");
    assert_eq!(ticks, "1", "both processors have Hyper-V's timer");

    // Nobody is left to give the pages back.
    let supervisor = process(host, "supervisor");
    host.run(&format!("kill -KILL {supervisor}; kill -KILL {pid}"));
    assert_eq!(pages(host).0, 128);
    host.run("mvm recover inner");
    assert_eq!(pages(host), (16, 16));
}

/// A guest whose processor goes before all else on its CPU, and that is not told that it is one.
fn in_real_time(host: &Host) {
    write(
        host,
        "[cpu]\ncount = 1\nfeatures = { hypervisor = false }\n\
         [memory]\nsize = \"256M\"\nhugepages = \"2M\"\n\
         [pin]\nvcpu = { \"0\" = \"0\" }\nemulator = \"1\"\n\
         [scheduler]\nvcpu = { policy = \"fifo\", priority = 1 }\n\
         [hyperv]\nspinlocks = 4096\nvendor-id = \"mvm-test\"\n",
    );
    let guest = host.start("inner", "mvm start inner");
    let shown = host.run("mvm show inner");
    assert!(shown.contains("processors fifo 1"), "{shown}");
    let pid = process(host, "pid");
    let as_wanted = || {
        let mut threads = threads(host, &pid);
        assert_eq!(processors(host, &mut threads), [Thread::new("0", FIFO)]);
        for (id, thread) in &threads {
            assert_eq!(*thread, Thread::new("1", OTHER), "{id}");
        }
    };
    as_wanted();
    // It works as hard as it can; host and guest are there all the same.
    guest.run("sh -c 'while :; do :; done' & echo $! >/tmp/busy");
    as_wanted();
    guest.run("sleep 2; kill $(cat /tmp/busy)");

    assert_eq!(
        guest.run("grep -c -w hypervisor /proc/cpuinfo || true"),
        "0"
    );
    assert_eq!(
        guest.run("dmesg | grep -c 'Hypervisor detected' || true"),
        "0"
    );
    let cpuid = cpuid(&guest);
    assert_eq!(vendor(&cpuid), "mvm-test");
    assert_eq!(seen(&cpuid), [""; 0], "none that was not asked for");
    assert_eq!(cpuid[SPINLOCKS.0 * 4 + SPINLOCKS.1], 4096);

    assert_eq!(pages(host), (128, 0));
    host.run(&format!(
        "kill -KILL {pid}; mvm wait inner --for stopped --timeout 30s || true"
    ));
    assert_eq!(pages(host), (16, 16));
}
