//! The firmware's keys, none of which makes a machine that cannot start.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use super::tests::{leaves, target};
use super::{Imported, import};

/// A guest with this in `<os …>` and in `<features>`.
fn guest(machine: &str, os: &str, features: &str) -> Imported {
    let (attributes, inner) = os.split_once('|').unwrap_or(("", os));
    let text = format!(
        "<domain type='kvm'><name>g</name><memory unit='MiB'>64</memory><os {attributes}>\
         <type arch='x86_64' machine='{machine}'>hvm</type>{inner}</os><features><acpi/>{features}</features>\
         <cpu mode='host-passthrough'/></domain>"
    );
    import(text.as_bytes(), &target()).unwrap()
}

/// The lines of `[firmware]`, without its comments.
fn keys(imported: &Imported) -> Vec<&str> {
    let lines = imported
        .toml
        .lines()
        .skip_while(|line| *line != "[firmware]");
    let lines = lines.skip(1).take_while(|line| !line.is_empty());
    lines.filter(|line| !line.starts_with('#')).collect()
}

const OVMF: &str =
    "<loader readonly='yes' secure='yes' type='pflash'>/f/OVMF_CODE_4M.ms.fd</loader>";

#[test]
fn smm_is_said_of_an_image_of_ones_own_only() {
    let found = format!("firmware='efi'|{OVMF}");
    for machine in ["q35", "pc"] {
        for (os, on) in [
            ("firmware='efi'|", "on"),
            ("firmware='efi'|", "off"),
            (&found, "on"),
            ("firmware='bios'|", "on"),
            ("", "on"),
        ] {
            let imported = guest(machine, os, &format!("<smm state='{on}'/>"));
            assert!(!imported.toml.contains("smm"), "{os}: {}", imported.toml);
            let told = |told: &super::Told| told.what == format!("<smm state='{on}'/>");
            assert!(imported.fine.iter().any(told), "{os}: {:?}", imported.fine);
            assert!(!imported.left.iter().any(told), "{os}: {:?}", imported.left);
        }
    }
    leaves(
        &guest("q35", "", "<smm state='off'/>"),
        "<smm state='off'/>",
        "of itself",
    );
    let own = guest(
        "q35",
        OVMF,
        "<smm state='on'><tseg unit='MiB'>48</tseg></smm>",
    );
    assert_eq!(
        keys(&own),
        [
            "type = \"uefi\"",
            "file = \"/f/OVMF_CODE_4M.ms.fd\"",
            "secure-boot = true",
            "nvram-template = \"/f/OVMF_VARS_4M.ms.fd\"",
            "smm = true",
        ]
    );
    leaves(&own, "<tseg", "the size of SMM's memory");
    leaves(&guest("pc", OVMF, "<smm state='on'/>"), "<smm", "q35 only");
}

