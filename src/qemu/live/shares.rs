//! Shares that a real virtiofsd serves.

use serde_json::json;

use super::runs;
use super::storage::get;

const VIRTIOFSD: &str = "/usr/lib/qemu/virtiofsd";

#[test]
fn each_board_has_virtiofs() {
    // Its sandbox is root's.
    if !std::path::Path::new(VIRTIOFSD).exists() || !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: {VIRTIOFSD} is not there, or this is not root");
        return;
    }
    let arm = "machine.arch = \"aarch64\"\nfirmware.type = \"none\"\nboot.kernel = \"k\"\n";
    for (text, driver) in [
        ("iommu.model = \"virtio\"\n", "vhost-user-fs-pci"),
        ("iommu.model = \"intel\"\n", "vhost-user-fs-pci"),
        ("machine.type = \"pc\"\n", "vhost-user-fs-pci"),
        ("machine.type = \"microvm\"\n", "vhost-user-fs-device"),
        (arm, "vhost-user-fs-pci"),
    ] {
        let tag = "a tag as long as tags of virtiofs are";
        let tag = &tag[..36];
        let text = format!(
            "{text}[share.data]\npath = \"@/a,b\\\\1\"\ntag = \"{tag}\"\nvirtiofs.queue-size = 256\n\
             [share.more]\npath = \"@\"\nvirtiofs = {{}}\n[share.old]\npath = \"@\"\n"
        );
        let Some((mut session, machine)) = runs(&text, &["k", "a,b\\1/file"]) else {
            return;
        };
        let it = &mut session;
        assert_eq!(get(it, "data", "type"), driver, "{text}");
        assert_eq!(get(it, "data", "tag"), tag);
        assert_eq!(get(it, "data", "queue-size"), 256);
        assert_eq!(get(it, "more", "queue-size"), 128);
        assert_eq!(get(it, "more", "tag"), "more");
        assert_eq!(get(it, "data", "chardev"), "data-socket");
        assert_eq!(get(it, "data", "iommu_platform"), false, "{text}");
        let chardevs = it.call("query-chardev", json!({}));
        for name in ["data-socket", "more-socket"] {
            let mut all = chardevs.as_array().unwrap().iter();
            assert!(all.any(|one| one["label"] == name), "{chardevs}");
        }
        let memory = it.call("query-memdev", json!({}));
        assert_eq!(memory[0]["share"], true, "virtiofsd maps it: {memory}");
        // The folder with a comma in its name is the one that is served.
        let sidecars = machine.sidecars();
        assert_eq!(sidecars.len(), 2);
        let log = std::fs::read_to_string(&sidecars[0].log).unwrap();
        assert_eq!(
            log.lines().count(),
            1,
            "virtiofsd has nothing to say: {log}"
        );
        session.quit();
    }
}
