//! What the kernel refuses, told by its cause, and taken back whole.
#![expect(clippy::unwrap_used, reason = "tests")]

use nix::libc::{EBUSY, EINVAL, EIO, ENOENT, ENOSPC, ENOTTY, ERANGE};

use super::standin;
use super::{Host, Ops};
use crate::error::Hint as _;
use crate::hosts::{self, Kernel, difference, snapshot};
use crate::plan::step::{Bound, Interface, Step, User};

struct Setting {
    tree: hosts::Host,
    top: tempfile::TempDir,
    host: Host,
}

impl Setting {
    fn new(name: &str) -> Self {
        let tree = hosts::Host::new(name);
        let top = tempfile::tempdir().unwrap();
        standin::set(Some(tree.root()));
        let host = Host::sharing(&top.path().join("host"));
        standin::set(None);
        Self { tree, top, host }
    }

    fn user(&self) -> User {
        User {
            guest: "g".to_owned(),
            run_dir: self.top.path().join("g"),
        }
    }

    /// Runs a step that is refused, and its inverse; what was said.
    fn refused(&self, step: &Step) -> String {
        let before = snapshot(self.tree.root());
        let error = self.host.run(step).unwrap_err();
        let text = format!("{error} / {}", error.hints().join(" / "));
        self.host.run(&step.inverse().unwrap()).unwrap();
        let differs = difference(&before, &snapshot(self.tree.root()));
        assert_eq!(differs, [""; 0], "{text}");
        text
    }
}

#[test]
fn virtual_functions_that_cannot_be_made() {
    let on = Setting::new("server-nics");
    let pf = "0000:3b:00.0";
    let make = |pf: &str, count| Step::MakeVfs {
        pf: pf.parse().unwrap(),
        count,
        user: on.user(),
        keep: false,
        provision: None,
    };
    let root = on.tree.root().canonicalize().unwrap();
    let home = root.join("sys/bus/pci/devices").join(pf);
    let home = home.canonicalize().unwrap();
    let file = format!(
        "/{}/sriov_numvfs",
        home.strip_prefix(&root).unwrap().display()
    );
    for (number, cause) in [
        (EBUSY, "has virtual functions already"),
        (ERANGE, "cannot have that many: 4"),
        (ENOSPC, "no resources left"),
        (ENOENT, "has no driver that could make them"),
        (EIO, "did not do what its driver told it"),
        (EINVAL, "not enough bus numbers or room"),
    ] {
        Kernel::at(&root).fail_next(&file, number);
        let said = on.refused(&make(pf, 4));
        assert!(said.contains(cause) && said.contains(" / "), "{said}");
    }
    let said = on.refused(&make(pf, 400));
    assert!(said.contains("not 400"), "{said}");
    let said = on.refused(&make("0000:02:00.0", 1));
    assert!(said.contains("cannot make virtual functions"), "{said}");
}

#[test]
fn a_mediated_device_that_has_no_room() {
    let on = Setting::new("intel-i915-gvtg");
    let make = |type_id: &str| Step::MakeMdev {
        parent: "0000:00:02.0".to_owned(),
        type_id: type_id.to_owned(),
        uuid: uuid::Uuid::from_u128(9),
        keep: false,
    };
    // Half of what the GPU has is in use by the host.
    let said = on.refused(&make("i915-GVTg_V5_4"));
    assert!(
        said.contains("no room for another one of that type"),
        "{said}"
    );
    let said = on.refused(&make("i915-GVTg_V9_9"));
    assert!(
        said.contains("this host has no type `i915-GVTg_V9_9`"),
        "{said}"
    );
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let setting = Setting::new("server-nics");
    let bound = |driver: &str| Bound {
        driver: Some(driver.to_owned()),
        ..Bound::default()
    };
    let to = |from: Bound| Step::GiveBack {
        device: "3b:00.0".parse().unwrap(),
        driver: "vfio-pci".to_owned(),
        from,
    };
    let power = Bound {
        power_control: Some("../on".to_owned()),
        ..Bound::default()
    };
    let usb = Step::GiveBackUsb {
        port: "1-1".parse().unwrap(),
        interfaces: vec![Interface {
            name: "../../x".to_owned(),
            driver: None,
        }],
    };
    let before = snapshot(setting.tree.root());
    for step in [to(bound("../../x")), to(bound("..")), to(power), usb] {
        let error = setting.host.run(&step).unwrap_err().to_string();
        assert!(error.ends_with("is no name of anything in /sys"), "{error}");
    }
    let differs = difference(&before, &snapshot(setting.tree.root()));
    assert!(differs.is_empty(), "{differs:#?}");
}

