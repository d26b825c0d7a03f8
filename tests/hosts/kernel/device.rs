//! Drivers and devices: bind, unbind, probe, override.

use nix::errno::Errno;

use super::{Done, Kernel, streq};

impl Kernel {
    /// `drivers/X/bind`.
    pub(super) fn bind(&self, bus: &str, driver: &str, text: &str) -> Done {
        let name = streq(text);
        let dir = self.device(bus, name)?;
        if self.wanted(bus, &dir, name).as_deref() != Some(driver) {
            return Err(Errno::ENODEV);
        }
        self.attach(bus, &dir, name, driver)
    }

    /// `drivers/X/unbind`.
    pub(super) fn unbind(&self, bus: &str, driver: &str, text: &str) -> Done {
        let name = streq(text);
        let dir = self.device(bus, name)?;
        if self.linked(&format!("{dir}/driver")).as_deref() != Some(driver) {
            return Err(Errno::ENODEV);
        }
        self.detach(bus, &dir, name);
        Ok(())
    }

    /// `drivers_probe`: a driver that refuses the device is no error of this write.
    pub(super) fn drivers_probe(&self, bus: &str, text: &str) -> Done {
        let name = streq(text);
        let dir = self.device(bus, name)?;
        self.probe(bus, &dir, name);
        Ok(())
    }

    /// Gives the device to the driver that takes it, if it has none.
    pub(super) fn probe(&self, bus: &str, dir: &str, name: &str) {
        if self.exists(&format!("{dir}/driver")) {
            return;
        }
        if let Some(driver) = self.wanted(bus, dir, name) {
            if self.exists(&format!("/sys/bus/{bus}/drivers/{driver}")) {
                let _ = self.attach(bus, dir, name, &driver);
            }
        }
    }

    /// The one driver that matches: the override, else the one that claims such devices.
    fn wanted(&self, bus: &str, dir: &str, name: &str) -> Option<String> {
        match self.get(&format!("{dir}/driver_override")) {
            Some(driver) if driver != "(null)" => Some(driver),
            _ => self.note(bus, name, "claims"),
        }
    }

    pub(super) fn driver_override(&self, dir: &str, text: &str) -> Done {
        if text.len() >= 4095 {
            return Err(Errno::EINVAL);
        }
        // What comes before the first line end; "\n" alone and "\0" clear it.
        let value = text.split('\n').next().unwrap();
        let value = if value.is_empty() { "(null)" } else { value };
        self.put(&format!("{dir}/driver_override"), value);
        Ok(())
    }

    fn attach(&self, bus: &str, dir: &str, name: &str, driver: &str) -> Done {
        if self.exists(&format!("{dir}/driver")) {
            return Err(Errno::EBUSY);
        }
        if bus == "pci" {
            self.may_probe(dir)?;
            if super::vfio::is_vfio(driver) {
                self.vfio_accepts(dir)?;
            }
        }
        if let Some(errno) = self.note(bus, name, "probe-fails") {
            return Err(Errno::from_raw(errno.parse().unwrap()));
        }
        self.link(
            &format!("{dir}/driver"),
            &format!("/sys/bus/{bus}/drivers/{driver}"),
        );
        self.link(&format!("/sys/bus/{bus}/drivers/{driver}/{name}"), dir);
        self.uevent(dir, Some(driver));
        match bus {
            "pci" if super::vfio::is_vfio(driver) => self.vfio_attached(dir),
            "pci" => {
                self.put(&format!("{dir}/enable"), 1);
                self.put(&format!("{dir}/power_state"), "D0");
                self.unpark(&format!("pci-{name}"));
                self.limit_vfs(dir, name, true);
                self.vf_netdev(dir, name);
            }
            "usb" if !name.contains(':') => self.usb_configured(dir, name),
            "usb" => self.usb_driven(dir, name),
            "platform" => self.unpark(&format!("platform-{name}")),
            _ => {}
        }
        Ok(())
    }

    /// Takes the driver from a device that has one.
    pub(super) fn detach(&self, bus: &str, dir: &str, name: &str) {
        let Some(driver) = self.linked(&format!("{dir}/driver")) else {
            return;
        };
        match bus {
            "pci" if super::vfio::is_vfio(&driver) => self.vfio_detached(dir, name),
            "pci" => {
                self.driver_leaves_vfs(dir, name);
                self.limit_vfs(dir, name, false);
                self.remove_mdevs(dir);
                self.park_children(dir, &format!("pci-{name}"));
                self.put(&format!("{dir}/enable"), 0);
            }
            "usb" if !name.contains(':') => self.usb_unconfigured(dir, name),
            "usb" => self.usb_undriven(dir, name),
            "platform" => self.park_children(dir, &format!("platform-{name}")),
            _ => {}
        }
        // In what state a device is that nobody drives, the kernel does not say.
        if self.get(&format!("{dir}/power_state")).as_deref() == Some("D0") {
            self.put(&format!("{dir}/power_state"), "unknown");
        }
        self.unlink(&format!("{dir}/driver"));
        self.unlink(&format!("/sys/bus/{bus}/drivers/{driver}/{name}"));
        self.uevent(dir, None);
    }

    /// A VF is probed only if its physical function lets VFs be, or an override names the driver.
    fn may_probe(&self, dir: &str) -> Done {
        let Some(physfn) = self.target(&format!("{dir}/physfn")) else {
            return Ok(());
        };
        let free = self
            .get(&format!("{physfn}/sriov_drivers_autoprobe"))
            .as_deref()
            != Some("0");
        let overridden = self.get(&format!("{dir}/driver_override")).as_deref() != Some("(null)");
        if free || overridden {
            Ok(())
        } else {
            Err(Errno::ENODEV)
        }
    }

    /// The line of `uevent` that names the driver.
    fn uevent(&self, dir: &str, driver: Option<&str>) {
        let path = self.real(&format!("{dir}/uevent"));
        let Ok(text) = std::fs::read_to_string(&path) else {
            return;
        };
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| !line.starts_with("DRIVER="))
            .map(str::to_owned)
            .collect();
        if let Some(driver) = driver {
            // After what the device's kind adds, before what its bus adds.
            let at = lines
                .iter()
                .take_while(|l| {
                    ["MAJOR=", "MINOR=", "DEVNAME=", "DEVTYPE="]
                        .iter()
                        .any(|k| l.starts_with(k))
                })
                .count();
            lines.insert(at, format!("DRIVER={driver}"));
        }
        std::fs::write(path, lines.join("\n") + "\n").unwrap();
    }
}
