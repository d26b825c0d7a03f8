//! Devices that come to running guests and leave them, asserted inside the guest.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::env::{TestEnv, eventually, has_program, kill};
use crate::shell::{Shell, images};

/// A guest with a kernel that has drivers for all of it, and an image to attach.
fn world(arch: &str) -> Option<TestEnv> {
    if !has_program(&format!("qemu-system-{arch}")) {
        return None;
    }
    let env = TestEnv::new();
    let from = images(&format!("{arch}-full"));
    let (machine, console) = match arch {
        "aarch64" => ("virt", "ttyAMA0"),
        _ => ("q35", "ttyS0"),
    };
    env.write(
        "config/profiles/hot.toml",
        format!(
            "[machine]\narch = '{arch}'\ntype = '{machine}'\naccel = 'tcg'\n\
             [cpu]\ncount = 1\n[memory]\nsize = '512M'\n[agent]\n\
             [boot]\nkernel = '{from}/kernel'\ninitrd = '{from}/initrd'\nappend = 'console={console} quiet no_timer_check nohz=off highres=off'\n\
             [network.lan]\nuser = {{}}\n",
            from = from.display()
        ),
    );
    let mut image = vec![0; 4 << 20];
    image[..9].copy_from_slice(b"from-mvm\n");
    fs::write(env.image("data.raw"), image).expect("an image");
    Some(env)
}

fn start(env: &TestEnv, name: &str, more: &[&str]) -> Shell {
    let args = ["start", "hot", "--name", name];
    env.run(&[&args, more].concat()).exits(0);
    Shell::open(&env.path(format!("run/{name}/console-main.sock")))
}

