//! Disks, cards, consoles, shares.

use super::message;
use crate::error::{ExitCode, Report};
use crate::host::images::{Content, Look};
use crate::host::node::NodeProblem;
use crate::machine::NicBackend;
use crate::machine::testing::{dirs, facts, images, layer, machine, machine_on, resolve_all};
use crate::profile::schema::Media;

#[test]
fn a_missing_disk_says_where_it_looked_and_how_to_make_one() {
    let layer = layer("[disk.system]\nfile = { path = \"ubuntu's.qcow2\" }");
    let mut images = images(&layer, &dirs());
    let looked = vec!["/var/lib/mvm/images/ubuntu's.qcow2".into()];
    images
        .files
        .insert("ubuntu's.qcow2".into(), Look::Missing { looked });
    let error = resolve_all(&layer, &facts(), &images, &dirs()).unwrap_err();
    let report: Report = error.into();
    assert_eq!(report.code, ExitCode::Host);
    assert_eq!(
        report.to_string(),
        "error: disk `system`: there is no \"ubuntu's.qcow2\" (looked for \"/var/lib/mvm/images/ubuntu's.qcow2\")\n\
         hint: `mvm disk create \"ubuntu's.qcow2\" --size 20G` makes an empty one, \
         `mvm disk import FILE \"ubuntu's.qcow2\"` takes over one that you have\n"
    );
}

#[test]
fn formats_come_from_the_image() {
    let text = "[disk.a]\nfile = { path = \"a.img\" }\n[disk.b]\nfile = { path = \"b.qcow2\" }";
    let machine = machine(text).unwrap();
    let formats: Vec<String> = machine
        .disks
        .iter()
        .map(|disk| disk.image.as_ref().unwrap().format.to_string())
        .collect();
    assert_eq!(formats, ["raw", "qcow2"]);
    assert!(
        message("[disk.a]\nfile = { path = \"a.img\", format = \"qcow2\" }")
            .contains("not a qcow2")
    );
    let layer = layer("[disk.a]\nfile = { path = \"a.vmdk\" }");
    let mut images = images(&layer, &dirs());
    if let Some(Look::Found(facts)) = images.files.get_mut("a.vmdk") {
        facts.content = Some(Content::Other("a VMware (vmdk) image".into()));
    }
    let error = resolve_all(&layer, &facts(), &images, &dirs()).unwrap_err();
    let report: Report = error.into();
    assert!(report.chain[0].contains("VMware"), "{report}");
    assert!(report.hints[0].contains("mvm disk import"), "{report}");
}

#[test]
fn boot_order_and_names_order_disks() {
    let text = r#"
        [disk.a]
        file = { path = "a.img" }
        [disk.cd]
        empty = true
        media = "cdrom"
        [disk.z]
        file = { path = "z.img" }
    "#;
    let order = |text: &str| -> Vec<(String, Option<u32>)> {
        let disks = machine(text).unwrap().disks;
        disks.iter().map(|d| (d.id.to_string(), d.boot)).collect()
    };
    let named = |list: &[(&str, Option<u32>)]| -> Vec<(String, Option<u32>)> {
        list.iter()
            .map(|(id, boot)| ((*id).to_owned(), *boot))
            .collect()
    };
    assert_eq!(
        order(text),
        named(&[("a", Some(1)), ("z", Some(2)), ("cd", Some(3))])
    );
    assert_eq!(
        order(&format!("{text}\nboot = 1")),
        named(&[("z", Some(1)), ("a", None), ("cd", None)])
    );
    let twice = "[disk.a]\nboot = 1\nfile.path = \"a\"\n[disk.b]\nboot = 1\nfile.path = \"b\"";
    assert!(message(twice).contains("place 1"));
}

#[test]
fn disks_have_rules() {
    let with = |rest: &str| message(&format!("[disk.a]\nfile.path = \"a.img\"\n{rest}"));
    assert!(with("bus = \"ide\"").contains("q35 has no ide"));
    assert!(with("bus = \"virtio\"\nmedia = \"cdrom\"").contains("no CD-ROM"));
    assert!(with("aio = \"native\"").contains("writeback"));
    assert!(with("read-only = true\nephemeral = true").contains("both"));
    assert!(with("serial = \"012345678901234567890\"").contains("20"));
    assert!(with("serial = \"é\"").contains("ASCII"));
    assert!(with("boot = 0").contains("first place is 1"));
    assert!(message("[disk.a]\nempty = true").contains("cdrom"));
    assert!(message("[disk.a]\nread-only = true").contains("names no image"));
    let cdrom = machine("[disk.a]\nmedia = \"cdrom\"\nempty = true").unwrap();
    assert_eq!(cdrom.disks[0].media, Media::Cdrom);
    assert!(cdrom.disks[0].read_only);
}

#[test]
fn an_image_is_one_disk_unless_none_writes() {
    let twice = |rest: &str| {
        let text = format!(
            "[disk.a]\nfile.path = \"a.img\"\n{rest}\n[disk.b]\nfile.path = \"link\"\n{rest}"
        );
        let layer = layer(&text);
        let mut images = images(&layer, &dirs());
        let identity = (7, 7);
        for look in images.files.values_mut() {
            if let Look::Found(facts) = look {
                facts.identity = identity;
            }
        }
        resolve_all(&layer, &facts(), &images, &dirs())
    };
    let error = twice("").unwrap_err().to_string();
    assert!(error.contains("`a` and `b` are the same image"), "{error}");
    twice("read-only = true").unwrap();
    twice("ephemeral = true").unwrap();
}

