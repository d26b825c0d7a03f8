//! PCI functions: from the words of a section's head to the files and links the kernel has for them.

use super::parse::{Builder, Head};
use super::tree::{Node, Tree};

/// What the head of a `[pci ...]` section says.
#[derive(Debug, Clone)]
pub(crate) struct PciSpec {
    pub(crate) bdf: String,
    pub(crate) dir: String,
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    pub(crate) subsystem: (u16, u16),
    pub(crate) class: u32,
    pub(crate) revision: u8,
    /// The kind in the PCI Express capability: `end`, `root-end` (integrated), `root`, `up`, `down`;
    /// none for conventional PCI.
    pub(crate) express: Option<String>,
    pub(crate) flr: bool,
    /// Buses that the VFs can reach.
    pub(crate) last_vf_bus: u8,
    pub(crate) subordinate: Option<u8>,
    pub(crate) virtual_function: bool,
}

const KEYS: [&str; 24] = [
    "id",
    "sub",
    "class",
    "rev",
    "behind",
    "bus",
    "driver",
    "claims",
    "group",
    "numa",
    "iommu",
    "reset",
    "express",
    "link",
    "bars",
    "vfs",
    "vf-id",
    "vf-offset",
    "vf-stride",
    "vf-driver",
    "vf-msix",
    "subordinate",
    "irq",
    "module",
];

/// `[pci 0000:00:02.0 id=8086:a780 ...]`.
pub(super) fn section(b: &mut Builder, head: &Head<'_>) -> String {
    head.knows(&KEYS);
    let bdf = head.word(1).to_owned();
    let behind = head.get("behind");
    let above = match (behind, head.get("bus")) {
        (Some(bridge), None) => b.place(&format!("@{bridge}")),
        (None, Some(bus)) => b.place(&bus),
        (None, None) => format!("/sys/devices/pci{}", &bdf[..bdf.rfind(':').unwrap()]),
        _ => panic!("behind= and bus= exclude one another"),
    };
    let dir = format!("{above}/{bdf}");
    let (vendor, device) = ids(&head.get("id").expect("a PCI function has an id="));
    let class = hex32(&head.get("class").expect("a PCI function has a class="));
    let bridge = class >> 8 == 0x0604;
    let reset = head.get("reset").unwrap_or_default().replace(',', " ");
    let numa = head.get("numa").map_or(-1, |n| n.parse().unwrap());
    let spec = PciSpec {
        dir: dir.clone(),
        vendor,
        device,
        subsystem: head.get("sub").map_or((0, 0), |sub| ids(&sub)),
        class,
        revision: head.get("rev").map_or(0, |rev| hex32(&rev) as u8),
        express: head
            .get("express")
            .or_else(|| bridge.then(|| "root".to_owned())),
        flr: reset.contains("flr"),
        last_vf_bus: 0,
        subordinate: head.number("subordinate").map(|n| n as u8),
        virtual_function: false,
        bdf,
    };
    let cpus = b.nodes.get(&numa).unwrap_or(&b.cpus).clone();
    let driver = head.get("driver");
    let claims = head.get("claims").or_else(|| driver.clone());

    function(&mut b.tree, &spec, numa, &cpus);
    b.tree.attr(&dir, "irq", head.number("irq").unwrap_or(0));
    if !reset.is_empty() {
        b.tree.attr(&dir, "reset_method", &reset);
        b.tree.file(format!("{dir}/reset"), "");
    }
    if let Some(link) = head.get("link") {
        let (speed, width) = link.split_once('x').expect("link=SPEEDxWIDTH");
        for which in ["current", "max"] {
            b.tree.attr(
                &dir,
                &format!("{which}_link_speed"),
                format!("{speed} GT/s PCIe"),
            );
            b.tree.attr(&dir, &format!("{which}_link_width"), width);
        }
    }
    b.tree.file(
        format!("{dir}/resource"),
        resources(&head.get("bars").unwrap_or_default(), bridge),
    );
    if let Some(group) = head.get("group") {
        group_member(&mut b.tree, &dir, &spec.bdf, &group);
        if let Some(iommu) = head.get("iommu").or_else(|| b.iommu.clone()) {
            let unit = format!("/sys/devices/virtual/iommu/{iommu}");
            b.tree.link(format!("{dir}/iommu"), &unit);
            b.tree.link(format!("{unit}/devices/{}", spec.bdf), &dir);
            b.tree.link(format!("/sys/class/iommu/{iommu}"), &unit);
            b.tree.link(format!("{unit}/subsystem"), "/sys/class/iommu");
        }
    }
    if let Some(driver) = &driver {
        b.driver("pci", driver, head.get("module").as_deref());
        b.tree.link(
            format!("{dir}/driver"),
            format!("/sys/bus/pci/drivers/{driver}"),
        );
        b.tree
            .link(format!("/sys/bus/pci/drivers/{driver}/{}", spec.bdf), &dir);
        b.tree.attr(&dir, "enable", 1);
    } else {
        // In what state a device is that nobody drives, the kernel does not say.
        b.tree.attr(&dir, "power_state", "unknown");
    }
    b.tree
        .file(format!("{dir}/uevent"), uevent(&spec, driver.as_deref()));
    let standin = format!("/.standin/pci/{}", spec.bdf);
    if let Some(claims) = claims {
        b.driver("pci", &claims, head.get("module").as_deref());
        b.tree.attr(&standin, "claims", claims);
    }
    let last_vf_bus = vfs(b, head, &spec, &standin);
    b.places.insert(spec.bdf.clone(), dir.clone());
    b.pci.push(PciSpec {
        last_vf_bus,
        ..spec
    });
    dir
}

