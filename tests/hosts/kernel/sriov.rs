//! SR-IOV (`drivers/pci/iov.c`): virtual functions come and go.

use std::fs;

use nix::errno::Errno;

use super::super::pci::{PciSpec, bus_devfn, config, function, uevent};
use super::super::tree::Tree;
use super::{Done, Kernel, number, vfio};

impl Kernel {
    /// `sriov_numvfs`.
    pub(super) fn set_numvfs(&self, dir: &str, text: &str) -> Done {
        let asked = number(text)?;
        let read = |name: &str| {
            self.get(&format!("{dir}/{name}"))
                .and_then(|t| t.parse::<u64>().ok())
                .unwrap_or(0)
        };
        if asked > u64::from(u16::MAX) {
            return Err(Errno::EINVAL);
        }
        if asked > read("sriov_totalvfs") {
            return Err(Errno::ERANGE);
        }
        let now = read("sriov_numvfs");
        if asked == now {
            return Ok(());
        }
        // A driver must be there, and one that knows of VFs: vfio-pci does only with a parameter.
        match self.linked(&format!("{dir}/driver")) {
            None => return Err(Errno::ENOENT),
            Some(driver) if vfio::is_vfio(&driver) => return Err(Errno::ENOENT),
            Some(_) => {}
        }
        if asked == 0 {
            self.remove_vfs(dir, now);
            return Ok(());
        }
        if now != 0 {
            return Err(Errno::EBUSY);
        }
        self.make_vfs(dir, asked)
    }

    fn make_vfs(&self, dir: &str, count: u64) -> Done {
        let pf = dir.rsplit('/').next().unwrap();
        let last = self.vf_address(dir, count - 1);
        if bus_devfn(&last).0 > self.last_bus(dir) {
            // "SR-IOV: bus number out of range"
            return Err(Errno::ENOMEM);
        }
        for index in 0..count {
            let name = self.vf_address(dir, index);
            let at = format!("{}/{name}", dir.rsplit_once('/').unwrap().0);
            self.make_vf(dir, pf, &at, &name, index);
            self.probe("pci", &at, &name);
            self.link(&format!("{dir}/virtfn{index}"), &at);
            // The GPU drivers' own links to their VFs.
            for home in self.provisioning(dir) {
                let vf = format!("{home}/vf{}", index + 1);
                if self.exists(&vf) {
                    self.link(&format!("{vf}/device"), &at);
                }
            }
        }
        self.put(&format!("{dir}/sriov_numvfs"), count);
        Ok(())
    }

    fn make_vf(&self, dir: &str, pf: &str, at: &str, name: &str, index: u64) {
        let hex = |file: &str| {
            let text = self.get(&format!("{dir}/{file}")).unwrap();
            u32::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
        };
        let spec = PciSpec {
            bdf: name.to_owned(),
            dir: at.to_owned(),
            vendor: hex("vendor") as u16,
            device: hex("sriov_vf_device") as u16,
            subsystem: (
                hex("subsystem_vendor") as u16,
                self.vf_subsystem(pf, hex("subsystem_device") as u16),
            ),
            class: hex("class"),
            revision: hex("revision") as u8,
            express: Some("end".to_owned()),
            flr: true,
            last_vf_bus: 0,
            subordinate: None,
            virtual_function: true,
        };
        let numa = self.get(&format!("{dir}/numa_node")).unwrap_or_default();
        let cpus = self
            .get(&format!("{dir}/local_cpulist"))
            .unwrap_or_default();
        let mut tree = Tree::default();
        function(&mut tree, &spec, numa.parse().unwrap_or(-1), &cpus);
        if self.note("pci", pf, "vf-boot-vga").as_deref() == Some("no") {
            tree.remove(&format!("{at}/boot_vga"));
        }
        if let Some(allowed) = self.note("pci", pf, "vf-d3cold") {
            tree.attr(at, "d3cold_allowed", allowed);
        }
        tree.attr(at, "irq", 0);
        tree.file(format!("{at}/sriov_vf_msix_count"), "");
        tree.file(format!("{at}/uevent"), uevent(&spec, None));
        tree.file(format!("{at}/resource"), self.vf_resources(dir, index));
        let reset = self
            .note("pci", pf, "vf-reset")
            .unwrap_or_else(|| "flr".to_owned());
        if !reset.is_empty() {
            tree.attr(at, "reset_method", reset);
            tree.file(format!("{at}/reset"), "");
        }
        // The link is the physical function's.
        for file in [
            "current_link_speed",
            "current_link_width",
            "max_link_speed",
            "max_link_width",
        ] {
            if let Some(text) = self.get(&format!("{dir}/{file}")) {
                tree.attr(at, file, text);
            }
        }
        let mut header = config(&spec, false, (0, 0));
        if self.note("pci", pf, "vf-sleeps").as_deref() == Some("no") {
            // No power management: the list begins with what comes after it.
            header[0x34] = header[0x41];
        }
        // A VF answers for its ids, and for its command register's memory bit, with nothing of its own.
        header[0..4].fill(0xff);
        header[4] = 0;
        tree.file(format!("{at}/config"), header);
        tree.link(format!("{at}/physfn"), dir);
        if let Some(group) = self.linked(&format!("{dir}/iommu_group")) {
            self.vf_group(&mut tree, &group, pf, at, name);
        }
        if let Some(unit) = self.target(&format!("{dir}/iommu")) {
            tree.link(format!("{at}/iommu"), &unit);
            tree.link(format!("{unit}/devices/{name}"), at);
        }
        tree.materialise(&self.root);
        if let Some(claims) = self.note("pci", pf, "vf-claims") {
            self.put(&format!("/.standin/pci/{name}/claims"), claims);
        }
        if let Some(prefix) = self.note("pci", pf, "vf-net") {
            self.put(
                &format!("/.standin/pci/{name}/net"),
                format!("{prefix}{index}"),
            );
        }
    }

