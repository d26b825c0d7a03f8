//! The only writes to the host. Every change is a [`Step`] that goes through [`Ops::run`].
//!
//! An operation compares before it writes, and looks at the result afterwards.

pub mod byhand;
#[cfg(test)]
mod byhand_tests;
mod causes;
mod console;
mod copy;
pub mod device_error;
mod devices;
pub mod dirs;
mod driver;
mod error;
mod fds;
mod helper;
mod holders;
pub mod hook;
pub mod hostdir;
pub mod hugepages;
pub mod lock;
mod mdev;
pub mod memlock;
pub mod memory;
pub(crate) mod moment;
mod node;
mod overlay;
mod owner;
pub mod process;
mod provision;
#[cfg(test)]
mod refusal_tests;
pub mod session;
pub mod sidecar;
pub mod socket;
#[cfg(test)]
mod standin;
pub mod sysfs;
mod tap;
pub mod threads;
pub mod units;
#[cfg(test)]
mod units_tests;
mod usb;
mod vfio;
mod vfnet;
mod vfs;
pub mod wakesources;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::dirs::Dirs;
use crate::ids::{Bdf, PciRef};
use crate::plan::step::Step;
pub use device_error::DeviceError;
pub use error::OpsError;
pub use fds::open_source;
#[cfg(test)]
pub(crate) use standin::{VARIABLE as STAND_IN, set as set_stand_in};
use sysfs::Place;
pub use vfio::try_open as try_vfio;

/// Who carries out steps: the host, or a fake one in tests.
pub trait Ops {
    /// Carries out one step. The descriptor is the lock or the listening socket that it made.
    ///
    /// # Errors
    /// What stood in the way; the step may then be half done.
    fn run(&self, step: &Step) -> Result<Option<OwnedFd>, OpsError>;

    /// Carries out what takes something back for the guest of that run-time directory. A device that is
    /// another guest's by now was given back before: nothing is done to it.
    ///
    /// # Errors
    /// As [`Self::run`].
    fn take_back(&self, undo: &Step, _run_dir: &Path) -> Result<(), OpsError> {
        self.run(undo).map(drop)
    }

    /// The step with what the host has right now in the place of what it is to be put back to. It is
    /// asked for just before the inverse is written down.
    ///
    /// # Errors
    /// What cannot be looked at.
    fn observe(&self, step: &Step) -> Result<Step, OpsError> {
        Ok(step.clone())
    }

    /// The IOMMU group of a function that exists.
    fn group_of(&self, _device: PciRef) -> Option<u32> {
        None
    }
}

/// The host that mvm runs on.
#[derive(Debug, Clone)]
pub struct Host {
    qemu: Option<PathBuf>,
    place: Place,
}

impl Host {
    /// The host, with what guests share where `dirs` says.
    pub fn new(dirs: &Dirs) -> Self {
        Self::at(Place::new(dirs.host()))
    }

    /// The host, with what guests share in that directory.
    pub fn sharing(host: &Path) -> Self {
        Self::at(Place::new(host))
    }

    /// A host with its files elsewhere.
    pub const fn at(place: Place) -> Self {
        Self { qemu: None, place }
    }

    /// The same; `qemu-img` is looked for beside this QEMU first.
    #[must_use]
    pub fn with_qemu(mut self, qemu: &Path) -> Self {
        self.qemu = Some(qemu.to_owned());
        self
    }

    /// Where a PCI function is now; `None` where there is none.
    pub fn address_of(&self, device: PciRef) -> Option<Bdf> {
        driver::address_of(&self.place, device)
    }

    /// Removes, as root, leases of other users' guests that are gone, and what is in the place of leases and is
    /// none, where nobody has the device open. What the former say is not carried out; the latter are told.
    ///
    /// # Errors
    /// The directory that guests share cannot be used.
    pub fn drop_strangers(&self) -> Result<Vec<hostdir::Damaged>, OpsError> {
        Ok(devices::drop_strangers(&self.place)?)
    }

    /// Where its files are.
    pub const fn place(&self) -> &Place {
        &self.place
    }
}

/// For steps of no device.
#[cfg(test)]
impl Default for Host {
    fn default() -> Self {
        Self::sharing(Path::new("/nonexistent/mvm-host"))
    }
}

impl Ops for Host {
    fn run(&self, step: &Step) -> Result<Option<OwnedFd>, OpsError> {
        moment::pass();
        match step {
            Step::MakeDir { path, mode, keep } => dirs::make(path, *mode, *keep)?,
            Step::Lock { path } => return lock::take(path).map(Some),
            Step::CopyFile { from, to, mode } => copy::copy_if_absent(from, to, *mode)?,
            Step::KeepPlaces { path, places } => copy::keep(path, &places.text())?,
            Step::CreateOverlay {
                path,
                backing,
                backing_format,
            } => overlay::create(self.qemu.as_deref(), path, backing, *backing_format)?,
            Step::CreateTap {
                name,
                bridge,
                address,
                vnet_hdr,
                multi_queue,
                mtu,
            } => {
                let with = tap::With {
                    vnet_hdr: *vnet_hdr,
                    multi_queue: *multi_queue,
                    mtu: *mtu,
                };
                tap::create(name, bridge.as_deref(), address.as_deref(), with)?;
            }
            Step::Listen { path } => return socket::listen(path).map(Some),
            Step::OpenDir { path, group } => owner::open_dir(path, *group)?,
            Step::GiveFile { path, uid, gid } => owner::give_file(path, *uid, *gid)?,
            Step::RunHook { hook } => hook::run_or_tell(hook)?,
            // What it promises is in the journal.
            Step::PromiseHook { .. } => {}
            Step::StartSidecar { sidecar } => sidecar::start(sidecar)?,
            Step::EndSidecar { lock, socket, .. } => sidecar::end(lock, socket)?,
            Step::RemoveFile { path } => dirs::remove_file(path)?,
            Step::RemoveDir { path } => dirs::remove_dir(path)?,
            Step::DeleteTap { name } => tap::delete(name)?,
            device => devices::run(&self.place, device, None)?,
        }
        Ok(None)
    }

    fn take_back(&self, undo: &Step, run_dir: &Path) -> Result<(), OpsError> {
        if devices::is_device_step(undo) {
            moment::pass();
            return Ok(devices::run(&self.place, undo, Some(run_dir))?);
        }
        self.run(undo).map(drop)
    }

    fn observe(&self, step: &Step) -> Result<Step, OpsError> {
        Ok(devices::observe(&self.place, step)?)
    }

    fn group_of(&self, device: PciRef) -> Option<u32> {
        let function = driver::Function::find(&self.place, device)?;
        let group = self.place.link_name(function.dir.join("iommu_group"))?;
        group.parse().ok()
    }
}
