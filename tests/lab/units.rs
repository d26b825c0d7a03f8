//! Guests as services of real init systems: systemd as the host's own, OpenRC on busybox init, runit in a process
//! namespace, and busybox init itself.

use std::time::{Duration, Instant};

use crate::host::Host;

const SYSTEMD: &str = "/usr/lib/systemd/systemd";

/// A machine file: a guest with a shell that heeds the power button.
fn machine(name: &str, more: &str) -> String {
    format!(
        "mkdir -p /etc/mvm/machines && cat >/etc/mvm/machines/{name}.toml <<'END'\n\
         extends = [\"linux\"]\n\
         [boot]\nkernel = \"/images/x86_64-full/vmlinux\"\ninitrd = \"/images/x86_64-full/initrd\"\n\
         append = \"console=ttyS0 quiet\"\n\
         [cpu]\ncount = 1\n[memory]\nsize = \"320M\"\n[network.lan]\nnone = {{}}\n\
         [lifecycle]\nstop-timeout = \"90s\"\n{more}\n\
         END"
    )
}

const BOOT: &str = "cat /proc/sys/kernel/random/boot_id";
/// Of the supervisor that `mvm show` tells.
const SUPERVISOR: &str =
    "mvm show web --format json | sed -n 's/^  \"supervisor\": \\([0-9]*\\),*/\\1/p'";

