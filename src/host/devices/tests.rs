//! The hosts of `tests/hosts`, read.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use super::*;
use crate::host::testing::{put, roots};
use crate::hosts::{self, Host};

fn read(name: &str) -> DeviceFacts {
    of(&Host::new(name))
}

fn of(host: &Host) -> DeviceFacts {
    DeviceFacts::read(&roots(host.root()))
}

fn at<'a>(facts: &'a DeviceFacts, bdf: &str) -> &'a PciDevice {
    facts.function(bdf.parse().unwrap()).unwrap()
}

fn whys(facts: &DeviceFacts, bdf: &str) -> Vec<String> {
    let why = facts.why_not(at(facts, bdf));
    why.iter().map(ToString::to_string).collect()
}

#[test]
fn every_host_is_read_and_survives_json() {
    for name in hosts::names() {
        let facts = read(&name);
        assert!(facts.pci.len() > 3, "{name}");
        assert!(facts.pci.is_sorted_by_key(|device| device.bdf), "{name}");
        let json = serde_json::to_string(&facts).unwrap();
        let again: DeviceFacts = serde_json::from_str(&json).unwrap();
        assert_eq!(again, facts, "{name}");
        // Nothing is the host's own way to its disk and not told.
        let root = |use_: &HostUse| matches!(use_, HostUse::Mounted { at, .. } if at == "/");
        let disk = facts.pci.iter().find(|d| d.used_by_host.iter().any(root));
        assert!(!facts.why_not(disk.unwrap()).is_empty(), "{name}");
    }
}

#[test]
fn links_that_are_switched_off_are_known() {
    let host = Host::new("server-nics");
    let flags = |link: &str, flags: &str| {
        put(host.root(), &format!("sys/class/net/{link}/flags"), flags);
    };
    flags("enp59s0f0", "0x1003\n");
    flags("enp59s0f1", "0x1002\n");
    let facts = of(&host);
    assert_eq!(at(&facts, "3b:00.0").net_down, [""; 0]);
    assert_eq!(at(&facts, "3b:00.1").net_down, ["enp59s0f1"]);
    assert_eq!(at(&facts, "5e:00.0").net_down, [""; 0], "it does not say");
}

#[test]
fn names_that_devices_give_themselves_have_single_spaces() {
    let host = Host::new("intel-i915-7vf");
    let stick = |manufacturer: &str, product: &str| {
        for (file, text) in [("manufacturer", manufacturer), ("product", product)] {
            put(
                host.root(),
                &format!("sys/bus/usb/devices/1-5/{file}"),
                text,
            );
        }
        let facts = of(&host);
        find::usb_line(facts.usb_at(&"1-5".parse().unwrap()).unwrap())
    };
    let rest = "[0781:5583] 4C530001230915116391";
    assert_eq!(
        stick("Sand  Disk ", "  Ultra\tFit"),
        format!("1-5 Sand Disk Ultra Fit {rest}")
    );
    let nameless = stick(" ", "  ");
    assert!(!nameless.contains("  "), "{nameless}");
}

