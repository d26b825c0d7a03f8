//! Drivers of PCI functions: taken with `driver_override` and `drivers_probe`, given back the same way.
//!
//! `new_id` is not used: it is for all devices of a kind, stays for ever, and a driver that comes later
//! may lose the race for the device. Of `driver_override` the kernel says (`drivers/base/driver.c`,
//! `driver_set_override`): an empty write does nothing, a line end alone clears it; unset, it reads
//! `(null)`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use super::device_error::DeviceError;
use super::sysfs::{Device, Place, plain};
use super::{OpsError, holders, process};
use crate::ids::{Bdf, PciRef};
use crate::plan::step::Bound;

/// For `modprobe`.
const MODPROBE: Duration = Duration::from_secs(60);

/// A function that exists.
#[derive(Debug)]
pub(crate) struct Function<'a> {
    place: &'a Place,
    /// Its address.
    pub(crate) address: Bdf,
    /// Its directory, relative to `/sys`.
    pub(crate) dir: PathBuf,
    device: Device<'a>,
}

/// The directory of the function at an address.
pub(crate) fn dir_of(address: Bdf) -> PathBuf {
    Path::new("bus/pci/devices").join(address.to_string())
}

/// Where a function is now; a virtual one is where its physical function's link says.
pub(crate) fn address_of(place: &Place, device: PciRef) -> Option<Bdf> {
    let address = match device {
        PciRef::Function(bdf) => bdf,
        PciRef::Vf { pf, index } => {
            let link = dir_of(pf).join(format!("virtfn{}", index.checked_sub(1)?));
            place.link_name(link)?.parse().ok()?
        }
    };
    place.exists(dir_of(address)).then_some(address)
}

impl<'a> Function<'a> {
    /// The function, if it is there.
    pub(crate) fn find(place: &'a Place, device: PciRef) -> Option<Self> {
        let address = address_of(place, device)?;
        Some(Self {
            place,
            address,
            dir: dir_of(address),
            device: place.device(format!("pci-{address}")),
        })
    }

    /// The function, which must be there.
    pub(crate) fn get(place: &'a Place, device: PciRef) -> Result<Self, DeviceError> {
        Self::find(place, device).ok_or_else(|| match device {
            PciRef::Vf { pf, index } if place.exists(dir_of(pf)) => DeviceError::NoVf {
                pf: pf.to_string(),
                index,
                count: place.number(dir_of(pf).join("sriov_numvfs")).unwrap_or(0),
            },
            other => DeviceError::Gone {
                device: format!("PCI function {other}"),
            },
        })
    }

    /// Its driver.
    pub(crate) fn driver(&self) -> Option<String> {
        self.place.link_name(self.dir.join("driver"))
    }

    /// The only driver that may have it.
    fn driver_override(&self) -> Result<Option<String>, DeviceError> {
        let text = self.device.read(self.dir.join("driver_override"))?;
        Ok(text.filter(|text| !text.is_empty() && text != "(null)"))
    }

    fn set_driver_override(&self, wanted: Option<&str>) -> Result<(), DeviceError> {
        if self.driver_override()?.as_deref() == wanted {
            return Ok(());
        }
        let file = self.dir.join("driver_override");
        self.device
            .command(&file, &format!("{}\n", wanted.unwrap_or_default()))?;
        let now = self.driver_override()?;
        if now.as_deref() == wanted {
            return Ok(());
        }
        Err(DeviceError::Write {
            text: wanted.unwrap_or_default().to_owned(),
            path: self.place.path(file),
            cause: Some(format!("it holds `{}` afterwards", now.unwrap_or_default())),
            hint: None,
            source: std::io::Error::other("the kernel took it without effect"),
        })
    }

    /// How it stands now.
    pub(crate) fn observe(&self) -> Result<Bound, DeviceError> {
        self.device.wait_until_quiet()?;
        Ok(Bound {
            driver: self.driver(),
            driver_override: self.driver_override()?,
            power_control: self.device.read(self.dir.join("power/control"))?,
        })
    }

