//! The steps of host devices in words, and as lines for a shell.

use crate::handover::{ConsoleRef, Provision};
use crate::ids::PciRef;
use crate::machine::VfSet;
use crate::plan::step::{Node, Step, VfNetState, VfioDevice};

/// Where a function's files are. A virtual function's address is known once it exists.
fn dir(device: PciRef) -> String {
    match device {
        PciRef::Function(bdf) => format!("/sys/bus/pci/devices/{bdf}"),
        PciRef::Vf { pf, index } => format!("/sys/bus/pci/devices/{pf}/virtfn{}", index - 1),
    }
}

/// Lines for a POSIX shell, to be run as root.
pub(super) fn by_hand(step: &Step) -> Vec<String> {
    match step {
        Step::MakeVfs { pf, count, .. } => {
            let pf = format!("/sys/bus/pci/devices/{pf}");
            let count = match count {
                0 => format!("\"$(cat {pf}/sriov_totalvfs)\""),
                count => count.to_string(),
            };
            vec![
                format!("echo 0 > {pf}/sriov_drivers_autoprobe"),
                format!("echo {count} > {pf}/sriov_numvfs"),
                format!("echo 1 > {pf}/sriov_drivers_autoprobe"),
            ]
        }
        Step::SetVfNet { pf, index, to, .. } => vec![format!(
            "ip link set \"$(ls /sys/bus/pci/devices/{pf}/net)\" vf {}{}",
            index - 1,
            net(to)
        )],
        Step::MakeMdev {
            parent,
            type_id,
            uuid,
            ..
        } => vec![format!(
            "echo {uuid} > /sys/class/mdev_bus/{parent}/mdev_supported_types/{type_id}/create"
        )],
        Step::DetachConsole { console, .. } => vec![match console {
            ConsoleRef::Vt(name) => format!("echo 0 > /sys/class/vtconsole/{name}/bind"),
            ConsoleRef::Platform { driver, device } => {
                format!("echo {device} > /sys/bus/platform/drivers/{driver}/unbind")
            }
        }],
        Step::BindDriver {
            device,
            driver,
            from,
        } => {
            let dir = dir(*device);
            let name = format!("\"$(basename \"$(readlink -f {dir})\")\"");
            let mut lines = vec![format!("echo {driver} > {dir}/driver_override")];
            if from.driver.as_ref().is_some_and(|had| had != driver) {
                lines.push(format!("echo {name} > {dir}/driver/unbind"));
            }
            lines.push(format!("echo {name} > /sys/bus/pci/drivers_probe"));
            lines
        }
        Step::ClaimHugepages {
            size, node, pages, ..
        } => {
            let name = format!("hugepages-{}kB", size.as_bytes() >> 10);
            let dir = match node {
                Some(node) => format!("/sys/devices/system/node/node{node}/hugepages/{name}"),
                None => format!("/sys/kernel/mm/hugepages/{name}"),
            };
            // Where some are free already, fewer will do.
            vec![format!(
                "echo $(( $(cat {dir}/nr_hugepages) + {pages} )) > {dir}/nr_hugepages"
            )]
        }
        Step::GiveNode { node, to, .. } => {
            let node = node_path(node);
            vec![format!(
                "chown {} {node} && chmod {:04o} {node}",
                to.uid, to.mode
            )]
        }
        _ => Vec::new(),
    }
}

/// Where a node is, which is known once its device's driver has made it.
fn node_path(node: &Node) -> String {
    let of = |device: &VfioDevice| match device {
        VfioDevice::Pci(pci) => dir(*pci),
        VfioDevice::Mdev(uuid) => format!("/sys/bus/mdev/devices/{uuid}"),
    };
    match node {
        Node::Group(device) => format!(
            "\"/dev/vfio/$(basename \"$(readlink -f {}/iommu_group)\")\"",
            of(device)
        ),
        Node::Own(device) => format!("\"/dev/vfio/devices/$(ls {}/vfio-dev)\"", of(device)),
        Node::Input(path) => {
            let path = path.to_string_lossy();
            shlex::try_quote(&path).unwrap_or_default().into_owned()
        }
        Node::Usb { name, .. } => {
            let number = |file| format!("\"$(cat /sys/bus/usb/devices/{name}/{file})\"");
            format!(
                "\"/dev/bus/usb/$(printf %03d/%03d {} {})\"",
                number("busnum"),
                number("devnum")
            )
        }
    }
}