#[test]
fn an_intel_gpu_and_its_virtual_functions() {
    let facts = read("intel-i915-7vf");
    let gpu = at(&facts, "00:02.0");
    assert_eq!(
        gpu.line(),
        "VGA compatible controller [0300]: Intel Corporation Raptor Lake-S GT1 [UHD Graphics 770] [8086:a780]"
    );
    assert_eq!(
        (gpu.driver.as_deref(), gpu.driver_override.as_deref()),
        (Some("i915"), None)
    );
    assert_eq!((gpu.group, gpu.numa, gpu.boot_vga), (Some(0), None, true));
    assert_eq!(gpu.reset_methods, ["flr", "pm"]);
    assert!(gpu.can_reset && gpu.is_gpu() && !gpu.bridge);
    assert_eq!(gpu.drm, ["card0", "renderD128"]);
    let sriov = gpu.sriov.as_ref().unwrap();
    assert_eq!((sriov.total, sriov.current, sriov.autoprobe), (7, 0, true));
    let place = |index| {
        facts
            .vf_address(gpu.bdf, index)
            .map(|(bdf, new)| (bdf.to_string(), new))
    };
    assert_eq!(place(1), Some(("0000:00:02.1".to_owned(), true)));
    assert_eq!(place(7), Some(("0000:00:02.7".to_owned(), true)));
    assert_eq!((place(0), place(8)), (None, None));
    assert_eq!(facts.vf_address("04:00.0".parse().unwrap(), 1), None);
    // A console is no obstacle: it is taken off the GPU for as long as a guest has it.
    assert_eq!(whys(&facts, "00:02.0"), [""; 0]);
    assert_eq!(
        gpu.used_by_host[0].to_string(),
        "the host's console is on it (vtcon1)"
    );

    assert_eq!(facts.iommu.width, Some(39));
    assert_eq!(facts.iommu.kind, Some(IommuKind::Intel));
    assert_eq!(facts.iommu.cpu_vendor, Some(CpuVendor::Intel));
    assert_eq!(facts.iommu.groups[&4].len(), 2);
    assert!(facts.iommu.on && facts.vfio.container && facts.vfio.iommufd);

    assert_eq!(whys(&facts, "04:00.0"), [""; 0]);
    assert_eq!(at(&facts, "04:00.0").net, ["enp4s0"]);
    assert_eq!(
        at(&facts, "04:00.0").parent,
        Some("00:1c.2".parse().unwrap())
    );
    assert_eq!(
        whys(&facts, "03:00.0"),
        ["the host's default route goes over enp3s0"]
    );
    assert_eq!(
        whys(&facts, "02:00.0"),
        [
            "nvme0n1p1 is mounted at /boot/efi",
            "nvme0n1p2 is mounted at /",
            "the host swaps to nvme0n1p3"
        ]
    );
    assert_eq!(at(&facts, "02:00.0").block, ["nvme0n1"]);
    assert_eq!(
        whys(&facts, "00:1f.3"),
        ["it shares IOMMU group 11 with 0000:00:1f.4 (i801_smbus), 0000:00:1f.5 (intel-spi)"]
    );
    assert_eq!(whys(&facts, "00:1c.0"), ["it is a bridge of the host"]);
}

#[test]
fn usb_ports_have_two_halves_and_one_name() {
    let facts = read("intel-i915-7vf");
    let disk = facts.usb_at(&"1-7.4".parse().unwrap()).unwrap();
    assert_eq!(
        (disk.path.as_str(), disk.bus, disk.address),
        ("2-7.4", 2, 3)
    );
    assert_eq!(
        (disk.speed.as_str(), disk.kinds.as_slice()),
        ("5000", &[UsbKind::Storage][..])
    );
    assert_eq!(disk.controller, Some("00:14.0".parse().unwrap()));
    assert_eq!(disk.interfaces[0].driver.as_deref(), Some("uas"));
    assert_eq!(find::usb(&facts, "2-7.4").unwrap(), disk);
    for (asked, port) in [
        ("keyboard", "1-3"),
        ("ethernet", "1-7.2"),
        ("bluetooth", "1-14"),
        ("storage:2", "1-7.4"),
        ("seagate", "1-7.4"),
        ("4C530001230915116391", "1-5"),
    ] {
        assert_eq!(
            find::usb(&facts, asked).unwrap().port.as_str(),
            port,
            "{asked}"
        );
    }
}

#[test]
fn a_boot_console_on_the_firmwares_frame_buffer() {
    let facts = read("nvidia-desktop");
    let gpu: Bdf = "01:00.0".parse().unwrap();
    let consoles: Vec<_> = facts
        .consoles
        .iter()
        .map(|c| (c.device.as_str(), c.gpu))
        .collect();
    assert_eq!(
        consoles,
        [("vtcon1", Some(gpu)), ("efi-framebuffer.0", Some(gpu))]
    );
    assert_eq!(whys(&facts, "01:00.0").len(), 1);
    assert_eq!(at(&facts, "01:00.0").used_by_host.len(), 2);
    // A logical volume is the root: up the holders' chain.
    assert_eq!(whys(&facts, "02:00.0"), ["dm-0 is mounted at /"]);
}

#[test]
fn a_domain_of_its_own_goes_with_its_controller() {
    let facts = read("vmd");
    let mounted = "nvme0n1p2 is mounted at /".to_owned();
    assert!(whys(&facts, "10000:e1:00.0").contains(&mounted));
    assert!(whys(&facts, "00:0e.0").contains(&mounted));
    assert!(!whys(&facts, "10000:e2:00.0").contains(&mounted));
}

