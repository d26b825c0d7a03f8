//! Who gets what, on the hosts of `tests/hosts` with guests on them.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::sync::OnceLock;

use super::{HostDeviceKind, HostPci};
use crate::error::{Hint as _, Report};
use crate::host::devices::{DeviceFacts, Holder, Lease, MdevParent, MdevType, PciDevice, Variant};
use crate::host::{HostFacts, KvmState, Roots, Sysfs};
use crate::hosts::Host;
use crate::ids::Bdf;
use crate::machine::testing::{facts, machine_on};
use crate::machine::{AccelKind, Machine};
use crate::owner::{Owner, Process};

fn read(name: &str) -> DeviceFacts {
    let host = Host::new(name);
    DeviceFacts::read(&Roots {
        sysfs: Sysfs::at(host.sys()),
        root: host.root().to_owned(),
        cache: None,
        user_config: None,
        around_devices: Some(host.root().to_owned()),
        leases: host.root().join("run/mvm-host"),
    })
}

fn intel() -> DeviceFacts {
    static INTEL: OnceLock<DeviceFacts> = OnceLock::new();
    INTEL.get_or_init(|| read("intel-i915-7vf")).clone()
}

fn server() -> DeviceFacts {
    static SERVER: OnceLock<DeviceFacts> = OnceLock::new();
    SERVER.get_or_init(|| read("server-nics")).clone()
}

fn with(devices: DeviceFacts) -> HostFacts {
    HostFacts { devices, ..facts() }
}

/// That another guest has it.
fn lease(devices: &mut DeviceFacts, key: &str, holder: Holder) {
    devices.leases.push(Lease {
        key: key.to_owned(),
        guest: "other".to_owned(),
        holder,
        ..Lease::default()
    });
}

fn made(text: &str, devices: &DeviceFacts) -> Machine {
    machine_on(text, &with(devices.clone())).unwrap()
}

fn told(text: &str, devices: &DeviceFacts) -> String {
    let error = machine_on(text, &with(devices.clone())).unwrap_err();
    let hints = error.hints();
    let report = Report::from(error);
    format!("{}\n{}", report.chain.join(": "), hints.join("\n"))
        .trim()
        .to_owned()
}

fn function(machine: &Machine) -> String {
    match &machine.host_devices[0].kind {
        HostDeviceKind::Pci(HostPci { function, .. }) => function.to_string(),
        other => panic!("{other:?}"),
    }
}

fn at<'a>(devices: &'a mut DeviceFacts, bdf: &str) -> &'a mut PciDevice {
    let bdf: Bdf = bdf.parse().unwrap();
    devices
        .pci
        .iter_mut()
        .find(|device| device.bdf == bdf)
        .unwrap()
}

