//! What a real kernel does when its sysfs is written to: carried out here act by act, and compared with what is
//! recorded in `tests/hosts/recorded`, on which the stand-in kernel is tested.
//!
//! `UPDATE_HOSTS=1` writes the recordings anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::devices::{IGB, NIC2, NVME, XHCI};
use crate::host::Host;
use crate::trees::replay::{perform, told};
use crate::trees::{Host as Files, Tree, difference, folder, snapshot};

/// Where the acts are while the host carries them out; it sees the folder as `/lab`.
const ACTS: &str = "MVM_LAB_ACTS";

/// Runs inside the host, as this very test by its name.
#[test]
fn ci_performs_acts() {
    let Some(acts) = std::env::var_os(ACTS) else {
        return;
    };
    let acts = PathBuf::from(acts);
    let list: Vec<Value> =
        serde_json::from_slice(&fs::read(&acts).expect("the acts")).expect("JSON");
    let mut results = Vec::new();
    for act in list {
        if let Some(wait) = act["wait"].as_u64() {
            std::thread::sleep(Duration::from_millis(wait));
        }
        results.extend(perform(
            &[act],
            Path::new("/"),
            &|path, data| {
                use std::io::Write as _;
                fs::OpenOptions::new()
                    .write(true)
                    .open(path)?
                    .write(data)
                    .map(|_| ())
            },
            &|name| {
                let tree = acts.with_file_name(format!("{name}.tree"));
                capture(&tree);
                json!({ "look": name })
            },
        ));
    }
    fs::write(acts.with_extension("results"), json!(results).to_string()).expect("written");
}

fn capture(to: &Path) {
    let status = Command::new("sh")
        .args([
            to.with_file_name("capture.sh").as_os_str(),
            "--as-it-is".as_ref(),
        ])
        .stdout(fs::File::create(to).expect("a file"))
        .status()
        .expect("it runs");
    assert!(status.success());
}

/// The files of a captured tree, as lines.
fn lines(tree: &Path) -> Vec<String> {
    snapshot(Files::of(&Tree::read(tree)).root())
}

/// Has the host carry out the acts, and compares with the recording of that name.
fn record(host: &Host, name: &str, acts: &[Value], standin: &str) {
    let scratch = host.scratch();
    fs::copy(folder().join("capture.sh"), scratch.join("capture.sh")).expect("a copy");
    fs::write(scratch.join("acts"), json!(acts).to_string()).expect("written");
    let script = format!(
        "sh /lab/capture.sh --as-it-is >/lab/before.tree && \
         {ACTS}=/lab/acts /mvm/lab --exact recorded::ci_performs_acts"
    );
    let out = host.sh(&script, Duration::from_secs(540));
    assert_eq!(out.status, 0, "{out}");
    let results: Vec<Value> =
        serde_json::from_slice(&fs::read(scratch.join("acts.results")).expect("results"))
            .expect("JSON");
    let before = lines(&scratch.join("before.tree"));
    let mut text = String::new();
    for mut result in results {
        if let Some(look) = result["look"].as_str() {
            let after = lines(&scratch.join(format!("{look}.tree")));
            result["differs"] = json!(told(difference(&before, &after)));
        }
        text += &format!("{result}\n");
    }
    let kept = folder().join("recorded").join(format!("{name}.jsonl"));
    if std::env::var_os("UPDATE_HOSTS").is_some() {
        fs::create_dir_all(kept.parent().expect("a folder")).expect("a folder");
        let tree = fs::read_to_string(scratch.join("before.tree")).expect("a tree");
        fs::write(kept.with_extension("tree"), format!("{tree}\n{standin}")).expect("written");
        fs::write(kept, text).expect("written");
    } else {
        let was = fs::read_to_string(kept).expect("a recording");
        assert_eq!(was.lines().count(), text.lines().count(), "other acts");
        for (was, is) in was.lines().zip(text.lines()) {
            assert_eq!(
                as_first(was),
                as_first(is),
                "the kernel does not do what it did"
            );
        }
    }
}

/// The line with the stick's SCSI host as number 0, as it is where its driver is there before the others.
fn as_first(line: &str) -> String {
    let Some((_, rest)) = line.split_once("/host") else {
        return line.to_owned();
    };
    let number = rest
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap_or_default();
    [
        ("/host{}", "/host0"),
        ("/target{}:", "/target0:"),
        ("/{}:0:0:0", "/0:0:0:0"),
    ]
    .iter()
    .fold(line.to_owned(), |line, (from, to)| {
        line.replace(&from.replace("{}", number), to)
    })
}

