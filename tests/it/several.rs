//! Several guests that are started together, each with what is said for it, and guests that are started anew.

use crate::env::TestEnv;

/// An empty machine: its firmware finds nothing, and QEMU runs.
fn machine(env: &TestEnv, name: &str) {
    let text = "[machine]\naccel = \"tcg\"\n[memory]\nsize = \"64M\"\n[lifecycle]\nstop-timeout = \"1s\"\n";
    env.write(format!("config/machines/{name}.toml"), text);
}

#[test]
fn each_guest_is_started_as_its_flags_say() {
    let env = TestEnv::new();
    if !crate::env::has_program("qemu-system-x86_64") {
        eprintln!("skipped: no QEMU");
        return;
    }
    machine(&env, "a");
    machine(&env, "b");
    env.mvm("start a b --memory c=96M")
        .exits(2)
        .says("no guest `c` is started here")
        .says("these are: a, b");
    env.mvm("start a b --pci wi-fi")
        .exits(2)
        .says("only one can have it")
        .says("`--pci a=wi-fi`");
    assert_eq!(env.mvm("list --format json").json(), serde_json::json!([]));

    let started = env.mvm("start a b --memory b=96M --cpus a=2").exits(0);
    assert_eq!(started.stdout, "a\nb\n");
    let plan = |name: &str| {
        let text = std::fs::read_to_string(env.path(format!("run/{name}/plan.json")));
        let plan: serde_json::Value = serde_json::from_str(&text.expect("a plan")).expect("a plan");
        let machine = &plan["machine"];
        (machine["memory"].clone(), machine["cpu"]["count"].clone())
    };
    assert_eq!(plan("a"), ("64M".into(), 2.into()));
    assert_eq!(plan("b"), ("96M".into(), 1.into()));

    let pid = |name: &str| env.row(name)["pid"].clone();
    let before = (pid("a"), pid("b"));
    let left = env.mvm("start a b").exits(0);
    assert_eq!(left.stdout, "");
    let left = left
        .says("a runs already and is left alone")
        .says("--restart");
    drop(left.says("b runs already"));
    assert_eq!(before, (pid("a"), pid("b")));

    // What could not be started anew is not stopped.
    env.mvm("start a --restart --variant typo").exits(2);
    env.mvm("start a --restart --memory 1K").exits(3);
    assert_eq!(before, (pid("a"), pid("b")));

    // Nothing in it heeds the power button: it is ended when its time is over.
    env.mvm("start a --restart --memory a=80M")
        .exits(0)
        .says("stopped first");
    assert_ne!(before.0, pid("a"));
    assert_eq!(plan("a"), ("80M".into(), 1.into()));
    assert_eq!(before.1, pid("b"));
    env.mvm("kill --all").exits(0);
}
