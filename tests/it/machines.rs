//! `mvm create`, `edit` and `remove`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::env::{TestEnv, has_program, ran};

#[test]
fn a_created_guest_is_a_profile_with_the_flags_in_it() {
    let env = TestEnv::new();
    env.run(&[
        "create",
        "web",
        "--profile",
        "ubuntu",
        "--memory",
        "8G",
        "--disk",
        "we,b \"1\".qcow2",
        "--set",
        "network.lan.user.forward=[\"2222:22\"]",
        "--variant",
        "ephemeral",
    ])
    .exits(0);
    let path = env.path("config/machines/web.toml");
    let text = fs::read_to_string(&path).expect("the machine file");
    assert!(text.starts_with("# The guest `web`"), "{text}");
    env.mvm("profile check web").exits(0);
    let values = env.mvm("profile show web --format json").exits(0).json();
    assert_eq!(values["machine-file"].as_str(), path.to_str());
    let value = |key: &str| {
        let mut all = values["values"].as_array().expect("an array").iter();
        all.find(|value| value["key"] == key)
            .unwrap_or_else(|| panic!("{key} in {values}"))["value"]
            .clone()
    };
    assert_eq!(value("memory.size"), "8G");
    // The hardware stays when QEMU becomes a newer one.
    if has_program("qemu-system-x86_64") && std::env::consts::ARCH == "x86_64" {
        let kind = value("machine.type");
        assert!(
            kind.as_str()
                .is_some_and(|kind| kind.starts_with("pc-q35-")),
            "{kind}"
        );
    }
    assert_eq!(value("disk.system.file.path"), "we,b \"1\".qcow2");
    assert_eq!(value("disk.system.ephemeral"), true);
    assert_eq!(
        value("network.lan.user.forward"),
        serde_json::json!(["2222:22"])
    );

    let before = env.tree();
    env.mvm("create web --profile demo")
        .exits(1)
        .says("mvm edit web");
    env.mvm("create other --profile web")
        .exits(2)
        .says("not a profile");
    env.mvm("create images --profile demo").exits(2);
    assert_eq!(env.tree(), before);
}

/// Runs `mvm edit web` with a script for an editor.
fn edit(env: &TestEnv, script: &str, flags: &[&str]) -> crate::env::Ran {
    let editor = env.write("bin/my editor", format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).expect("a script");
    let mut command = env.command(&[&["edit", "web"], flags].concat());
    command.env("EDITOR", format!("'{}' -w", editor.display()));
    ran(command.output().expect("mvm starts"))
}

#[test]
fn an_edit_that_is_wrong_is_kept_and_gone_on_with() {
    let env = TestEnv::new();
    env.mvm("create web --profile demo").exits(0);
    let path = env.path("config/machines/web.toml");
    let old = fs::read_to_string(&path).expect("the machine file");

    edit(&env, "echo \"[memroy]\" >> \"$2\"", &[])
        .exits(3)
        .says("did you mean `memory`")
        .says("stays as it was")
        .says("mvm edit web");
    assert_eq!(fs::read_to_string(&path).expect("the machine file"), old);

    edit(
        &env,
        "sed -i 's/memroy/memory/; $a size = \"1G\"' \"$2\"",
        &[],
    )
    .exits(0)
    .says("going on with the text kept");
    let new = fs::read_to_string(&path).expect("the machine file");
    assert!(new.ends_with("[memory]\nsize = \"1G\"\n"), "{new}");

    edit(&env, "exit 3", &[]).exits(1).says("failed");
    edit(&env, "true", &[]).exits(0).says("nothing was changed");
    assert_eq!(fs::read_to_string(&path).expect("the machine file"), new);
    let files = fs::read_dir(env.path("config/machines")).expect("the folder");
    assert_eq!(files.count(), 1);
}

#[test]
fn remove_says_what_it_deletes_and_keeps_what_others_use() {
    if !has_program("qemu-img") {
        return;
    }
    let env = TestEnv::new();
    for name in ["own", "shared", "below"] {
        env.mvm(&format!("disk create {name}.qcow2 --size 1M"))
            .exits(0);
    }
    env.mvm("disk create over.qcow2 --backing below.qcow2")
        .exits(0);
    env.write(
        "config/machines/web.toml",
        "extends = ['demo']\n[disk.a]\nfile = { path = 'own.qcow2' }\n\
         [disk.b]\nfile = { path = 'shared.qcow2' }\n[disk.c]\nfile = { path = 'below.qcow2' }\n",
    );
    env.write(
        "config/machines/other.toml",
        "extends = ['demo']\n[disk.a]\nfile = { path = 'shared.qcow2' }\n",
    );
    env.write("state/web/log/qemu.log", "");
    let before = env.tree();
    env.mvm("remove web --disks")
        .exits(2)
        .says("--yes")
        .says("own.qcow2");
    env.mvm("remove nobody --yes").exits(5);
    assert_eq!(env.tree(), before);

    env.mvm("remove web --disks --yes")
        .exits(0)
        .says("other uses it")
        .says("lies over it");
    assert!(!env.image("own.qcow2").exists());
    assert!(env.image("shared.qcow2").exists() && env.image("below.qcow2").exists());
    assert!(!env.path("state/web").exists() && !env.path("config/machines/web.toml").exists());
    env.mvm("remove other --yes").exits(0);
    assert!(
        env.image("shared.qcow2").exists(),
        "disks go with --disks only"
    );
}

#[test]
fn what_is_left_of_a_guest_is_not_removed_under_it() {
    let env = TestEnv::new();
    env.mvm("create web --profile demo").exits(0);
    env.write("run/web/state.json", "{\"state\":\"running\"}");
    let before = env.tree();
    env.mvm("remove web --yes").exits(1).says("mvm recover web");
    assert_eq!(env.tree(), before);
}
