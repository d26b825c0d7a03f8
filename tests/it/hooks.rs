//! What a profile says to QEMU and to the host, with a real guest: hooks, environment, properties, an IOMMU.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::env::{TestEnv, eventually, kill};

fn world() -> Option<TestEnv> {
    let env = TestEnv::with_demo()?;
    fs::write(env.image("data.img"), vec![0; 8 << 20]).expect("an image");
    let log = env.path("hooks");
    let note = |when: &str| {
        format!(
            "[hook.{when}]\nwhen = \"{when}\"\n\
             command = [\"sh\", \"-c\", 'echo \"$MVM_GUEST $MVM_WHEN $1\" >>\"$0\"', \"{}\", \"it's\"]\n",
            log.display()
        )
    };
    let hooks = ["pre-start", "started", "stopped", "post-stop"].map(note);
    env.write(
        "config/machines/demo.toml",
        format!(
            "extends = [\"demo\"]\n\
             [boot]\nappend = \"console=ttyS0 quiet no_timer_check nohz=off highres=off intel_iommu=on\"\n\
             [iommu]\nmodel = \"intel\"\ncaching-mode = true\ndevice-iotlb = true\n\
             [env]\nMVM_TEST_WORD = \"two words\"\n\
             [disk.data]\nfile = {{ path = \"data.img\", format = \"raw\" }}\n\
             [override.data]\nphysical_block_size = 4096\n\
             [hook.end]\nwhen = \"post-stop\"\n\
             command = [\"sh\", \"-c\", 'cp \"$MVM_STATE_DIR/last.json\" \"$0\"', \"{}\"]\n\
             {}",
            env.path("end").display(),
            hooks.concat()
        ),
    );
    Some(env)
}

fn noted(env: &TestEnv) -> Vec<String> {
    let text = fs::read_to_string(env.path("hooks")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn pid(env: &TestEnv, key: &str) -> i32 {
    let shown = env.mvm("show demo --format json").exits(0).json();
    let pid = shown[key].as_i64().expect("a process");
    pid.try_into().expect("an id")
}

#[test]
fn what_the_profile_says_reaches_qemu_the_guest_and_the_host() {
    let Some(env) = world() else { return };
    env.mvm("start demo").exits(0);
    env.mvm("wait demo --for agent --timeout 120s").exits(0);
    let script = "ls /sys/kernel/iommu_groups | wc -l; readlink /sys/block/vda/device/../iommu_group; \
                  cat /sys/block/vda/queue/physical_block_size";
    let said = env
        .run(&["exec", "demo", "--", "sh", "-c", script])
        .exits(0)
        .stdout;
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    assert!(
        lines[0].parse::<u32>().is_ok_and(|groups| groups > 0),
        "{said}"
    );
    assert!(lines[1].contains("kernel/iommu_groups/"), "{said}");
    assert_eq!(lines[2], "4096", "{said}");
    let qemu = pid(&env, "pid");
    let environ = fs::read(format!("/proc/{qemu}/environ")).expect("it lives");
    let word = b"MVM_TEST_WORD=two words\0";
    assert!(environ.windows(word.len()).any(|part| part == word));

    let lines = |words: &[&str]| -> Vec<String> {
        words
            .iter()
            .map(|when| format!("demo {when} it's"))
            .collect()
    };
    eventually("it is started", Duration::from_secs(10), || {
        noted(&env) == lines(&["pre-start", "started"])
    });
    env.mvm("stop demo --timeout 60s").exits(0);
    // How it ended is written down before anything is taken back: who finds no guest any more can look.
    let end = fs::read_to_string(env.path("end")).expect("it was there");
    assert!(end.contains("guest-shutdown"), "{end}");
    let all = ["pre-start", "started", "stopped", "post-stop"];
    assert_eq!(noted(&env), lines(&all));

    // Whatever dies: each runs once.
    fs::remove_file(env.path("hooks")).expect("it is there");
    env.mvm("start demo").exits(0);
    eventually("it is started", Duration::from_secs(10), || {
        noted(&env).len() == 2
    });
    let (supervisor, qemu) = (pid(&env, "supervisor"), pid(&env, "pid"));
    kill(supervisor, Signal::SIGKILL);
    kill(qemu, Signal::SIGKILL);
    eventually("it is recovered", Duration::from_secs(30), || {
        env.mvm("recover demo").code == 0 && !env.path("run/demo").exists()
    });
    assert_eq!(noted(&env), lines(&all));
    env.mvm("recover demo");
    assert_eq!(noted(&env), lines(&all));
}

#[test]
fn a_hook_that_fails_keeps_the_guest_from_starting() {
    let Some(env) = world() else { return };
    let fail = "hook.pre-start.command=[\"sh\",\"-c\",\"echo not today >&2; exit 7\"]";
    env.run(&["start", "demo", "--set", fail])
        .exits(1)
        .says("the hook `pre-start` failed")
        .says("`sh` failed (exit status 7): not today");
    assert_eq!(noted(&env), ["demo post-stop it's"]);
    assert!(!env.path("run/demo").exists());

    let before = env.tree();
    let missing = "hook.started.command=[\"/no/such/program\"]";
    env.run(&["start", "demo", "--set", missing])
        .exits(4)
        .says("hook `started`");
    let shown = env.run(&["start", "demo", "--dry-run"]).exits(0).stdout;
    assert!(
        shown.contains("run the hook pre-start (pre-start): sh -c"),
        "{shown}"
    );
    let wrong = ["start", "demo", "--set", "override.data.no_such=1"];
    env.run(&wrong)
        .exits(3)
        .says("`override.data.no_such`: virtio-blk-pci has no such property");
    let nobody = ["start", "demo", "--set", "override.dta.serial=x"];
    env.run(&nobody).exits(3).says("did you mean `data`?");
    assert_eq!(env.tree(), before);
}

#[test]
fn what_runs_beside_the_guest_can_end_it_and_ends_with_it() {
    let Some(env) = world() else { return };
    let fail = "hook.started.command=[\"sh\",\"-c\",\"echo no route >&2; exit 7\"]";
    let required = "hook.started.on-failure=\"fail\"";
    env.run(&["start", "demo", "--set", fail, "--set", required])
        .exits(0);
    let last = || {
        let text = fs::read_to_string(env.path("state/demo/last.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or(serde_json::Value::Null)
    };
    eventually("it has ended", Duration::from_secs(60), || {
        !env.path("run/demo").exists() && last() != serde_json::Value::Null
    });
    assert_eq!(last()["reason"], "hook-failed");
    let said = "the hook `started` failed: `sh` failed (exit status 7): no route";
    assert_eq!(last()["message"], said);

    fs::remove_file(env.path("hooks")).expect("it is there");
    let script = format!(
        "echo $$ >>{}; sleep 1000; true",
        env.path("hooks").display()
    );
    let slow = format!("hook.started.command=[\"sh\",\"-c\",\"{script}\"]");
    let long = "hook.started.timeout=\"10m\"";
    env.run(&["start", "demo", "--set", &slow, "--set", long])
        .exits(0);
    eventually("it runs", Duration::from_secs(10), || {
        noted(&env).len() == 2
    });
    let hook = noted(&env).pop().expect("its process");
    env.mvm("kill demo").exits(0);
    let stat = fs::read_to_string(format!("/proc/{hook}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    let all = [
        "demo pre-start it's",
        &hook,
        "demo stopped it's",
        "demo post-stop it's",
    ];
    assert_eq!(noted(&env), all);
}