fn write(path: &str, data: &str) -> Value {
    json!({ "write": path, "data": data })
}

fn read(path: &str) -> Value {
    json!({ "read": path })
}

fn link(path: &str) -> Value {
    json!({ "link": path })
}

fn look(name: &str) -> Value {
    json!({ "look": name })
}

fn wait(ms: u64) -> Value {
    json!({ "wait": ms })
}

const PROBE: &str = "/sys/bus/pci/drivers_probe";

/// A NIC taken and given back in small steps, with all that a kernel refuses on the way.
fn nic() -> Vec<Value> {
    let nic = format!("/sys/bus/pci/devices/{NIC2}");
    let file = |name: &str| format!("{nic}/{name}");
    vec![
        write("/sys/bus/pci/drivers/vfio-pci/bind", NIC2),
        write("/sys/bus/pci/drivers/e1000e/bind", NIC2),
        write("/sys/bus/pci/drivers/nvme/unbind", NIC2),
        write(PROBE, "0000:77:00.0"),
        write(PROBE, NIC2),
        write(&file("reset"), "2"),
        write(&file("power/control"), "off"),
        write(&file("driver_override"), "vfio-pci"),
        write(&file("driver_override"), ""),
        read(&file("driver_override")),
        write(&file("driver/unbind"), NIC2),
        link(&file("driver")),
        look("nic unbound"),
        write(PROBE, &format!("{NIC2}\n")),
        link(&file("driver")),
        read(&file("uevent")),
        read(&file("power/control")),
        wait(300),
        look("nic on vfio"),
        write(&file("reset"), "1"),
        write("/sys/bus/pci/drivers/e1000e/bind", NIC2),
        write(&file("driver_override"), "\n"),
        read(&file("driver_override")),
        write("/sys/bus/pci/drivers/vfio-pci/unbind", &format!("{NIC2}\n")),
        write(PROBE, NIC2),
        wait(300),
        link(&file("driver")),
        look("nic given back"),
        write(&file("driver_override"), "nosuch"),
        write("/sys/bus/pci/drivers/e1000e/unbind", NIC2),
        write(PROBE, NIC2),
        link(&file("driver")),
        write("/sys/bus/pci/drivers/e1000e/bind", NIC2),
        write(&file("driver_override"), "\n"),
        write("/sys/bus/pci/drivers/e1000e/bind", NIC2),
        wait(300),
        look("nic bound by name"),
    ]
}

/// VFs made, given to vfio-pci, kept over the loss of their function's driver, and removed.
fn functions(pf: &str, driver: &str, vf1: &str, vf2: &str) -> Vec<Value> {
    let device = |bdf: &str, name: &str| format!("/sys/bus/pci/devices/{bdf}/{name}");
    let numvfs = device(pf, "sriov_numvfs");
    vec![
        write(&numvfs, "100"),
        write(&numvfs, "-1"),
        write(&numvfs, "some"),
        write(&numvfs, "0"),
        write(&device(pf, "sriov_drivers_autoprobe"), "2"),
        write(&device(pf, "sriov_drivers_autoprobe"), "0\n"),
        write(&numvfs, "2"),
        wait(300),
        write(&numvfs, "2\n"),
        write(&numvfs, "1"),
        write(&numvfs, "0x100"),
        read(&numvfs),
        link(&device(pf, "virtfn0")),
        link(&device(pf, "virtfn1")),
        link(&device(pf, "virtfn2")),
        link(&device(vf1, "physfn")),
        link(&device(vf1, "iommu_group")),
        link(&device(vf2, "iommu_group")),
        look("two functions"),
        write(PROBE, vf1),
        link(&device(vf1, "driver")),
        write(&device(vf1, "driver_override"), "vfio-pci"),
        write(PROBE, vf1),
        link(&device(vf1, "driver")),
        wait(300),
        look("one function on vfio"),
        // The physical function goes; it is not for vfio-pci while it has others.
        write(&device(pf, "driver_override"), "vfio-pci"),
        write(&format!("/sys/bus/pci/drivers/{driver}/unbind"), pf),
        read(&numvfs),
        write(&numvfs, "0"),
        write("/sys/bus/pci/drivers/vfio-pci/bind", pf),
        look("without the driver"),
        write(&device(pf, "driver_override"), "\n"),
        write(PROBE, pf),
        wait(1500),
        link(&device(pf, "driver")),
        write("/sys/bus/pci/drivers/vfio-pci/unbind", vf1),
        write(&numvfs, "0"),
        write(&device(pf, "sriov_drivers_autoprobe"), "1"),
        wait(300),
        look("no function left"),
    ]
}

