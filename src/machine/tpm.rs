//! The guest's TPM: one in software, or the host's.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{BoardKind, Machine, virtiofs};
use crate::error::{ExitCode, Hint};
use crate::host::HostFacts;
use crate::host::packages::{Package, install};
use crate::profile::schema::{Layer, TpmModel, TpmTable, TpmVersion};
use crate::sidecar::{READY, SOCKET, Sidecar, SidecarUser};

/// The sidecar's name, and that of its socket.
pub const SIDECAR: &str = "tpm";
/// The host's TPM when the profile names none.
const HOST_TPM: &str = "/dev/tpm0";

/// A TPM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tpm {
    /// What the guest sees.
    pub model: TpmModel,
    /// What answers it.
    pub backend: TpmBackend,
}

/// What answers a guest's TPM commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TpmBackend {
    /// `swtpm`.
    Emulator {
        /// The program.
        program: PathBuf,
        /// The version.
        version: TpmVersion,
        /// The file that holds what the TPM holds.
        state: PathBuf,
    },
    /// The host's own.
    Passthrough {
        /// Its node.
        path: PathBuf,
        /// Where commands are cancelled; `/dev/null` where that cannot be done.
        cancel: PathBuf,
    },
}

impl Tpm {
    /// The file that holds what an emulated TPM holds.
    pub fn state(&self) -> Option<&Path> {
        match &self.backend {
            TpmBackend::Emulator { state, .. } => Some(state),
            TpmBackend::Passthrough { .. } => None,
        }
    }
}

/// There is no TPM for the guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TpmError {
    /// The program is missing.
    #[error("`tpm.emulator` needs swtpm, which is not installed")]
    NoSwtpm {
        /// What to do about it.
        install: String,
    },
    /// The board has no place for one.
    #[error("`[tpm]`: the board {0} has no TPM")]
    NoPlace(BoardKind),
    /// The interface is for others.
    #[error("`tpm.model = \"crb\"` is for {0}")]
    NoCrb(&'static str),
    /// The version of a TPM that is what it is.
    #[error("`tpm.version` is for `tpm.emulator`: the host's TPM has its own")]
    VersionOfHost,
    /// Not a node of a TPM.
    #[error("`tpm.passthrough.path`: {0:?} is not the node of a TPM, as in /dev/tpm0")]
    NotATpm(String),
    /// The host's TPM is not to be had.
    #[error("the host's TPM {} cannot be given to the guest: {why}", path.display())]
    NotToBeHad {
        /// The node.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

impl Hint for TpmError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoSwtpm { install } => vec![install.clone()],
            Self::NoPlace(_) => vec!["the boards q35, pc and virt have one".to_owned()],
            Self::NoCrb(_) => vec!["`tpm.model = \"tis\"`, or leave it out".to_owned()],
            Self::NotToBeHad { .. } => vec![
                "`tpm.emulator = {}` gives the guest one in software; what uses the host's is shown by `fuser /dev/tpm0 /dev/tpmrm0`"
                    .to_owned(),
            ],
            Self::VersionOfHost | Self::NotATpm(_) => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoSwtpm { .. } | Self::NotToBeHad { .. } => ExitCode::Host,
            _ => ExitCode::Profile,
        }
    }
}

/// The node of the host's TPM that a profile asks for: what the facts must be about.
pub fn host_tpm(layer: &Layer) -> Option<&str> {
    let asked = layer.tpm.as_ref()?.passthrough.as_ref()?;
    Some(asked.path.as_deref().unwrap_or(HOST_TPM))
}

