//! Domains in parts: what becomes of each.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use super::{ImportError, Imported, Target, Told, import};

pub(super) fn target() -> Target {
    Target {
        name: None,
        prefix: String::new(),
        secrets: "/secrets".into(),
    }
}

/// A domain with these parts, and devices of its own where they have none.
pub(super) fn domain(parts: &str) -> Imported {
    let text = format!(
        "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>g</name>\
         <memory unit='MiB'>64</memory><os><type arch='x86_64' machine='q35'>hvm</type></os>\
         <features><acpi/></features><cpu mode='host-passthrough'/>{parts}</domain>"
    );
    import(text.as_bytes(), &target()).unwrap()
}

pub(super) fn devices(devices: &str) -> Imported {
    domain(&format!(
        "<devices>{devices}<memballoon model='none'/></devices>"
    ))
}

#[track_caller]
pub(super) fn says(imported: &Imported, lines: &[&str]) {
    for line in lines {
        let found = imported.toml.lines().any(|one| one == *line);
        assert!(
            found,
            "`{line}` not in:\n{}\n{:#?}",
            imported.toml, imported.left
        );
    }
}

#[track_caller]
pub(super) fn leaves(imported: &Imported, what: &str, why: &str) {
    let found = imported
        .left
        .iter()
        .any(|told| told.what.contains(what) && told.why.contains(why));
    assert!(found, "`{what}`: `{why}` not in:\n{:#?}", imported.left);
}

#[test]
fn a_domain_that_is_wholly_carried_over_has_nothing_to_tell() {
    let imported = domain("<vcpu>2</vcpu>");
    assert_eq!(imported.left, []);
    says(
        &imported,
        &[
            "arch = \"x86_64\"",
            "type = \"q35\"",
            "count = 2",
            "size = \"64M\"",
        ],
    );
}