/// The names in a folder of the guest's `/sys`.
#[track_caller]
fn within(shell: &mut Shell, command: &str, wanted: &str) {
    let mut said = String::new();
    for _ in 0..60 {
        said = shell.run(command);
        if said == wanted {
            return;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    panic!("{command}: {said:?}, not {wanted:?}");
}

fn plan(env: &TestEnv, name: &str) -> Value {
    let text = fs::read_to_string(env.path(format!("run/{name}/plan.json"))).expect("a plan");
    serde_json::from_str(&text).expect("JSON")
}

fn nodes(env: &TestEnv, name: &str) -> usize {
    let nodes = env.mvm(&format!("qmp {name} query-named-block-nodes"));
    nodes.exits(0).json().as_array().expect("an array").len()
}

/// What a supervisor has to give back: the same before and after.
fn traces(env: &TestEnv, name: &str) -> (Value, usize, String) {
    let machine = plan(env, name)["machine"].clone();
    let devices = fs::read_to_string(env.path(format!("run/{name}/devices.json")));
    let devices: Value = devices.map_or_else(
        |_| json!({ "devices": [] }),
        |text| serde_json::from_str(&text).expect("JSON"),
    );
    let listed = devices["devices"].as_array().expect("an array").len();
    (machine, nodes(env, name), format!("{listed} attached"))
}

const DISKS: &str = "ls /sys/block | grep -v -e sr0 -e loop -e ram | tr '\\n' ' '";
const CARDS: &str = "ls /sys/class/net | tr '\\n' ' '";

fn disks_and_cards(arch: &str) {
    let Some(env) = world(arch) else { return };
    let mut shell = start(&env, "a", &[]);
    let before = traces(&env, "a");

    // A disk: what is shown is what is done, and nothing is touched by showing it.
    let shown = env.mvm("attach a --disk data.raw --dry-run").exits(0);
    assert!(shown.stdout.contains("virtio-blk-pci"), "{}", shown.stdout);
    assert_eq!(traces(&env, "a"), before);
    assert_eq!(
        env.mvm("attach a --disk data.raw").exits(0).stdout,
        "data\n"
    );
    within(&mut shell, DISKS, "vda");
    assert_eq!(shell.run("head -n 1 /dev/vda"), "from-mvm");
    shell.run("echo from-guest | dd of=/dev/vda conv=fsync 2>/dev/null");

    // Throw-away, on a controller that comes along, and on USB.
    env.mvm("attach a --disk data.raw,bus=scsi,ephemeral --name scratch")
        .exits(1)
        .says("data.raw already, as `data`");
    env.mvm("detach a data").exits(0);
    within(&mut shell, DISKS, "");
    let written = fs::read(env.image("data.raw")).expect("the image");
    assert!(
        written.starts_with(b"from-guest\n"),
        "the guest's write is there"
    );
    let ran = env.mvm("attach a --disk data.raw,bus=scsi,ephemeral --name scratch --format json");
    assert_eq!(ran.exits(0).json()["id"], "scratch");
    within(&mut shell, DISKS, "sda");
    assert!(env.path("run/a/disk-scratch.overlay.qcow2").exists());
    env.mvm("attach a --disk data.raw,bus=usb,read-only")
        .exits(0);
    within(&mut shell, DISKS, "sda sdb");
    assert_eq!(
        shell.run("head -n 1 /dev/sdb; cat /sys/block/sdb/ro"),
        "from-guest\n1"
    );
    env.mvm("detach a data").exits(0);
    env.mvm("detach a scratch").exits(0);
    within(&mut shell, DISKS, "");
    assert!(!env.path("run/a/disk-scratch.overlay.qcow2").exists());

    // A network card; and the one that the guest was started with goes and comes back.
    assert_eq!(env.mvm("attach a --network user").exits(0).stdout, "net\n");
    within(&mut shell, CARDS, "eth0 eth1 lo");
    let mac = plan(&env, "a")["machine"]["nics"][1]["mac"].clone();
    assert_eq!(mac, shell.run("cat /sys/class/net/eth1/address"));
    let show = env.mvm("show a").exits(0).stdout;
    assert!(show.contains("network net"), "{show}");
    env.mvm("detach a net").exits(0);
    env.mvm("detach a lan").exits(0);
    within(&mut shell, CARDS, "lo");
    env.mvm("attach a --network user --name lan").exits(0);
    within(&mut shell, CARDS, "eth0 lo");

    // What is left is what was there, but for the controllers, which are kept for the next.
    let after = traces(&env, "a");
    assert_eq!(after.0["disks"], before.0["disks"]);
    assert_eq!(after.1, before.1);
    env.mvm("stop a").exits(0);
    assert!(!env.path("run/a").exists());
}

#[test]
fn disks_and_cards_on_q35() {
    disks_and_cards("x86_64");
}

#[test]
fn disks_and_cards_on_virt() {
    disks_and_cards("aarch64");
}

#[test]
fn the_limits_of_a_group_go_with_its_last_disk() {
    let Some(env) = world("x86_64") else { return };
    env.run(&["start", "hot", "--name", "a"]).exits(0);
    let disk = |name: &str, limit: u32| {
        let image = fs::copy(env.image("data.raw"), env.image(format!("{name}.raw")));
        image.expect("an image");
        let text = format!(
            "[disk.{name}]\nfile = {{ path = '{name}.raw', format = 'raw' }}\n\
             throttle = {{ group = 'slow', iops-total = {limit} }}\n"
        );
        let path = env.write(format!("{name}.toml"), text);
        env.run(&["attach", "a", "--device", &path.to_string_lossy()])
            .exits(0);
    };
    let limit = || {
        let asked = json!({ "path": "/objects/mvm-throttle-slow", "property": "limits" });
        let ran = env.run(&["qmp", "a", "qom-get", &asked.to_string()]);
        (ran.code == 0).then(|| ran.json()["iops-total"].clone())
    };
    disk("one", 100);
    disk("two", 100);
    env.mvm("wait a --for agent --timeout 2m").exits(0);
    env.mvm("detach a one").exits(0);
    assert_eq!(limit(), Some(json!(100)));
    env.mvm("detach a two").exits(0);
    assert_eq!(limit(), None);
    disk("three", 200);
    assert_eq!(limit(), Some(json!(200)));
    env.mvm("kill a").exits(0);
}

#[test]
fn what_cannot_come_or_go_says_why() {
    let Some(env) = world("x86_64") else { return };
    env.write("one.toml", "[memory]\nsize = '1G'\n");
    env.write(
        "two.toml",
        "[disk.a]\nfile = { path = 'data.raw' }\nread-only = true\n\
         [disk.b]\nfile = { path = 'data.raw' }\nread-only = true\n",
    );
    let mut shell = start(
        &env,
        "a",
        &[
            "--set",
            "hotplug.ports=2",
            "--set",
            "disk.cd.media=cdrom",
            "--set",
            "disk.cd.empty=true",
        ],
    );
    let before = traces(&env, "a");
    for (line, says) in [
        ("attach a --disk nosuch.raw", "nosuch.raw"),
        (
            "attach a --disk data.raw,bus=sata",
            "virtio, scsi, nvme and usb",
        ),
        ("attach a --disk data.raw,buss=usb", "did you mean `bus`?"),
        ("attach a --network nat", "`user`"),
        (
            "attach a --device one.toml",
            "cannot be changed while the guest runs",
        ),
        (
            "attach a --network user --name lan",
            "`lan` is the name of both",
        ),
        ("attach nobody --network user", "nobody"),
        ("detach a nosuch", "it has `cd`, `lan`"),
        ("detach a cd", "cannot leave a guest that runs"),
    ] {
        let ran = env.mvm(line);
        assert_ne!(ran.code, 0, "{line}");
        ran.says(says);
    }
    assert_eq!(traces(&env, "a"), before);

    // Both of a file or none; then no port is left, also for who asks at the same time.
    env.mvm("attach a --device two.toml").exits(0);
    within(&mut shell, DISKS, "vda vdb");
    env.mvm("attach a --network user")
        .exits(1)
        .says("hotplug.ports");
    env.mvm("detach a b").exits(0);
    within(&mut shell, DISKS, "");
    let racers: Vec<_> = (0..3)
        .map(|number| {
            let name = format!("racer{number}");
            env.command(&["attach", "a", "--network", "user", "--name", &name])
                .spawn()
                .expect("mvm starts")
        })
        .collect();
    let won = racers
        .into_iter()
        .map(|racer| racer.wait_with_output().expect("it ends"))
        .filter(|output| output.status.success());
    assert_eq!(won.count(), 2);
    within(&mut shell, CARDS, "eth0 eth1 eth2 lo");

    // A guest that is held does not let go; when it runs again it does, and all is given back then.
    let card = plan(&env, "a")["machine"]["nics"][1]["id"].clone();
    let card = card.as_str().expect("a name");
    env.mvm("pause a").exits(0);
    env.mvm(&format!("detach a {card} --timeout 1s"))
        .exits(1)
        .says("mvm resume a");
    env.mvm("resume a").exits(0);
    eventually("it is given back", Duration::from_secs(60), || {
        plan(&env, "a")["machine"]["nics"].as_array().map(Vec::len) == Some(2)
    });
    env.mvm("kill a").exits(0);
    assert!(!env.path("run/a").exists());
}

/// A tap is made for the card and goes with it, and with the guest.
#[test]
fn a_tap_comes_and_goes_with_its_card() {
    let Some(env) = world("x86_64") else { return };
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: only root makes taps");
        return;
    }
    let tap = format!("mvmh{}", std::process::id() % 10_000_000);
    let there = || std::path::Path::new("/sys/class/net").join(&tap).exists();
    let mut shell = start(&env, "a", &[]);
    let attach = format!("attach a --network tap={tap},address=10.222.7.1/24 --name hot");
    env.mvm(&attach).exits(0);
    assert!(there());
    within(&mut shell, CARDS, "eth0 eth1 lo");
    shell.run("ip address add 10.222.7.2/24 dev eth1; ip link set eth1 up");
    let ping = "ping -c 1 -w 20 10.222.7.1 >/dev/null && echo reached";
    assert_eq!(shell.run(ping), "reached");
    env.mvm("detach a hot").exits(0);
    assert!(!there());
    env.mvm(&attach).exits(0);
    assert!(there());
    env.mvm("kill a").exits(0);
    assert!(!there());
}

/// The next supervisor knows what the last one attached, and finishes what it began.
#[test]
fn what_a_dead_supervisor_attached_is_known() {
    let Some(env) = world("x86_64") else { return };
    let mut shell = start(&env, "a", &[]);
    env.mvm("attach a --disk data.raw,ephemeral").exits(0);
    within(&mut shell, DISKS, "vda");
    env.mvm("attach a --network user").exits(0);
    let supervisor = env.row("a")["supervisor"].as_i64();
    let state = fs::read_to_string(env.path("run/a/state.json")).expect("a state");
    let state: Value = serde_json::from_str(&state).expect("JSON");
    let supervisor = supervisor
        .or(state["supervisor"].as_i64())
        .expect("a process");
    // The card is let go while nobody looks.
    shell.run(
        "at=$(basename $(dirname $(realpath /sys/class/net/eth1/device))); \
         for slot in /sys/bus/pci/slots/*; do \
         case $at in $(cat $slot/address).*) (sleep 3; echo 0 > $slot/power) & ;; esac; done",
    );
    kill(i32::try_from(supervisor).expect("an id"), Signal::SIGKILL);
    eventually("the supervisor is gone", Duration::from_secs(10), || {
        env.row("a")["state"] == "unsupervised"
    });
    eventually(
        "nobody has seen the card go",
        Duration::from_secs(60),
        || {
            fs::read_to_string(env.path("run/a/events.log")).is_ok_and(|log| {
                log.lines()
                    .any(|line| line.contains("DEVICE_DELETED") && line.contains("\"net\""))
            })
        },
    );
    env.mvm("recover a").exits(0);
    eventually("it is adopted", Duration::from_secs(20), || {
        env.row("a")["state"] == "running"
    });
    eventually(
        "the card is known to be gone",
        Duration::from_secs(20),
        || plan(&env, "a")["machine"]["nics"].as_array().map(Vec::len) == Some(1),
    );
    let mut shell = Shell::open(&env.path("run/a/console-main.sock"));
    env.mvm("detach a data").exits(0);
    within(&mut shell, DISKS, "");
    assert!(!env.path("run/a/disk-data.overlay.qcow2").exists());
    env.mvm("attach a --disk data.raw,ephemeral").exits(0);
    within(&mut shell, DISKS, "vda");

    // Both die: nothing of it is left.
    let pids = env.processes();
    for pid in pids {
        kill(pid, Signal::SIGKILL);
    }
    // A process that is being ended holds its lock a moment longer than it is seen: the guest counts as running.
    eventually("all is taken back", Duration::from_secs(30), || {
        env.mvm("recover a").code == 0 && !env.path("run/a").exists()
    });
}
