//! `mvm disk`, with the real qemu-img.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::env::{TestEnv, has_program};

/// Names that shells, QEMU and protocols stumble over.
pub(crate) const HARD_NAMES: [&str; 7] = [
    "a,b.qcow2",
    "a b.qcow2",
    "a'b\"c.qcow2",
    "a\nb.qcow2",
    "日本ü.qcow2",
    "-dash.qcow2",
    "nbd:x.qcow2",
];

#[test]
fn an_image_is_made_and_never_overwritten() {
    if !has_program("qemu-img") {
        return;
    }
    let env = TestEnv::new();
    env.mvm("disk create data.qcow2 --size 64M").exits(0);
    let before = env.tree();
    env.mvm("disk create data.qcow2 --size 128M")
        .exits(1)
        .says("already there")
        .says("hint: ");
    assert_eq!(env.tree(), before);

    let info = env
        .mvm("disk info data.qcow2 --format json")
        .exits(0)
        .json();
    assert_eq!(info["format"], "qcow2");
    assert_eq!(info["virtual-size"], 64 << 20);
    assert_eq!(
        info["path"].as_str().map(Path::new),
        Some(env.image("data.qcow2").as_path())
    );

    env.mvm("disk create raw.img --size 4M --type raw").exits(0);
    assert_eq!(
        fs::metadata(env.image("raw.img"))
            .expect("it is there")
            .len(),
        4 << 20
    );
    env.mvm("disk create over.qcow2 --backing data.qcow2")
        .exits(0);
    let info = env
        .mvm("disk info over.qcow2 --format json")
        .exits(0)
        .json();
    assert!(
        info["backing"]
            .as_str()
            .is_some_and(|path| path.ends_with("data.qcow2"))
    );
    env.mvm("disk create short.qcow2 --size 1M --backing data.qcow2")
        .exits(2);
    assert!(!env.image("short.qcow2").exists());
}

#[test]
fn hard_names_are_names() {
    if !has_program("qemu-img") {
        return;
    }
    let env = TestEnv::new();
    for name in HARD_NAMES {
        env.run(&["disk", "create", "--size", "1M", "--", name])
            .exits(0);
        assert!(env.image(name).is_file(), "{name:?}");
        env.run(&["disk", "resize", "--", name, "+1M"]).exits(0);
        let shown = env
            .run(&["disk", "info", "--format", "json", "--", name])
            .exits(0);
        assert_eq!(shown.json()["virtual-size"], 2 << 20, "{name:?}");
        let table = env.run(&["disk", "info", "--", name]).exits(0).stdout;
        assert_eq!(table.lines().count(), 4, "{table}");
    }
}

#[test]
fn an_image_only_grows() {
    if !has_program("qemu-img") {
        return;
    }
    let env = TestEnv::new();
    env.mvm("disk create d.qcow2 --size 64M").exits(0);
    env.mvm("disk resize d.qcow2 32M")
        .exits(1)
        .says("shrinks no image");
    env.mvm("disk resize d.qcow2 +64M").exits(0);
    env.mvm("disk resize d.qcow2 128M").exits(0);
    let info = env.mvm("disk info d.qcow2 --format json").exits(0).json();
    assert_eq!(info["virtual-size"], 128 << 20);
    env.mvm("disk resize d.qcow2 lots").exits(2).says("`lots`");
    env.mvm("disk resize e.qcow2 1G")
        .exits(1)
        .says("there is no image `e.qcow2`")
        .says("state/images/e.qcow2");
}

#[test]
fn another_format_is_imported_and_the_source_stays() {
    if !has_program("qemu-img") {
        return;
    }
    let env = TestEnv::new();
    let source = env.path("old.vmdk");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "vmdk"])
        .arg(&source)
        .arg("16M")
        .status()
        .expect("qemu-img runs");
    assert!(made.success());
    let before = fs::read(&source).expect("the source");

    env.mvm("disk import ./old.vmdk --size 8M")
        .exits(1)
        .says("shrinks no image");
    env.mvm("disk import old.vmdk --size 32M").exits(0);

    assert_eq!(fs::read(&source).expect("the source"), before);
    let info = env.mvm("disk info old.qcow2 --format json").exits(0).json();
    assert_eq!(
        (&info["format"], &info["virtual-size"]),
        (&"qcow2".into(), &(32 << 20).into())
    );
    env.mvm("disk import old.vmdk")
        .exits(1)
        .says("already there");

    env.write("packed.img", b"\xfd7zXZ\0rest");
    env.mvm("disk import packed.img").exits(1).says("unxz");
    let left: Vec<_> = fs::read_dir(env.image("")).expect("the folder").collect();
    assert_eq!(left.len(), 1, "drafts are removed: {left:?}");
}

#[test]
fn a_host_without_qemu_img_is_told_what_to_install() {
    let env = TestEnv::new();
    let output = env
        .command(&["disk", "create", "a.qcow2", "--size", "1M"])
        .env("PATH", env.path("nowhere"))
        .output()
        .expect("mvm starts");
    let ran = crate::env::ran(output).exits(4);
    assert!(ran.stderr.contains("qemu-utils"), "{}", ran.stderr);
    assert!(!env.image("a.qcow2").exists());
}

#[test]
fn what_qemu_img_says_is_explained() {
    if !has_program("qemu-img") {
        return;
    }
    let env = TestEnv::new();
    env.write(
        "state/images/bad.qcow2",
        b"QFI\xfb and then nonsense that is no header at all",
    );
    let ran = env.mvm("disk info bad.qcow2").exits(1);
    assert!(
        ran.stderr.starts_with("error: qemu-img: "),
        "{}",
        ran.stderr
    );
    env.write("state/images/raw.img", vec![0; 4096]);
    env.mvm("disk resize raw.img 1M --type qcow2")
        .exits(1)
        .says("another one than the one named with --type");
}