#[test]
fn an_image_that_cannot_be_written_needs_an_overlay() {
    let layer = layer("[disk.a]\nfile.path = \"a.img\"");
    let mut images = images(&layer, &dirs());
    if let Some(Look::Found(facts)) = images.files.get_mut("a.img") {
        facts.writable = false;
    }
    let error = resolve_all(&layer, &facts(), &images, &dirs()).unwrap_err();
    let report: Report = error.into();
    assert_eq!(report.code, ExitCode::Host);
    assert!(report.hints[0].contains("ephemeral"), "{report}");
}

#[test]
fn networks_have_rules() {
    let two = |a: &str, b: &str| format!("[network.a]\n{a}\n[network.b]\n{b}");
    assert!(message("[network.a]\nmodel = \"virtio\"").contains("neither"));
    assert!(message("[network.a]\nuser = {}\ntap = {}").contains("two of"));
    assert!(message("[network.a]\nuser.forward = [\"22\"]").contains("\"22\""));
    let forward = "user.forward = [\"2222:22\"]";
    assert!(message(&two(forward, "user.forward = [\"0.0.0.0:2222:22\"]")).contains("2222"));
    machine(&two(forward, "user.forward = [\"udp:2222:22\"]")).unwrap();
    let mac = "user = {}\nmac = \"52:54:00:00:00:01\"";
    assert!(message(&two(mac, mac)).contains("52:54:00:00:00:01"));
    let tap = "tap.name = \"mytap\"";
    assert!(message(&two(tap, tap)).contains("mytap"));
    assert!(message("[network.a]\ntap.name = \"eth0\"").contains("not a tap"));
    // A tap that is there has its own MTU.
    let mtu = |more: &str| format!("[network.a]\n{tap}\n{more}");
    assert!(message(&mtu("mtu = 9000")).contains("mytap, which is there, has 1500"));
    machine(&mtu("mtu = 1400")).unwrap();
    assert!(message(&mtu("mtu = 1400\nmodel = \"e1000\"")).contains("1500"));
    assert!(message("[network.a]\ntap.name = \"0123456789abcdef\"").contains("15"));
    let bridge = "[network.a]\ntap = { name = \"new\", bridge = \"eth0\" }";
    assert!(message(bridge).contains("no bridge eth0"));
    assert!(
        message("[network.a]\ntap = { name = \"n\", address = \"1.2.3.4\" }").contains("1.2.3.4")
    );
    assert!(
        message("[network.a]\nmodel = \"e1000\"\ntap = { name = \"n\", vhost = true }")
            .contains("virtio")
    );
    assert!(
        machine("[network.a]\nnone = {}\nuser = {}")
            .unwrap()
            .nics
            .is_empty()
    );
}

#[test]
fn vhost_is_used_where_the_host_has_it() {
    let vhost = |facts: &crate::host::HostFacts| {
        let machine = machine_on("[network.a]\ntap.name = \"mytap\"", facts).unwrap();
        matches!(machine.nics[0].backend, NicBackend::Tap { vhost: true, .. })
    };
    let mut facts = facts();
    assert!(vhost(&facts));
    facts.vhost_net.usable = false;
    facts.vhost_net.why_not = Some(NodeProblem::Missing);
    assert!(!vhost(&facts));
    let asked = "[network.a]\ntap = { name = \"mytap\", vhost = true }";
    let report: Report = machine_on(asked, &facts).unwrap_err().into();
    assert_eq!(report.code, ExitCode::Host);
    assert!(report.hints[0].contains("mvm doctor"));
    facts.vhost_vsock.usable = false;
    let report: Report = machine_on("[vsock]", &facts).unwrap_err().into();
    assert_eq!(report.code, ExitCode::Host);
    assert!(report.hints[0].contains("mvm doctor"));
}

#[test]
fn consoles_and_channels_have_rules() {
    let ids = |text: &str| -> Vec<String> {
        let consoles = machine(text).unwrap().consoles;
        consoles
            .iter()
            .map(|c| format!("{}:{}", c.id, c.virtio))
            .collect()
    };
    assert_eq!(ids("[console.hvc]"), ["main:false", "hvc:true"]);
    assert_eq!(ids("[console.uart]\ndevice = \"serial\""), ["uart:false"]);
    assert!(ids("[console.main]\ndevice = \"none\"").is_empty());
    let two = "[console.main]\n[console.b]\ndevice = \"serial\"";
    assert!(message(two).contains("serial port"));
    assert!(
        message("[agent]\n[channel.x]\nport = \"org.qemu.guest_agent.0\"").contains("the agent")
    );
    assert!(message("[channel.x]\nport = \"a/b\"").contains("a/b"));
    assert!(
        machine("[channel.x]\nport = \"a\"\nenabled = false")
            .unwrap()
            .channels
            .is_empty()
    );
    let many: String = (0..22).map(|n| format!("[channel.c{n}]\n")).collect();
    assert!(message(&many).contains("22 channels"));
}

#[test]
fn shares_are_folders() {
    let share = |rest: &str| format!("[share.data]\n{rest}");
    assert!(message(&share("path = \"data\"")).contains("absolute"));
    assert!(message(&share("")).contains("no folder"));
    let tag = format!("path = \"/srv\"\ntag = \"{}\"", "x".repeat(32));
    assert!(message(&share(&tag)).contains("31"));
    let machine = machine(&share("path = \"/srv\"")).unwrap();
    assert_eq!(machine.shares[0].tag, "data");
}
