//! `mvm import`: the domains of the guides and others like them.

use std::fs;
use std::path::Path;

use crate::env::TestEnv;
use crate::hosts::Host;

/// The XML of `tests/it/libvirt`.
pub(crate) fn xml(name: &str) -> String {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/libvirt"));
    let path = folder.join(format!("{name}.xml"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All of them, by name.
const DOMAINS: [&str; 13] = [
    "android-sriov",
    "arm-9p",
    "arm-disks",
    "arm-iommu",
    "gaming-vfio",
    "gvtg-after",
    "gvtg-before",
    "odds",
    "retro",
    "ubuntu-rt",
    "ubuntu-sriov",
    "windows-gvtd",
    "windows-upt",
];

#[test]
fn every_domain_becomes_a_machine_file_that_is_right() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/libvirt");
    let there = fs::read_dir(folder).expect("the folder").count();
    assert_eq!(there, DOMAINS.len(), "DOMAINS does not name every file");
    for name in DOMAINS {
        let env = TestEnv::new();
        let file = env.write("domain.xml", xml(name));
        let file = file.to_str().expect("UTF-8");
        let before = env.tree();
        let shown = env
            .run(&["import", file, "--as", "g", "--dry-run"])
            .exits(0);
        assert_eq!(env.tree(), before, "{name}: a dry run touches nothing");
        env.run(&["import", file, "--as", "g"])
            .exits(0)
            .says("made ");
        let written = fs::read_to_string(env.path("config/machines/g.toml")).expect("it was made");
        assert_eq!(written, shown.stdout, "{name}");
        env.mvm("profile check g").exits(0);
        // What is told on stderr stands in the file as well.
        for line in shown.stderr.lines().skip(1) {
            assert!(written.contains(line.trim()), "{name}: {line}");
        }
        let config = env.path("config");
        let config = config.to_str().expect("UTF-8");
        insta::assert_snapshot!(name, written.replace(config, "/etc/mvm"));
    }
}

#[test]
fn what_is_no_domain_is_told_apart() {
    let env = TestEnv::new();
    let big = env.path("big.xml");
    let file = fs::File::create(&big).expect("a file");
    file.set_len(100 << 20).expect("a hole is cheap");
    let fifo = env.path("fifo.xml");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let utf16: Vec<u8> = "\u{feff}<domain/>"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let bomb = "<!DOCTYPE d [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]>\
                <domain type='kvm'><name>&b;</name></domain>";
    env.write("utf16.xml", utf16);
    env.write("bomb.xml", bomb);
    env.write("net.xml", "<network><name>default</name></network>");
    env.write(
        "prefix.xml",
        "<domain type='kvm'><qemu:commandline/></domain>",
    );
    env.write("broken.xml", "<domain type='kvm'>\n<name>a</nam></domain>");
    env.write("empty.xml", "");
    env.write("hello.xml", "hello\n");
    env.write("profile.toml", "[disk.a]\nfile = 'a.img'\n");
    let one = "<domain type='kvm'><name>a</name><os><type>hvm</type></os></domain>\n";
    env.write("two.xml", one.repeat(2));
    env.write("xen.xml", "<domain type='xen'><name>a</name></domain>");
    for (file, says) in [
        ("big.xml", "larger than the XML of a domain can be (4 MiB)"),
        ("fifo.xml", "it is not a file"),
        (".", "it is not a file"),
        ("none.xml", "No such file"),
        ("utf16.xml", "its text is UTF-16, and only UTF-8 is read"),
        ("bomb.xml", "it has a DOCTYPE"),
        (
            "net.xml",
            "`<network>` is a network of libvirt's, and not a domain",
        ),
        (
            "prefix.xml",
            "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'",
        ),
        ("broken.xml", "broken.xml: it is not well-formed XML: "),
        ("empty.xml", "it is empty"),
        ("hello.xml", "hello.xml: it is no XML"),
        ("profile.toml", "profile.toml: it is no XML"),
        ("two.xml", "it holds 2 domains, and one file is one domain"),
        ("xen.xml", "the type `xen`"),
    ] {
        let ran = env.run(&["import", file]).exits(1).says(says);
        assert!(ran.stdout.is_empty(), "{file}");
    }
    let machines = fs::read_dir(env.path("config/machines")).expect("the folder");
    assert_eq!(machines.count(), 0, "nothing was written");
}

#[test]
fn a_guest_that_is_there_is_not_overwritten() {
    let env = TestEnv::new();
    let domain = "<domain type='kvm'><name>my guest!</name><memory>65536</memory>\
                  <os><type arch='x86_64' machine='q35'>hvm</type></os></domain>";
    env.write("d.xml", domain);
    env.mvm("import d.xml").exits(2).says("--as NAME");
    env.mvm("import d.xml --as mine").exits(0);
    let path = env.path("config/machines/mine.toml");
    let mut text = fs::read_to_string(&path).expect("it was made");
    text.push_str("# mine\n");
    fs::write(&path, &text).expect("it can be changed");
    env.mvm("import d.xml --as mine")
        .exits(1)
        .says("there is a guest mine already");
    assert_eq!(fs::read_to_string(&path).expect("it is there"), text);
    env.mvm("import d.xml --as mine --output here.toml")
        .exits(0);
    env.mvm("profile check ./here.toml").exits(0);
    let mut command = env.command(&["import", "-", "--as", "other"]);
    command.stdin(fs::File::open(env.path("d.xml")).expect("a file"));
    crate::env::finish(command).exits(0);
    env.mvm("profile check other").exits(0);
}

/// What virt-manager writes for Windows 11, with TCG for KVM.
const WINDOWS: &str = "<domain type='qemu'><name>win11</name><memory unit='MiB'>64</memory>\
    <os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type>\
    <firmware><feature enabled='yes' name='enrolled-keys'/><feature enabled='yes' name='secure-boot'/></firmware>\
    </os><features><acpi/><smm state='on'/></features><cpu mode='maximum'/><devices>\
    <controller type='usb' index='0' model='qemu-xhci'/><input type='tablet' bus='usb'/>\
    <graphics type='vnc' port='5910' autoport='no' listen='0.0.0.0' passwd='geheim'/>\
    <video><model type='cirrus'/></video></devices></domain>";

/// A guest that wanted a password does not become one that wants none.
#[test]
fn windows_11_starts_when_its_password_is_there() {
    if !crate::env::has_program("qemu-system-x86_64") {
        return;
    }
    let env = TestEnv::new();
    env.write("win11.xml", WINDOWS);
    let ran = env.mvm("import win11.xml --as win").exits(0);
    let path = env.path("config/win.vnc-password");
    let path = path.to_str().expect("UTF-8");
    let ran = ran
        .says("made ")
        .says(&format!("passwd='(not shown)', for {path}"))
        .says("note: a start on this host would be refused now: `display.vnc.password-file`");
    assert!(!ran.stderr.contains("secure-boot"), "{}", ran.stderr);
    let made = fs::read_to_string(env.path("config/machines/win.toml")).expect("it was made");
    assert!(!made.contains("geheim"), "{made}");
    env.mvm("run win --dry-run").exits(4).says("umask 077");
    env.write("config/win.vnc-password", "geheim");
    let plan = env.mvm("run win --dry-run").exits(0);
    for part in ["password-secret=mvm-vnc-password", "smm=on"] {
        assert!(plan.stdout.contains(part), "{part}: {}", plan.stdout);
    }
    // With all in place there is nothing to tell of a start.
    let again = env.mvm("import win11.xml --as win --output ./win.toml");
    let again = again.exits(0);
    assert!(!again.stderr.contains("refused now"), "{}", again.stderr);
}

/// A guest of the portfolio gets a device by a file of libvirt's as it does by a flag.
#[test]
fn devices_of_a_file_are_those_of_a_flag() {
    let env = TestEnv::new();
    let host = Host::new("nvidia-desktop");
    env.write(
        "config/profiles/g.toml",
        "[machine]\naccel = 'tcg'\narch = 'x86_64'\ntype = 'q35'\n[hotplug]\nports = 0\n",
    );
    let gpu = |function: u8| {
        format!(
            "<hostdev mode='subsystem' type='pci' managed='yes'><source>\
             <address domain='0x0000' bus='0x01' slot='0x00' function='{function:#x}'/></source></hostdev>\n"
        )
    };
    // The whole card: its functions share an IOMMU group.
    env.write("gpu.xml", (0..4).map(gpu).collect::<String>());
    env.write("sound.xml", gpu(1));
    env.write(
        "whole.xml",
        "<domain type='kvm'><os><type>hvm</type></os></domain>",
    );
    let dry_run = |more: &[&str]| {
        let mut words = vec![
            "run",
            "g",
            "--take-from-host",
            "--dry-run",
            "--format",
            "json",
        ];
        words.extend(more);
        let mut command = env.command(&words);
        command.env("MVM_SYSFS", host.sys());
        crate::env::finish(command)
    };
    let hosts = |ran: &crate::env::Ran| -> Vec<String> {
        let plan = ran.json();
        let args = plan["args"].as_array().expect("args").iter();
        let args = args.filter_map(serde_json::Value::as_str);
        args.filter(|arg| arg.contains("vfio-pci"))
            .map(str::to_owned)
            .collect()
    };
    let by_xml = dry_run(&["--xml", "gpu.xml"]).exits(0);
    let devices = hosts(&by_xml);
    assert_eq!(devices.len(), 4, "{}", by_xml.stdout);
    for (function, device) in devices.iter().enumerate() {
        assert!(
            device.contains(&format!("0000:01:00.{function}")),
            "{device}"
        );
    }
    // The same by a piece of a profile, made of it.
    env.mvm("import gpu.xml").exits(2).says("--output FILE");
    env.mvm("import gpu.xml --as g").exits(2);
    env.mvm("import gpu.xml --output gpu.toml").exits(0);
    env.mvm("import gpu.xml --output gpu.toml")
        .exits(1)
        .says("gpu.toml");
    assert_eq!(hosts(&dry_run(&["--device", "gpu.toml"]).exits(0)), devices);
    // Two files have devices of their own names; one function twice is refused as by flags.
    dry_run(&["--xml", "gpu.xml", "--xml", "sound.xml"])
        .exits(3)
        .says("sound-hostdev0");
    dry_run(&["--xml", "whole.xml"])
        .exits(2)
        .says("mvm import FILE");
    // A guest that is made with them keeps them.
    env.mvm("create web --profile g --xml gpu.xml").exits(0);
    let made = fs::read_to_string(env.path("config/machines/web.toml")).expect("it was made");
    assert!(made.contains("[pci.gpu-hostdev1]"), "{made}");
}
