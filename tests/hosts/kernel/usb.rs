//! USB devices lose their interfaces with their configuration, and get them back with it
//! (`drivers/usb/core/{generic,hub,message,sysfs}.c`).

use nix::errno::Errno;

use super::{Done, Kernel, number};

impl Kernel {
    /// `authorized` of a device or of an interface.
    pub(super) fn authorize_usb(&self, dir: &str, text: &str) -> Done {
        let name = dir.rsplit('/').next().unwrap();
        let on = number(text).map_err(|_| Errno::EINVAL)? != 0;
        let was = self.get(&format!("{dir}/authorized")).as_deref() != Some("0");
        self.put(&format!("{dir}/authorized"), u8::from(on));
        if on == was {
            return Ok(());
        }
        match (name.contains(':'), on) {
            // An interface that is let in again waits for drivers_probe.
            (true, true) => {}
            (true, false) => self.detach("usb", dir, name),
            (false, true) => self.usb_configured(dir, name),
            (false, false) => self.usb_unconfigured(dir, name),
        }
        Ok(())
    }

    /// The device has its configuration: its interfaces come, and their drivers.
    pub(super) fn usb_configured(&self, dir: &str, name: &str) {
        if self.get(&format!("{dir}/authorized")).as_deref() == Some("0") {
            return;
        }
        self.unpark(&format!("usb-{name}"));
        self.put(&format!("{dir}/bConfigurationValue"), 1);
        if let Some(count) = self.note("usb", name, "interfaces") {
            self.put(&format!("{dir}/bNumInterfaces"), count);
        }
        for interface in self.interfaces(dir, name) {
            let at = format!("{dir}/{interface}");
            self.link(&format!("/sys/bus/usb/devices/{interface}"), &at);
            self.probe("usb", &at, &interface);
        }
    }

    /// The device is without a configuration: its interfaces go, with everything below them.
    pub(super) fn usb_unconfigured(&self, dir: &str, name: &str) {
        let interfaces = self.interfaces(dir, name);
        for interface in &interfaces {
            self.detach("usb", &format!("{dir}/{interface}"), interface);
            self.unlink(&format!("/sys/bus/usb/devices/{interface}"));
        }
        self.park(
            &format!("usb-{name}"),
            interfaces
                .iter()
                .map(|interface| format!("{dir}/{interface}")),
        );
        if let Some(count) = self
            .get(&format!("{dir}/bNumInterfaces"))
            .filter(|n| !n.is_empty())
        {
            self.put(&format!("/.standin/usb/{name}/interfaces"), count);
        }
        // What there is of the current configuration reads as nothing.
        for file in ["bConfigurationValue", "bNumInterfaces"] {
            let file = self.real(&format!("{dir}/{file}"));
            if file.exists() {
                std::fs::write(file, "").unwrap();
            }
        }
    }

    /// An interface has a driver: what that makes of it is there, a disk, a network device.
    pub(super) fn usb_driven(&self, dir: &str, name: &str) {
        self.unpark(&format!("usb-{name}"));
        if let Some(status) = self.note("usb", name, "runtime-status") {
            self.put(&format!("{dir}/power/runtime_status"), status);
        }
    }

    /// An interface has lost its driver, and sleeps or wakes no more.
    pub(super) fn usb_undriven(&self, dir: &str, name: &str) {
        self.park_children(dir, &format!("usb-{name}"));
        let status = format!("{dir}/power/runtime_status");
        if let Some(now) = self.get(&status) {
            self.put(&format!("/.standin/usb/{name}/runtime-status"), now);
            self.put(&status, "unsupported");
        }
    }

    fn interfaces(&self, dir: &str, name: &str) -> Vec<String> {
        let start = format!("{name}:");
        self.list(dir)
            .into_iter()
            .filter(|child| child.starts_with(&start))
            .collect()
    }
}