/// The SR-IOV attributes of a physical function; returns the bus of its last VF.
fn vfs(b: &mut Builder, head: &Head<'_>, spec: &PciSpec, standin: &str) -> u8 {
    let Some(total) = head.number("vfs") else {
        return 0;
    };
    let dir = &spec.dir;
    let offset = head.number("vf-offset").unwrap_or(1);
    let stride = head.number("vf-stride").unwrap_or(1);
    let device = head
        .get("vf-id")
        .unwrap_or_else(|| format!("{:x}", spec.device));
    for (name, value) in [
        ("sriov_totalvfs", total),
        ("sriov_numvfs", 0),
        ("sriov_offset", offset),
        ("sriov_stride", stride),
        ("sriov_drivers_autoprobe", 1),
        ("sriov_vf_total_msix", head.number("vf-msix").unwrap_or(0)),
    ] {
        b.tree.attr(dir, name, value);
    }
    b.tree.attr(dir, "sriov_vf_device", device);
    if let Some(driver) = head.get("vf-driver") {
        b.driver("pci", &driver, None);
        b.tree.attr(standin, "vf-claims", driver);
    }
    let (bus, devfn) = bus_devfn(&spec.bdf);
    (u64::from(bus) + ((u64::from(devfn) + offset + stride * (total - 1)) >> 8)) as u8
}

/// What every function has, bound or not.
pub(crate) fn function(tree: &mut Tree, spec: &PciSpec, numa: i32, cpus: &str) {
    let dir = &spec.dir;
    let bridge = spec.class >> 8 == 0x0604;
    for (name, value) in [
        ("class", format!("0x{:06x}", spec.class)),
        ("vendor", format!("0x{:04x}", spec.vendor)),
        ("device", format!("0x{:04x}", spec.device)),
        ("subsystem_vendor", format!("0x{:04x}", spec.subsystem.0)),
        ("subsystem_device", format!("0x{:04x}", spec.subsystem.1)),
        ("revision", format!("0x{:02x}", spec.revision)),
        ("modalias", modalias(spec)),
        ("driver_override", "(null)".to_owned()),
        ("enable", "0".to_owned()),
        ("numa_node", numa.to_string()),
        ("local_cpulist", cpus.to_owned()),
        ("d3cold_allowed", "1".to_owned()),
        (
            "power_state",
            if spec.virtual_function {
                "unknown"
            } else {
                "D0"
            }
            .to_owned(),
        ),
        (
            "power/control",
            if bridge { "auto" } else { "on" }.to_owned(),
        ),
        ("power/runtime_status", "active".to_owned()),
    ] {
        tree.attr(dir, name, value);
    }
    // A VF is made and removed by its physical function only.
    for empty in ["remove", "rescan"]
        .iter()
        .filter(|_| !spec.virtual_function)
    {
        tree.file(format!("{dir}/{empty}"), "");
    }
    if spec.class >> 8 == 0x0300 {
        tree.attr(dir, "boot_vga", 0);
    }
    tree.link(format!("{dir}/subsystem"), "/sys/bus/pci");
    tree.link(format!("/sys/bus/pci/devices/{}", spec.bdf), dir);
}

