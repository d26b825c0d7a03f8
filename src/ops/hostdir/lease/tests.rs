//! Whose a device is, and what another user may have written.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::ops::lock;

fn user(top: &std::path::Path, guest: &str) -> User {
    User {
        guest: guest.to_owned(),
        run_dir: top.join(guest),
    }
}

fn extent(key: &str) -> Extent {
    Extent {
        key: key.to_owned(),
        part_of: None,
    }
}

#[test]
fn a_part_and_its_whole_have_one_guest_whoever_comes_first() {
    let pci = |text: &str| Extent::pci(text.parse().unwrap());
    let controller = || "0000:00:14.0".parse().ok();
    let gpu = || "0000:00:02.0".parse().ok();
    let pairs = [
        (
            Extent::usb(&"1-3".parse().unwrap(), controller()),
            pci("0000:00:14.0"),
        ),
        (
            Extent::mdev(uuid::Uuid::from_u128(7), gpu()),
            pci("0000:00:02.0"),
        ),
        (pci("vf:1@0000:00:02.0"), pci("0000:00:02.0")),
    ];
    for (part, whole) in pairs {
        for (first, second) in [(&part, &whole), (&whole, &part)] {
            let top = tempfile::tempdir().unwrap();
            let dir = HostDir::new(&top.path().join("host"));
            let (a, b) = (user(top.path(), "a"), user(top.path(), "b"));
            std::fs::create_dir(&a.run_dir).unwrap();
            let _life = lock::take(&a.run_dir.join("lock")).unwrap();
            let held = dir.lock().unwrap();
            let free = |_: &str| None;
            dir.take_lease(&held, first, "first", &a, &free).unwrap();
            let error = dir.take_lease(&held, second, "second", &b, &free);
            let error = error.unwrap_err();
            assert!(error.is_lost_race(), "{error}");
            assert_eq!(error.to_string(), "first is guest `a`'s");
            assert_eq!(dir.leases().unwrap().len(), 1);
        }
    }
}

#[test]
fn a_device_is_one_guests() {
    let top = tempfile::tempdir().unwrap();
    let dir = HostDir::new(&top.path().join("host"));
    let (a, b) = (user(top.path(), "a"), user(top.path(), "b"));
    let held = dir.lock().unwrap();
    let free = |_: &str| None;
    let take = |key: &str, user: &User| dir.take_lease(&held, &extent(key), key, user, &free);
    std::fs::create_dir(&a.run_dir).unwrap();
    let life = lock::take(&a.run_dir.join("lock")).unwrap();
    take("pci-0000:01:00.0-vf1", &a).unwrap();
    take("pci-0000:01:00.0-vf1", &a).unwrap();
    take("pci-0000:01:00.0-vf2", &b).unwrap();
    dir.release_lease(&held, "pci-0000:01:00.0-vf2", &b)
        .unwrap();
    for key in ["pci-0000:01:00.0-vf1", "pci-0000:01:00.0"] {
        let error = take(key, &b).unwrap_err();
        assert_eq!(error.to_string(), "pci-0000:01:00.0-vf1 is guest `a`'s");
    }
    dir.release_lease(&held, "pci-0000:01:00.0-vf1", &b)
        .unwrap();
    assert_eq!(dir.leases().unwrap().len(), 1, "another guest's stays");

    // The guest dies with something to give back, then with nothing.
    drop(life);
    let undo = Step::RemoveMdev {
        uuid: uuid::Uuid::nil(),
    };
    dir.note_undo(&held, "pci-0000:01:00.0-vf1", &undo).unwrap();
    let found = &dir.leases().unwrap()[0];
    assert_eq!(found.take_back(), [], "it is about another device");
    let error = take("pci-0000:01:00.0", &b).unwrap_err();
    assert!(matches!(error, DeviceError::LeftBehind { .. }), "{error}");
    dir.strike_undo(&held, "pci-0000:01:00.0-vf1", &undo)
        .unwrap();
    let open = |_: &str| Some("process 7".to_owned());
    let error = dir.take_lease(&held, &extent("pci-0000:01:00.0"), "x", &b, &open);
    assert!(matches!(error, Err(DeviceError::InUse { .. })), "{error:?}");
    take("pci-0000:01:00.0", &b).unwrap();
    let left = dir.leases().unwrap();
    assert_eq!((left.len(), left[0].content.guest.as_str()), (1, "b"));
}

#[test]
fn only_what_gives_the_leases_own_device_back_is_carried_out() {
    let own = Step::GiveBack {
        device: "01:00.0".parse().unwrap(),
        driver: "vfio-pci".to_owned(),
        from: crate::plan::step::Bound::default(),
    };
    let undo = vec![
        own.clone(),
        Step::CopyFile {
            from: "/tmp/x".into(),
            to: "/etc/x".into(),
            mode: 0o644,
        },
        Step::RemoveMdev {
            uuid: uuid::Uuid::nil(),
        },
        Step::ReleaseLease {
            key: "pci-0000:01:00.0".to_owned(),
            user: user("/run".as_ref(), "a"),
        },
    ];
    let mut record = Record {
        key: "pci-0000:01:00.0".to_owned(),
        content: Lease {
            key: String::new(),
            device: "x".to_owned(),
            part_of: None,
            guest: "a".to_owned(),
            run_dir: "/nowhere".into(),
            uid: 0,
            pid: 1,
            since: 1,
            undo,
        },
        trusted: true,
        uid: 0,
    };
    assert_eq!(record.take_back(), [own]);
    record.trusted = false;
    assert_eq!(record.take_back(), []);
}