    /// A group of its own, with the lowest number that is free; the function's own where nothing keeps them apart.
    fn vf_group(&self, tree: &mut Tree, group: &str, pf: &str, at: &str, name: &str) {
        let number = if self.note("pci", pf, "vf-group").as_deref() == Some("shared") {
            group.to_owned()
        } else {
            self.free_group()
        };
        let home = format!("/sys/kernel/iommu_groups/{number}");
        tree.link(format!("{at}/iommu_group"), &home);
        tree.link(format!("{home}/devices/{name}"), at);
        for file in ["type", "reserved_regions"] {
            let text = self.get(&format!("/sys/kernel/iommu_groups/{group}/{file}"));
            if let (false, Some(text)) = (self.exists(&format!("{home}/{file}")), text) {
                tree.attr(&home, file, text);
            }
        }
    }

    pub(super) fn free_group(&self) -> String {
        (0..)
            .map(|n: u32| n.to_string())
            .find(|n| !self.exists(&format!("/sys/kernel/iommu_groups/{n}")))
            .unwrap()
    }

    fn remove_vfs(&self, dir: &str, count: u64) {
        for index in 0..count {
            let Some(at) = self.target(&format!("{dir}/virtfn{index}")) else {
                continue;
            };
            let name = at.rsplit('/').next().unwrap().to_owned();
            for home in self.provisioning(dir) {
                self.unlink(&format!("{home}/vf{}/device", index + 1));
            }
            self.detach("pci", &at, &name);
            self.unlink(&format!("{dir}/virtfn{index}"));
            if let Some(unit) = self.target(&format!("{at}/iommu")) {
                self.unlink(&format!("{unit}/devices/{name}"));
            }
            self.leave_group(&at, &name);
            self.unlink(&format!("/sys/bus/pci/devices/{name}"));
            self.remove_dir(&at);
            self.remove_dir(&format!("/.standin/pci/{name}"));
            self.remove_dir(&format!("/.standin/parked/pci-{name}"));
        }
        self.put(&format!("{dir}/sriov_numvfs"), 0);
    }

    /// The group goes with its last member.
    pub(super) fn leave_group(&self, at: &str, name: &str) {
        if let Some(group) = self.target(&format!("{at}/iommu_group")) {
            self.unlink(&format!("{group}/devices/{name}"));
            if self.list(&format!("{group}/devices")).is_empty() {
                self.remove_dir(&group);
            }
        }
    }

    /// A driver that goes takes its VFs along, unless it is one that leaves them (NVMe does).
    pub(super) fn driver_leaves_vfs(&self, dir: &str, name: &str) {
        let now = self
            .get(&format!("{dir}/sriov_numvfs"))
            .and_then(|n| n.parse::<u64>().ok())
            .unwrap_or(0);
        let driver = self.linked(&format!("{dir}/driver"));
        let stay = driver.as_deref() == Some("nvme")
            || self.note("pci", name, "vfs-stay").as_deref() == Some("yes");
        if now > 0 && !stay {
            self.remove_vfs(dir, now);
        }
    }

