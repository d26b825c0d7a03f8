//! Values that are odd: what is not understood is told, and never taken for another.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use roxmltree::{Document, Node};

use super::import;
use super::tests::{DOMAINS, devices, domain, is_whole, leaves, says, target};

/// What may say anything without a word about it: it is of a running guest, libvirt's own, or mvm's to say.
fn is_quiet(node: Node<'_, '_>, attribute: &str) -> bool {
    let parent = node.parent_element();
    let parent = parent.map_or("", |parent| parent.tag_name().name());
    match (node.tag_name().name(), attribute) {
        ("domain", "id") | ("alias", "name") | ("audio", "id") => true,
        // What libvirt compares before a start.
        ("cpu", "check" | "match") | ("model", "fallback") => true,
        // Of a running guest.
        ("target", "tray" | "state") | ("source", "index") | (_, "tty") => true,
        // The order of devices on a bus of mvm's.
        ("target", "port") => true,
        ("mac", "type" | "check") | ("source", "portid" | "portgroup") => true,
        // Once more what the device says.
        ("model", "name") => parent == "target",
        _ => false,
    }
}

/// Each value in turn is one that nobody understands: it is in the machine file, or told by itself or with an
/// element that is told as a whole.
#[test]
fn a_value_that_is_not_understood_is_told() {
    const ODD: &str = "zz-17";
    let mut silent = Vec::new();
    for text in DOMAINS {
        let document = Document::parse(text).unwrap();
        for node in document.descendants().filter(Node::is_element) {
            let values = node
                .attributes()
                .map(|one| (one.name().to_owned(), one.range_value()));
            let inner = node.children().filter(|child| {
                child.is_text() && !child.text().unwrap_or_default().trim().is_empty()
            });
            let inner = inner.map(|child| (String::new(), child.range()));
            for (attribute, range) in values.chain(inner) {
                if is_quiet(node, &attribute) {
                    continue;
                }
                let odd = format!("{}{ODD}{}", &text[..range.start], &text[range.end..]);
                let Ok(imported) = import(odd.as_bytes(), &target()) else {
                    continue;
                };
                let told = || imported.left.iter().chain(&imported.fine);
                let outer = |outer: Node<'_, '_>| {
                    let line = document.text_pos_at(outer.range().start).row;
                    told().any(|told| is_whole(told, line, outer.tag_name().name()))
                };
                let all = imported.text("") + &imported.name.clone().unwrap_or_default();
                if !all.contains(ODD) && !node.ancestors().filter(Node::is_element).any(outer) {
                    let line = document.text_pos_at(range.start).row;
                    let name = node.tag_name().name();
                    silent.push(format!(
                        "line {line}: <{name}> {attribute}: {:?}",
                        &text[range]
                    ));
                }
            }
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}

#[test]
fn numbers_that_are_none_are_told() {
    for (parts, what) in [
        ("<memory>-5</memory>", "<memory>-5"),
        (
            "<memory unit='EiB'>9999999999999</memory>",
            "<memory unit='EiB'>9999999999999",
        ),
        ("<vcpu>zwei</vcpu>", "<vcpu>zwei"),
        ("<vcpu>0</vcpu>", "<vcpu>0"),
        ("<iothreads>x</iothreads>", "<iothreads>x"),
        ("<iothreads>100</iothreads>", "<iothreads>100"),
        (
            "<vcpu current='99999999999999999999'>2</vcpu>",
            "current='99999999999999999999'",
        ),
    ] {
        let text = format!(
            "<domain type='kvm'><name>g</name><os><type arch='x86_64' machine='q35'>hvm</type></os>{parts}</domain>"
        );
        let imported = import(text.as_bytes(), &target()).unwrap();
        leaves(&imported, what, "");
    }
    let many = domain(
        "<vcpu>2</vcpu><cpu><topology sockets='9223372036854775807' cores='4' threads='1'/></cpu>",
    );
    leaves(&many, "<cpu>", "");
    let imported = devices(
        "<graphics type='vnc' port='viele'/><shmem name='s'><model type='ivshmem-plain'/><size>x</size></shmem>\
         <disk type='file'><source file='/a'/><target dev='vda'/><iotune><total_iops_sec>oft</total_iops_sec></iotune>\
         </disk>\
         <hostdev type='pci'><source><address domain='zz' bus='1' slot='0' function='0'/></source></hostdev>",
    );
    leaves(&imported, "port='viele'", "not with this value");
    leaves(&imported, "<size>x", "not with this value");
    leaves(&imported, "<total_iops_sec>oft", "not with this value");
    leaves(&imported, "<hostdev type='pci'>", "it names no device");
    says(&imported, &["port = \"auto\"", "size = \"4M\""]);
}

#[test]
fn one_pin_that_is_wrong_takes_no_other_away() {
    let imported = domain(
        "<vcpu cpuset='0-7,^3'>3</vcpu><iothreads>1</iothreads><cputune>\
         <vcpupin vcpu='0' cpuset='0'/><vcpupin vcpu='1' cpuset='1,^0'/><vcpupin vcpu='2' cpuset='2,^2'/>\
         <vcpupin vcpu='3' cpuset='3'/><vcpupin vcpu='x' cpuset='3'/><emulatorpin cpuset='0-3,^1'/>\
         <iothreadpin iothread='1' cpuset='4-6,^5'/><iothreadpin iothread='2' cpuset='4'/></cputune>\
         <numatune><memory mode='strict' nodeset='0-2,^1'/></numatune>",
    );
    says(
        &imported,
        &[
            "host-cpus = \"0-2,4-7\"",
            "vcpu = { 0 = \"0\", 1 = \"1\" }",
            "emulator = \"0,2-3\"",
            "iothread = { iothread1 = \"4,6\" }",
            "host-nodes = \"0,2\"",
        ],
    );
    leaves(&imported, "vcpu='2' cpuset='2,^2'", "it names no CPUs");
    leaves(&imported, "vcpu='3'", "starts without that processor");
    leaves(&imported, "vcpu='x'", "not with this value");
    leaves(&imported, "iothread='2'", "no such thread");
    assert_eq!(imported.left.len(), 4, "{:#?}", imported.left);
}

#[test]
fn a_guest_gets_the_usb_controller_that_it_knows() {
    let controller = |model: &str| format!("<controller type='usb' index='0' model='{model}'/>");
    let companions = "<controller type='usb' index='0' model='ich9-uhci1'><master startport='0'/></controller>\
                      <controller type='usb' index='0' model='ich9-uhci2'><master startport='2'/></controller>";
    let tablet = "<input type='tablet' bus='usb'/>";
    for (all, model) in [
        (controller("piix3-uhci"), "uhci"),
        (controller("piix4-uhci"), "uhci"),
        (controller("ich9-uhci1"), "uhci"),
        (companions.to_owned(), "uhci"),
        (controller("ehci"), "ehci"),
        (controller("ich9-ehci1") + companions, "ehci"),
        (companions.to_owned() + &controller("ich9-ehci1"), "ehci"),
        (controller("nec-xhci"), "nec-xhci"),
        (controller("qemu-xhci"), "xhci"),
        (controller("pci-ohci") + &controller("qemu-xhci"), "xhci"),
    ] {
        let imported = devices(&(all.clone() + tablet));
        let line = format!("model = \"{model}\"");
        says(&imported, &["[usb-controller]", &line]);
        if all.contains("ehci") && all.contains("master") {
            leaves(&imported, "ich9-uhci1", "no companions");
            leaves(&imported, "ich9-uhci2", "no companions");
        }
    }
    let none = devices(&controller("pci-ohci"));
    leaves(&none, "pci-ohci", "mvm has no such controller");
    assert!(!none.toml.contains("usb-controller"), "{}", none.toml);
    // A start would be refused for want of ports.
    let full = devices(&(controller("piix3-uhci") + &tablet.repeat(3)));
    says(&full, &["model = \"ehci\""]);
    leaves(&full, "piix3-uhci", "2 ports and no hubs");
    let fuller = devices(&(controller("ich9-ehci1") + &tablet.repeat(7)));
    says(&fuller, &["model = \"xhci\""]);
}