/// Another user's file can only be had by root.
#[test]
fn what_another_user_wrote_is_never_made_ones_own() {
    if !is_root() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let dir = HostDir::new(&top.path().join("host"));
    let key = "pci-0000:01:00.0";
    let us = user(top.path(), "us");
    let held = dir.lock().unwrap();
    let undo = Step::GiveBack {
        device: "01:00.0".parse().unwrap(),
        driver: "vfio-pci".to_owned(),
        from: crate::plan::step::Bound::default(),
    };
    let path = dir.path().join(LEASES).join(key);
    for run_dir in [us.run_dir.clone(), "/nowhere".into()] {
        dir.take_lease(&held, &extent(key), "x", &user(top.path(), "us"), &|_| None)
            .unwrap();
        let mut lease = dir.leases().unwrap()[0].content.clone();
        lease.undo = vec![undo.clone()];
        lease.run_dir = run_dir;
        std::fs::write(&path, serde_json::to_vec(&lease).unwrap()).unwrap();
        std::os::unix::fs::chown(&path, Some(4242), None).unwrap();

        assert!(!dir.has_undo(key, &undo).unwrap());
        dir.note_undo(&held, key, &Step::RemoveFile { path: "/x".into() })
            .unwrap();
        dir.strike_undo(&held, key, &undo).unwrap();
        dir.release_lease(&held, key, &us).unwrap();
        let found = &dir.leases().unwrap()[0];
        assert!(!found.trusted);
        assert_eq!(found.content, lease, "nothing has touched it");
        assert_eq!(found.take_back(), []);

        // What it is about is free for root, without what it says.
        dir.drop_strangers(&held, &|_| Some("process 7".to_owned()))
            .unwrap();
        assert_eq!(dir.leases().unwrap().len(), 1);
        dir.take_lease(&held, &extent(key), "x", &us, &|_| None)
            .unwrap();
        let found = &dir.leases().unwrap()[0];
        assert!(found.trusted && found.content.undo.is_empty());
        assert_eq!(found.content.run_dir, us.run_dir);
        dir.drop_strangers(&held, &|_| None).unwrap();
        assert_eq!(dir.leases().unwrap().len(), 1, "root's own stays");
        std::os::unix::fs::chown(&path, Some(4242), None).unwrap();
        dir.drop_strangers(&held, &|_| None).unwrap();
        assert_eq!(dir.leases().unwrap(), []);
    }
}

#[test]
fn a_new_lease_replaces_none() {
    let top = tempfile::tempdir().unwrap();
    let dir = HostDir::new(&top.path().join("host"));
    let held = dir.lock().unwrap();
    let us = user(top.path(), "us");
    dir.take_lease(&held, &extent("usb-1-1"), "x", &us, &|_| None)
        .unwrap();
    let lease = &dir.leases().unwrap()[0].content;
    let mut other = lease.clone();
    other.guest = "other".to_owned();
    assert!(!dir.write_new(LEASES, "usb-1-1", &other).unwrap());
    assert_eq!(&dir.leases().unwrap()[0].content, lease);
    assert!(dir.write_new(LEASES, "usb-1-2", &other).unwrap());
    let files = std::fs::read_dir(dir.path().join(LEASES)).unwrap();
    assert_eq!(files.count(), 2, "nothing half written stays");

    // What is no record is none in the way either.
    let odd = dir.path().join(LEASES).join("usb-1-3");
    std::os::unix::fs::symlink("/nowhere", odd).unwrap();
    dir.take_lease(&held, &extent("usb-1-3"), "x", &us, &|_| None)
        .unwrap();
    assert_eq!(dir.leases().unwrap()[2].content.guest, "us");
}

#[test]
fn odd_files_are_left_out() {
    use std::os::unix::ffi::OsStrExt;
    let top = tempfile::tempdir().unwrap();
    let dir = HostDir::new(&top.path().join("host"));
    let held = dir.lock().unwrap();
    let us = user(top.path(), "us");
    dir.take_lease(&held, &extent("usb-1-1"), "x", &us, &|_| None)
        .unwrap();
    let at = |name: &str| dir.path().join(LEASES).join(name);
    std::os::unix::fs::symlink(at("usb-1-1"), at("usb-1-2")).unwrap();
    std::fs::create_dir(at("usb-1-3")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("usb-1-4")).unwrap();
    nix::unistd::mkfifo(&at("usb-1-5"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::write(at("usb-1-6"), b"\xff{").unwrap();
    let name = std::ffi::OsStr::from_bytes(b"usb-\xff");
    std::fs::copy(at("usb-1-1"), dir.path().join(LEASES).join(name)).unwrap();
    let found = dir.leases().unwrap();
    let keys: Vec<&str> = found.iter().map(|found| found.key.as_str()).collect();
    assert_eq!(keys, ["usb-1-1"]);
    dir.take_lease(&held, &extent("usb-1-7"), "x", &us, &|_| None)
        .unwrap();
    dir.release_lease(&held, "usb-1-7", &us).unwrap();
}
