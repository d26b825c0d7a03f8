//! What vfio-pci does when it gets a device and when it loses one (`drivers/vfio/pci/vfio_pci_core.c`).

use std::fs;

use nix::errno::Errno;

use super::super::tree::Tree;
use super::{Done, Kernel};

/// vfio-pci and the drivers made from it.
pub(super) fn is_vfio(driver: &str) -> bool {
    driver == "vfio-pci" || driver.ends_with("-vfio-pci") || driver.ends_with("_vfio_pci")
}

/// What every device of a class has.
pub(super) fn class_device(tree: &mut Tree, at: &str, class: &str, name: &str) {
    tree.attr(at, "power/control", "auto");
    tree.attr(at, "power/runtime_status", "unsupported");
    tree.link(format!("{at}/subsystem"), format!("/sys/class/{class}"));
    tree.link(format!("/sys/class/{class}/{name}"), at);
}

impl Kernel {
    /// No group, a bridge, live VFs: refused.
    pub(super) fn vfio_accepts(&self, dir: &str) -> Done {
        let bridge = fs::read(self.real(&format!("{dir}/config")))
            .is_ok_and(|config| config.get(0x0e).is_some_and(|kind| kind & 0x7f != 0));
        if bridge || !self.exists(&format!("{dir}/iommu_group")) {
            return Err(Errno::EINVAL);
        }
        match self.get(&format!("{dir}/sriov_numvfs")).as_deref() {
            None | Some("0") => Ok(()),
            Some(_) => Err(Errno::EBUSY),
        }
    }

    /// The device sleeps until somebody opens it; its group has a node.
    pub(super) fn vfio_attached(&self, dir: &str) {
        self.put(&format!("{dir}/power/control"), "auto");
        let awake = self.get("/sys/module/vfio_pci/parameters/disable_idle_d3");
        let idle = awake.as_deref() != Some("Y");
        if idle {
            self.put(&format!("{dir}/power/runtime_status"), "suspended");
        }
        let state = if idle && self.can_sleep(dir) {
            "D3hot"
        } else {
            "D0"
        };
        self.put(&format!("{dir}/power_state"), state);
        self.vfio_nodes(dir);
    }

    /// What a device has that VFIO holds, bound or mediated.
    pub(super) fn vfio_nodes(&self, dir: &str) {
        let group = self.linked(&format!("{dir}/iommu_group")).unwrap();
        let node = format!("/dev/vfio/{group}");
        if !self.exists(&node) {
            fs::create_dir_all(self.real("/dev/vfio")).unwrap();
            fs::write(self.real(&node), "").unwrap();
            let virt = format!("/sys/devices/virtual/vfio/{group}");
            let minor = (0..)
                .find(|minor| {
                    let taken = format!("241:{minor}");
                    self.list("/sys/devices/virtual/vfio").iter().all(|other| {
                        self.get(&format!("/sys/devices/virtual/vfio/{other}/dev"))
                            != Some(taken.clone())
                    })
                })
                .unwrap();
            let mut tree = Tree::default();
            tree.attr(&virt, "dev", format!("241:{minor}"));
            tree.file(
                format!("{virt}/uevent"),
                format!("MAJOR=241\nMINOR={minor}\nDEVNAME=vfio/{group}\n"),
            );
            class_device(&mut tree, &virt, "vfio", &group);
            tree.materialise(&self.root);
        }
        let number = (0..)
            .find(|n| !self.exists(&format!("/sys/class/vfio-dev/vfio{n}")))
            .unwrap();
        let device = format!("{dir}/vfio-dev/vfio{number}");
        let mut tree = Tree::default();
        tree.link(format!("{device}/device"), dir);
        tree.file(format!("{device}/uevent"), "");
        class_device(&mut tree, &device, "vfio-dev", &format!("vfio{number}"));
        tree.materialise(&self.root);
        // Character devices for iommufd, where the kernel has them.
        if self.exists("/dev/vfio/devices") {
            fs::write(self.real(&format!("/dev/vfio/devices/vfio{number}")), "").unwrap();
        }
    }

    /// Awake again, and not allowed to sleep.
    pub(super) fn vfio_detached(&self, dir: &str, name: &str) {
        self.put(&format!("{dir}/power/control"), "on");
        self.put(&format!("{dir}/power/runtime_status"), "active");
        self.put(&format!("{dir}/power_state"), "D0");
        self.vfio_gone(dir, name);
    }

    /// Takes away what [`Self::vfio_nodes`] made; the group's node stays while another member needs it.
    pub(super) fn vfio_gone(&self, dir: &str, name: &str) {
        for number in self.list(&format!("{dir}/vfio-dev")) {
            self.unlink(&format!("/sys/class/vfio-dev/{number}"));
            self.unlink(&format!("/dev/vfio/devices/{number}"));
        }
        self.remove_dir(&format!("{dir}/vfio-dev"));
        let group = self.linked(&format!("{dir}/iommu_group")).unwrap();
        let others = self
            .list(&format!("/sys/kernel/iommu_groups/{group}/devices"))
            .iter()
            .filter(|member| *member != name)
            .any(|member| {
                let at = format!("/sys/kernel/iommu_groups/{group}/devices/{member}/driver");
                // Through the member's link: the kernel's own resolution of paths.
                fs::read_link(self.real(&at))
                    .is_ok_and(|d| is_vfio(d.file_name().unwrap().to_str().unwrap()))
            });
        if !others {
            self.drop_group_node(&group);
        }
    }

    fn drop_group_node(&self, group: &str) {
        self.unlink(&format!("/dev/vfio/{group}"));
        self.unlink(&format!("/sys/class/vfio/{group}"));
        self.remove_dir(&format!("/sys/devices/virtual/vfio/{group}"));
        // The directory between goes with its last member, here as there.
        let _ = fs::remove_dir(self.real("/sys/devices/virtual/vfio"));
    }

    /// Whether the device has the power management capability.
    fn can_sleep(&self, dir: &str) -> bool {
        let Ok(config) = fs::read(self.real(&format!("{dir}/config"))) else {
            return false;
        };
        let byte = |at: usize| config.get(at).copied().unwrap_or(0);
        let mut at = usize::from(byte(0x34));
        for _ in 0..48 {
            if at < 0x40 {
                return false;
            }
            if byte(at) == 0x01 {
                return true;
            }
            at = usize::from(byte(at + 1));
        }
        false
    }
}
