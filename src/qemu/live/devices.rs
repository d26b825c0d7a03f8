//! Devices of the host, as far as QEMU can be asked about them where there are none.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::session::{Session, installed};
use super::{DISKS, EVERYTHING, disks};
use crate::host::devices::DeviceFacts;
use crate::host::{HostFacts, Roots, Sysfs};
use crate::hosts::Host;
use crate::machine::{Machine, testing};
use crate::qemu::command_line;

fn host(name: &str) -> HostFacts {
    let host = Host::new(name);
    let devices = DeviceFacts::read(&Roots {
        sysfs: Sysfs::at(host.sys()),
        root: host.root().to_owned(),
        cache: None,
        user_config: None,
        around_devices: Some(host.root().to_owned()),
        leases: host.root().join("run/mvm-host"),
    });
    HostFacts {
        devices,
        ..testing::facts()
    }
}

fn made(text: &str, facts: &HostFacts) -> (tempfile::TempDir, Machine) {
    let dir = tempfile::Builder::new().prefix("mvm").tempdir().unwrap();
    for file in DISKS.iter().chain(&["vbios.rom"]) {
        std::fs::write(dir.path().join(file), vec![0; 1 << 20]).unwrap();
    }
    let text = text.replace('@', dir.path().to_str().unwrap());
    let machine = testing::real(dir.path(), &text, facts).unwrap();
    (dir, machine)
}

fn is_vfio(object: &serde_json::Map<String, Value>) -> bool {
    let driver = object.get("driver").and_then(Value::as_str);
    driver.is_some_and(|driver| driver.starts_with("vfio-pci"))
}

/// The arguments with a device that is always there in place of each of VFIO's, at the same place.
fn stand_ins(args: Vec<String>) -> Vec<String> {
    let place = |arg: String| match serde_json::from_str::<Value>(&arg) {
        Ok(Value::Object(mut object)) if is_vfio(&object) => {
            object["driver"] = "pci-testdev".into();
            object.retain(|key, _| {
                ["driver", "id", "bus", "addr", "multifunction"].contains(&key.as_str())
            });
            Value::Object(object).to_string()
        }
        _ => arg,
    };
    args.into_iter()
        .map(|arg| {
            if arg.starts_with('{') {
                place(arg)
            } else {
                arg
            }
        })
        .collect()
}

#[test]
fn boards_have_places_for_devices_of_the_host() {
    let intel = host("intel-i915-7vf");
    let nvidia = host("nvidia-desktop");
    let functions = "[pci.net]\naddress = '04:00.0'\n[pci.sound]\naddress = '00:1f.3'\nfunctions = 'all'\n\
                     [usb.keys]\nport = '1-3'\n[usb.stick]\nmatch = 'storage:2'\nnth = 2\n";
    let functions = functions.replace("match = 'storage:2'", "match = 'storage'");
    let all = |board: &str, buses: &[&str]| format!("{board}\n{EVERYTHING}{}", disks(buses));
    let buses = ["virtio", "scsi", "sata", "nvme", "usb"];
    let q35 = all("machine.type = 'q35'", &buses);
    let pc = all("machine.type = 'pc'", &buses);
    for (text, facts) in [
        (format!("{q35}[gpu]\nwhole = true\n{functions}"), &intel),
        (format!("{q35}[gpu]\nupt = true\n{functions}"), &intel),
        (
            format!("{q35}[gpu]\nvf = 1\n[pci.v]\nvf = {{ of = '00:02.0' }}\n{functions}"),
            &intel,
        ),
        (format!("{q35}[gpu]\nvirtio = true\n{functions}"), &intel),
        (format!("{pc}[gpu]\nwhole = true\n{functions}"), &intel),
        (format!("{pc}[gpu]\nupt = true\n{functions}"), &intel),
        (
            format!("{q35}[gpu]\nwhole = true\naddress = '01:00.0'\nfunctions = 'all'"),
            &nvidia,
        ),
        (
            format!(
                "{pc}[gpu]\nwhole = true\naddress = '01:00.0'\nfunctions = 'all'\nmultifunction = false"
            ),
            &nvidia,
        ),
        (
            format!(
                "{}[pci.n]\nmatch = 'i226'\n[usb.stick]\nmatch = 'storage'\n[gpu]\nvirtio = true",
                all(
                    "machine.arch = 'aarch64'\nfirmware.type = 'none'\nboot.kernel = 'vbios.rom'",
                    &["virtio", "scsi"]
                )
            ),
            &host("arm-smmu"),
        ),
    ] {
        let (dir, machine) = made(&text, facts);
        if !installed(&machine) {
            continue;
        }
        let args = stand_ins(command_line(&machine).shown());
        let mut session = Session::start_with(&machine, args, dir);
        let there = session.names("/machine/peripheral");
        for device in &machine.host_devices {
            assert!(
                there.contains(device.id.as_str()),
                "{} is not among {there:?}",
                device.id
            );
        }
        session.quit();
    }
}

/// Whatever mvm says of a device QEMU's `device_add` would understand.
#[test]
fn vfio_has_the_properties_that_are_set() {
    let intel = host("intel-i915-7vf");
    let gvtg = host("intel-i915-gvtg");
    let (dir, plain) = made("", &intel);
    if !installed(&plain) {
        return;
    }
    let mut session = Session::start(&plain, dir);
    // The one that firmware draws on has those of the other, and one more.
    let typename = json!({ "typename": "vfio-pci-nohotplug" });
    let listed = session.call("device-list-properties", typename);
    let kinds: BTreeMap<&str, &str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|property| {
            (
                property["name"].as_str().unwrap(),
                property["type"].as_str().unwrap(),
            )
        })
        .collect();
    let mut seen = 0;
    for (text, facts) in [
        (
            "[gpu]\nwhole = true\ngms = 2\nrom = 'vbios.rom'\nx-vga = true\n",
            &intel,
        ),
        ("[gpu]\nupt = true\nrom-bar = false\n", &intel),
        (
            "[pci.sound]\naddress = '00:1f.3'\nfunctions = 'all'\n",
            &intel,
        ),
        ("[gpu]\nmdev = 'i915-GVTg_V5_8'\nopregion = true\n", &gvtg),
        (
            "[gpu]\nmdev = 'i915-GVTg_V5_8'\ndisplay = true\nramfb = true\n[display.vnc]",
            &gvtg,
        ),
    ] {
        let (_dir, machine) = made(text, facts);
        for arg in command_line(&machine).shown() {
            let Ok(Value::Object(object)) = serde_json::from_str::<Value>(&arg) else {
                continue;
            };
            if !is_vfio(&object) {
                continue;
            }
            let own = object
                .iter()
                .filter(|(key, _)| !["driver", "id", "bus"].contains(&key.as_str()));
            for (key, value) in own {
                let kind = kinds.get(key.as_str()).copied();
                let kind = kind.unwrap_or_else(|| panic!("vfio-pci has no property {key}"));
                let fits = match value {
                    Value::Bool(_) => kind == "bool",
                    // `uint32`, or QEMU 10's `int32`.
                    Value::Number(_) => kind.contains("int"),
                    _ => kind != "bool" && !kind.starts_with("uint"),
                };
                assert!(fits, "{key} is {kind} and not {value}");
                seen += 1;
            }
        }
    }
    assert!(seen > 12, "{seen}");
    session.quit();
}
