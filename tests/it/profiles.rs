//! Profiles through the command: what is shown, and that a wrong one harms nothing.

use std::fmt::Write as _;

use crate::env::TestEnv;

/// Wrong profiles, by name, and words that the error must have.
fn wrong(env: &TestEnv) -> Vec<(&'static str, &'static str)> {
    let mut nonsense = String::new();
    while nonsense.len() < 5 << 20 {
        // Writing to a String cannot fail.
        let _ = writeln!(nonsense, "key{0} = [[[ \"{0}\u{fffd}\\", nonsense.len());
    }
    env.write("config/profiles/huge.toml", &nonsense);
    env.write("config/profiles/binary.toml", b"\x7fELF\xff\xfe\0\0");
    env.write("config/profiles/round.toml", "extends = ['about']\n");
    env.write("config/profiles/about.toml", "extends = ['round']\n");
    for depth in 0..100 {
        let text = format!("extends = ['deep{}']\n", depth + 1);
        env.write(format!("config/profiles/deep{depth}.toml"), text);
    }
    env.write("config/profiles/deep100.toml", "");
    env.write(
        "config/profiles/key.toml",
        "extends = ['demo']\n[memroy]\nsize = '1G'\n",
    );
    env.write(
        "config/profiles/type.toml",
        "extends = ['demo']\n[cpu]\ncount = 'two'\n",
    );
    env.write(
        "config/profiles/size.toml",
        "extends = ['demo']\n[memory]\nsize = '-1G'\n",
    );
    env.write(
        "config/profiles/cpus.toml",
        "extends = ['demo']\n[cpu]\ncount = -1\n",
    );
    env.write("config/profiles/base2.toml", "extends = ['demoo']\n");
    vec![
        ("huge", "huge.toml"),
        ("binary", "binary.toml"),
        ("round", "circle"),
        ("deep0", "deep"),
        ("key", "did you mean `memory`"),
        ("type", "type.toml:3"),
        ("size", "size.toml:3"),
        ("cpus", "cpus.toml:3"),
        ("base2", "did you mean `demo`"),
        ("nosuch", "nosuch"),
    ]
}

#[test]
fn a_wrong_profile_is_exit_3_and_nothing_is_touched() {
    let env = TestEnv::new();
    let cases = wrong(&env);
    let before = env.tree();
    for (name, words) in cases {
        for line in [
            format!("profile show {name}"),
            format!("profile check {name}"),
            format!("create new --profile {name}"),
            format!("run {name}"),
            format!("run {name} --dry-run"),
            format!("start {name}"),
        ] {
            let ran = env.mvm(&line).exits(3).says(words);
            assert!(ran.stderr.starts_with("error: "), "{line}: {}", ran.stderr);
            assert!(ran.stderr.len() < 8000, "{line}: {}", ran.stderr.len());
            assert!(ran.stdout.is_empty(), "{line}: {}", ran.stdout);
        }
    }
    assert_eq!(env.tree(), before);
}

#[test]
fn wrong_flags_are_wrong_usage() {
    let env = TestEnv::new();
    for flags in [
        "--set memory.size",
        "--set memroy.size=1G",
        "--set memory.size=-1G",
        "--memory lots",
        "--cpus -1",
        "--variant nosuch",
        "--firmware tea",
    ] {
        env.mvm(&format!("profile show demo {flags}")).exits(2);
    }
}

#[test]
fn every_built_in_profile_is_listed_and_right() {
    let env = TestEnv::new();
    let list = env.mvm("profile list --format json").exits(0).json();
    let names: Vec<&str> = list
        .as_array()
        .expect("an array")
        .iter()
        .map(|entry| entry["name"].as_str().expect("a name"))
        .collect();
    for name in ["demo", "linux", "arm-virt", "microvm", "ubuntu", "debian"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let table = env.mvm("profile list").exits(0).stdout;
    assert_eq!(table.lines().count(), names.len() + 1);
    let checked = env.mvm("profile check").exits(0).stdout;
    assert_eq!(checked.lines().count(), names.len());
}

#[test]
fn a_shown_profile_tells_where_values_are_from_and_loads_again() {
    let env = TestEnv::new();
    env.write(
        "config/profiles/mine.toml",
        "extends = ['demo']\n[memory]\nsize = '1G'\n",
    );
    let shown = env
        .mvm("profile show mine --cpus 3 --set rng.enabled=false")
        .exits(0)
        .stdout;
    for part in [
        "mine.toml:3",
        "size = \"1G\"",
        "count = 3",
        "built-in demo",
        "--set cpu.count=3",
    ] {
        assert!(shown.contains(part), "`{part}` not in\n{shown}");
    }
    env.write("config/profiles/again.toml", &shown);
    let again = env.mvm("profile show again --format json").exits(0).json();
    let first = env
        .mvm("profile show mine --cpus 3 --set rng.enabled=false --format json")
        .exits(0)
        .json();
    let values = |shown: &serde_json::Value| -> Vec<(String, serde_json::Value)> {
        let values = shown["values"].as_array().expect("an array").iter();
        let mut values: Vec<_> = values
            .map(|value| (value["key"].to_string(), value["value"].clone()))
            .collect();
        values.sort_by(|a, b| a.0.cmp(&b.0));
        values
    };
    assert_eq!(values(&again), values(&first));
}