#[test]
fn a_servers_nics_in_every_use() {
    let facts = read("server-nics");
    insta::assert_snapshot!(
        facts
            .pci
            .iter()
            .filter(|device| device.base_class() == 0x02)
            .map(|device| format!(
                "{} {} {}: {}",
                device.reference(),
                device.numa.map_or_else(String::new, |node| node.to_string()),
                device.net.join(","),
                whys(&facts, &device.bdf.to_string()).join("; ")
            ))
            .collect::<Vec<_>>()
            .join("\n"),
        @r#"
        0000:3b:00.0 0 enp59s0f0: the host's default route goes over enp59s0f0; enp59s0f0 is a port of bridge br0
        0000:3b:00.1 0 enp59s0f1: 
        0000:5e:00.0 0 enp94s0f0: it has 4 virtual functions
        0000:5e:00.1 0 enp94s0f1: 
        vf:1@0000:5e:00.0 0 enp94s0f0v0: 
        vf:2@0000:5e:00.0 0 enp94s0f0v1: 
        vf:3@0000:5e:00.0 0 enp94s0f0v2: 
        vf:4@0000:5e:00.0 0 enp94s0f0v3: 
        0000:d8:00.0 1 enp216s0f0np0: enp216s0f0np0 is a part of bond0
        0000:d8:00.1 1 enp216s0f1np1:
        "#
    );
    let pf: Bdf = "5e:00.0".parse().unwrap();
    let vf = PciRef::Vf { pf, index: 2 };
    assert_eq!(facts.get(vf).unwrap().bdf.to_string(), "0000:5e:02.1");
    assert_eq!(facts.name("5e:02.1".parse().unwrap()), vf);
    assert_eq!(
        facts.vf_address(pf, 2),
        Some(("5e:02.1".parse().unwrap(), false))
    );
    // X520: 128 and 2 apart, over the end of the bus' first devices.
    let (far, new) = facts.vf_address("3b:00.0".parse().unwrap(), 63).unwrap();
    assert_eq!((far.to_string().as_str(), new), ("0000:3b:1f.4", true));
}