/// Makes a function a member of an IOMMU group.
pub(crate) fn group_member(tree: &mut Tree, dir: &str, name: &str, group: &str) {
    let at = format!("/sys/kernel/iommu_groups/{group}");
    tree.link(format!("{dir}/iommu_group"), &at);
    tree.link(format!("{at}/devices/{name}"), dir);
    tree.attr(&at, "type", "DMA-FQ");
    if !tree.nodes.contains_key(&format!("{at}/reserved_regions")) {
        tree.attr(
            &at,
            "reserved_regions",
            "0x00000000fee00000 0x00000000feefffff msi",
        );
    }
}

/// `uevent`, whose first line names the driver.
pub(crate) fn uevent(spec: &PciSpec, driver: Option<&str>) -> String {
    let driver = driver.map_or_else(String::new, |d| format!("DRIVER={d}\n"));
    format!(
        "{driver}PCI_CLASS={:X}\nPCI_ID={:04X}:{:04X}\nPCI_SUBSYS_ID={:04X}:{:04X}\nPCI_SLOT_NAME={}\nMODALIAS={}\n",
        spec.class,
        spec.vendor,
        spec.device,
        spec.subsystem.0,
        spec.subsystem.1,
        spec.bdf,
        modalias(spec)
    )
}

fn modalias(spec: &PciSpec) -> String {
    format!(
        "pci:v{:08X}d{:08X}sv{:08X}sd{:08X}bc{:02X}sc{:02X}i{:02X}",
        spec.vendor,
        spec.device,
        spec.subsystem.0,
        spec.subsystem.1,
        spec.class >> 16,
        spec.class >> 8 & 0xff,
        spec.class & 0xff
    )
}

/// Configuration headers, which need to know of one another: the multifunction bit, the buses below a bridge.
pub(super) fn finish(b: &mut Builder) {
    for spec in &b.pci {
        let path = format!("{}/config", spec.dir);
        if b.tree.nodes.contains_key(&path) {
            continue;
        }
        let slot = spec.bdf.split_once('.').unwrap().0;
        let functions = b.pci.iter().filter(|s| s.bdf.starts_with(slot)).count();
        let below = format!("{}/", spec.dir);
        let buses = || {
            b.pci
                .iter()
                .filter(|s| s.dir.starts_with(&below) && s.bdf[..4] == spec.bdf[..4])
                .flat_map(|s| {
                    let bus = bus_devfn(&s.bdf).0;
                    [bus, bus.max(s.last_vf_bus)]
                })
        };
        let secondary = buses().min().unwrap_or(0);
        let subordinate = spec.subordinate.or_else(|| buses().max()).unwrap_or(0);
        let bytes = config(spec, functions > 1, (secondary, subordinate));
        b.tree.nodes.insert(path, Node::File(bytes));
    }
}

