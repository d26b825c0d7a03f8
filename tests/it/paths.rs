//! Image files whose names shells, QEMU and its options stumble over.

use std::fmt::Write as _;
use std::fs;

use crate::disk::HARD_NAMES;
use crate::env::TestEnv;

#[test]
fn a_guest_boots_with_hard_names() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let mut profile = "extends = ['demo']\n".to_owned();
    for (number, name) in HARD_NAMES.iter().enumerate() {
        let mut disk = format!("content of {number}\n").into_bytes();
        disk.resize(1 << 20, 0);
        fs::write(env.image(name), disk).expect("an image");
        let path = toml::Value::from(*name);
        // Writing to a String cannot fail.
        let _ = writeln!(
            profile,
            "[disk.d{number}]\nfile = {{ path = {path}, format = 'raw' }}\nserial = 'disk{number}'"
        );
    }
    env.write("config/profiles/hard.toml", profile);
    env.mvm("start hard").exits(0);
    env.mvm("wait hard --for agent --timeout 120s").exits(0);
    let said = env.type_in(
        "hard",
        "for d in /sys/block/vd*; do echo $(cat $d/serial) is $(head -n 1 /dev/${d##*/}); done",
    );
    for number in 0..HARD_NAMES.len() {
        let line = format!("disk{number} is content of {number}");
        assert!(said.contains(&line), "{line} in {said}");
    }
    env.mvm("kill hard").exits(0);
}

/// What the profile says is all that is needed: a plan with such names can be pasted into a shell.
#[test]
fn the_printed_command_line_can_be_pasted() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    for name in HARD_NAMES {
        fs::write(env.image(name), [0; 4096]).expect("an image");
        let set = format!("disk.system.file.path={}", toml::Value::from(name));
        let args = ["run", "demo", "--dry-run", "--set", &set];
        let text = env.run(&args).exits(0).stdout;
        let json = env
            .run(&[&args[..], &["--format", "json"]].concat())
            .exits(0)
            .json();
        let (_, command) = text.rsplit_once("\n/").expect("the program's path");
        let words = shlex::split(&format!("/{command}")).expect("a shell's words");
        assert_eq!(words[0], json["program"].as_str().expect("a program"));
        // Where file descriptors are passed the two differ; the disk's path is in both.
        let real: Vec<&str> = json["args"]
            .as_array()
            .expect("an array")
            .iter()
            .map(|arg| arg.as_str().expect("text"))
            .collect();
        let path = serde_json::to_string(&env.image(name)).expect("a path");
        let with_path = |word: &str| word.contains(&path);
        assert!(
            words.iter().any(|word| with_path(word)),
            "{name:?} in {words:?}"
        );
        assert!(
            real.iter().any(|word| with_path(word)),
            "{name:?} in {real:?}"
        );
    }
}
