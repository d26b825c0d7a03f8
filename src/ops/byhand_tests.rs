//! `mvm bind` and its errors on a host that is a tree.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::byhand::{bind, unbind};
use super::{lock, standin};
use crate::handover::Extent;
use crate::hosts::{self, Kernel, difference, snapshot};
use crate::ids::PciRef;
use crate::plan::step::User;

const NIC: &str = "0000:3b:00.1";

#[test]
fn what_was_bound_by_hand_is_given_back_by_hand() {
    let tree = hosts::Host::new("server-nics");
    let top = tempfile::tempdir().unwrap();
    standin::set(Some(tree.root()));
    let place = standin::place(&top.path().join("host")).unwrap();
    let nic: PciRef = NIC.parse().unwrap();
    let before = snapshot(tree.root());
    assert!(!unbind(&place, nic).unwrap(), "nothing was bound");
    assert!(bind(&place, nic, "vfio-pci", None).unwrap());
    assert!(
        !bind(&place, nic, "vfio-pci", None).unwrap(),
        "it is already"
    );
    let driver = place.link_name(format!("bus/pci/devices/{NIC}/driver"));
    assert_eq!(driver.as_deref(), Some("vfio-pci"));
    assert!(unbind(&place, nic).unwrap());
    assert_eq!(difference(&before, &snapshot(tree.root())), [""; 0]);
    standin::set(None);
}

#[test]
fn a_user_gets_the_node_until_it_is_given_back() {
    use std::os::unix::fs::MetadataExt;

    let tree = hosts::Host::new("server-nics");
    let top = tempfile::tempdir().unwrap();
    standin::set(Some(tree.root()));
    let place = standin::place(&top.path().join("host")).unwrap();
    let nic: PciRef = NIC.parse().unwrap();
    let us = nix::unistd::Uid::effective();
    let (one, two) = if us.is_root() {
        (65534, 4242)
    } else {
        (us.as_raw(), us.as_raw())
    };
    let before = snapshot(tree.root());
    let node = || {
        let group = place.link_name(format!("bus/pci/devices/{NIC}/iommu_group"));
        let meta = std::fs::metadata(place.dev.join("vfio").join(group.unwrap())).unwrap();
        (meta.uid(), meta.mode() & 0o777)
    };
    assert!(bind(&place, nic, "vfio-pci", Some(one)).unwrap());
    assert_eq!(node(), (one, 0o600));
    assert!(
        !bind(&place, nic, "vfio-pci", Some(one)).unwrap(),
        "it is his"
    );
    assert_eq!(
        bind(&place, nic, "vfio-pci", Some(two)).unwrap(),
        one != two
    );
    assert_eq!(node(), (two, 0o600));
    assert!(unbind(&place, nic).unwrap());
    assert_eq!(difference(&before, &snapshot(tree.root())), [""; 0]);
    // One that was with vfio-pci before stays there, and its node is its own again.
    Kernel::at(tree.root())
        .write(
            &place.path(format!("bus/pci/devices/{NIC}/driver/unbind")),
            NIC.as_bytes(),
        )
        .unwrap();
    for (file, text) in [
        (format!("bus/pci/devices/{NIC}/driver_override"), "vfio-pci"),
        ("bus/pci/drivers_probe".to_owned(), NIC),
    ] {
        let path = place.path(file);
        Kernel::at(tree.root())
            .write(&path, text.as_bytes())
            .unwrap();
    }
    let before = snapshot(tree.root());
    assert!(bind(&place, nic, "vfio-pci", Some(two)).unwrap());
    assert!(unbind(&place, nic).unwrap());
    assert_eq!(difference(&before, &snapshot(tree.root())), [""; 0]);
    standin::set(None);
}

