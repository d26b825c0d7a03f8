//! Why a plan could not be carried out, in words.

use crate::error::{ExitCode, Hint};
use crate::ops::OpsError;
use crate::plan::journal::{self, JournalError};
use crate::plan::step::Step;

/// A plan that could not be carried out. What had been done is taken back already.
#[derive(Debug, thiserror::Error)]
#[error("{}", step_text(step))]
pub struct ApplyError {
    /// The step.
    pub step: Box<Step>,
    /// Why it failed.
    #[source]
    pub why: Box<Why>,
    /// What could not be taken back; the journal is still there then.
    pub left: Vec<OpsError>,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// The host refused.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// Its inverse could not be written down, so it was not run.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A step before the lock would change something that another process may own.
    #[error("it comes before the guest's lock is taken")]
    BeforeLock,
    /// The plan takes no lock.
    #[error("the plan takes no lock")]
    NoLock,
}

impl ApplyError {
    /// Whether another guest was faster in taking a device.
    pub fn is_lost_race(&self) -> bool {
        let lost =
            |why: &Why| matches!(why, Why::Ops(OpsError::Device(error)) if error.is_lost_race());
        self.left.is_empty() && lost(&self.why)
    }
}

impl Hint for ApplyError {
    fn hints(&self) -> Vec<String> {
        let mut hints = match &*self.why {
            Why::Ops(error) => error.hints(),
            Why::Journal(error) => error.hints(),
            Why::BeforeLock | Why::NoLock => Vec::new(),
        };
        hints.extend(self.left.iter().map(|error| {
            let why = journal::in_words(error);
            format!("not taken back: {why}; `mvm recover` tries again")
        }));
        hints
    }

    fn exit_code(&self) -> ExitCode {
        match &*self.why {
            Why::Ops(error) => error.exit_code(),
            _ => ExitCode::Failed,
        }
    }
}

fn step_text(step: &Step) -> String {
    match step {
        Step::MakeDir { path, .. } => format!("cannot prepare the directory {}", path.display()),
        Step::Lock { .. } => "cannot take the guest's lock".to_owned(),
        Step::CopyFile { to, .. } => format!("cannot make {}", to.display()),
        Step::KeepPlaces { .. } => "cannot keep where the guest's devices sit".to_owned(),
        Step::CreateOverlay { path, .. } => format!("cannot make the overlay {}", path.display()),
        Step::CreateTap { name, .. } => format!("cannot make the tap `{name}`"),
        Step::Listen { path } => format!("cannot make the socket {}", path.display()),
        Step::RunHook { hook } | Step::PromiseHook { hook } => {
            format!("the hook `{}` failed", hook.name)
        }
        Step::StartSidecar { sidecar } => {
            format!("cannot start the guest's {}", sidecar.name)
        }
        Step::EndSidecar { name, .. } => format!("cannot end the guest's {name}"),
        Step::RemoveFile { path } | Step::RemoveDir { path } => {
            format!("cannot remove {}", path.display())
        }
        Step::DeleteTap { name } => format!("cannot remove the tap `{name}`"),
        Step::TakeLease { device, .. } => format!("cannot take {device}"),
        Step::ReleaseLease { key, .. } => format!("cannot release the lease {key}"),
        Step::MakeVfs { pf, .. } => format!("cannot make the virtual functions of {pf}"),
        Step::DropVfs { pf, .. } | Step::RestoreVfs { pf, .. } => {
            format!("cannot put {pf} back as it was without its virtual functions")
        }
        Step::ClaimHugepages { size, .. } => {
            format!("the guest cannot have its huge pages of {size}")
        }
        Step::ReturnHugepages { size, .. } => {
            format!("cannot take the guest's huge pages of {size} off the host's pool")
        }
        Step::SetVfNet { pf, index, .. } => {
            format!("cannot set address and VLAN of virtual function {index} of {pf}")
        }
        Step::MakeMdev { type_id, .. } => {
            format!("cannot make a mediated device of type {type_id}")
        }
        Step::RemoveMdev { uuid } => format!("cannot remove the mediated device {uuid}"),
        Step::DetachConsole { console, .. } => {
            format!("cannot take the host's console {console} away")
        }
        Step::AttachConsole { console, .. } => {
            format!("cannot bring the host's console {console} back")
        }
        Step::BindDriver { device, driver, .. } => format!("cannot give {device} to {driver}"),
        Step::GiveBack { device, .. } => format!("cannot give {device} back"),
        Step::TakeUsb { port, .. } => format!("cannot take the USB device at {port}"),
        Step::GiveBackUsb { port, .. } => format!("cannot give the USB device at {port} back"),
        Step::OpenDir { path, .. } | Step::GiveFile { path, .. } => {
            format!("cannot let QEMU's user at {}", path.display())
        }
        Step::GiveNode { node, .. } => format!("cannot give {node} to QEMU's user"),
        Step::TakeNodeBack { node, .. } => format!("cannot put the owner of {node} back"),
        Step::ConfirmVfio { .. } => "the devices cannot be opened through VFIO".to_owned(),
    }
}

pub(super) fn failed(step: &Step, why: impl Into<Why>, left: Vec<OpsError>) -> ApplyError {
    ApplyError {
        step: Box::new(step.clone()),
        why: Box::new(why.into()),
        left,
    }
}