#[test]
fn what_others_have_parts_of_is_not_taken_from_its_driver() {
    let bind = |device: &str| Step::BindDriver {
        device: device.parse().unwrap(),
        driver: "vfio-pci".to_owned(),
        from: Bound {
            driver: Some("ixgbe".to_owned()),
            ..Bound::default()
        },
    };
    // Made by whomever, between the look at the host and the lease.
    let on = Setting::new("server-nics");
    let pf = "0000:3b:00.0";
    let file = format!("sys/bus/pci/devices/{pf}/sriov_numvfs");
    let file = on.tree.root().join(file);
    let kernel = Kernel::at(on.tree.root());
    kernel.write(&file, b"2\n").unwrap();
    let before = snapshot(on.tree.root());
    let error = on.host.run(&bind(pf)).unwrap_err();
    let said = "0000:3b:00.0 has 2 virtual functions, which would go with its driver";
    assert_eq!(error.to_string(), said);
    assert!(!error.hints().is_empty());
    assert_eq!(difference(&before, &snapshot(on.tree.root())), [""; 0]);

    let on = Setting::new("intel-i915-gvtg");
    let before = snapshot(on.tree.root());
    let error = on.host.run(&bind("0000:00:02.0")).unwrap_err();
    let said = "0000:00:02.0 has a mediated device, which would go with its driver";
    assert_eq!(error.to_string(), said);
    assert_eq!(difference(&before, &snapshot(on.tree.root())), [""; 0]);
}

#[test]
fn a_driver_made_for_the_device_may_be_named_as_its_module_is() {
    let on = Setting::new("server-nics");
    let root = on.tree.root();
    let drivers = root.join("sys/bus/pci/drivers");
    std::fs::create_dir(drivers.join("mlx5-vfio-pci")).unwrap();
    for file in ["bind", "unbind", "new_id", "remove_id", "uevent"] {
        std::fs::write(drivers.join("mlx5-vfio-pci").join(file), "").unwrap();
    }
    let bind = |driver: &str| Step::BindDriver {
        device: "0000:d8:00.0".parse().unwrap(),
        driver: driver.to_owned(),
        from: Bound::default(),
    };
    let before = snapshot(root);
    let step = on.host.observe(&bind("mlx5_vfio_pci")).unwrap();
    on.host.run(&step).unwrap();
    let device = root.join("sys/bus/pci/devices/0000:d8:00.0");
    let driver = std::fs::read_link(device.join("driver")).unwrap();
    assert!(driver.ends_with("mlx5-vfio-pci"), "{}", driver.display());
    let taken = snapshot(root);
    on.host.run(&bind("mlx5_vfio_pci")).unwrap();
    assert_eq!(difference(&taken, &snapshot(root)), [""; 0]);
    on.host.run(&step.inverse().unwrap()).unwrap();
    assert_eq!(difference(&before, &snapshot(root)), [""; 0]);

    let error = on.host.run(&bind("xe_vfio_pci")).unwrap_err();
    assert_eq!(error.to_string(), "this kernel has no driver `xe_vfio_pci`");
    assert!(error.hints()[0].starts_with("`driver = \"vfio-pci\"`"));
}

#[test]
fn a_function_that_cannot_be_reset_is_given_back_all_the_same() {
    let on = Setting::new("server-nics");
    let root = on.tree.root().canonicalize().unwrap();
    let bind = Step::BindDriver {
        device: "0000:3b:00.1".parse().unwrap(),
        driver: "vfio-pci".to_owned(),
        from: Bound::default(),
    };
    let before = snapshot(&root);
    let step = on.host.observe(&bind).unwrap();
    on.host.run(&step).unwrap();
    let reset = root.join("sys/bus/pci/devices/0000:3b:00.1/reset");
    let file = reset.canonicalize().unwrap();
    let file = format!("/{}", file.strip_prefix(&root).unwrap().display());
    Kernel::at(&root).fail_next(&file, ENOTTY);
    on.host.run(&step.inverse().unwrap()).unwrap();
    assert_eq!(difference(&before, &snapshot(&root)), [""; 0]);
    // It was asked.
    let faults = std::fs::read_dir(root.join(".standin/faults")).unwrap();
    assert_eq!(faults.count(), 0);
}
