use std::fs;
use std::time::Instant;

use super::*;

/// All links lead somewhere, and every host says where it comes from.
#[test]
fn every_host_is_whole() {
    assert!(!names().is_empty());
    for name in names() {
        let text = fs::read_to_string(folder().join(format!("{name}.tree"))).unwrap();
        assert!(
            text.contains("# Sources") && text.contains("# Guesses"),
            "{name}.tree names its sources and what is a guess"
        );
        let host = Host::new(&name);
        let mut dirs = vec![host.root().to_owned()];
        let mut count = 0;
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let (path, kind) = entry.map(|e| (e.path(), e.file_type().unwrap())).unwrap();
                count += 1;
                if kind.is_symlink() {
                    assert!(path.exists(), "{} leads nowhere", path.display());
                } else if kind.is_dir() {
                    dirs.push(path);
                }
            }
        }
        assert!(count > 100, "{name} has {count} files");
    }
}

/// A test's setup must not be what takes the time: some 15 ms, however busy the machine is at the moment.
#[test]
fn a_host_is_made_quickly() {
    let best = (0..20)
        .map(|_| {
            let start = Instant::now();
            let host = Host::new("intel-i915-7vf");
            let took = start.elapsed();
            assert!(
                host.sys()
                    .join("bus/pci/devices/0000:00:02.0/class")
                    .exists()
            );
            took
        })
        .min()
        .unwrap();
    assert!(best.as_millis() < 500, "{best:?}");
}

/// Paths as the kernel has them.
#[test]
fn links_lead_where_the_kernels_do() {
    let host = Host::new("intel-i915-7vf");
    let sys = host.sys();
    for (link, target) in [
        (
            "bus/pci/devices/0000:03:00.0",
            "../../../devices/pci0000:00/0000:00:1c.0/0000:03:00.0",
        ),
        (
            "devices/pci0000:00/0000:00:02.0/driver",
            "../../../bus/pci/drivers/i915",
        ),
        (
            "devices/pci0000:00/0000:00:02.0/iommu_group",
            "../../../kernel/iommu_groups/0",
        ),
        (
            "class/net/enp3s0",
            "../../devices/pci0000:00/0000:00:1c.0/0000:03:00.0/net/enp3s0",
        ),
        (
            "devices/pci0000:00/0000:00:1c.0/0000:03:00.0/net/enp3s0/device",
            "../../../0000:03:00.0",
        ),
    ] {
        let found = fs::read_link(sys.join(link)).unwrap_or_else(|e| panic!("{link}: {e}"));
        assert_eq!(found.to_str().unwrap(), target, "{link}");
    }
    let config = fs::read(sys.join("bus/pci/devices/0000:00:1f.3/config")).unwrap();
    assert_eq!(config[0x0e], 0x80, "one of several functions");
    let bridge = fs::read(sys.join("bus/pci/devices/0000:00:1c.0/config")).unwrap();
    assert_eq!(bridge[0x0e] & 0x7f, 1);
    assert_eq!(bridge[0x18..0x1b], [0, 3, 3]);
    let iommu = fs::read_to_string(sys.join("class/iommu/dmar0/intel-iommu/cap")).unwrap();
    let cap = u64::from_str_radix(iommu.trim(), 16).unwrap();
    assert_eq!((cap >> 16 & 0x3f) + 1, 39, "the guest address width");
}

#[test]
fn the_format() {
    assert_eq!(parse::braces("vf{1..2}/gt{0,1}").len(), 4);
    assert_eq!(parse::unhex("86 80 0a"), [0x86, 0x80, 0x0a]);
    assert_eq!(tree::relative("/sys/a/b/link", "/sys/a/c/d"), "../c/d");
    assert_eq!(tree::relative("/sys/a/link", "/sys/a/d"), "d");
}
