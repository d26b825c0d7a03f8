//! What `--dry-run` promises to scripts, and starts that fail before anything is touched.

use std::fs;
use std::net::TcpListener;

use serde_json::Value;

use crate::env::{TestEnv, has_program};

#[test]
fn a_dry_run_is_one_object_and_touches_nothing() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let before = env.tree();
    let plan = env.mvm("run demo --dry-run --format json").exits(0).json();
    let steps = plan["steps"].as_array().expect("steps");
    assert!(steps.iter().all(|step| step["do"].is_string()) && !steps.is_empty());
    assert!(
        plan["program"]
            .as_str()
            .is_some_and(|path| path.starts_with('/'))
    );
    let texts = |key: &str| -> Vec<String> {
        let list = plan[key]
            .as_array()
            .unwrap_or_else(|| panic!("{key}"))
            .iter();
        list.map(|text| text.as_str().expect("text").to_owned())
            .collect()
    };
    assert!(texts("args").contains(&"-nodefaults".to_owned()));
    assert!(plan["env"].is_object());
    assert_eq!(plan["accel"]["chosen"], "tcg");
    assert!(
        plan["accel"]["reason"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
    let fds = plan["fds"].as_array().expect("fds");
    assert!(
        fds.iter()
            .all(|fd| fd["fd"].is_i64() && fd["what"].is_string())
    );

    let text = env.mvm("run demo --dry-run").exits(0).stdout;
    assert!(text.lines().any(|line| line.starts_with("/")), "{text}");
    let same = env
        .mvm("start demo --dry-run --format json")
        .exits(0)
        .json();
    assert_eq!(same["args"], plan["args"]);
    assert_eq!(env.tree(), before);
}

#[test]
fn choices_reach_the_command_line() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let args = |flags: &str| -> String {
        let plan = env
            .mvm(&format!("run demo --dry-run --format json {flags}"))
            .exits(0)
            .json();
        let list = plan["args"].as_array().expect("args").iter();
        list.filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
    };
    let line = args("--memory 1G --cpus 3 --append hello=1 --name other");
    for part in ["size=1G", "cpus=3", "-append hello=1", "guest=other"] {
        assert!(
            line.contains(part) || line.contains(&part.replace("1G", "1024M")),
            "{part}: {line}"
        );
    }
}

/// Each of them is refused with its reason, the exit code of its kind, and the disk as it was.
#[test]
fn a_start_that_cannot_work_touches_nothing() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    env.write("state/images/text.qcow2", "this is no qcow2 image");
    fs::write(env.image("d.raw"), [0; 4096]).expect("an image");
    // Asked once, so that what QEMU can do is in the cache for all of the cases.
    env.mvm("run demo --dry-run").exits(0);
    // The lock that starts take one after the other stays, and the folder that it is in.
    let tree = || {
        let mut tree = env.tree();
        tree.retain(|path, _| *path != env.path("run") && *path != env.path("run/.starting"));
        tree
    };
    let before = tree();
    let cases: [(String, i32, &str); 9] = [
        ("--disk missing.qcow2".into(), 4, "mvm disk create"),
        ("--set machine.type=tea".into(), 3, "tea"),
        ("--set cpu.model=tea".into(), 3, "tea"),
        ("--set machine.arch=sparc".into(), 2, "sparc"),
        ("--set memory.size=0".into(), 2, "size"),
        ("--kernel ./nosuch".into(), 4, "nosuch"),
        (
            "--disk text.qcow2 --set disk.system.file.format=qcow2".into(),
            3,
            "qcow2",
        ),
        (
            format!("--set network.lan.user.forward=[\"{port}:22\"]"),
            1,
            "is taken by",
        ),
        ("--set qemu.binary=/nosuch/qemu".into(), 4, "/nosuch/qemu"),
    ];
    let mut wrong = Vec::new();
    // The QEMU of the environment goes before that of the profile.
    let given = std::env::var_os("MVM_QEMU_X86_64").is_some();
    for (flags, code, words) in cases {
        if given && flags.contains("qemu.binary") {
            continue;
        }
        for verb in ["start", "run"] {
            let ran = env.mvm(&format!("{verb} demo {flags}"));
            if ran.code != code || !ran.stderr.contains(words) || !ran.stdout.is_empty() {
                wrong.push(format!(
                    "{verb} {flags}: {} {}{}",
                    ran.code, ran.stdout, ran.stderr
                ));
            }
            let after = tree();
            if after != before {
                let new: Vec<_> = after
                    .keys()
                    .filter(|path| !before.contains_key(*path))
                    .collect();
                wrong.push(format!("{verb} {flags}: touched {new:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_host_is_described_for_programs() {
    if !has_program("qemu-system-x86_64") {
        return;
    }
    let env = TestEnv::new();
    let ran = env.mvm("doctor --format json");
    assert!([0, 4].contains(&ran.code), "{}", ran.stderr);
    let findings = ran.json();
    let findings = findings.as_array().expect("an array");
    for finding in findings {
        for key in ["id", "level", "text"] {
            assert!(finding[key].is_string(), "{key} in {finding}");
        }
        assert!(finding.get("fix").is_some(), "{finding}");
    }
    let ids: Vec<&str> = findings
        .iter()
        .filter_map(|finding| finding["id"].as_str())
        .collect();
    assert!(
        ids.contains(&"kvm") && ids.contains(&"qemu-x86_64"),
        "{ids:?}"
    );
}

#[test]
fn a_host_without_qemu_cannot_run_guests() {
    let env = TestEnv::new();
    let mut command = env.command(&["doctor"]);
    for name in ["MVM_QEMU_X86_64", "MVM_QEMU_AARCH64"] {
        command.env(name, env.path("nowhere"));
    }
    let ran = crate::env::finish(command);
    assert_eq!(ran.code, 4, "{}{}", ran.stdout, ran.stderr);
}