    /// A driver can want fewer VFs than the device has: without it there are as many as the device says
    /// (igb: 7 of 8).
    pub(super) fn limit_vfs(&self, dir: &str, name: &str, driven: bool) {
        let file = format!("{dir}/sriov_totalvfs");
        let note = format!("/.standin/pci/{name}/totalvfs-driver");
        if driven {
            if let Some(limit) = self.get(&note) {
                self.put(&file, limit);
            }
        } else if let Some(all) = self.note("pci", name, "totalvfs-device") {
            self.put(&note, self.get(&file).unwrap());
            self.put(&file, all);
        }
    }

    /// The network device that a VF's own driver makes.
    pub(super) fn vf_netdev(&self, dir: &str, name: &str) {
        let Some(net) = self.note("pci", name, "net") else {
            return;
        };
        let at = format!("{dir}/net/{net}");
        if !self.exists(&at) {
            let mut tree = Tree::default();
            let (bus, devfn) = bus_devfn(name);
            tree.attr(&at, "address", format!("02:00:00:00:{bus:02x}:{devfn:02x}"));
            tree.attr(&at, "operstate", "down");
            tree.attr(&at, "type", 1);
            tree.link(format!("{at}/device"), dir);
            tree.link(format!("{at}/subsystem"), "/sys/class/net");
            tree.link(format!("/sys/class/net/{net}"), &at);
            tree.materialise(&self.root);
        }
    }

    /// Where a GPU's driver keeps the settings of its VFs.
    fn provisioning(&self, dir: &str) -> Vec<String> {
        let mut homes = vec![format!("{dir}/sriov_admin")];
        for card in self.list(&format!("{dir}/drm")) {
            homes.push(format!("{dir}/drm/{card}/prelim_iov"));
            homes.push(format!("{dir}/drm/{card}/iov"));
        }
        homes.retain(|home| self.exists(home));
        homes
    }

    fn vf_subsystem(&self, pf: &str, own: u16) -> u16 {
        self.note("pci", pf, "vf-subsystem-device")
            .map_or(own, |text| {
                u16::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
            })
    }

    /// The address of the VF with that index (from 0).
    fn vf_address(&self, dir: &str, index: u64) -> String {
        let pf = dir.rsplit('/').next().unwrap();
        let read =
            |name: &str| -> u64 { self.get(&format!("{dir}/{name}")).unwrap().parse().unwrap() };
        let (bus, devfn) = bus_devfn(pf);
        let to = u64::from(devfn) + read("sriov_offset") + read("sriov_stride") * index;
        let domain = pf.split(':').next().unwrap();
        format!(
            "{domain}:{:02x}:{:02x}.{}",
            u64::from(bus) + (to >> 8),
            (to & 0xff) >> 3,
            to & 7
        )
    }

    /// The last bus below the bridge above; a root bus has them all.
    fn last_bus(&self, dir: &str) -> u8 {
        let above = dir.rsplit_once('/').unwrap().0;
        fs::read(self.real(&format!("{above}/config")))
            .ok()
            .and_then(|config| config.get(0x1a).copied())
            .unwrap_or(0xff)
    }

    /// A VF's BARs are slices of those that its physical function keeps for all.
    fn vf_resources(&self, dir: &str, index: u64) -> String {
        let table = self.get(&format!("{dir}/resource")).unwrap_or_default();
        let total: u64 = self
            .get(&format!("{dir}/sriov_totalvfs"))
            .and_then(|t| t.parse().ok())
            .unwrap_or(1);
        let lines: Vec<[u64; 3]> = table
            .lines()
            .map(|line| {
                let mut n = line
                    .split_whitespace()
                    .map(|w| u64::from_str_radix(w.trim_start_matches("0x"), 16).unwrap());
                [n.next().unwrap(), n.next().unwrap(), n.next().unwrap()]
            })
            .collect();
        (0..13)
            .map(|bar: usize| match lines.get(bar + 7) {
                Some([start, end, flags]) if bar < 6 && *flags != 0 => {
                    // Of a power of two, as all BARs: the function may have more of them than its driver wants.
                    let size = 1 << ((end - start + 1) / total).ilog2();
                    let from = start + size * index;
                    format!("{from:#018x} {:#018x} {flags:#018x}\n", from + size - 1)
                }
                _ => format!("{0:#018x} {0:#018x} {0:#018x}\n", 0),
            })
            .collect()
    }
}