/// The physical function has its driver again, whatever it has now.
fn driver_back(pf: &str) -> Vec<Value> {
    vec![
        write("/sys/bus/pci/drivers/vfio-pci/unbind", pf),
        write(PROBE, pf),
        wait(1500),
        link(&format!("/sys/bus/pci/devices/{pf}/driver")),
        look("as it was"),
    ]
}

/// A stick that loses its driver, its configuration, and its controller.
fn usb() -> Vec<Value> {
    // Plugged into the fast half of its port.
    let stick = "/sys/bus/usb/devices/2-1";
    vec![
        write("/sys/bus/usb/drivers/usb-storage/unbind", "2-1:1.0"),
        wait(500),
        look("stick without driver"),
        write("/sys/bus/usb/drivers_probe", "2-1:1.0"),
        wait(500),
        write(&format!("{stick}/authorized"), "0"),
        wait(500),
        read(&format!("{stick}/bConfigurationValue")),
        look("stick not authorized"),
        write(&format!("{stick}/authorized"), "1"),
        wait(500),
        write("/sys/bus/usb/drivers/usb/unbind", "1-2"),
        wait(500),
        look("keyboard unbound"),
        write("/sys/bus/usb/drivers/usb/bind", "1-2"),
        wait(500),
        look("usb as before"),
        write("/sys/bus/pci/drivers/xhci_hcd/unbind", XHCI),
        wait(500),
        look("no controller"),
    ]
}

#[test]
fn the_kernel_with_a_nic_nvme_functions_and_usb_does_what_is_recorded() {
    let host = Host::x86().boot();
    let mut acts = nic();
    acts.extend(functions(NVME, "nvme", "0000:01:00.1", "0000:01:00.2"));
    acts.extend(driver_back(NVME));
    acts.extend(usb());
    let standin = format!("# For the stand-in kernel.\n[/.standin/pci/{NVME}]\nvf-claims = nvme\n");
    record(&host, "lab-nvme", &acts, &standin);
}

#[test]
fn the_kernel_with_igb_functions_does_what_is_recorded() {
    let host = Host::x86().igb().modules("igbvf").boot();
    let acts = functions(IGB, "igb", "0000:06:10.0", "0000:06:10.2");
    let standin = format!(
        "# For the stand-in kernel.\n[/.standin/pci/{IGB}]\nvf-claims = igbvf\ntotalvfs-device = 8\n\
         vf-sleeps = no\nvf-d3cold = 0\n"
    );
    record(&host, "lab-igb", &acts, &standin);
}

#[test]
fn the_kernel_with_mediated_devices_and_a_console_does_what_is_recorded() {
    let host = Host::x86().gpu().modules("mtty mdpy").boot();
    let uuid = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";
    let other = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1002";
    let types = "/sys/class/mdev_bus/mtty/mdev_supported_types";
    let left = |n: u32| read(&format!("{types}/mtty-{n}/available_instances"));
    let acts = vec![
        left(1),
        left(2),
        write(&format!("{types}/mtty-2/create"), "83b8f4f2"),
        write(&format!("{types}/mtty-2/create"), &uuid.replace('8', "z")),
        write(&format!("{types}/mtty-2/create"), uuid),
        write(&format!("{types}/mtty-1/create"), uuid),
        left(1),
        left(2),
        look("one device"),
        write(&format!("{types}/mtty-1/create"), &format!("{other}\n")),
        left(1),
        write(&format!("/sys/bus/mdev/devices/{other}/remove"), "0"),
        write(&format!("/sys/bus/mdev/devices/{other}/remove"), "1"),
        write(&format!("/sys/bus/mdev/devices/{other}/remove"), "1"),
        write(&format!("/sys/bus/mdev/devices/{uuid}/remove"), "1\n"),
        look("no device"),
        read("/sys/class/vtconsole/vtcon0/bind"),
        read("/sys/class/vtconsole/vtcon1/bind"),
        write("/sys/class/vtconsole/vtcon1/bind", "0"),
        look("console detached"),
        write("/sys/class/vtconsole/vtcon1/bind", "1"),
        look("console attached"),
    ];
    let standin = "# For the stand-in kernel.\n\
                   [/.standin/mdev/mtty]\n\
                   capacity = 24\ncost-mtty-1 = 1\ncost-mtty-2 = 2\ndriver = mtty\n\
                   directory = vendor\n";
    record(&host, "lab-mdev", &acts, standin);
}