#[test]
fn mediated_devices_and_their_types() {
    let facts = read("intel-i915-gvtg");
    insta::assert_debug_snapshot!((&facts.mdev_parents, &facts.mdevs), @r#"
    (
        [
            MdevParent {
                name: "0000:00:02.0",
                bdf: Some(
                    Bdf {
                        domain: 0,
                        bus: 0,
                        device: 2,
                        function: 0,
                    },
                ),
                types: [
                    MdevType {
                        id: "i915-GVTg_V5_4",
                        name: "GVTg_V5_4",
                        description: "low_gm_size: 128MB, high_gm_size: 512MB, fence: 4, resolution: 1920x1200, weight: 4",
                        available: Some(
                            0,
                        ),
                        devices: [],
                    },
                    MdevType {
                        id: "i915-GVTg_V5_8",
                        name: "GVTg_V5_8",
                        description: "low_gm_size: 64MB, high_gm_size: 384MB, fence: 4, resolution: 1024x768, weight: 2",
                        available: Some(
                            1,
                        ),
                        devices: [
                            3b1e2a46-8c5f-4f0e-9d13-6a2f0c7b1e55,
                        ],
                    },
                ],
            },
        ],
        [
            Mdev {
                uuid: 3b1e2a46-8c5f-4f0e-9d13-6a2f0c7b1e55,
                parent: "0000:00:02.0",
                type_id: "i915-GVTg_V5_8",
                group: Some(
                    3,
                ),
                driver: Some(
                    "intel_vgpu_mdev",
                ),
            },
        ],
    )
    "#);
    assert!(whys(&facts, "00:02.0").contains(&"it has a mediated device".to_owned()));
    assert_eq!(facts.mdev_types("00:02.0".parse().unwrap()).len(), 2);
}

#[test]
fn hosts_without_an_iommu_say_how_it_would_be_on() {
    let facts = read("no-iommu");
    assert!(!facts.iommu.on);
    assert_eq!(facts.iommu.boot_loader, Some(BootLoader::Grub));
    assert!(whys(&facts, "01:00.1").contains(&"the host's IOMMU is off or missing".to_owned()));
    let facts = read("no-iommu-amd");
    assert_eq!(facts.iommu.cpu_vendor, Some(CpuVendor::Amd));
    assert_eq!(facts.iommu.boot_loader, Some(BootLoader::SystemdBoot));
    assert_eq!(read("arm-smmu").iommu.kind, Some(IommuKind::Smmu));
}

#[test]
fn with_a_device_tree_a_function_without_a_driver_is_in_no_group_yet() {
    let host = Host::new("arm-smmu");
    let nic = host.sys().join("bus/pci/devices/0005:01:00.0");
    let lose = |link: &str| std::fs::remove_file(nic.join(link)).unwrap();
    assert!(of(&host).iommu.late_groups);
    lose("iommu_group");
    assert_eq!(whys(&of(&host), "5:01:00.0"), ["it is in no IOMMU group"]);
    lose("driver");
    assert_eq!(whys(&of(&host), "5:01:00.0"), [""; 0]);

    // Without the unit there is nothing to come.
    std::fs::remove_dir_all(host.sys().join("class/iommu")).unwrap();
    assert!(!of(&host).iommu.late_groups);
    assert_eq!(whys(&of(&host), "5:01:00.0"), ["it is in no IOMMU group"]);
}

#[test]
fn vfio_pci_is_found_among_modules_that_are_all_in_one_folder() {
    let host = Host::new("no-iommu");
    let available = || of(&host).vfio.pci_available;
    put(host.root(), "proc/sys/kernel/osrelease", "6.6.1\n");
    let list = |text: &str| put(host.root(), "lib/modules/6.6.1/modules.dep", text);
    list("tun.ko:\nkernel/drivers/vfio/pci/not-vfio-pci.ko:\n");
    assert_eq!(available(), Some(false));
    list("tun.ko:\nvfio-pci.ko: vfio.ko\n");
    assert_eq!(available(), Some(true));
    list("kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/drivers/vfio/vfio.ko.xz\n");
    assert_eq!(available(), Some(true));
}

#[test]
fn guests_keep_what_they_lease_and_what_belongs_to_it() {
    let host = Host::new("server-nics");
    let lease = |key: &str, guest: &str, run_dir: &str| {
        let text = format!(
            r#"{{"device": "x", "guest": "{guest}", "run-dir": "{run_dir}", "uid": 0, "pid": 1, "since": 1}}"#
        );
        put(host.root(), &format!("run/mvm-host/leases/{key}"), &text);
    };
    lease("pci-0000:3b:00.1", "web", "/nowhere");
    lease("pci-0000:5e:00.0-vf2", "db", "/nowhere");
    put(host.root(), "run/mvm-host/leases/.new", "{");
    put(host.root(), "run/mvm-host/leases/usb-1-1", "torn");
    // Whoever put a FIFO there, or named one as a guest's, makes nobody wait.
    let fifo = |path: &str| {
        let path = host.root().join(path);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    };
    fifo("run/mvm-host/leases/usb-1-2");
    std::fs::create_dir(host.root().join("run/odd")).unwrap();
    fifo("run/odd/lock");
    lease(
        "usb-1-4",
        "odd",
        host.root().join("run/odd").to_str().unwrap(),
    );
    let facts = of(&host);
    assert_eq!(facts.leases.len(), 5);
    assert_eq!(facts.leases[3].guest, "?");
    assert_eq!(facts.leases[4].holder, Holder::Gone);
    assert_eq!(
        whys(&facts, "3b:00.1"),
        ["guest web had it and is gone: `mvm recover`"]
    );
    let db = |bdf: &str| whys(&facts, bdf).iter().any(|why| why.contains("guest db"));
    assert!(db("5e:02.1") && db("5e:00.0") && !db("5e:02.0"));
    let torn = &facts.leases[2];
    let path = host.root().join("run/mvm-host/leases/usb-1-1");
    assert_eq!(torn.damaged.as_deref(), Some(path.as_path()));
    assert_eq!((torn.guest.as_str(), torn.holder), ("?", Holder::Unknown));
}

#[test]
fn a_lease_lives_while_its_guests_lock_is_held() {
    use nix::fcntl::{FcntlArg, fcntl};
    let host = Host::new("no-iommu");
    let run = host.root().join("run/guest");
    put(host.root(), "run/guest/lock", "7\n");
    let text = format!(r#"{{"guest": "g", "run-dir": "{}"}}"#, run.display());
    put(host.root(), "run/mvm-host/leases/pci-0000:01:00.0", &text);
    let holder = || of(&host).leases[0].holder;
    assert_eq!(holder(), Holder::Gone);
    let file = std::fs::File::options()
        .write(true)
        .open(run.join("lock"))
        .unwrap();
    let whole = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as nix::libc::c_short,
        l_whence: nix::libc::SEEK_SET as nix::libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)).unwrap();
    assert_eq!(holder(), Holder::Alive);

    // So is a device that something is being done to.
    let busy = host.root().join("run/mvm-host/busy/pci-0000:01:00.1");
    put(
        host.root(),
        "run/mvm-host/busy/pci-0000:01:00.1",
        "unbind (process 7)\n",
    );
    let under_way = || at(&of(&host), "01:00.1").under_way.clone();
    assert_eq!(under_way(), None);
    let file = std::fs::File::options().write(true).open(busy).unwrap();
    fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)).unwrap();
    assert_eq!(under_way().as_deref(), Some("unbind (process 7)"));
    let why = whys(&of(&host), "01:00.1").join("; ");
    assert!(
        why.contains("mvm is not done with it: unbind (process 7)"),
        "{why}"
    );
}