#[test]
fn what_cannot_be_taken_is_as_it_was_and_says_why() {
    use nix::libc::{EBUSY, EINVAL, ENODEV};

    let tree = hosts::Host::new("server-nics");
    let top = tempfile::tempdir().unwrap();
    standin::set(Some(tree.root()));
    let place = standin::place(&top.path().join("host")).unwrap();
    let kernel = Kernel::at(tree.root());
    let before = snapshot(tree.root());
    let home = std::fs::canonicalize(tree.root().join("sys/bus/pci/devices").join(NIC)).unwrap();
    let root = std::fs::canonicalize(tree.root()).unwrap();
    let own = format!("/{}", home.strip_prefix(&root).unwrap().display());
    for (file, number, cause) in [
        (
            "/sys/bus/pci/drivers_probe".to_owned(),
            EINVAL,
            "vfio-pci wants an IOMMU",
        ),
        (
            "/sys/bus/pci/drivers_probe".to_owned(),
            EBUSY,
            "has what the driver needs",
        ),
        (
            "/sys/bus/pci/drivers/ixgbe/unbind".to_owned(),
            EBUSY,
            "the device is in use",
        ),
        (
            "/sys/bus/pci/drivers/ixgbe/unbind".to_owned(),
            ENODEV,
            "has the device any more",
        ),
        (format!("{own}/driver_override"), EINVAL, "too long"),
    ] {
        kernel.fail_next(&file, number);
        let error = bind(&place, NIC.parse().unwrap(), "vfio-pci", None).unwrap_err();
        assert!(error.to_string().contains(cause), "{file}: {error}");
        assert_eq!(
            difference(&before, &snapshot(tree.root())),
            [""; 0],
            "{file}"
        );
        assert!(place.host.by_hand().unwrap().is_empty(), "{file}");
    }
    let error = bind(&place, "0000:77:00.0".parse().unwrap(), "vfio-pci", None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "this host has no PCI function 0000:77:00.0"
    );
    let error = bind(
        &place,
        "vf:3@0000:3b:00.1".parse().unwrap(),
        "vfio-pci",
        None,
    )
    .unwrap_err();
    let text = "0000:3b:00.1 has no virtual function 3: it has 0";
    assert_eq!(error.to_string(), text);
    let error = bind(&place, NIC.parse().unwrap(), "no-such-driver", None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "this kernel has no driver `no-such-driver`"
    );
    standin::set(None);
}

#[test]
fn nothing_is_taken_by_hand_of_which_a_guest_has_a_part() {
    let tree = hosts::Host::new("server-nics");
    let top = tempfile::tempdir().unwrap();
    standin::set(Some(tree.root()));
    let place = standin::place(&top.path().join("host")).unwrap();
    let user = User {
        guest: "web".to_owned(),
        run_dir: top.path().join("web"),
    };
    std::fs::create_dir(&user.run_dir).unwrap();
    let _life = lock::take(&user.run_dir.join("lock")).unwrap();
    let pf: PciRef = NIC.parse().unwrap();
    let vf: PciRef = format!("vf:1@{NIC}").parse().unwrap();
    let part_of = |key: &str| Extent {
        key: key.to_owned(),
        part_of: Some(pf),
    };
    let parts = [Extent::pci(vf), part_of("usb-1-3"), part_of("mdev-x")];
    for (theirs, ours) in parts
        .iter()
        .map(|part| (part, pf))
        .chain([(&Extent::pci(pf), vf)])
    {
        let held = place.host.lock().unwrap();
        let free = |_: &str| None;
        let take = place.host.take_lease(&held, theirs, "it", &user, &free);
        take.unwrap();
        drop(held);
        let error = bind(&place, ours, "vfio-pci", None).unwrap_err();
        assert_eq!(error.to_string(), "it is guest `web`'s", "{ours}");
        let held = place.host.lock().unwrap();
        place.host.release_lease(&held, &theirs.key, &user).unwrap();
    }
    // The same for what was taken before.
    assert!(bind(&place, pf, "vfio-pci", None).unwrap());
    let held = place.host.lock().unwrap();
    let take = place
        .host
        .take_lease(&held, &parts[1], "it", &user, &|_| None);
    take.unwrap();
    drop(held);
    let error = unbind(&place, pf).unwrap_err();
    assert_eq!(error.to_string(), "it is guest `web`'s");
    standin::set(None);
}