/// A configuration space of 256 bytes: header, then power management, MSI and PCI Express capabilities.
pub(crate) fn config(spec: &PciSpec, multifunction: bool, buses: (u8, u8)) -> Vec<u8> {
    let bridge = spec.class >> 8 == 0x0604;
    let mut c = vec![0; 256];
    c[0..2].copy_from_slice(&spec.vendor.to_le_bytes());
    c[2..4].copy_from_slice(&spec.device.to_le_bytes());
    // Memory and bus mastering on; a capability list.
    c[4..8].copy_from_slice(&[0x06, 0x04, 0x10, 0x00]);
    c[8] = spec.revision;
    c[9..12].copy_from_slice(&spec.class.to_le_bytes()[0..3]);
    c[0x0e] = u8::from(bridge) | if multifunction { 0x80 } else { 0 };
    if bridge {
        c[0x18..0x1b].copy_from_slice(&[bus_devfn(&spec.bdf).0, buses.0, buses.1]);
    } else {
        c[0x2c..0x2e].copy_from_slice(&spec.subsystem.0.to_le_bytes());
        c[0x2e..0x30].copy_from_slice(&spec.subsystem.1.to_le_bytes());
    }
    c[0x34] = 0x40;
    c[0x40..0x48].copy_from_slice(&[0x01, 0x50, 0x03, 0xc8, 0x08, 0x00, 0x00, 0x00]);
    let Some(express) = &spec.express else {
        c[0x50..0x54].copy_from_slice(&[0x05, 0x00, 0x80, 0x00]);
        return c;
    };
    c[0x50..0x54].copy_from_slice(&[0x05, 0x70, 0x80, 0x00]);
    let kind = match express.as_str() {
        "end" => 0,
        "root" => 4,
        "up" => 5,
        "down" => 6,
        "root-end" => 9,
        kind => panic!("express={kind} is not known"),
    };
    c[0x70..0x74].copy_from_slice(&[0x10, 0x00, 0x02 | (kind << 4), 0x00]);
    // Function level reset is bit 28 of the device capabilities.
    c[0x77] = if spec.flr { 0x10 } else { 0x00 };
    c
}

/// `0:m64@6000000000+16M,2:p64@4000000000+256M,4:io@4000+64` as the kernel's table.
fn resources(bars: &str, bridge: bool) -> String {
    // BARs, ROM, those of the VFs; a bridge's windows.
    let mut lines = vec![[0u64; 3]; if bridge { 17 } else { 13 }];
    for bar in bars.split(',').filter(|b| !b.is_empty()) {
        let (number, rest) = bar.split_once(':').expect("bars=N:KIND@BASE+SIZE");
        let (kind, rest) = rest.split_once('@').expect("bars=N:KIND@BASE+SIZE");
        let (base, size) = rest
            .split_once('+')
            .or_else(|| rest.split_once(' '))
            .expect("a size");
        let base = u64::from_str_radix(base, 16).unwrap();
        let (digits, unit) = size.split_at(size.trim_end_matches(['K', 'M', 'G']).len());
        let size = digits.parse::<u64>().unwrap()
            << match unit {
                "K" => 10,
                "M" => 20,
                "G" => 30,
                _ => 0,
            };
        let flags = match kind {
            "m32" => 0x40200,
            "m64" => 0x14_0204,
            "p64" => 0x14_220c,
            "io" => 0x40101,
            "rom" => 0x46200,
            "shadow" => 0x212,
            kind => panic!("a BAR of the kind {kind} is not known"),
        };
        lines[number.parse::<usize>().unwrap()] = [base, base + size - 1, flags];
    }
    lines
        .iter()
        .map(|[start, end, flags]| format!("{start:#018x} {end:#018x} {flags:#018x}\n"))
        .collect()
}

/// Bus, and device with function, of an address.
pub(crate) fn bus_devfn(bdf: &str) -> (u8, u8) {
    let mut parts = bdf.rsplit([':', '.']);
    let function = u8::from_str_radix(parts.next().unwrap(), 16).unwrap();
    let device = u8::from_str_radix(parts.next().unwrap(), 16).unwrap();
    let bus = u8::from_str_radix(parts.next().unwrap(), 16).unwrap();
    (bus, device << 3 | function)
}

fn ids(text: &str) -> (u16, u16) {
    let (a, b) = text.split_once(':').expect("ids are VENDOR:DEVICE");
    (hex32(a) as u16, hex32(b) as u16)
}

fn hex32(text: &str) -> u32 {
    u32::from_str_radix(text.trim_start_matches("0x"), 16)
        .unwrap_or_else(|_| panic!("{text} is not hexadecimal"))
}