#[test]
fn other_files_of_libvirts_are_told_by_name() {
    for (text, what) in [
        (
            "<network><name>default</name></network>",
            "a network of libvirt's",
        ),
        ("<pool type='dir'/>", "a storage pool"),
        (
            "<domainsnapshot><domain/></domainsnapshot>",
            "a snapshot of a domain",
        ),
        ("<domstatus/>", "what libvirt remembers of a running domain"),
        (
            "<interface type='bridge' name='br0'/>",
            "a network interface of the host",
        ),
        ("<html/>", "no file of libvirt's"),
    ] {
        let error = import(text.as_bytes(), &target()).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
    for (text, error) in [
        (
            "<domain type='xen'/>",
            ImportError::Hypervisor("xen".into()),
        ),
        (
            "<domain type='kvm'><os><type>exe</type></os></domain>",
            ImportError::Kind("exe".into()),
        ),
        (
            "<domain type='kvm'><os><type arch='ppc64'>hvm</type></os></domain>",
            ImportError::Arch("ppc64".into()),
        ),
        (
            "<domain xmlns='urn:x' type='kvm'/>",
            ImportError::Namespace {
                root: "domain".into(),
                namespace: "urn:x".into(),
            },
        ),
    ] {
        assert_eq!(
            import(text.as_bytes(), &target()).unwrap_err(),
            error,
            "{text}"
        );
    }
}

#[test]
fn unusual_but_valid_xml_means_the_same() {
    let usual = domain("<vcpu cpuset='1'>2</vcpu>");
    let text = "\u{feff}<?xml version=\"1.0\"?>\n<?pi?><!-- a > b < c -->\n\
                <domain  xmlns:z=\"http://libvirt.org/schemas/domain/qemu/1.0\"\n type = \"kvm\" >\
                <vcpu cpuset=\"&#49;\"><![CDATA[2]]></vcpu><cpu mode='host-passthrough'></cpu>\
                <features><acpi></acpi></features><os><?x y?><type machine='q35'\n arch='x86_64'>h<!-- -->vm</type>\
                </os><memory unit='MiB'> 64 </memory><name>\n g </name></domain>";
    let unusual = import(text.as_bytes(), &target()).unwrap();
    assert_eq!(unusual.name, usual.name);
    assert_eq!(unusual.toml, usual.toml);
    assert_eq!(unusual.left, []);
}

#[test]
fn arguments_for_qemu_under_a_wrong_name_space_were_never_in_effect() {
    let text = "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.1'><name>g</name>\
                <os><type>hvm</type></os><commandline/>\
                <qemu:commandline><qemu:arg value='-S'/></qemu:commandline></domain>";
    let imported = import(text.as_bytes(), &target()).unwrap();
    assert!(!imported.toml.contains("qemu-args"), "{}", imported.toml);
    leaves(&imported, "<commandline/>", "no name space");
    leaves(&imported, "<qemu:commandline>…", "domain/qemu/1.1");
    leaves(&imported, "<qemu:commandline>…", "libvirt drops it");
}

#[test]
fn passwords_are_neither_copied_nor_shown() {
    let imported = domain(
        "<devices><graphics type='vnc' port='5901' passwd='hunter2'/></devices>\
         <qemu:commandline><qemu:arg value='-object'/>\
         <qemu:arg value='secret,id=s,data=hunter2'/><qemu:env name='SPICE_PASSWORD' value='hunter2'/>\
         </qemu:commandline>",
    );
    let all = imported.text("") + &format!("{:?}", imported.left);
    assert!(!all.contains("hunter2"), "{all}");
    leaves(
        &imported,
        "passwd='(not shown)', for /secrets/g.vnc-password",
        "a password is not copied: write it into that file",
    );
    // Without the file a start is refused, and never a guest open that was not.
    says(&imported, &["password-file = \"/secrets/g.vnc-password\""]);
    leaves(&imported, "(not shown)", "it holds a password");
    leaves(&imported, "qemu:env", "a secret is not copied");
}

#[test]
fn disks_keep_what_the_guest_sees_of_them() {
    let imported = devices(
        "<disk type='file'><driver name='qemu' type='qcow2' cache='none' io='native' discard='unmap' \
         detect_zeroes='unmap' error_policy='enospace' queues='4'/><source file='/a, \"b\".qcow2'/>\
         <target dev='vda' bus='virtio'/><serial>S1</serial><boot order='1'/>\
         <iotune><total_bytes_sec>10485760</total_bytes_sec><read_iops_sec>0</read_iops_sec></iotune>\
         <address type='pci' bus='0x00' slot='0x1a' function='0x1'/></disk>\
         <disk device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>\
         <disk type='volume'><source pool='p' volume='v'/><target dev='vdb'/></disk>",
    );
    says(
        &imported,
        &[
            "[disk.vda]",
            "file.path = '/a, \"b\".qcow2'",
            "file.format = \"qcow2\"",
            "bus = \"virtio\"",
            "cache = \"none\"",
            "aio = \"native\"",
            "discard = true",
            "detect-zeroes = \"unmap\"",
            "werror = \"enospc\"",
            "queues = 4",
            "throttle.bps-total = \"10M\"",
            "serial = \"S1\"",
            "boot = 1",
            "address = \"0x1a.1\"",
            "[disk.sda]",
            "empty = true",
            "media = \"cdrom\"",
        ],
    );
    assert!(
        !imported.toml.contains("rerror") && !imported.toml.contains("iops"),
        "{}",
        imported.toml
    );
    leaves(&imported, "<disk type='volume'>…", "virsh vol-path");
    assert_eq!(imported.left.len(), 1, "{:#?}", imported.left);
}

#[test]
fn devices_of_the_host_are_found_by_what_lasts() {
    let imported = devices(
        "<hostdev mode='subsystem' type='pci' managed='no'><source><address domain='0x0000' bus='0x01' slot='0x00' \
         function='0x1'/></source><rom bar='off'/></hostdev>\
         <hostdev mode='subsystem' type='usb'><source><vendor id='0x46d'/><product id='0xC52B'/></source></hostdev>\
         <hostdev mode='subsystem' type='usb'><source><address bus='1' device='3'/></source></hostdev>\
         <hostdev mode='subsystem' type='mdev' model='vfio-pci' display='on'><source>\
         <address uuid='fff6f017-3417-4ad3-b05e-17ae3e1a4615'/></source></hostdev>",
    );
    says(
        &imported,
        &[
            "[pci.hostdev0]",
            "address = \"0000:01:00.1\"",
            "rom-bar = false",
            "[usb.hostdev1]",
            "id = \"046d:c52b\"",
            "[mdev.hostdev3]",
            "uuid = \"fff6f017-3417-4ad3-b05e-17ae3e1a4615\"",
        ],
    );
    leaves(
        &imported,
        "<hostdev mode='subsystem' type='usb'>…",
        "mvm devices usb",
    );
}

#[test]
fn the_integrated_gpu_is_the_guests_gpu() {
    let gpu = |function: &str, slot: &str, more: &str| {
        devices(&format!(
            "<hostdev type='pci'><source><address bus='0x00' slot='0x02' function='{function}'/></source>\
             <address type='pci' bus='0x00' slot='{slot}' function='0x0'/></hostdev>{more}"
        ))
    };
    says(&gpu("0x0", "0x02", ""), &["[gpu]", "whole = true"]);
    says(
        &gpu("0x0", "0x04", "<video><model type='qxl'/></video>"),
        &["upt = true"],
    );
    says(
        &gpu("0x3", "0x02", "<video><model type='virtio'/></video>"),
        &["vf = 3"],
    );
    assert_eq!(gpu("0x0", "0x02", "").left, []);
}

/// What virt-manager writes for 3D: with a port SPICE would not start.
#[test]
fn a_display_that_listens_nowhere_is_on_a_socket() {
    let imported = devices(
        "<graphics type='spice' autoport='yes'><listen type='none'/><gl enable='yes'/></graphics>",
    );
    says(&imported, &["socket = true", "gl = true"]);
    assert!(!imported.toml.contains("port ="), "{}", imported.toml);
    leaves(&imported, "<listen type='none'/>", "as here, a socket");
}

#[test]
fn devices_of_viewers_come_by_spice_only() {
    let port = |kind: &str| format!("<redirdev bus='usb' type='{kind}'/>");
    let both = port("spicevmc") + &port("tcp") + &port("spicevmc");
    let spice = devices(&format!("<graphics type='spice'/>{both}"));
    says(&spice, &["[usb-redirect]", "ports = 2"]);
    leaves(&spice, "type='tcp'", "by SPICE only");
    // A start would be refused.
    let vnc = devices(&format!("<graphics type='vnc'/>{both}"));
    assert!(!vnc.toml.contains("usb-redirect"), "{}", vnc.toml);
    leaves(&vnc, "type='spicevmc'", "no such display");
}

#[test]
fn fragments_are_pieces_of_a_profile() {
    let one = "<hostdev mode='subsystem' type='usb'><source><vendor id='0x046d'/><product id='0xc52b'/></source></hostdev>";
    let two = format!(
        "<?xml version='1.0'?>\n<!-- two -->\n{one}\n{}",
        one.replace("c52b", "c52c")
    );
    for (text, sets) in [
        (one.to_owned(), vec!["usb.hostdev0.id=\"046d:c52b\""]),
        (
            two.clone(),
            vec![
                "usb.hostdev0.id=\"046d:c52b\"",
                "usb.hostdev1.id=\"046d:c52c\"",
            ],
        ),
        (
            format!("<devices>{one}</devices>"),
            vec!["usb.hostdev0.id=\"046d:c52b\""],
        ),
    ] {
        let imported = import(text.as_bytes(), &target()).unwrap();
        assert_eq!(imported.name, None);
        assert_eq!(imported.sets, sets, "{text}");
    }
    let named = import(
        one.as_bytes(),
        &Target {
            prefix: "wifi-".to_owned(),
            ..target()
        },
    )
    .unwrap();
    assert_eq!(named.sets, ["usb.wifi-hostdev0.id=\"046d:c52b\""]);
    // The lines are those of the file.
    let odd = import(format!("{two}\n<oddity/>").as_bytes(), &target()).unwrap();
    assert_eq!(
        odd.left.iter().map(|told| told.line).collect::<Vec<_>>(),
        [5]
    );
    assert_eq!(
        import(b"<devices/>", &target()).unwrap_err(),
        ImportError::NoDevices
    );
    for (text, error) in [
        ("hello", ImportError::NotXml),
        ("[disk.a]\nempty = true\n", ImportError::NotXml),
        (
            "<domain/>\n<domain/>",
            ImportError::Domains {
                domains: 2,
                more: false,
            },
        ),
        (
            "<domain/><hostdev/>",
            ImportError::Domains {
                domains: 1,
                more: true,
            },
        ),
    ] {
        assert_eq!(import(text.as_bytes(), &target()).unwrap_err(), error);
    }
    let nets = import(b"<network/><network/>", &target()).unwrap_err();
    assert!(
        nets.to_string().contains("a network of libvirt's"),
        "{nets}"
    );
    // What is broken is told as the file has it.
    let broken = import(b"<hostdev>\n<a></b></hostdev>", &target()).unwrap_err();
    assert!(
        matches!(broken, ImportError::Syntax(ref why) if why.contains("2:4")),
        "{broken}"
    );
}

#[test]
fn what_profiles_do_not_take_is_told_and_left_out() {
    let imported = devices(
        "<disk type='file'><source file='/a'/><target dev='vda'/><driver type='raw' cache='sometimes'/></disk>\
         <interface type='user'><mac address='01:00:5e:00:00:01'/><model type='virtio'/></interface>",
    );
    leaves(
        &imported,
        "<driver type='raw' cache='sometimes'/>",
        "disk.vda.cache = \"sometimes\"",
    );
    leaves(
        &imported,
        "<mac address='01:00:5e:00:00:01'/>",
        "network.net0.mac",
    );
    assert!(
        !imported.toml.contains("sometimes") && !imported.toml.contains("01:00"),
        "{}",
        imported.toml
    );
}

/// The domains of the tests through the command.
pub(super) const DOMAINS: [&str; 4] = [
    include_str!("../../tests/it/libvirt/odds.xml"),
    include_str!("../../tests/it/libvirt/ubuntu-sriov.xml"),
    include_str!("../../tests/it/libvirt/gaming-vfio.xml"),
    include_str!("../../tests/it/libvirt/windows-upt.xml"),
];

/// Whether it tells of the element as a whole, and not of an attribute of it alone.
pub(super) fn is_whole(told: &Told, line: u32, name: &str) -> bool {
    let what = told.what.replace("<qemu:", "<");
    let rest = what
        .strip_prefix('<')
        .and_then(|what| what.strip_prefix(name));
    let whole = |rest: &str| rest.starts_with([' ', '/', '>']) && !rest.starts_with("> ");
    told.line == line && rest.is_some_and(whole)
}

/// Into every element in turn something comes that nobody knows: it is told by itself, or with an element that is
/// told as a whole.
#[test]
fn nothing_is_dropped_in_silence() {
    for domain in DOMAINS {
        let document = roxmltree::Document::parse(domain).unwrap();
        for node in document.descendants().filter(roxmltree::Node::is_element) {
            let start = node.range().start;
            let name = domain[start + 1..]
                .split([' ', '>', '/', '\n'])
                .next()
                .unwrap();
            let at = start + 1 + name.len();
            let text = format!("{} zz='1'{}", &domain[..at], &domain[at..]);
            let imported = import(text.as_bytes(), &target()).unwrap();
            let told = || imported.left.iter().chain(&imported.fine);
            let by_itself = told().any(|told| told.what.contains("zz='1'"));
            let with_another = node
                .ancestors()
                .filter(roxmltree::Node::is_element)
                .any(|outer| {
                    let line = document.text_pos_at(outer.range().start).row;
                    told().any(|told| is_whole(told, line, outer.tag_name().name()))
                });
            let line = document.text_pos_at(start).row;
            assert!(
                by_itself || with_another,
                "line {line}: <{name}>\n{:#?}",
                imported.left
            );
        }
    }
}

/// Whatever an attribute says, what comes of it can be read.
#[test]
fn no_value_makes_a_machine_file_that_is_wrong() {
    for domain in DOMAINS {
        let document = roxmltree::Document::parse(domain).unwrap();
        let all = document.descendants().filter(roxmltree::Node::is_element);
        let values = all
            .flat_map(|node| node.attributes())
            .map(|one| one.range_value());
        for (number, range) in values.enumerate() {
            // Each with one of them, as each import takes its time.
            let odd = [
                "",
                "0",
                "-1",
                "99999999999999999999",
                "a.b \"c\" 'd' \u{e4}",
                "yes",
            ][number % 6];
            let odd = odd.replace('\'', "&apos;").replace('"', "&quot;");
            let text = format!("{}{odd}{}", &domain[..range.start], &domain[range.end..]);
            let Ok(imported) = import(text.as_bytes(), &target()) else {
                continue;
            };
            let refused = crate::profile::refused(&imported.text("g"));
            assert_eq!(refused, [], "{odd} at {}\n{}", range.start, imported.toml);
        }
    }
}
