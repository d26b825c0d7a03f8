//! Mediated devices (`drivers/vfio/mdev`).

use nix::errno::Errno;

use super::super::tree::Tree;
use super::{Done, Kernel, number, streq};

impl Kernel {
    /// `mdev_supported_types/TYPE/create`.
    pub(super) fn make_mdev(&self, type_dir: &str, text: &str) -> Done {
        // With its line end or without, and nothing else.
        if text.len() != 36 && text.len() != 37 {
            return Err(Errno::EINVAL);
        }
        let uuid = streq(text).to_lowercase();
        let shape = uuid.len() == 36
            && uuid.char_indices().all(|(at, c)| match at {
                8 | 13 | 18 | 23 => c == '-',
                _ => c.is_ascii_hexdigit(),
            });
        if !shape {
            return Err(Errno::EINVAL);
        }
        if self.exists(&format!("/sys/bus/mdev/devices/{uuid}")) {
            return Err(Errno::EEXIST);
        }
        let parent = type_dir.rsplitn(3, '/').nth(2).unwrap().to_owned();
        let name = parent.rsplit('/').next().unwrap().to_owned();
        if self.available(type_dir) == 0 {
            // GVT-g has no room for it; the core counts for drivers that do not.
            let errno = self.note("mdev", &name, "none-left");
            return Err(errno.map_or(Errno::ENOSPC, |e| Errno::from_raw(e.parse().unwrap())));
        }
        let at = format!("{parent}/{uuid}");
        let group = self.free_group();
        let home = format!("/sys/kernel/iommu_groups/{group}");
        let mut tree = Tree::default();
        tree.file(format!("{at}/remove"), "");
        tree.attr(&at, "power/control", "auto");
        tree.attr(&at, "power/runtime_status", "unsupported");
        tree.file(format!("{at}/uevent"), "");
        tree.link(format!("{at}/mdev_type"), type_dir);
        tree.link(format!("{at}/subsystem"), "/sys/bus/mdev");
        tree.link(format!("{at}/iommu_group"), &home);
        tree.link(format!("{home}/devices/{uuid}"), &at);
        tree.attr(&home, "type", "unknown");
        tree.file(format!("{home}/reserved_regions"), "");
        tree.link(format!("/sys/bus/mdev/devices/{uuid}"), &at);
        tree.link(format!("{type_dir}/devices/{uuid}"), &at);
        if let Some(driver) = self.note("mdev", &name, "driver") {
            tree.link(
                format!("{at}/driver"),
                format!("/sys/bus/mdev/drivers/{driver}"),
            );
            tree.link(format!("/sys/bus/mdev/drivers/{driver}/{uuid}"), &at);
            tree.file(format!("{at}/uevent"), format!("DRIVER={driver}\n"));
        }
        if let Some(own) = self.note("mdev", &name, "directory") {
            tree.dir(format!("{at}/{own}"));
        }
        tree.materialise(&self.root);
        self.vfio_nodes(&at);
        self.recount(&parent, &name);
        Ok(())
    }

    /// `remove` of a mediated device.
    pub(super) fn remove_mdev(&self, at: &str, text: &str) -> Done {
        if number(text)? != 0 {
            self.drop_mdev(at);
        }
        Ok(())
    }

    /// The devices go when their parent's driver goes.
    pub(super) fn remove_mdevs(&self, parent: &str) {
        for name in self.list(parent) {
            let at = format!("{parent}/{name}");
            if self.exists(&format!("{at}/mdev_type")) {
                self.drop_mdev(&at);
            }
        }
    }

    fn drop_mdev(&self, at: &str) {
        let (parent, uuid) = at.rsplit_once('/').unwrap();
        let type_dir = self.target(&format!("{at}/mdev_type")).unwrap();
        if let Some(driver) = self.linked(&format!("{at}/driver")) {
            self.unlink(&format!("/sys/bus/mdev/drivers/{driver}/{uuid}"));
        }
        self.vfio_gone(at, uuid);
        self.leave_group(at, uuid);
        self.unlink(&format!("{type_dir}/devices/{uuid}"));
        self.unlink(&format!("/sys/bus/mdev/devices/{uuid}"));
        self.remove_dir(at);
        self.recount(parent, parent.rsplit('/').next().unwrap());
    }

    fn available(&self, type_dir: &str) -> u64 {
        self.get(&format!("{type_dir}/available_instances"))
            .and_then(|n| n.parse().ok())
            .unwrap_or(0)
    }

    /// What is left of each type. All types of a parent share what it has: `/.standin/mdev/PARENT/capacity`,
    /// of which a device takes as much as `cost-TYPE` says.
    fn recount(&self, parent: &str, name: &str) {
        let types = format!("{parent}/mdev_supported_types");
        let cost = |kind: &str| -> u64 {
            self.note("mdev", name, &format!("cost-{kind}"))
                .map_or(1, |n| n.parse().unwrap())
        };
        let Some(capacity) = self.note("mdev", name, "capacity") else {
            panic!("/.standin/mdev/{name}/capacity does not say what the types of it share");
        };
        let kinds = self.list(&types);
        let used: u64 = kinds
            .iter()
            .map(|kind| cost(kind) * self.list(&format!("{types}/{kind}/devices")).len() as u64)
            .sum();
        let left = capacity.parse::<u64>().unwrap().saturating_sub(used);
        for kind in kinds {
            self.put(
                &format!("{types}/{kind}/available_instances"),
                left / cost(&kind),
            );
        }
    }
}
