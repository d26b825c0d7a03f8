//! Findings about the host, as data; the command line renders them.

use serde::Serialize;

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
    /// Something does not work.
    Error,
}