/// Whether that is the node of a TPM: another path would be opened for looking at it.
pub fn is_tpm(path: &str) -> bool {
    let number = ["/dev/tpmrm", "/dev/tpm"]
        .iter()
        .find_map(|prefix| path.strip_prefix(prefix));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// The TPM.
pub(super) fn tpm(
    layer: &Layer,
    board: BoardKind,
    facts: &HostFacts,
    state_dir: &Path,
) -> Result<Option<Tpm>, TpmError> {
    let Some(table) = layer.tpm.as_ref().filter(|table| table.none.is_none()) else {
        return Ok(None);
    };
    if board == BoardKind::Microvm {
        return Err(TpmError::NoPlace(board));
    }
    let (backend, version) = match host_tpm(layer) {
        Some(path) => passthrough(table, path, facts)?,
        None => {
            let version = table.version.unwrap_or(TpmVersion::V2);
            let Some(program) = facts.programs.swtpm.clone() else {
                return Err(TpmError::NoSwtpm {
                    install: install(&facts.os, Package::Swtpm),
                });
            };
            let file = match version {
                TpmVersion::V1 => "tpm1.state",
                TpmVersion::V2 => "tpm2.state",
            };
            let state = state_dir.join(file);
            let backend = TpmBackend::Emulator {
                program,
                version,
                state,
            };
            (backend, version)
        }
    };
    let default = match (version, board) {
        (TpmVersion::V2, BoardKind::Q35 | BoardKind::Pc) => TpmModel::Crb,
        _ => TpmModel::Tis,
    };
    let model = table.model.unwrap_or(default);
    match (model, version, board) {
        (TpmModel::Crb, TpmVersion::V1, _) => Err(TpmError::NoCrb("TPM 2.0")),
        (TpmModel::Crb, _, BoardKind::Virt) => Err(TpmError::NoCrb("x86_64")),
        _ => Ok(Some(Tpm { model, backend })),
    }
}

fn passthrough(
    table: &TpmTable,
    path: &str,
    facts: &HostFacts,
) -> Result<(TpmBackend, TpmVersion), TpmError> {
    if table.version.is_some() {
        return Err(TpmError::VersionOfHost);
    }
    if !is_tpm(path) {
        return Err(TpmError::NotATpm(path.chars().take(200).collect()));
    }
    let found = facts
        .tpm
        .as_ref()
        .filter(|found| found.path == Path::new(path));
    let why = match found {
        None => Some("nobody has looked at it".to_owned()),
        Some(found) => found.why_not.clone(),
    };
    if let Some(why) = why {
        return Err(TpmError::NotToBeHad {
            path: path.into(),
            why,
        });
    }
    let version = match found.and_then(|found| found.version) {
        Some(1) => TpmVersion::V1,
        _ => TpmVersion::V2,
    };
    // Root alone may write it; QEMU as another user goes without.
    let cancel = found.and_then(|found| found.cancel.clone());
    let cancel = cancel.filter(|_| table_user_is_ours(facts));
    let backend = TpmBackend::Passthrough {
        path: path.into(),
        cancel: cancel.unwrap_or_else(|| "/dev/null".into()),
    };
    Ok((backend, version))
}

/// Whether QEMU runs as the user who runs mvm.
fn table_user_is_ours(facts: &HostFacts) -> bool {
    let asked = facts.users.asked.as_ref();
    let other = asked.and_then(|asked| asked.found.as_ref());
    other.is_none_or(|other| other.uid == facts.users.uid)
}

impl Machine {
    /// The programs that serve the guest beside QEMU, in the order in which they are started.
    pub fn sidecars(&self) -> Vec<Sidecar> {
        let tpm = self.tpm.iter().filter_map(|tpm| swtpm(self, tpm));
        let shares = self.shares.iter();
        let shares = shares.filter_map(|share| virtiofs::sidecar(self, share));
        tpm.chain(shares).collect()
    }

    /// As whom programs beside QEMU run.
    pub(super) fn sidecar_user(&self) -> Option<SidecarUser> {
        self.run_as.as_ref().map(|user| SidecarUser {
            uid: user.uid,
            gid: user.gid,
            groups: user.groups.clone(),
        })
    }
}

fn swtpm(machine: &Machine, tpm: &Tpm) -> Option<Sidecar> {
    let TpmBackend::Emulator {
        program,
        version,
        state,
    } = &tpm.backend
    else {
        return None;
    };
    let socket = Sidecar::socket_in(&machine.run_dir, SIDECAR);
    let args = |control: &str, pid: Option<&str>| {
        let mut args = vec!["socket".to_owned()];
        args.extend((*version == TpmVersion::V2).then(|| "--tpm2".to_owned()));
        // Relative to its directory: it knows no escape for a comma in a path.
        let name = state.file_name().unwrap_or_default();
        let state = format!("backend-uri=file://{},mode=0600", name.to_string_lossy());
        // It ends when QEMU does, whoever is there to see it.
        let more = ["--ctrl", control, "--tpmstate", &state, "--terminate"];
        args.extend(more.map(str::to_owned));
        args.extend(
            pid.into_iter()
                .flat_map(|pid| ["--pid".to_owned(), pid.to_owned()]),
        );
        args
    };
    let ready = format!("fd={READY}");
    Some(Sidecar {
        name: SIDECAR.to_owned(),
        loss: "the guest's TPM answers nothing until the guest's next start".to_owned(),
        program: program.clone(),
        dir: machine.state_dir.clone(),
        args: args(&format!("type=unixio,fd={SOCKET}"), Some(&ready)),
        shown: args(&format!("type=unixio,path={}", socket.display()), None),
        socket,
        lock: Sidecar::lock_in(&machine.run_dir, SIDECAR),
        log: machine.state_dir.join("log/swtpm.log"),
        user: machine.sidecar_user(),
    })
}