#[test]
fn secure_boot_and_its_keys_are_one_thing() {
    let features = |boot: &str, keys: &str, more: &str| {
        let one = |name: &str, on: &str| match on {
            "" => String::new(),
            on => format!("<feature enabled='{on}' name='{name}'/>"),
        };
        // libvirt writes the keys first.
        let (keys, boot) = (one("enrolled-keys", keys), one("secure-boot", boot));
        guest(
            "q35",
            &format!("firmware='efi'|<firmware>{keys}{boot}</firmware>{more}"),
            "",
        )
    };
    let yes = features("yes", "yes", OVMF);
    assert_eq!(keys(&yes), ["type = \"uefi\"", "secure-boot = true"]);
    assert_eq!(yes.left, [], "both say the same");
    let own_keys = features("yes", "no", "");
    assert_eq!(keys(&own_keys), ["type = \"uefi\"", "secure-boot = true"]);
    leaves(&own_keys, "enrolled-keys", "signed software only");
    let no = features("no", "no", "");
    assert_eq!(keys(&no), ["type = \"uefi\"", "secure-boot = false"]);
    assert_eq!(no.left, []);
    leaves(&features("no", "yes", ""), "enrolled-keys", "no effect");
    leaves(&features("no", "", OVMF), "<loader", "says otherwise");
    assert_eq!(
        keys(&features("", "yes", "")),
        ["type = \"uefi\"", "secure-boot = true"]
    );
    let none = features("", "no", "");
    assert_eq!(keys(&none), ["type = \"uefi\""]);
    assert_eq!(
        (none.left.len(), none.fine.len()),
        (0, 4),
        "{:?}",
        none.fine
    );
    // What a start would refuse.
    let bios = guest(
        "q35",
        "firmware='bios'|<firmware><feature enabled='yes' name='secure-boot'/></firmware>",
        "",
    );
    assert_eq!(keys(&bios), ["type = \"bios\""]);
    leaves(&bios, "secure-boot", "this guest has a BIOS");
    let bare = guest(
        "q35",
        "<loader secure='yes' type='pflash'>/opt/mine.fd</loader>",
        "",
    );
    assert_eq!(keys(&bare), ["type = \"uefi\"", "file = \"/opt/mine.fd\""]);
    leaves(&bare, "<loader", "firmware.nvram-template");
}

#[test]
fn a_store_of_variables_goes_where_it_can_be_read() {
    let efi = |nvram: &str| guest("q35", &format!("firmware='efi'|{OVMF}{nvram}"), "");
    let usual = efi(
        "<nvram template='/f/OVMF_VARS_4M.ms.fd' templateFormat='raw' format='raw'>/s/g.fd</nvram>",
    );
    assert_eq!(
        keys(&usual),
        [
            "type = \"uefi\"",
            "secure-boot = true",
            "nvram = \"/s/g.fd\""
        ]
    );
    assert_eq!(usual.left, []);
    leaves(
        &efi("<nvram template='/foo/bar.fd'/>"),
        "template='/foo/bar.fd'",
        "firmware.nvram-template",
    );
    // QEMU opens the store as its template is.
    let fedora = efi(
        "<nvram template='/f/V.qcow2' templateFormat='qcow2' format='qcow2'>/s/g.qcow2</nvram>",
    );
    assert!(
        keys(&fedora).contains(&"nvram = \"/s/g.qcow2\""),
        "{}",
        fedora.toml
    );
    leaves(&fedora, "<nvram", "the store is qcow2");
    let mixed = efi("<nvram format='qcow2'>/s/g.qcow2</nvram>");
    assert!(!mixed.toml.contains("nvram"), "{}", mixed.toml);
    leaves(
        &mixed,
        "<nvram",
        "the store is qcow2, and mvm opens it as its template is, raw",
    );
    let own = |nvram: &str| {
        guest(
            "q35",
            &format!("<loader type='pflash'>/opt/mine.fd</loader>{nvram}"),
            "",
        )
    };
    assert_eq!(
        keys(&own(
            "<nvram template='/opt/vars.qcow2' format='qcow2'>/s/g.qcow2</nvram>"
        ))[2..],
        [
            "nvram-template = \"/opt/vars.qcow2\"",
            "nvram = \"/s/g.qcow2\""
        ]
    );
    leaves(
        &own("<nvram template='/opt/vars.qcow2' format='raw'>/s/g.fd</nvram>"),
        "<nvram",
        "the store is raw",
    );
    // The store that is there is a template, too.
    assert_eq!(
        keys(&own("<nvram>/s/g.fd</nvram>"))[2..],
        ["nvram-template = \"/s/g.fd\"", "nvram = \"/s/g.fd\""]
    );
    for os in [
        "firmware='bios'|",
        "<loader type='rom'>/opt/bios.bin</loader>",
        "",
    ] {
        let bios = guest("q35", &format!("{os}<nvram>/s/g.fd</nvram>"), "");
        assert!(!bios.toml.contains("nvram"), "{}", bios.toml);
        leaves(&bios, "<nvram>/s/g.fd</nvram>", "goes with UEFI");
    }
}
