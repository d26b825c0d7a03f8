//! `mvm devices` on hosts that cannot be had, and on this one.

use serde_json::Value;

use crate::env::TestEnv;
use crate::hosts::{self, Host, difference, snapshot};

/// What `mvm devices ...` prints on a host.
fn devices(env: &TestEnv, host: &Host, args: &[&str]) -> String {
    let mut command = env.command(&[&["devices"], args].concat());
    command.env("MVM_SYSFS", host.sys());
    let output = command.output().expect("mvm runs");
    let text = String::from_utf8(output.stdout).expect("text");
    text + &String::from_utf8(output.stderr).expect("text")
}

fn lease(env: &TestEnv, key: &str, guest: &str) {
    let lease = serde_json::json!({
        "device": key, "guest": guest, "run-dir": env.path("run").join(guest), "uid": 0, "pid": 1, "since": 1,
    });
    env.write(format!("host/leases/{key}"), lease.to_string());
}

#[test]
fn a_desktop_at_a_glance() {
    let env = TestEnv::new();
    let host = Host::new("intel-i915-7vf");
    insta::assert_snapshot!(devices(&env, &host, &[]), @r#"
    GPU                                                       DRIVER         GROUP  FOR A GUEST
    0000:00:02.0  Intel Raptor Lake-S GT1 [UHD Graphics 770]  i915           0      yes, and the console
                  up to 7 virtual functions

    NETWORK                                                   DRIVER         GROUP  FOR A GUEST
    0000:00:14.3  Intel Alder Lake-S PCH CNVi WiFi            iwlwifi        5      yes
    0000:03:00.0  Intel Ethernet Controller I225-V            igc            13     host: default route
    0000:04:00.0  Intel Ethernet Controller I225-V            igc            14     yes

    STORAGE                                                   DRIVER         GROUP  FOR A GUEST
    0000:00:17.0  Intel Alder Lake-S PCH SATA Controller [A…  ahci           7      yes
    0000:02:00.0  Samsung NVMe SSD Controller S4LV008[Pasca…  nvme           12     host: /boot/efi, +2

    SOUND                                                     DRIVER         GROUP  FOR A GUEST
    0000:00:1f.3  Intel Alder Lake-S HD Audio Controller      snd_hda_intel  11     with 2 others

    OTHER PCI                                                 DRIVER         GROUP  FOR A GUEST
    0000:00:0a.0  Intel Raptor Lake Crashlog and Telemetry    intel_vsec     3      yes
    0000:00:14.0  Intel Alder Lake-S PCH USB 3.2 Gen 2x2 XH…  xhci_hcd       4      yes
    0000:00:14.2  Intel Alder Lake-S PCH Shared SRAM          -              4      with 0000:00:14.0
    0000:00:16.0  Intel Alder Lake-S PCH HECI Controller #1   mei_me         6      yes
    0000:00:1f.4  Intel Alder Lake-S PCH SMBus Controller     i801_smbus     11     with 2 others
    0000:00:1f.5  Intel Alder Lake-S PCH SPI Controller       intel-spi      11     with 2 others

    USB                                             KIND            SPEED  FOR A GUEST
    1-3    Logitech USB Receiver [046d:c52b]        keyboard,mouse  12M    yes
    1-5    SanDisk Ultra Fit [0781:5583]            storage         480M   yes
    1-7.2  Realtek USB 10/100/1000 LAN [0bda:8153]  ethernet        480M   yes
    1-7.4  Seagate BUP Portable [0bc2:ab9a]         storage         5G     yes
    1-14   [8087:0033]                              bluetooth       12M    yes
    "#);
}

#[test]
fn a_server_whose_guests_have_devices() {
    let env = TestEnv::new();
    let host = Host::new("server-nics");
    lease(&env, "pci-0000:5e:00.0-vf2", "db");
    lease(&env, "pci-0000:d8:00.1", "web");
    lease(&env, "usb-1-3", "web");
    insta::assert_snapshot!(devices(&env, &host, &[]), @r#"
    GPU                                                        DRIVER     GROUP  FOR A GUEST
    0000:02:00.0  Matrox Integrated Matrox G200eW3 Graphics…   mgag200    4      yes, and the console

    NETWORK                                                    DRIVER     GROUP  FOR A GUEST
    0000:3b:00.0  Intel 82599ES 10-Gigabit SFI/SFP+ Network…   ixgbe      21     host: default route, +1
                  up to 63 virtual functions
    0000:3b:00.1  Intel 82599ES 10-Gigabit SFI/SFP+ Network…   ixgbe      22     yes
                  up to 63 virtual functions
    0000:5e:00.0  Intel Ethernet Controller X710 for 10GbE S…  i40e       31     left by db, +1
                  4 of 64 virtual functions made, guests have 1
    0000:5e:00.1  Intel Ethernet Controller X710 for 10GbE S…  i40e       32     yes
                  up to 64 virtual functions
    0000:5e:02.1  VF 2 of 0000:5e:00.0                         iavf       6      left by db
    0000:d8:00.0  Mellanox MT27800 Family [ConnectX-5]         mlx5_core  61     host: bond0
                  up to 8 virtual functions
    0000:d8:00.1  Mellanox MT27800 Family [ConnectX-5]         mlx5_core  62     left by web
                  up to 8 virtual functions

    STORAGE                                                    DRIVER     GROUP  FOR A GUEST
    0000:00:17.0  Intel C620 Series Chipset Family SATA Cont…  ahci       2      host: /boot, +1

    OTHER PCI                                                  DRIVER     GROUP  FOR A GUEST
    0000:00:14.0  Intel C620 Series Chipset Family USB 3.0 x…  xhci_hcd   1      yes

    GUEST  HAS
    db     vf:2@0000:5e:00.0
    web    0000:d8:00.1
           usb 1-3
    "#);
    insta::assert_snapshot!(devices(&env, &host, &["pci", "5e:00.0"]), @r#"
    0000:5e:00.0
    what               Ethernet controller
    name               Intel Corporation Ethernet Controller X710 for 10GbE SFP+
    id                 8086:1572, board 8086:0007, revision 02
    driver             i40e
    IOMMU group        31, alone
    NUMA node          0
    behind             0000:5d:00.0
    reset              flr, bus
    sleeps             no (power/control: on)
    network            enp94s0f0
    virtual functions  4 of 64 made
                       vf:1@0000:5e:00.0 at 0000:5e:02.0 (driver iavf)
                       vf:2@0000:5e:00.0 at 0000:5e:02.1 (guest db)
                       vf:3@0000:5e:00.0 at 0000:5e:02.2 (driver iavf)
                       vf:4@0000:5e:00.0 at 0000:5e:02.3 (driver iavf)
    for a guest        no: it has 4 virtual functions
                           guest db had vf:2@0000:5e:00.0 and is gone: `mvm recover`
    "#);
    insta::assert_snapshot!(devices(&env, &host, &["pci", "virtual function:2"]), @r#"
    vf:2@0000:5e:00.0
    what              Ethernet controller
    name              Intel Corporation Ethernet Virtual Function 700 Series
    id                8086:154c, board 8086:0007, revision 02
    driver            iavf
    IOMMU group       6, alone
    NUMA node         0
    behind            0000:5d:00.0
    reset             flr
    sleeps            no (power/control: on)
    network           enp94s0f0v1
    virtual function  2 of 0000:5e:00.0, now at 0000:5e:02.1
    for a guest       no: guest db had it and is gone: `mvm recover`
    "#);
}

#[test]
fn a_notebook_with_mediated_devices() {
    let env = TestEnv::new();
    let host = Host::new("intel-i915-gvtg");
    insta::assert_snapshot!(devices(&env, &host, &["gpu"]), @r#"
    GPU                                   DRIVER  GROUP  FOR A GUEST
    0000:00:02.0  Intel UHD Graphics 620  i915    0      only its mdevs
                  mdev i915-GVTg_V5_4: 0 left, 0 made
                  mdev i915-GVTg_V5_8: 1 left, 1 made
    "#);
    insta::assert_snapshot!(devices(&env, &host, &["mdev"]), @r#"
    CAN MAKE      TYPE            NAME       LEFT  MADE
    0000:00:02.0  i915-GVTg_V5_4  GVTg_V5_4  0     0
    0000:00:02.0  i915-GVTg_V5_8  GVTg_V5_8  1     1

    MEDIATED DEVICE                       TYPE            MADE OF       GROUP  FOR A GUEST
    3b1e2a46-8c5f-4f0e-9d13-6a2f0c7b1e55  i915-GVTg_V5_8  0000:00:02.0  3      yes
    "#);
    insta::assert_snapshot!(devices(&env, &host, &["gpu", "intel"]), @r#"
    0000:00:02.0
    what         VGA compatible controller
    name         Intel Corporation UHD Graphics 620
    id           8086:5917, board 17aa:225d, revision 07
    driver       i915
    IOMMU group  0, alone
    reset        flr, pm
    sleeps       no (power/control: on)
    graphics     card0, renderD128
    console      the host's console is on it (vtcon1), and leaves it while a guest has it
    makes        i915-GVTg_V5_4: 0 left (low_gm_size: 128MB, high_gm_size: 512MB, fence: 4, resolution: 1920x1200, weight: 4)
    makes        i915-GVTg_V5_8: 1 left; made: 3b1e2a46-8c5f-4f0e-9d13-6a2f0c7b1e55 (low_gm_size: 64MB, high_gm_size: 384MB, fence: 4, resolution: 1024x768, weight: 2)
    for a guest  no: it has a mediated device
    "#);
}

#[test]
fn one_device_in_full() {
    let env = TestEnv::new();
    let host = Host::new("intel-i915-7vf");
    insta::assert_snapshot!(devices(&env, &host, &["pci", "00:1f.3"]), @r#"
    0000:00:1f.3
    what         Audio device
    name         Intel Corporation Alder Lake-S HD Audio Controller
    id           8086:7ad0, board 1849:3897, revision 11
    driver       snd_hda_intel
    IOMMU group  11, with 3 others
                 0000:00:1f.0 ISA bridge (no driver)
                 0000:00:1f.4 SMBus (driver i801_smbus)
                 0000:00:1f.5 Serial bus controller (driver intel-spi)
    reset        pm
    sleeps       no (power/control: on)
    for a guest  no: it shares IOMMU group 11 with 0000:00:1f.4 (i801_smbus), 0000:00:1f.5 (intel-spi)
    "#);
    insta::assert_snapshot!(devices(&env, &host, &["usb", "seagate"]), @r#"
    1-7.4
    name         Seagate BUP Portable [0bc2:ab9a]
    kind         storage
    serial       NAB8XYZ1
    now at       bus 2 address 3, the port's USB 3 half is 2-7.4
    speed        5Gbit/s
    controller   0000:00:14.0
    interfaces   2-7.4:1.0 class 08.06.62 (uas)
    for a guest  yes: `mvm run NAME --usb 1-7.4`
    "#);
    insta::assert_snapshot!(devices(&env, &host, &["gpu", "nvidia"]), @r#"
    error: no GPU device matches `nvidia`
    hint: perhaps: 0000:00:02.0 Intel Corporation Raptor Lake-S GT1 [UHD Graphics 770] [8086:a780]
    hint: `mvm devices gpu` lists what there is
    "#);
    insta::assert_snapshot!(devices(&env, &host, &["usb", "1-9"]), @r#"
    error: there is no USB device at port 1-9
    hint: near it: 1-3 Logitech USB Receiver [046d:c52b]; 1-5 SanDisk Ultra Fit [0781:5583] 4C530001230915116391; 1-7.2 Realtek USB 10/100/1000 LAN [0bda:8153] 001000001; 1-7.4 Seagate BUP Portable [0bc2:ab9a] NAB8XYZ1; 1-14 [8087:0033]
    hint: `mvm devices usb` lists what there is
    "#);
}

#[test]
fn every_host_fits_the_page_and_is_left_as_it_is() {
    let env = TestEnv::new();
    for name in hosts::names() {
        let host = Host::new(&name);
        let before = snapshot(host.root());
        for kind in [
            &[][..],
            &["pci", "--all"],
            &["gpu"],
            &["usb", "--all"],
            &["mdev"],
        ] {
            let page = devices(&env, &host, kind);
            let wide = page.lines().find(|line| line.chars().count() > 100);
            assert_eq!(wide, None, "{name} {kind:?}\n{page}");
            assert!(!page.contains("error"), "{name} {kind:?}\n{page}");
        }
        let json = devices(&env, &host, &["--format", "json"]);
        let json: Value = serde_json::from_str(&json).expect("JSON");
        assert!(
            json["pci"].as_array().is_some_and(|all| all.len() > 3),
            "{name}"
        );
        assert!(
            difference(&before, &snapshot(host.root())).is_empty(),
            "{name}"
        );
    }
}

#[test]
fn programs_get_ids_as_text_and_answers() {
    let env = TestEnv::new();
    let host = Host::new("server-nics");
    lease(&env, "pci-0000:5e:00.0-vf2", "db");
    let one = |args: &[&str]| -> Value {
        let args = [args, &["--format", "json"]].concat();
        serde_json::from_str(&devices(&env, &host, &args)).expect("JSON")
    };
    let vf = one(&["pci", "5e:02.1"]);
    assert_eq!(vf["name"], "vf:2@0000:5e:00.0");
    assert_eq!(
        (&vf["vendor"], &vf["device"]),
        (&"8086".into(), &"154c".into())
    );
    assert_eq!(vf["physfn"]["index"], 2);
    assert_eq!(vf["free"], false);
    assert_eq!(vf["guests"][0]["guest"], "db");
    assert_eq!(vf["guests"][0]["holder"], "gone");
    let pf = one(&["pci", "5e:00.0"]);
    assert_eq!(
        (&pf["sriov"]["total"], &pf["sriov"]["current"]),
        (&64.into(), &4.into())
    );
    let why = pf["why-not"].as_array().expect("a list");
    assert!(
        why.contains(&"it has 4 virtual functions".into()),
        "{why:?}"
    );
    assert_eq!(one(&["gpu"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn this_machine_is_read_too() {
    let env = TestEnv::new();
    env.run(&["devices"]).exits(0);
    let ran = env.run(&["devices", "--format", "json"]).exits(0);
    let json: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let here = std::fs::read_dir("/sys/bus/pci/devices").map_or(0, Iterator::count);
    assert_eq!(json["pci"].as_array().map(Vec::len), Some(here));
    env.run(&["devices", "pci", "no such thing at all"])
        .exits(4);
}
