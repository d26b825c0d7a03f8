//! Facts about the host: read once, plain data, nothing is changed here.
//!
//! [`HostFacts::read`] gathers only what was asked for ([`Needs`]): a start that uses TCG does not probe
//! KVM, and only the QEMU of the guest's architecture is looked at.

mod bounded;
pub mod cpu;
pub mod devices;
pub mod dmi;
pub mod doctor;
pub mod facts;
pub mod firmware;
pub mod graphical;
pub mod images;
pub mod init;
pub mod kvm;
pub mod links;
mod listening;
pub mod memory;
pub mod neighbours;
pub mod node;
pub mod os;
pub mod packages;
pub mod programs;
pub mod qemu;
pub mod realtime;
pub mod rights;
mod store;
pub mod sysfs;
#[cfg(test)]
mod testing;
pub mod tpm;
pub mod users;

pub use cpu::{CpuCluster, CpuFacts};
pub use devices::DeviceFacts;
pub use dmi::DmiFacts;
pub use facts::{HostFacts, Needs, Roots};
pub use firmware::{Descriptor as FirmwareDescriptor, FirmwareFacts};
pub use graphical::Session;
pub use images::Images;
pub use init::Init;
pub use kvm::{KvmFacts, KvmState};
pub use links::LinkFacts;
pub use memory::{HugepagePool, MemoryFacts};
pub use node::DeviceNode;
pub use os::OsRelease;
pub use programs::{Programs, Virtiofsd, VirtiofsdKind};
pub use qemu::{QemuCaps, QemuFacts};
pub use realtime::RealtimeFacts;
pub use sysfs::Sysfs;
pub use tpm::TpmFacts;
pub use users::UserFacts;
