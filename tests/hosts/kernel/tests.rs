use std::path::Path;

use super::super::{Host, difference, snapshot};

fn errno(host: &Host, file: &str, text: &str) -> Option<i32> {
    let at = host.sys().join(file);
    host.kernel()
        .write(&at, text.as_bytes())
        .err()
        .map(|e| e.raw_os_error().unwrap_or_else(|| panic!("{file}: {e}")))
}

fn ok(host: &Host, file: &str, text: &str) {
    assert_eq!(errno(host, file, text), None, "{file} <- {text:?}");
}

fn read(host: &Host, file: &str) -> String {
    std::fs::read_to_string(host.sys().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

fn driver(host: &Host, bdf: &str) -> Option<String> {
    let link = host.sys().join(format!("bus/pci/devices/{bdf}/driver"));
    let to = std::fs::read_link(link).ok()?;
    Some(to.file_name().unwrap().to_str().unwrap().to_owned())
}

fn everything(host: &Host) -> Vec<String> {
    snapshot(host.root())
}

fn same(host: &Host, before: &[String], when: &str) {
    let differs = difference(before, &everything(host));
    assert!(differs.is_empty(), "{when}: {differs:#?}");
}

const NIC: &str = "bus/pci/devices/0000:04:00.0";

#[test]
fn a_device_goes_to_vfio_and_back() {
    let host = Host::new("intel-i915-7vf");
    let before = everything(&host);
    ok(&host, &format!("{NIC}/driver_override"), "vfio-pci");
    assert_eq!(read(&host, &format!("{NIC}/driver_override")), "vfio-pci\n");
    ok(&host, &format!("{NIC}/driver/unbind"), "0000:04:00.0");
    assert_eq!(driver(&host, "0000:04:00.0"), None);
    assert!(!host.sys().join("class/net/enp4s0").exists());
    assert!(!host.sys().join(NIC).join("net").exists());
    ok(&host, "bus/pci/drivers_probe", "0000:04:00.0\n");
    assert_eq!(driver(&host, "0000:04:00.0").as_deref(), Some("vfio-pci"));
    assert!(host.root().join("dev/vfio/14").exists());
    assert_eq!(read(&host, &format!("{NIC}/power/control")), "auto\n");
    assert!(read(&host, &format!("{NIC}/uevent")).starts_with("DRIVER=vfio-pci\n"));

    // An empty write does nothing, a line end clears.
    ok(&host, &format!("{NIC}/driver_override"), "");
    assert_eq!(read(&host, &format!("{NIC}/driver_override")), "vfio-pci\n");
    ok(&host, &format!("{NIC}/driver_override"), "\n");
    assert_eq!(read(&host, &format!("{NIC}/driver_override")), "(null)\n");
    ok(&host, "bus/pci/drivers/vfio-pci/unbind", "0000:04:00.0");
    ok(&host, "bus/pci/drivers_probe", "0000:04:00.0");
    same(&host, &before, "in the end");
}

#[test]
fn what_the_kernel_refuses() {
    use nix::libc::{EBUSY, EINVAL, ENODEV, ENOENT};
    let host = Host::new("intel-i915-7vf");
    for (file, text, error) in [
        ("bus/pci/drivers/vfio-pci/bind", "0000:04:00.0", ENODEV),
        ("bus/pci/drivers/igc/bind", "0000:04:00.0", EBUSY),
        ("bus/pci/drivers/igc/unbind", "0000:02:00.0", ENODEV),
        ("bus/pci/drivers_probe", "0000:99:00.0", ENODEV),
        ("bus/pci/devices/0000:04:00.0/reset", "2", EINVAL),
        ("bus/pci/devices/0000:04:00.0/power/control", "off", EINVAL),
        ("bus/pci/devices/0000:04:00.0/nothing", "1", ENOENT),
        ("bus/pci/devices/0000:02:00.0/sriov_numvfs", "1", ENOENT),
    ] {
        assert_eq!(errno(&host, file, text), Some(error), "{file} <- {text}");
    }
    // Bound to nothing, and asked for by name only: a bridge is not for vfio-pci.
    let port = "bus/pci/devices/0000:00:1c.2";
    ok(&host, &format!("{port}/driver_override"), "vfio-pci");
    ok(&host, "bus/pci/drivers/pcieport/unbind", "0000:00:1c.2");
    assert_eq!(
        errno(&host, "bus/pci/drivers/vfio-pci/bind", "0000:00:1c.2"),
        Some(EINVAL)
    );
    ok(&host, "bus/pci/drivers_probe", "0000:00:1c.2");
    assert_eq!(driver(&host, "0000:00:1c.2"), None);
    // Writing what is not known says so, rather than passing for done.
    let file = host.sys().join("bus/pci/devices/0000:04:00.0/class");
    assert_eq!(
        host.kernel().write(&file, b"1").unwrap_err().raw_os_error(),
        None
    );
    host.kernel()
        .fail_next("/sys/devices/pci0000:00/0000:00:02.0/sriov_numvfs", 28);
    let numvfs = "bus/pci/devices/0000:00:02.0/sriov_numvfs";
    assert_eq!(errno(&host, numvfs, "1"), Some(28));
    ok(&host, numvfs, "1");
}

#[test]
fn virtual_functions_come_and_go() {
    use nix::libc::{EBUSY, EINVAL, ENODEV, ENOENT, ERANGE};
    let host = Host::new("intel-i915-7vf");
    let before = everything(&host);
    let pf = "bus/pci/devices/0000:00:02.0";
    let numvfs = format!("{pf}/sriov_numvfs");
    assert_eq!(errno(&host, &numvfs, "8"), Some(ERANGE));
    assert_eq!(errno(&host, &numvfs, "many"), Some(EINVAL));
    ok(&host, &format!("{pf}/sriov_drivers_autoprobe"), "0");
    ok(&host, &numvfs, "7");
    ok(&host, &numvfs, "7\n");
    assert_eq!(errno(&host, &numvfs, "3"), Some(EBUSY));
    for k in 1..=7 {
        let vf = format!("bus/pci/devices/0000:00:02.{k}");
        assert_eq!(driver(&host, &format!("0000:00:02.{k}")), None);
        let group = std::fs::read_link(host.sys().join(&vf).join("iommu_group")).unwrap();
        assert_eq!(
            group.file_name().unwrap().to_str(),
            Some(format!("{}", 14 + k).as_str())
        );
        let link =
            std::fs::read_link(host.sys().join(pf).join(format!("virtfn{}", k - 1))).unwrap();
        assert_eq!(link, Path::new(&format!("../0000:00:02.{k}")));
        assert_eq!(read(&host, &format!("{vf}/physfn/sriov_numvfs")), "7\n");
        assert!(
            host.sys()
                .join(pf)
                .join(format!("drm/card0/prelim_iov/vf{k}/device"))
                .exists()
        );
    }
    // Not probed while that is off, unless somebody names the driver.
    ok(&host, "bus/pci/drivers_probe", "0000:00:02.1");
    assert_eq!(driver(&host, "0000:00:02.1"), None);
    assert_eq!(
        errno(&host, "bus/pci/drivers/i915/bind", "0000:00:02.1"),
        Some(ENODEV)
    );
    ok(
        &host,
        "bus/pci/devices/0000:00:02.1/driver_override",
        "vfio-pci",
    );
    ok(&host, "bus/pci/drivers_probe", "0000:00:02.1");
    assert_eq!(driver(&host, "0000:00:02.1").as_deref(), Some("vfio-pci"));
    assert!(host.root().join("dev/vfio/15").exists());
    ok(&host, &format!("{pf}/sriov_drivers_autoprobe"), "1");
    ok(&host, "bus/pci/drivers_probe", "0000:00:02.2");
    assert_eq!(driver(&host, "0000:00:02.2").as_deref(), Some("i915"));
    ok(&host, &numvfs, "0");
    same(&host, &before, "in the end");

    // i915 takes its VFs along; without a driver there are none to be had.
    ok(&host, &numvfs, "2");
    ok(&host, &format!("{pf}/driver/unbind"), "0000:00:02.0");
    assert_eq!(read(&host, &numvfs), "0\n");
    assert!(!host.sys().join("class/drm/card0").exists());
    assert_eq!(errno(&host, &numvfs, "1"), Some(ENOENT));
    ok(&host, "bus/pci/drivers_probe", "0000:00:02.0");
    same(&host, &before, "in the end");
}

#[test]
fn consoles_and_what_holds_them() {
    let host = Host::new("nvidia-desktop");
    let before = everything(&host);
    ok(&host, "class/vtconsole/vtcon1/bind", "0");
    assert_eq!(read(&host, "class/vtconsole/vtcon0/bind"), "1\n");
    ok(
        &host,
        "bus/platform/drivers/efi-framebuffer/unbind",
        "efi-framebuffer.0",
    );
    assert!(!host.sys().join("class/graphics/fb0").exists());
    ok(
        &host,
        "bus/platform/drivers/efi-framebuffer/bind",
        "efi-framebuffer.0",
    );
    ok(&host, "class/vtconsole/vtcon1/bind", "1");
    same(&host, &before, "in the end");
}

#[test]
fn usb_devices_and_their_controller() {
    let host = Host::new("intel-i915-7vf");
    let before = everything(&host);
    for (off, on) in [("authorized 0", "authorized 1"), ("unbind", "bind")] {
        let write = |what: &str| match what.split_once(' ') {
            Some((file, text)) => ok(&host, &format!("bus/usb/devices/1-5/{file}"), text),
            None => ok(&host, &format!("bus/usb/drivers/usb/{what}"), "1-5"),
        };
        write(off);
        assert!(!host.sys().join("bus/usb/devices/1-5:1.0").exists());
        write(on);
        same(&host, &before, on);
    }
    // What a killed QEMU leaves: an interface without its driver.
    ok(&host, "bus/usb/drivers/usbhid/unbind", "1-3:1.0");
    ok(&host, "bus/usb/drivers_probe", "1-3:1.0");
    same(&host, &before, "in the end");
    // The whole controller.
    ok(&host, "bus/pci/drivers/xhci_hcd/unbind", "0000:00:14.0");
    assert!(!host.sys().join("bus/usb/devices/usb1").exists());
    assert!(!host.sys().join("bus/usb/drivers/usbhid/1-3:1.0").exists());
    ok(&host, "bus/pci/drivers/xhci_hcd/bind", "0000:00:14.0");
    same(&host, &before, "in the end");
}

#[test]
fn settings_of_virtual_functions() {
    let host = Host::new("intel-i915-7vf");
    let vf = "class/drm/card0/prelim_iov/vf3/gt0";
    ok(&host, &format!("{vf}/exec_quantum_ms"), "25");
    assert_eq!(read(&host, &format!("{vf}/exec_quantum_ms")), "25\n");
    assert_eq!(
        errno(&host, &format!("{vf}/exec_quantum_ms"), "soon"),
        Some(nix::libc::EINVAL)
    );
    let host = Host::new("intel-xe-7vf-debugfs");
    ok(
        &host,
        "kernel/debug/dri/0000:00:02.0/gt1/vf7/contexts_quota",
        "7314",
    );
}

#[test]
fn mediated_devices() {
    use nix::libc::{EEXIST, EINVAL, ENOSPC};
    let host = Host::new("intel-i915-gvtg");
    let before = everything(&host);
    let types = "bus/pci/devices/0000:00:02.0/mdev_supported_types";
    let left = |kind: &str| {
        read(
            &host,
            &format!("{types}/i915-GVTg_{kind}/available_instances"),
        )
    };
    assert_eq!(
        (left("V5_4"), left("V5_8")),
        ("0\n".to_owned(), "1\n".to_owned())
    );
    let there = "3b1e2a46-8c5f-4f0e-9d13-6a2f0c7b1e55";
    let new = "11111111-2222-4333-8444-555555555555";
    for (kind, text, error) in [
        ("V5_4", new, ENOSPC),
        ("V5_8", there, EEXIST),
        ("V5_8", "11111111", EINVAL),
        ("V5_8", "zzzzzzzz-2222-4333-8444-555555555555", EINVAL),
    ] {
        let create = format!("{types}/i915-GVTg_{kind}/create");
        assert_eq!(errno(&host, &create, text), Some(error), "{text}");
    }
    ok(&host, &format!("{types}/i915-GVTg_V5_8/create"), new);
    assert_eq!(left("V5_8"), "0\n");
    let at = format!("bus/mdev/devices/{new}");
    assert!(
        host.sys()
            .join(&at)
            .join("iommu_group/devices")
            .join(new)
            .exists()
    );
    ok(&host, &format!("{at}/remove"), "1");
    same(&host, &before, "in the end");
    ok(&host, &format!("bus/mdev/devices/{there}/remove"), "1\n");
    assert_eq!(left("V5_4"), "1\n");
}

#[test]
fn a_server_whose_host_had_made_functions() {
    use nix::libc::{EBUSY, ENOMEM};
    let host = Host::new("server-nics");
    let before = everything(&host);
    let pf = "bus/pci/devices/0000:5e:00.0";
    assert_eq!(read(&host, &format!("{pf}/sriov_numvfs")), "4\n");
    assert_eq!(driver(&host, "0000:5e:02.3").as_deref(), Some("iavf"));
    assert!(host.sys().join("class/net/enp94s0f0v3/address").exists());
    assert_eq!(
        errno(&host, &format!("{pf}/sriov_numvfs"), "5"),
        Some(EBUSY)
    );
    // Those of the other port follow the first port's.
    ok(&host, "bus/pci/devices/0000:d8:00.1/sriov_numvfs", "8");
    assert_eq!(driver(&host, "0000:d8:01.2").as_deref(), Some("mlx5_core"));
    ok(&host, "bus/pci/devices/0000:d8:00.1/sriov_numvfs", "0");
    same(&host, &before, "in the end");
    // vfio-pci takes no function whose VFs live.
    ok(&host, &format!("{pf}/driver_override"), "vfio-pci");
    ok(&host, "bus/pci/drivers/i40e/unbind", "0000:5e:00.0");
    assert_eq!(read(&host, &format!("{pf}/sriov_numvfs")), "0\n");
    // A bridge with too few buses.
    let bridge = host.sys().join("bus/pci/devices/0000:3a:00.0/config");
    let mut config = std::fs::read(&bridge).unwrap();
    assert_eq!(config[0x19..0x1b], [0x3b, 0x3b]);
    config[0x1a] = 0x3a;
    std::fs::write(&bridge, config).unwrap();
    assert_eq!(
        errno(&host, "bus/pci/devices/0000:3b:00.1/sriov_numvfs", "1"),
        Some(ENOMEM)
    );
}
