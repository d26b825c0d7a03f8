//! What a driver had made below its device goes with the driver and comes back with it: network devices,
//! disks, screens, whole USB buses. Meanwhile it is kept in `/.standin/parked`.

use std::fs;

use super::Kernel;

/// Directories of a device that are the bus' own and stay.
const STAY: [&str; 6] = [
    "power",
    "link",
    "firmware_node",
    "msi_irqs",
    "physical_node",
    "wakeup",
];

impl Kernel {
    /// Takes all directories of a device away that its driver made.
    pub(super) fn park_children(&self, dir: &str, key: &str) {
        let children: Vec<String> = self
            .list(dir)
            .into_iter()
            .filter(|name| {
                let path = self.real(&format!("{dir}/{name}"));
                let directory = path.symlink_metadata().is_ok_and(|m| m.is_dir());
                // A device below a bridge belongs to the bus, not to the bridge's driver.
                let on_bus =
                    self.exists(&format!("/sys/bus/pci/devices/{name}")) || name.starts_with("pci");
                directory && !on_bus && !STAY.contains(&name.as_str())
            })
            .map(|name| format!("{dir}/{name}"))
            .collect();
        let device = dir.rsplit('/').next().unwrap();
        let debug = format!("/sys/kernel/debug/dri/{device}");
        let debug = Some(debug).filter(|d| self.exists(d));
        self.park(key, children.into_iter().chain(debug));
    }

    /// Takes directories away, with all links in classes and buses that lead to them.
    pub(super) fn park(&self, key: &str, dirs: impl Iterator<Item = String>) {
        let place = format!("/.standin/parked/{key}");
        let mut index = String::new();
        for (n, dir) in dirs.enumerate() {
            fs::create_dir_all(self.real(&place)).unwrap();
            for (link, target) in self.links_into(&dir) {
                index += &format!("link\t{link}\t{target}\n");
                self.unlink(&link);
            }
            index += &format!("dir\t{dir}\t{n}\n");
            fs::rename(self.real(&dir), self.real(&format!("{place}/{n}"))).unwrap();
        }
        if !index.is_empty() {
            fs::write(self.real(&format!("{place}/index")), index).unwrap();
        }
    }

    /// Brings back what was taken away under that key.
    pub(super) fn unpark(&self, key: &str) {
        let place = format!("/.standin/parked/{key}");
        let Some(index) = self.get(&format!("{place}/index")) else {
            return;
        };
        for line in index.lines() {
            let mut words = line.split('\t');
            let (kind, path, other) = (
                words.next().unwrap(),
                words.next().unwrap(),
                words.next().unwrap(),
            );
            if kind == "dir" {
                fs::rename(self.real(&format!("{place}/{other}")), self.real(path)).unwrap();
            } else {
                self.link(path, other);
            }
        }
        self.remove_dir(&place);
    }

    /// The links of classes and buses that lead into a directory.
    pub(super) fn links_into(&self, dir: &str) -> Vec<(String, String)> {
        let mut places = vec!["/sys/block".to_owned()];
        for class in self.list("/sys/class") {
            places.push(format!("/sys/class/{class}"));
        }
        for bus in self.list("/sys/bus") {
            places.push(format!("/sys/bus/{bus}/devices"));
            for driver in self.list(&format!("/sys/bus/{bus}/drivers")) {
                places.push(format!("/sys/bus/{bus}/drivers/{driver}"));
            }
        }
        let below = format!("{dir}/");
        let mut found = Vec::new();
        for place in places {
            for name in self.list(&place) {
                let link = format!("{place}/{name}");
                if let Some(target) = self.target(&link) {
                    if target == dir || target.starts_with(&below) {
                        found.push((link, target));
                    }
                }
            }
        }
        found
    }
}