/// Runs a script again and again until it prints that.
#[track_caller]
fn until(host: &Host, script: &str, wanted: &str, limit: Duration) {
    let begin = Instant::now();
    loop {
        let said = host.sh(script, Duration::from_secs(60));
        if said.stdout.trim() == wanted {
            return;
        }
        assert!(begin.elapsed() < limit, "{script}: not {wanted:?}: {said}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

const SOON: Duration = Duration::from_secs(120);
const ENDED: &str = "mvm show web --format json | sed -n 's/.*\"reason\": \"\\(.*\\)\",/\\1/p'";
const STATE: &str = "mvm list --format json | sed -n 's/.*\"state\": \"\\(.*\\)\",/\\1/p'";

#[test]
fn systemd_runs_a_guest_and_its_supervisor_may_die() {
    let host = Host::x86().init(SYSTEMD).boot();
    host.run(&machine("web", ""));
    let shown = host.run("mvm unit web");
    assert!(
        shown.contains("==> /etc/systemd/system/mvm@web.service"),
        "{shown}"
    );
    host.run("mvm unit web --install && mvm unit --autostart --install");
    let verified = host.sh(
        "systemd-analyze verify mvm@web.service mvm.service",
        Duration::from_secs(60),
    );
    assert_eq!(
        (verified.status, verified.stderr.as_str()),
        (0, ""),
        "{verified}"
    );
    let refused = host.sh("mvm start web --memory 1G", Duration::from_secs(60));
    assert_eq!(refused.status, 2, "{refused}");
    assert!(
        refused.stderr.contains("cannot carry `--set=memory.size="),
        "{refused}"
    );

    let guest = host.start("web", "mvm start web");
    assert_eq!(host.run("systemctl is-active mvm@web"), "active");
    let show = |what: &str| host.run(&format!("systemctl show --value -p {what} mvm@web"));
    assert_eq!(show("StatusText"), "running");
    assert_eq!(show("MainPID"), host.run(SUPERVISOR));
    let boot = guest.run(BOOT);
    let qemu = host.run("pidof qemu-system-x86_64");

    // Killed, the supervisor has a successor, and the guest has noticed nothing.
    host.run(&format!("kill -KILL {}", show("MainPID")));
    until(
        &host,
        "systemctl show --value -p NRestarts mvm@web",
        "1",
        SOON,
    );
    until(&host, STATE, "running", SOON);
    until(&host, "systemctl is-active mvm@web", "active", SOON);
    assert_eq!(guest.run(BOOT), boot);
    assert_eq!(host.run("pidof qemu-system-x86_64"), qemu);

    // One that hangs is found by the watchdog.
    host.run(
        "mkdir -p /run/systemd/system/mvm@web.service.d && \
         printf '[Service]\\nWatchdogSec=8\\n' >/run/systemd/system/mvm@web.service.d/soon.conf && \
         systemctl daemon-reload",
    );
    host.run(&format!("kill -KILL {}", show("MainPID")));
    until(
        &host,
        "systemctl show --value -p NRestarts mvm@web",
        "2",
        SOON,
    );
    until(&host, "systemctl is-active mvm@web", "active", SOON);
    // It lives, so it is left alone.
    std::thread::sleep(Duration::from_secs(20));
    assert_eq!(show("NRestarts"), "2");
    host.run(&format!("kill -STOP {}", show("MainPID")));
    until(
        &host,
        "systemctl show --value -p NRestarts mvm@web",
        "3",
        SOON,
    );
    until(&host, "systemctl is-active mvm@web", "active", SOON);
    assert_eq!(guest.run(BOOT), boot);

    // A clean stop is the guest's own.
    host.run("systemctl stop mvm@web");
    assert_eq!(host.run(ENDED), "guest-shutdown");
    assert_eq!(
        host.run("systemctl show --value -p Result mvm@web"),
        "success"
    );
    let console = host.run("mvm log web --console");
    assert!(console.contains("Power down"), "{console}");
    assert_eq!(host.run("pidof qemu-system-x86_64 || true"), "");
    assert_eq!(host.run("mvm recover"), "");
    host.run("mvm unit web --remove && mvm unit --autostart --remove");
    assert_eq!(
        host.run("systemctl show --value -p LoadState mvm@web"),
        "not-found"
    );
}

#[test]
fn systemd_waits_for_guests_before_the_host_sleeps() {
    let host = Host::x86().init(SYSTEMD).boot();
    let sleeps =
        |how: &str| format!("[power]\nhost-sleep = \"{how}\"\nhost-sleep-failure = \"stay-awake\"");
    host.run(&machine("web", &sleeps("pause")));
    host.run("mvm unit --sleep --install");
    let verified = host.sh(
        "systemd-analyze verify mvm-sleep@suspend.service",
        Duration::from_secs(60),
    );
    assert_eq!(
        (verified.status, verified.stderr.as_str()),
        (0, ""),
        "{verified}"
    );
    // All of it is systemd's own but the last: an emulated host does not come back from its sleep.
    host.run(
        "mkdir -p /run/systemd/system/systemd-suspend.service.d && \
         printf '[Service]\\nExecStart=\\nExecStart=/bin/sh -c \"mvm list --format json >/tmp/asleep\"\\n' \
           >/run/systemd/system/systemd-suspend.service.d/stay.conf && systemctl daemon-reload",
    );
    let guest = host.start("web", "mvm start web");
    let boot = guest.run(BOOT);
    host.run("systemctl start suspend.target");
    assert!(host.run("cat /tmp/asleep").contains("\"paused\""));
    until(&host, STATE, "running", SOON);
    until(
        &host,
        "systemctl is-active mvm-sleep@suspend",
        "inactive",
        SOON,
    );
    assert_eq!(guest.run(BOOT), boot);
    host.run("mvm kill web; rm /tmp/asleep");

    // One that cannot do what its profile says keeps the host awake.
    host.run(&machine("web", &sleeps("hibernate")));
    let guest = host.start("web", "mvm start web");
    let slept = host.sh("systemctl start suspend.target", SOON);
    assert_ne!(slept.status, 0, "{slept}");
    host.run("test ! -e /tmp/asleep");
    assert!(
        host.run("journalctl -b --no-pager -u mvm-sleep@suspend")
            .contains("should stay awake")
    );
    assert_eq!(host.run(STATE), "running");
    guest.run("true");
    host.run("mvm kill web && mvm unit --sleep --remove");
    host.run("test ! -e /etc/systemd/system/mvm-sleep@.service");
}

#[test]
fn guests_go_down_with_a_host_of_systemd_in_their_order() {
    let mut host = Host::x86().init(SYSTEMD).boot();
    // Where it can be read when the host is gone.
    let mvm = "export MVM_STATE_DIR=/lab/state";
    host.run(&machine("first", "[autostart]\norder = 10\n"));
    host.run(&machine(
        "last",
        "[autostart]\norder = 20\ndelay = \"1s\"\n",
    ));
    host.run(&format!(
        "{mvm}; mvm unit first --install && mvm unit --autostart --install"
    ));
    host.run("systemctl start mvm");
    // One by its unit, one without.
    assert_eq!(host.run("systemctl is-active mvm@first"), "active");
    until(&host, STATE, "running\nrunning", SOON);
    for name in ["first", "last"] {
        host.run(&format!(
            "{mvm}; mvm console {name} --until 'guest# ' --timeout 150s </dev/null"
        ));
    }
    host.sh("systemctl poweroff --no-block", Duration::from_secs(30));
    host.goes_off(Duration::from_secs(300));
    let ended = |name: &str| -> serde_json::Value {
        let path = host.scratch().join("state").join(name).join("last.json");
        let text =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&text).expect("JSON")
    };
    let (first, last) = (ended("first"), ended("last"));
    for guest in [&first, &last] {
        assert_eq!(guest["reason"], "guest-shutdown", "{first} {last}");
    }
    assert!(
        last["at"].as_u64() <= first["at"].as_u64(),
        "{first} {last}"
    );
}

#[test]
fn openrc_runs_a_guest_and_leaves_it_when_it_is_to_stay_stopped() {
    let host = Host::x86().boot();
    host.run(&machine("web", ""));
    host.run("mkdir -p /run/openrc && openrc default >/tmp/openrc.log 2>&1; cat /tmp/openrc.log");
    host.run("mvm unit web --install");
    let guest = host.start("web", "mvm start web");
    host.run("rc-service mvm-web status");
    let boot = guest.run(BOOT);
    let before = host.run(SUPERVISOR);
    host.run(&format!("kill -KILL {before}"));
    let other = format!("test \"$({SUPERVISOR})\" != {before} && {STATE}");
    until(&host, &other, "running", SOON);
    assert_eq!(guest.run(BOOT), boot);
    host.run("rc-service mvm-web stop");
    assert_eq!(host.run(ENDED), "guest-shutdown");
    // What mvm stops stays so: OpenRC alone would start it anew.
    host.run("mvm start web && mvm kill web");
    until(
        &host,
        "rc-service mvm-web status >/dev/null 2>&1; echo $?",
        "3",
        SOON,
    );
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(host.run(STATE), "");
    host.run("mvm unit web --remove");
    assert_eq!(host.run("ls /etc/init.d | grep mvm; true"), "");
}

#[test]
fn runit_runs_a_guest() {
    let host = Host::x86().boot();
    host.run(&machine("web", ""));
    host.run(
        "mkdir -p /etc/runit/runsvdir/default && ln -s default /etc/runit/runsvdir/current && \
         (setsid busybox unshare -p -f -m --mount-proc runsvdir -P /etc/service >/tmp/runit.log 2>&1 </dev/null &) && \
         for i in $(seq 100); do pidof runsvdir && break; sleep 0.1; done",
    );
    let inside =
        |script: &str| format!("busybox nsenter -t $(pidof runsvdir) -p -m dash -c '{script}'");
    let run = |script: &str| host.run(&inside(script));
    run("mvm unit web --install");
    host.start("web", &inside("mvm start web"));
    let status = run("sv status /etc/service/mvm-web");
    assert!(status.starts_with("run: "), "{status}");
    let pid = run("pidof qemu-system-x86_64");
    run("kill -KILL $(pidof mvm)");
    until(&host, &inside("mvm list | grep -c running"), "1", SOON);
    assert_eq!(run("pidof qemu-system-x86_64"), pid);
    run("sv -w 120 stop /etc/service/mvm-web");
    assert_eq!(
        run("mvm show web --format json | grep -c guest-shutdown"),
        "1"
    );
    run("mvm start web && mvm kill web");
    until(
        &host,
        &inside("sv status /etc/service/mvm-web | cut -d: -f1"),
        "down",
        SOON,
    );
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(run("mvm list | grep -c running; true"), "0");
    run("mvm unit web --remove");
    assert_eq!(host.run("ls /etc/service/ | grep mvm; true"), "");
}

#[test]
fn busybox_init_runs_a_guest() {
    let host = Host::x86().boot();
    host.run(&machine("web", ""));
    let table = host.run("cat /etc/inittab");
    host.run("mvm unit web --install");
    let guest = host.start(
        "web",
        "kill -HUP 1; for i in $(seq 200); do mvm list | grep -q running && break; sleep 0.2; done",
    );
    let boot = guest.run(BOOT);
    let before = host.run(SUPERVISOR);
    host.run(&format!("kill -KILL {before}"));
    let other = format!("test \"$({SUPERVISOR})\" != {before} && {STATE}");
    until(&host, &other, "running", SOON);
    assert_eq!(guest.run(BOOT), boot);
    host.run("mvm stop web");
    assert_eq!(host.run(ENDED), "guest-shutdown");
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(host.run(STATE), "");
    // It stays for init's sake.
    assert_eq!(host.run("pidof mvm | wc -w"), "1");
    host.run("mvm unit web --remove && kill -HUP 1");
    assert_eq!(host.run("cat /etc/inittab"), table);
}
