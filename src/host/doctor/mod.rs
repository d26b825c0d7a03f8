//! Findings about the host, as data; the command line renders them.

mod devices;
mod dirs;
mod kvm;
mod rest;
mod user;

use std::path::PathBuf;

use serde::Serialize;

use super::facts::{HostFacts, Roots};
use super::node::DeviceNode;
use super::programs::Programs;
use crate::dirs::Dirs;
use crate::ids::Arch;

pub use dirs::Unwritable;

/// One thing that is good to know about this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable name for scripts, as in `kvm` or `qemu-x86_64`.
    pub id: String,
    /// How bad it is.
    pub level: Level,
    /// What was found, one sentence without a full stop.
    pub text: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Info,
    /// Something will be slower or missing.
    Warn,
    /// Guests cannot run.
    Error,
}

/// What the findings need beside the facts.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Where `qemu-img` is.
    pub qemu_img: Option<PathBuf>,
    /// The programs that run beside QEMU.
    pub programs: Programs,
    /// `/dev/kvm` as a node.
    pub kvm_node: DeviceNode,
    /// The user's name, for commands that name it.
    pub user: Option<String>,
    /// Those of mvm's directories that cannot be written.
    pub unwritable: Vec<Unwritable>,
}

impl Surroundings {
    /// Looks at this process's user and `PATH`, and at mvm's directories.
    pub fn read(roots: &Roots, dirs: &Dirs) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).filter(|d| d.is_absolute());
        let qemu_img = folders
            .map(|d| d.join("qemu-img"))
            .find(|p| roots.path(p).is_file());
        Self {
            qemu_img,
            programs: Programs::read(roots, true),
            kvm_node: DeviceNode::probe(roots, "/dev/kvm"),
            user: std::env::var("USER").ok().filter(|u| !u.is_empty()),
            unwritable: dirs::unwritable(dirs),
        }
    }
}

/// All findings, the most important subjects first. Those of QEMU and firmware are for the
/// architectures that `facts` were read for.
pub fn findings(facts: &HostFacts, around: &Surroundings) -> Vec<Finding> {
    let mut all = vec![rest::cpu(facts), rest::memory(facts)];
    all.extend(rest::hugepages(facts));
    all.extend(dirs::findings(&around.unwritable));
    all.extend(rest::clusters(facts));
    all.push(kvm::kvm(facts, around));
    all.extend(user::user(facts));
    for (arch, found) in &facts.qemu {
        all.push(rest::qemu(facts, *arch, found));
        if let Some(caps) = found.caps() {
            all.push(rest::firmware(facts, *arch, caps));
        }
    }
    all.push(rest::qemu_img(facts, around));
    all.extend(rest::helpers(facts, &around.programs));
    all.push(rest::tun(facts, around));
    all.push(rest::vhost_net(facts, around));
    all.push(rest::vhost_vsock(facts, around));
    all.extend(devices::all(facts));
    all
}

/// Whether a guest of the host's own architecture could run here at all.
pub fn could_run_guest(findings: &[Finding]) -> bool {
    findings.iter().all(|f| f.level != Level::Error)
}

fn finding(id: impl Into<String>, level: Level, text: impl Into<String>) -> Finding {
    Finding {
        id: id.into(),
        level,
        text: text.into(),
        fix: None,
    }
}

impl Finding {
    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// Whether QEMU's own emulation is there to fall back on.
fn has_tcg(facts: &HostFacts, arch: Arch) -> bool {
    let caps = facts.qemu.get(&arch).and_then(|q| q.caps());
    caps.is_some_and(|c| c.accels.contains("tcg"))
}

/// The fix for a node that this user may not open.
fn allow(group: Option<&str>, node: &str, user: Option<&str>) -> String {
    let user = user.unwrap_or("YOUR-NAME");
    match group {
        Some(group) => format!("`sudo usermod -aG {group} {user}`, then log in anew"),
        None => format!(
            "`sudo chgrp kvm {node} && sudo chmod 660 {node}` and `sudo usermod -aG kvm {user}`, \
             or run mvm as root"
        ),
    }
}

#[cfg(test)]
mod tests;