#[test]
fn a_virtual_function_is_one_guests() {
    let mut devices = intel();
    lease(&mut devices, "pci-0000:00:02.0-vf1", Holder::Alive);
    assert_eq!(
        function(&made("[gpu]\nvf = 'auto'", &devices)),
        "vf:2@0000:00:02.0"
    );
    insta::assert_snapshot!(told("[gpu]\nvf = 1", &devices), @r#"
    `[gpu]`: guest other has vf:1@0000:00:02.0
    `mvm stop other` gives it back, or `mvm detach other NAME` (`mvm show other` has the name)
    "#);
    insta::assert_snapshot!(told("[gpu]\nwhole = true", &devices), @r#"
    `[gpu]`: guest other has vf:1@0000:00:02.0
    `mvm stop other` gives it back, or `mvm detach other NAME` (`mvm show other` has the name)
    "#);

    insta::assert_snapshot!(told("[gpu]\nwhole = true\nvendor = 'nvidia'", &devices), @"
    `[gpu]`: this host has no GPU of NVIDIA's
    it has: 0000:00:02.0 Intel Corporation Raptor Lake-S GT1 [UHD Graphics 770] [8086:a780]
    ");

    // What a guest left behind is given back before this one starts; what cannot be looked at is held.
    devices.leases[0].holder = Holder::Gone;
    assert_eq!(
        function(&made("[gpu]\nvf = 1", &devices)),
        "vf:1@0000:00:02.0"
    );
    devices.leases[0].holder = Holder::Unknown;
    assert!(machine_on("[gpu]\nvf = 1", &with(devices.clone())).is_err());

    // Its own lease is no obstacle.
    devices.leases[0].guest = "test".to_owned();
    assert_eq!(
        function(&made("[gpu]\nvf = 1", &devices)),
        "vf:1@0000:00:02.0"
    );
}

#[test]
fn when_all_are_taken_it_is_told_by_whom() {
    let mut devices = intel();
    for index in 1..=2 {
        lease(
            &mut devices,
            &format!("pci-0000:00:02.0-vf{index}"),
            Holder::Alive,
        );
    }
    insta::assert_snapshot!(told("[gpu]\nvf = 'auto'\ncount = 2", &devices), @r#"
    `[gpu]`: no virtual function of 0000:00:02.0 Intel Corporation Raptor Lake-S GT1 [UHD Graphics 770] [8086:a780] is free
    number 1: guest other has it
    number 2: guest other has it
    "#);
    lease(&mut devices, "pci-0000:00:02.0", Holder::Alive);
    insta::assert_snapshot!(told("[gpu]\nvf = 'auto'", &devices), @r#"
    `[gpu]`: guest other has 0000:00:02.0
    `mvm stop other` gives it back, or `mvm detach other NAME` (`mvm show other` has the name)
    "#);
}

#[test]
fn of_several_gpus_the_one_with_the_fewest_guests_is_taken() {
    let mut devices = intel();
    let mut second = at(&mut devices, "00:02.0").clone();
    second.bdf = "0000:08:00.0".parse().unwrap();
    devices.pci.push(second);
    assert_eq!(
        function(&made("[gpu]\nvf = 'auto'", &devices)),
        "vf:1@0000:00:02.0"
    );
    lease(&mut devices, "pci-0000:00:02.0-vf7", Holder::Alive);
    assert_eq!(
        function(&made("[gpu]\nvf = 'auto'", &devices)),
        "vf:1@0000:08:00.0"
    );
    assert_eq!(
        function(&made("[gpu]\nvf = 'auto'\naddress = '00:02.0'", &devices)),
        "vf:1@0000:00:02.0"
    );
    insta::assert_snapshot!(told("[gpu]\nvf = 9", &devices), @r#"
    `[gpu]`: no virtual function of 0000:00:02.0 or 0000:08:00.0 is free
    `[gpu]`: there is no virtual function 9 of 0000:00:02.0 Intel Corporation Raptor Lake-S GT1 [UHD Graphics 770] [8086:a780]: it can have 7
    `[gpu]`: there is no virtual function 9 of 0000:08:00.0 Intel Corporation Raptor Lake-S GT1 [UHD Graphics 770] [8086:a780]: it can have 7
    "#);
}

#[test]
fn a_guest_that_is_bound_to_a_node_takes_the_gpu_there() {
    let mut devices = intel();
    let mut second = at(&mut devices, "00:02.0").clone();
    second.bdf = "0000:d8:00.0".parse().unwrap();
    second.numa = Some(1);
    devices.pci.push(second);
    at(&mut devices, "00:02.0").numa = Some(0);
    let auto = |devices: &DeviceFacts| function(&made("[gpu]\nvf = 'auto'", devices));
    assert_eq!(auto(&devices), "vf:1@0000:00:02.0");
    devices.near = vec![1];
    assert_eq!(auto(&devices), "vf:1@0000:d8:00.0");
    lease(&mut devices, "pci-0000:d8:00.0-vf1", Holder::Alive);
    assert_eq!(auto(&devices), "vf:2@0000:d8:00.0");
    // A far one is better than none.
    lease(&mut devices, "pci-0000:d8:00.0", Holder::Alive);
    assert_eq!(auto(&devices), "vf:1@0000:00:02.0");
}

#[test]
fn the_driver_is_the_one_made_for_the_device() {
    let mut devices = intel();
    devices.vfio.variants = vec![Variant {
        pattern: "v00008086d*sv*sd*bc03sc*i*".to_owned(),
        driver: "i915_vfio_pci".to_owned(),
    }];
    let driver = |text: &str, devices: &DeviceFacts| match &made(text, devices).host_devices[0].kind
    {
        HostDeviceKind::Pci(pci) => pci.driver.clone(),
        other => panic!("{other:?}"),
    };
    let vf = "[gpu]\nvf = 1";
    assert_eq!(driver(vf, &devices), "i915_vfio_pci");
    assert_eq!(driver("[pci.s]\naddress = '00:14.3'", &devices), "vfio-pci");
    let general = format!("{vf}\ndriver = 'vfio-pci'");
    assert_eq!(driver(&general, &devices), "vfio-pci");
    // What somebody has bound already stays so: it takes no rights.
    at(&mut devices, "00:02.0").driver = Some("vfio-pci".to_owned());
    assert_eq!(driver("[gpu]\nwhole = true", &devices), "vfio-pci");
    devices.vfio.variants.clear();
    assert_eq!(driver("[gpu]\nwhole = true", &devices), "vfio-pci");
}

#[test]
fn an_address_for_a_function_of_a_link_that_is_off_is_told() {
    let mut devices = server();
    let vf = "[pci.v]\nvf = { of = '3b:00.1', mac = '02:00:00:00:00:01' }";
    let notes = |devices: &DeviceFacts| made(vf, devices).notes.join("\n");
    assert!(!notes(&devices).contains("switched off"));
    at(&mut devices, "3b:00.1").net_down = vec!["enp59s0f1".to_owned()];
    assert!(notes(&devices).contains("`ip link set enp59s0f1 up`"));
}

#[test]
fn the_number_of_virtual_functions_that_are_there_stays() {
    let devices = server();
    let machine = made("[pci.v]\nvf = { of = '5e:00.0' }", &devices);
    assert!(machine.vfs[0].existing && machine.vfs[0].count == 4);
    insta::assert_snapshot!(told("[pci.v]\nvf = { of = '5e:00.0', index = 5 }", &devices), @r#"
    `[pci.v]`: 0000:5e:00.0 Intel Corporation Ethernet Controller X710 for 10GbE SFP+ [8086:1572] has 4 virtual functions already, and 5 are wanted
    mvm does not change the number of virtual functions that it did not make
    once nobody uses them, `echo 0 > /sys/bus/pci/devices/0000:5e:00.0/sriov_numvfs` removes them, and mvm makes as many as are wanted
    "#);
    insta::assert_snapshot!(told("[pci.v]\nvf = { of = '5e:00.0', count = 8 }", &devices), @r#"
    `[pci.v]`: 0000:5e:00.0 Intel Corporation Ethernet Controller X710 for 10GbE SFP+ [8086:1572] has 4 virtual functions already, and 8 are wanted
    mvm does not change the number of virtual functions that it did not make
    once nobody uses them, `echo 0 > /sys/bus/pci/devices/0000:5e:00.0/sriov_numvfs` removes them, and mvm makes as many as are wanted
    "#);
    insta::assert_snapshot!(told("[pci.pf]\naddress = '5e:00.0'\ntake-from-host = true", &devices), @r#"
    `[pci.pf]`: 0000:5e:00.0 Intel Corporation Ethernet Controller X710 for 10GbE SFP+ [8086:1572] has 4 virtual functions, which would go with it
    once nobody uses them, `echo 0 > /sys/bus/pci/devices/0000:5e:00.0/sriov_numvfs` removes them
    "#);
    let mut devices = devices;
    at(&mut devices, "3b:00.1").driver = Some("vfio-pci".to_owned());
    insta::assert_snapshot!(told("[pci.v]\nvf = { of = '3b:00.1' }", &devices), @r#"
    `[pci.v]`: 0000:3b:00.1 Intel Corporation 82599ES 10-Gigabit SFI/SFP+ Network Connection [8086:10fb] has the driver vfio-pci, and it is its own driver that makes virtual functions
    give 0000:3b:00.1 Intel Corporation 82599ES 10-Gigabit SFI/SFP+ Network Connection [8086:10fb] back to its driver first
    "#);
}

#[test]
fn a_group_that_a_guest_has_a_part_of() {
    let mut devices = intel();
    lease(&mut devices, "pci-0000:00:1f.4", Holder::Alive);
    insta::assert_snapshot!(told("[pci.a]\naddress = '00:1f.3'\ngroup = 'all'", &devices), @r#"
    `[pci.a]`: 0000:00:1f.3 Intel Corporation Alder Lake-S HD Audio Controller [8086:7ad0] shares IOMMU group 11 with 0000:00:1f.4, which guest other has
    `mvm stop other` gives it back, or `mvm detach other NAME` (`mvm show other` has the name)
    "#);
}

#[test]
fn a_kernel_without_vfio() {
    let mut devices = intel();
    devices.vfio.pci_available = Some(false);
    insta::assert_snapshot!(told("[gpu]\nvf = 1", &devices), @r#"
    `[gpu]`: this host's kernel has no driver vfio-pci
    its kernel option is CONFIG_VFIO_PCI
    "#);
}

#[test]
fn a_usb_device_is_one_guests() {
    let mut devices = intel();
    lease(&mut devices, "usb-1-5", Holder::Alive);
    insta::assert_snapshot!(told("[usb.stick]\nmatch = 'storage'", &devices), @r#"
    `[usb.stick]`: guest other has 1-5 SanDisk Ultra Fit [0781:5583] 4C530001230915116391
    `mvm stop other` gives it back, or `mvm detach other NAME` (`mvm show other` has the name)
    "#);
    devices.leases.clear();
    lease(&mut devices, "pci-0000:00:14.0", Holder::Alive);
    insta::assert_snapshot!(told("[usb.stick]\nport = '1-5'", &devices), @r#"
    `[usb.stick]`: guest other has its controller 0000:00:14.0
    `mvm stop other` gives it back, or `mvm detach other NAME` (`mvm show other` has the name)
    "#);
    // With the controller it is gone from the host's sight.
    devices.usb.clear();
    insta::assert_snapshot!(told("[usb.stick]\nport = '1-5'", &devices), @r#"
    `[usb.stick]`: there is no USB device at port 1-5
    `mvm devices usb` lists what there is
    guest other has the USB controller 0000:00:14.0, with all that is plugged into it
    "#);
}

#[test]
fn a_type_that_no_gpu_makes_is_told() {
    let mut devices = intel();
    devices.mdev_parents.push(MdevParent {
        name: "mdpy".to_owned(),
        types: vec![MdevType {
            id: "mdpy-vga".to_owned(),
            ..MdevType::default()
        }],
        ..MdevParent::default()
    });
    insta::assert_snapshot!(told("[gpu]\nmdev = 'mdpy-vga'", &devices), @r#"
    `[gpu]`: this host makes no mediated devices of the type `mdpy-vga`
    no GPU of this host makes mediated devices now
    mdpy, which is no GPU, makes them: `--mdev mdpy-vga`
    "#);
}

#[test]
fn who_keeps_a_device_is_told_and_how_to_end_it() {
    let mut devices = intel();
    lease(&mut devices, "usb-1-5", Holder::Alive);
    let mut owner = Owner::other(54_321).unwrap();
    owner.processes = vec![Process {
        pid: 77,
        command: "sleep".to_owned(),
    }];
    devices.leases[0].owner = Some(owner);
    let said = told("[usb.stick]\nport = '1-5'", &devices);
    assert!(
        said.contains("guest other of user 54321, process 77 (sleep) has 1-5"),
        "{said}"
    );
    assert!(said.contains("54321 can stop it"), "{said}");

    devices.leases[0].damaged = Some("/run/mvm-host/leases/usb-1-5".into());
    devices.leases[0].owner = None;
    insta::assert_snapshot!(told("[usb.stick]\nport = '1-5'", &devices), @r#"
    `[usb.stick]`: whose 1-5 SanDisk Ultra Fit [0781:5583] 4C530001230915116391 is cannot be read from /run/mvm-host/leases/usb-1-5
    root's `mvm recover` removes it when nobody has the device open
    "#);
}

#[test]
fn nobody_insists_on_what_a_guest_has_a_part_of() {
    let mut devices = intel();
    lease(&mut devices, "usb-1-5", Holder::Alive);
    devices.leases[0].part_of = "0000:00:14.0".parse().ok();
    let whole = "[pci.usb]\naddress = '00:14.0'\ntake-from-host = true";
    insta::assert_snapshot!(told(whole, &devices), @r#"
    `[pci.usb]`: guest other has usb 1-5 of 0000:00:14.0
    `mvm stop other` gives it back, or `mvm detach other NAME` (`mvm show other` has the name)
    "#);
    insta::assert_snapshot!(told(&format!("{whole}\ngroup = 'all'\n[usb.k]\nport = '1-3'"), &intel()), @r#"
    `[pci.usb]` is the whole of 0000:00:14.0, and `[usb.k]` a USB device of it
    "#);

    let mut devices = read("intel-i915-gvtg");
    let uuid = uuid::Uuid::from_u128(7);
    lease(&mut devices, &format!("mdev-{uuid}"), Holder::Alive);
    // Before it is made, and when it is there.
    devices.leases[0].part_of = "0000:00:02.0".parse().ok();
    let whole = "[gpu]\nwhole = true\ntake-from-host = true";
    insta::assert_snapshot!(told(whole, &devices), @r#"
    `[gpu]`: guest other has mdev 00000000-0000-0000-0000-000000000007 of 0000:00:02.0
    `mvm stop other` gives it back, or `mvm detach other NAME` (`mvm show other` has the name)
    "#);
    devices.leases.clear();
    insta::assert_snapshot!(told(whole, &devices), @r#"
    `[gpu]`: 0000:00:02.0 Intel Corporation UHD Graphics 620 [8086:5917] has 1 mediated device, which would go with it
    `mvm devices mdev` shows who has them; one that nobody has goes when `1` is written to its `remove`
    "#);
    lease(&mut devices, "pci-0000:00:02.0", Holder::Alive);
    insta::assert_snapshot!(told("[gpu]\nmdev = 'i915-GVTg_V5_8'", &devices), @r#"
    `[gpu]`: guest other has 0000:00:02.0
    `mvm stop other` gives it back, or `mvm detach other NAME` (`mvm show other` has the name)
    "#);
}

#[test]
fn addresses_end_where_the_iommu_does() {
    let mut facts = with(intel());
    facts.kvm.state = KvmState::Healthy;
    let model = |text: &str, facts: &HostFacts| {
        let machine = machine_on(text, facts).unwrap();
        assert_eq!(machine.accel.chosen, AccelKind::Kvm);
        machine.cpu.model
    };
    assert_eq!(
        model("[gpu]\nvf = 1", &facts),
        "host,host-phys-bits-limit=39"
    );
    assert_eq!(model("[usb.k]\nport = '1-3'", &facts), "host");
    assert_eq!(
        model(
            "[gpu]\nvf = 1\n[cpu]\nphys-bits-limit = 36\nhide-hypervisor = true",
            &facts
        ),
        "host,host-phys-bits-limit=36,kvm=off"
    );
    assert_eq!(
        model("[gpu]\nvf = 1\n[cpu]\nmodel = 'qemu64'", &facts),
        "qemu64"
    );
    facts.devices.iommu.width = None;
    assert_eq!(model("[gpu]\nvf = 1", &facts), "host");
}

#[test]
fn what_is_parked_is_said_of_each_device() {
    let parks = |text: &str, devices: &DeviceFacts| made(text, devices).host_devices[0].park;
    for (text, devices) in [
        ("[pci.x]\naddress = '00:14.3'", intel()),
        ("[gpu]\nvf = 1", intel()),
        ("[gpu]\nmdev = 'i915-GVTg_V5_8'", read("intel-i915-gvtg")),
        ("[mdev.x]\ntype = 'i915-GVTg_V5_8'", read("intel-i915-gvtg")),
    ] {
        assert!(!parks(text, &devices), "{text}");
        assert!(parks(&format!("{text}\npark = true"), &devices), "{text}");
    }
}

#[test]
fn iommufd_is_for_who_asks() {
    use crate::host::qemu::{Properties, PropertyKind};
    use crate::ids::Arch;
    let iommufd = |word: &str, facts: &HostFacts| {
        let text = format!("[gpu]\nvf = 1\n[vfio]\nbackend = '{word}'");
        machine_on(&text, facts)
            .map(|machine| machine.iommufd)
            .map_err(|error| error.to_string())
    };
    let mut facts = with(intel());
    facts.devices.vfio.container = true;
    facts.devices.vfio.iommufd = false;
    insta::assert_snapshot!(iommufd("iommufd", &facts).unwrap_err(), @r#"
    `vfio.backend = "iommufd"`: this host's kernel has no iommufd: there is no /dev/iommu
    "#);
    facts.devices.vfio.iommufd = true;
    insta::assert_snapshot!(iommufd("iommufd", &facts).unwrap_err(), @r#"
    `vfio.backend = "iommufd"`: this QEMU (7.2.22) has no iommufd
    "#);
    let Some(crate::host::QemuFacts::Found(caps)) = facts.qemu.get_mut(&Arch::X86_64) else {
        panic!("the made-up host has a QEMU");
    };
    caps.objects = ["iommufd", "rng-random"].into_iter().collect();
    let kinds = [(PropertyKind::Text, ["iommufd"].into_iter().collect())];
    caps.properties.insert(
        "vfio-pci".to_owned(),
        Properties(kinds.into_iter().collect()),
    );
    assert_eq!(iommufd("iommufd", &facts), Ok(true));
    assert_eq!(iommufd("auto", &facts), Ok(false));
    facts.devices.vfio.container = false;
    assert_eq!(iommufd("auto", &facts), Ok(true));
    assert_eq!(iommufd("group", &facts), Ok(false));
    // What this QEMU lacks is told by name.
    insta::assert_snapshot!(machine_on("[gpu]\nupt = true", &facts).unwrap_err(), @r#"
    `[gpu]` needs the property x-igd-opregion of vfio-pci, which this QEMU (7.2.22) does not have
    "#);
}

#[test]
fn boards_have_room_for_so_many() {
    let devices = server();
    let vfs = |count: u32| -> String {
        (1..=count)
            .map(|index| format!("[pci.v{index}]\nvf = {{ of = '3b:00.1', index = {index} }}\n"))
            .collect()
    };
    assert_eq!(made(&vfs(8), &devices).host_devices.len(), 8);
    insta::assert_snapshot!(told(&vfs(9), &devices), @r#"
    9 PCI devices of the host beside a GPU are more than the 8 that the board q35 has places for
    "#);
    let pc = format!("[machine]\ntype = 'pc'\n{}", vfs(9));
    assert_eq!(made(&pc, &devices).host_devices.len(), 9);
    insta::assert_snapshot!(told("[machine]\ntype = 'microvm'\n[pci.v]\nvf = { of = '3b:00.1' }", &devices), @r#"
    `[pci.v]`: the board microvm has no PCI
    "#);
    insta::assert_snapshot!(told("[disk.gpu]\nfile = { path = 'a' }\n[pci.gpu]\naddress = '3b:00.1'", &devices), @r#"
    `gpu` is the name of both disk `gpu` and PCI device `gpu`
    disks, network cards, shares and devices of the host share one set of names: rename one
    "#);
}
