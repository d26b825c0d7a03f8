//! Units in trees: what is written, and that the tree is as it was when they are taken away.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::units::{UnitError, below, install, is_installed, remove};
use crate::host::Init;
use crate::service::{self, Around, Guest, Kind};

fn around(init: Init) -> Around {
    Around {
        init,
        program: "/usr/bin/mvm".to_owned(),
        environment: Vec::new(),
        runtime: "/run/mvm".to_owned(),
        state: "/var/lib/mvm".to_owned(),
        user: None,
        systemd: None,
        runit: "/etc/service".to_owned(),
    }
}

fn guest() -> Guest {
    Guest {
        name: "web".parse().expect("a name"),
        stop: Duration::from_secs(60),
        locks_memory: false,
    }
}

/// A host with the folders of all inits.
fn host() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    for folder in [
        "etc/systemd/system",
        "etc/init.d",
        "etc/runlevels/default",
        "etc/sv",
        "etc/service",
        "etc/s6/sv",
        "etc/rc.d",
    ] {
        fs::create_dir_all(root.path().join(folder)).expect("a folder");
    }
    for level in 0..=6 {
        fs::create_dir_all(root.path().join(format!("etc/rc{level}.d"))).expect("a folder");
    }
    let inittab = root.path().join("etc/inittab");
    fs::write(
        &inittab,
        "::sysinit:/etc/rc\n# mvm-unit: guest webber\n::once:x",
    )
    .expect("a file");
    fs::set_permissions(&inittab, Permissions::from_mode(0o600)).expect("a mode");
    root
}

fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let meta = path.symlink_metadata().expect("it is there");
            let text = if meta.is_symlink() {
                let target = fs::read_link(&path).expect("a link");
                target.into_os_string().into_encoded_bytes()
            } else if meta.is_dir() {
                open.push(path.clone());
                Vec::new()
            } else {
                fs::read(&path).expect("a file")
            };
            found.insert(path, (meta.permissions().mode(), text));
        }
    }
    found
}

#[test]
fn what_is_installed_is_taken_away_exactly() {
    let guest = guest();
    let all = service::Host {
        stop: Duration::from_secs(120),
    };
    for init in Init::ALL {
        for kind in [Kind::Guest(&guest), Kind::Host(&all)] {
            let root = host();
            let root = root.path();
            let before = tree(root);
            let set = service::files(kind, &around(init)).expect("it can be written");
            let mark = service::mark(kind);
            assert!(!is_installed(root, &set, &mark, "/run/mvm"));
            let written = install(root, &set, &mark, false).expect("it is installed");
            assert_eq!(written.len(), set.items.len(), "{init}");
            assert!(is_installed(root, &set, &mark, "/run/mvm"));
            assert!(!is_installed(root, &set, &mark, "/elsewhere"));
            let after = tree(root);
            assert!(
                after
                    .keys()
                    .all(|path| !path.to_string_lossy().ends_with(".mvm-new"))
            );
            // Twice is as once.
            assert_eq!(
                install(root, &set, &mark, false).expect("it is there"),
                Vec::<PathBuf>::new()
            );
            assert_eq!(tree(root), after);
            let gone = remove(root, &set, &mark).expect("it goes");
            assert_eq!(gone.len(), set.items.len(), "{init}");
            assert_eq!(
                remove(root, &set, &mark).expect("it is gone"),
                Vec::<PathBuf>::new()
            );
            let mut now = tree(root);
            if init == Init::Busybox {
                // The line that had no end has one.
                let table = now.get_mut(&root.join("etc/inittab")).expect("it is there");
                assert_eq!(table.1.pop(), Some(b'\n'));
            }
            assert_eq!(now, before, "{init}");
        }
    }
}

#[test]
fn what_is_not_ours_stays() {
    for init in [Init::Systemd, Init::Runit, Init::S6, Init::Sysv] {
        let root = host();
        let root = root.path();
        let guest = guest();
        let kind = Kind::Guest(&guest);
        let set = service::files(kind, &around(init)).expect("it can be written");
        let mark = service::mark(kind);
        // The last item too: nothing may have been written when it is found.
        for item in [set.items.first(), set.items.last()].into_iter().flatten() {
            let path = below(root, item.path());
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(&path, "of the host\n").expect("a file");
            let before = tree(root);
            let error = install(root, &set, &mark, false).expect_err("it is refused");
            assert!(matches!(error, UnitError::Foreign { .. }), "{error}");
            assert_eq!(remove(root, &set, &mark).expect("nothing is ours").len(), 0);
            assert_eq!(tree(root), before, "{init}");
            fs::remove_file(&path).expect("it was there");
        }
        let path = below(root, set.items[0].path());
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, "of the host\n").expect("a file");
        install(root, &set, &mark, true).expect("it is forced");
        assert!(is_installed(root, &set, &mark, "/run/mvm"));
    }
}

#[test]
fn an_older_unit_of_ours_is_replaced_and_one_guest_s_lines_are_not_another_s() {
    let root = host();
    let root = root.path();
    let guest = guest();
    let kind = Kind::Guest(&guest);
    let mark = service::mark(kind);
    for init in [Init::Systemd, Init::Busybox, Init::S6] {
        let old = Around {
            program: "/opt/old/mvm".to_owned(),
            ..around(init)
        };
        let old = service::files(kind, &old).expect("it can be written");
        let new = service::files(kind, &around(init)).expect("it can be written");
        install(root, &old, &mark, false).expect("it is installed");
        assert!(
            !install(root, &new, &mark, false)
                .expect("it is ours")
                .is_empty()
        );
        let text = fs::read_to_string(below(root, new.items[0].path())).expect("a file");
        assert!(
            !text.contains("/opt/old") && text.contains("/usr/bin/mvm"),
            "{text}"
        );
        assert_eq!(text.matches(&format!("{mark}\n")).count(), 1, "{text}");
    }
    let table = fs::read_to_string(root.join("etc/inittab")).expect("a file");
    assert!(
        table.starts_with("::sysinit:/etc/rc\n# mvm-unit: guest webber\n::once:x\n"),
        "{table}"
    );
    let mode = fs::metadata(root.join("etc/inittab"))
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_failure_in_the_middle_leaves_nothing() {
    let root = host();
    let root = root.path();
    let guest = guest();
    let kind = Kind::Guest(&guest);
    let mark = service::mark(kind);
    let set = service::files(kind, &around(Init::Runit)).expect("it can be written");
    // No folder can be made where the link belongs.
    fs::remove_dir(root.join("etc/service")).expect("it is empty");
    symlink("nowhere/at/all", root.join("etc/service")).expect("a link");
    install(root, &set, &mark, false).expect_err("it fails");
    assert_eq!(
        fs::read_dir(root.join("etc/sv/mvm-web"))
            .expect("a folder")
            .count(),
        0
    );
}