fn net(to: &VfNetState) -> String {
    let mac = to.mac.map(|mac| {
        let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        format!(" mac {}", bytes.join(":"))
    });
    let vlan = to.vlan.map(|vlan| format!(" vlan {vlan}"));
    format!("{}{}", mac.unwrap_or_default(), vlan.unwrap_or_default())
}

/// The step in plain words where it changes nothing, as what it would make is there.
pub(super) fn existing(step: &Step, vfs: &[VfSet]) -> Option<String> {
    let Step::MakeVfs { pf, .. } = step else {
        return None;
    };
    let set = vfs.iter().find(|set| set.pf == *pf && set.existing)?;
    Some(match set.count {
        1 => format!("use the virtual function of {pf} that is there"),
        count => format!(
            "use the {count} virtual functions of {pf} that are there, and leave their number"
        ),
    })
}

/// What each virtual function gets.
fn each(provision: &Provision) -> String {
    // It is plain data, whose keys are those of the profile.
    let value = serde_json::to_value(provision).unwrap_or_default();
    let said = value.as_object().into_iter().flatten();
    let said: Vec<String> = said
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| format!("{key} {}", value.to_string().trim_matches('"')))
        .collect();
    match said.as_slice() {
        [] => String::new(),
        said => format!(" with {}", said.join(", ")),
    }
}

/// The step in plain words.
pub(super) fn describe(step: &Step) -> String {
    match step {
        Step::TakeLease { device, .. } => format!("take {device} for this guest alone"),
        Step::ReleaseLease { key, .. } => format!("release the lease {key}"),
        Step::MakeVfs {
            pf,
            count,
            keep,
            provision,
            ..
        } => {
            let count = match count {
                0 => "all virtual functions".to_owned(),
                1 => "1 virtual function".to_owned(),
                count => format!("{count} virtual functions"),
            };
            let after = if *keep {
                "kept"
            } else {
                "removed when their last guest is gone"
            };
            let each = provision.as_ref().map(each).unwrap_or_default();
            format!("make {count} of {pf}{each}, {after}")
        }
        Step::ClaimHugepages {
            size, node, pages, ..
        } => {
            let of = node.map_or_else(String::new, |node| format!(" of node {node}"));
            format!(
                "see that {pages} huge pages of {size}{of} are free: what is missing is added to the host's pool, and taken off it when the guest is gone"
            )
        }
        Step::ReturnHugepages { size, .. } => {
            format!(
                "take the huge pages of {size} that were added for the guest off the host's pool"
            )
        }
        Step::DropVfs { pf, .. } => format!("give up the virtual functions of {pf}"),
        Step::RestoreVfs { pf, .. } => format!("put {pf} back as it was"),
        Step::SetVfNet { pf, index, to, .. } => {
            format!("set{} of virtual function {index} of {pf}", net(to))
        }
        Step::MakeMdev {
            parent,
            type_id,
            uuid,
            keep,
        } => {
            let after = if *keep {
                "kept"
            } else {
                "removed when the guest is gone"
            };
            format!("make the mediated device {uuid} of type {type_id} on {parent}, {after}")
        }
        Step::RemoveMdev { uuid } => format!("remove the mediated device {uuid}"),
        Step::DetachConsole { console, .. } => {
            format!("take the host's console {console} away, brought back when the guest is gone")
        }
        Step::AttachConsole { console, .. } => format!("bring the host's console {console} back"),
        Step::BindDriver {
            device,
            driver,
            from,
        } => match from.driver.as_deref() {
            Some(had) if had == driver => format!("use {device}, which {driver} has already"),
            Some(had) => format!("give {device} to {driver}, back to {had} when the guest is gone"),
            None => format!("give {device} to {driver} until the guest is gone"),
        },
        Step::GiveBack { device, from, .. } => match &from.driver {
            Some(had) => format!("give {device} back to {had}"),
            None => format!("give {device} back"),
        },
        Step::TakeUsb { port, .. } => {
            format!(
                "note the drivers of the USB device at {port}, which get it back when the guest is gone"
            )
        }
        Step::GiveNode { node, to, .. } => {
            format!(
                "give {node} to the user {}, back when the guest is gone",
                to.uid
            )
        }
        Step::TakeNodeBack { node, .. } => format!("put the owner of {node} back"),
        Step::GiveBackUsb { port, .. } => format!("give the USB device at {port} back"),
        Step::ConfirmVfio { devices } => {
            let names: Vec<String> = devices.iter().map(ToString::to_string).collect();
            format!(
                "open {} through VFIO, to see that it works",
                names.join(", ")
            )
        }
        _ => String::new(),
    }
}