    /// That nothing is made of it: virtual functions and mediated devices go with its driver, or keep it
    /// waiting for whoever has them.
    fn expect_whole(&self) -> Result<(), DeviceError> {
        let refuse = |count: usize, one: &'static str| {
            Err(DeviceError::InParts {
                device: self.address.to_string(),
                parts: match count {
                    1 => format!("a {one}"),
                    count => format!("{count} {one}s"),
                },
            })
        };
        let vfs = self.device.read(self.dir.join("sriov_numvfs"))?;
        let vfs = vfs.and_then(|text| text.parse().ok()).unwrap_or(0);
        if vfs > 0 {
            return refuse(vfs, "virtual function");
        }
        let inside = self.place.list(&self.dir);
        let mdevs = inside.iter().filter(|name| Uuid::parse_str(name).is_ok());
        match mdevs.count() {
            0 => Ok(()),
            count => refuse(count, "mediated device"),
        }
    }

    /// Gives it to a driver.
    pub(crate) fn bind(&self, driver: &str) -> Result<(), DeviceError> {
        self.expect_whole()?;
        // Whoever bound it already, by hand or before, keeps it so: nothing is written then, which an
        // ordinary user could not.
        if self.driver().is_some_and(|now| is_same(&now, driver)) {
            return Ok(());
        }
        plain(driver)?;
        let driver = load(self.place, driver)?;
        self.set_driver_override(Some(&driver))?;
        self.unbind()?;
        self.probe()?;
        self.expect(&driver)
    }

    /// Puts it back as it was before `ours` got it. A driver that somebody else gave it meanwhile
    /// stays.
    pub(crate) fn give_back(&self, ours: &str, from: &Bound) -> Result<(), DeviceError> {
        // They come from a file.
        let control = from.power_control.iter();
        let names = from.driver.iter().chain(&from.driver_override);
        for name in names.chain(control).filter(|name| !name.is_empty()) {
            plain(name)?;
        }
        self.device.wait_until_quiet()?;
        let now = self.driver();
        let other = |now: &String| !is_same(now, ours);
        let foreign = now.as_ref().is_some_and(other) && now != from.driver;
        if !foreign && now != from.driver {
            if now.is_some() {
                self.reset();
                self.unbind()?;
            }
            if let Some(driver) = &from.driver {
                // Only that driver: more than one may know the device. Its module may be gone.
                if let Err(error) = load(self.place, driver) {
                    tracing::debug!(%error, "its module cannot be loaded");
                }
                self.set_driver_override(Some(driver))?;
                self.probe()?;
            }
        }
        self.set_driver_override(from.driver_override.as_deref())?;
        if let Some(control) = &from.power_control {
            self.device.set(self.dir.join("power/control"), control)?;
        }
        match &from.driver {
            Some(driver) if !foreign => self.expect(driver),
            _ => Ok(()),
        }
    }

    fn expect(&self, driver: &str) -> Result<(), DeviceError> {
        let got = self.driver();
        if got.as_deref() == Some(driver) {
            return Ok(());
        }
        let no_group =
            driver.contains("vfio") && self.place.link_name(self.dir.join("iommu_group")).is_none();
        let hint = if no_group {
            "it is in no IOMMU group: the IOMMU is off (`mvm doctor` tells how to switch it on)"
        } else {
            "`dmesg` has the driver's own words"
        };
        Err(DeviceError::NotBound {
            device: self.address.to_string(),
            wanted: driver.to_owned(),
            got,
            hint: Some(hint.to_owned()),
        })
    }

    /// Takes it from its driver, if it has one. A driver of VFIO would wait for whoever has the device
    /// open, so they are waited for first, but not for ever.
    fn unbind(&self) -> Result<(), DeviceError> {
        let Some(driver) = self.driver() else {
            return Ok(());
        };
        if driver.contains("vfio") {
            self.expect_unused()?;
        }
        let file = self.dir.join("driver/unbind");
        match self.device.command(&file, &format!("{}\n", self.address)) {
            // Gone meanwhile, with or without us.
            Err(_) if self.driver().is_none() => Ok(()),
            done => done,
        }
    }

    /// That no process has it open through VFIO.
    pub(crate) fn expect_unused(&self) -> Result<(), DeviceError> {
        match holders::wait_for_vfio(self.place, &self.dir) {
            None => Ok(()),
            Some(by) => Err(DeviceError::InUse {
                device: self.address.to_string(),
                by,
            }),
        }
    }

    fn probe(&self) -> Result<(), DeviceError> {
        let file = "bus/pci/drivers_probe";
        match self.device.command(file, &format!("{}\n", self.address)) {
            // Some kernels answer with the driver's error, others do not: what counts is who has it.
            Err(DeviceError::Write { source, .. }) if self.driver().is_some() => {
                tracing::debug!(error = %source, "probing");
                Ok(())
            }
            done => done,
        }
    }

    /// Brings it into a known state, where it can be. That it cannot is no reason not to give it back.
    fn reset(&self) {
        let methods = self.place.read(self.dir.join("reset_method"));
        let can = methods.as_deref() != Some("") && self.place.exists(self.dir.join("reset"));
        if !can || self.expect_unused().is_err() {
            return;
        }
        if let Err(error) = self.device.command(self.dir.join("reset"), "1\n") {
            tracing::warn!("{} is given back without a reset: {error}", self.address);
        }
    }
}

/// Gives a function that lost its driver back to it.
pub(crate) fn rebind(function: &Function<'_>, had: &str, now: &Bound) -> Result<(), DeviceError> {
    let from = Bound {
        driver: Some(had.to_owned()),
        ..now.clone()
    };
    function.give_back(had, &from)
}

/// Whether two names are one driver's: modules have underscores where their drivers may have hyphens
/// (`xe_vfio_pci`, `xe-vfio-pci`).
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    one.replace('_', "-") == other.replace('_', "-")
}

/// Loads a driver's module where the driver is not there. The driver's name as the kernel has it.
pub(crate) fn load(place: &Place, driver: &str) -> Result<String, DeviceError> {
    let there = || {
        let mut all = place.list("bus/pci/drivers").into_iter();
        all.find(|name| is_same(name, driver))
    };
    if let Some(name) = there() {
        return Ok(name);
    }
    let missing = |why| DeviceError::NoDriver {
        driver: driver.to_owned(),
        why,
    };
    if !place.is_real() {
        return Err(missing(None));
    }
    modprobe(driver).map_err(|error| missing(Some(error.to_string())))?;
    there().ok_or_else(|| missing(None))
}

/// Loads the module that sets up a container's IOMMU. `vfio` asks for it by a soft dependency, which
/// busybox' `modprobe` does not know. A kernel that has it built in, or has iommufd in its place, lacks the
/// module: opening a device tells.
pub(crate) fn load_iommu_backend(place: &Place) {
    const BACKEND: &str = "vfio_iommu_type1";
    if !place.is_real() || place.exists(Path::new("module").join(BACKEND)) {
        return;
    }
    if let Err(error) = modprobe(BACKEND) {
        tracing::debug!(%error, "its module cannot be loaded");
    }
}

fn modprobe(module: &str) -> Result<(), OpsError> {
    // It is where root's programs are, which a service's or a user's PATH may not name.
    let usual = Path::new("/sbin/modprobe");
    let program = process::find("modprobe", Some(usual)).ok_or_else(|| OpsError::NoProgram {
        program: "modprobe".to_owned(),
    })?;
    process::run(&program, &["-q", "--", module], MODPROBE)
}
