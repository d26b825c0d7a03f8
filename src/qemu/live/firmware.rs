//! The boot menu, IOMMUs, secure boot, and properties that a profile sets.

use std::path::Path;

use serde_json::{Value, json};

use super::session::{Session, installed};
use super::{DISKS, runs};
use crate::machine::testing;

fn get(session: &mut Session, path: &str, property: &str) -> Value {
    session.call("qom-get", json!({ "path": path, "property": property }))
}

#[test]
fn what_firmware_offers_is_told_to_the_machine() {
    let dir = tempfile::Builder::new().prefix("mvm").tempdir().unwrap();
    // QEMU looks at the first bytes of a picture, and at its size.
    std::fs::write(
        dir.path().join("a.jpg"),
        [[0xff, 0xd8].as_slice(), &[0; 62]].concat(),
    )
    .unwrap();
    let text = "boot = { menu = true, menu-timeout = \"5s\", splash = \"a.jpg\", strict = false }";
    let machine = testing::real(dir.path(), text, &testing::facts()).unwrap();
    if !installed(&machine) {
        return;
    }
    let mut session = Session::start(&machine, dir);
    let boot = get(&mut session, "/machine", "boot");
    assert_eq!(boot["menu"], true, "{boot}");
    assert_eq!(boot["splash-time"], 5000, "{boot}");
    assert_eq!(boot["strict"], false, "{boot}");
    assert_eq!(boot["splash"], json!(machine.boot_menu.splash), "{boot}");
    session.quit();
}

#[test]
fn iommus_of_hardware_are_as_the_profile_says() {
    let text = "iommu = { model = \"intel\", caching-mode = true, device-iotlb = true, aw-bits = 48, \
                interrupt-remapping = true }\n[network.lan]\nuser = {}\n";
    let Some((mut session, _)) = runs(text, &[]) else {
        return;
    };
    let iommu = "/machine/peripheral/mvm-iommu";
    for (property, value) in [
        ("caching-mode", json!(true)),
        ("device-iotlb", json!(true)),
        ("aw-bits", json!(48)),
        ("intremap", json!("on")),
    ] {
        assert_eq!(get(&mut session, iommu, property), value, "{property}");
    }
    let lan = "/machine/peripheral/lan";
    assert_eq!(get(&mut session, lan, "iommu_platform"), true);
    session.quit();
    let arm = "machine.arch = \"aarch64\"\nfirmware.type = \"none\"\nboot.kernel = \"k\"\niommu.model = \"smmuv3\"\n";
    let Some((mut session, _)) = runs(arm, &["k"]) else {
        return;
    };
    assert_eq!(get(&mut session, "/machine", "iommu"), "smmuv3");
    session.quit();
}

#[test]
fn secure_boot_has_its_keys_and_their_guard() {
    if !Path::new("/usr/share/OVMF/OVMF_VARS_4M.ms.fd").exists() {
        eprintln!("skipped: no OVMF with keys");
        return;
    }
    let text = "firmware = { secure-boot = true, nvram = \"@/my own,vars.fd\" }";
    let Some((mut session, _)) = runs(text, &[]) else {
        return;
    };
    assert_eq!(get(&mut session, "/machine", "smm"), "on");
    let nodes = session.call("query-named-block-nodes", json!({}));
    let nodes = nodes.as_array().unwrap();
    let vars = nodes
        .iter()
        .find(|node| node["node-name"] == "mvm-firmware-vars");
    let path = session.dir.path().join("my own,vars.fd");
    assert_eq!(vars.unwrap()["file"], json!(path));
    assert_eq!(get(&mut session, "/machine/system.flash0", "secure"), true);
    session.quit();
}

#[test]
fn properties_reach_their_devices() {
    let text = "[disk.a]\nfile.path = \"a.img\"\n[override.a]\nphysical_block_size = 4096\nserial = \"S\"\n\
                [rng]\n[override.mvm-rng]\nmax-bytes = 77\n";
    let Some((mut session, _)) = runs(text, DISKS) else {
        return;
    };
    let disk = "/machine/peripheral/a";
    assert_eq!(get(&mut session, disk, "physical_block_size"), 4096);
    assert_eq!(get(&mut session, disk, "serial"), "S");
    assert_eq!(
        get(&mut session, "/machine/peripheral/mvm-rng", "max-bytes"),
        77
    );
    session.quit();
}
