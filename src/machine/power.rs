//! How the guest sleeps.

use serde::{Deserialize, Serialize};

use super::{BoardKind, Firmware};
use crate::error::{ExitCode, Hint};
use crate::profile::WAKES_ONCE;
use crate::profile::schema::{HostSleep, Layer, Sleep, SleepFailure};
use crate::units::Span;

/// For a guest to sleep when the profile does not say.
const SUSPEND: Span = Span::secs(120);
/// For a guest to hibernate when the profile does not say.
const HIBERNATE: Span = Span::secs(300);

/// How the guest sleeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    /// Whether it can sleep with its memory kept.
    pub s3: bool,
    /// Whether it may hibernate.
    pub s4: bool,
    /// Whether it wakes in order only once: see [`WAKES_ONCE`].
    pub wakes_once: bool,
    /// What `mvm suspend` does, in the order in which it is tried.
    pub suspend: Vec<Sleep>,
    /// How long the guest may take to sleep.
    pub suspend_timeout: Span,
    /// How long it may take to hibernate, and to be saved and loaded.
    pub hibernate_timeout: Span,
    /// Whether the file of a saved guest is compressed.
    #[serde(default)]
    pub compress: bool,
    /// What becomes of it before the host sleeps.
    #[serde(default = "nothing")]
    pub host_sleep: HostSleep,
    /// What becomes of the host's sleep where it does not do that.
    #[serde(default = "regardless")]
    pub host_sleep_failure: SleepFailure,
}

/// Plans of an older mvm say nothing of the host's sleep.
const fn nothing() -> HostSleep {
    HostSleep::None
}

const fn regardless() -> SleepFailure {
    SleepFailure::Sleep
}

/// Plans of an older mvm say nothing of it.
impl Default for Power {
    fn default() -> Self {
        Self {
            s3: true,
            s4: true,
            wakes_once: false,
            suspend: vec![Sleep::Ram],
            suspend_timeout: SUSPEND,
            hibernate_timeout: HIBERNATE,
            compress: false,
            host_sleep: nothing(),
            host_sleep_failure: regardless(),
        }
    }
}

/// What the profile wants and the board does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PowerError {
    /// `s3 = true` on a board without.
    #[error("`power.s3 = true`: the board {0} has no sleep with its memory kept (S3)")]
    NoS3(BoardKind),
    /// An empty list.
    #[error("`power.suspend` is empty: it names what `mvm suspend` does")]
    Nothing,
}

impl Hint for PowerError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoS3(_) => vec![
                "q35 and pc have it; on other boards `power.suspend` can be `pause` or `disk`"
                    .to_owned(),
            ],
            Self::Nothing => {
                vec!["leave it out, or let it name `ram`, `disk`, `save` or `pause`".to_owned()]
            }
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Profile
    }
}

/// How this guest sleeps, and a note where that has a limit.
pub(super) fn power(
    layer: &Layer,
    board: BoardKind,
    firmware: &Firmware,
    has_devices: bool,
    notes: &mut Vec<String>,
) -> Result<Power, PowerError> {
    let table = layer.power.clone().unwrap_or_default();
    let has_s3 = matches!(board, BoardKind::Q35 | BoardKind::Pc);
    if table.s3 == Some(true) && !has_s3 {
        return Err(PowerError::NoS3(board));
    }
    let default = || vec![if has_s3 { Sleep::Ram } else { Sleep::Pause }];
    let power = Power {
        s3: table.s3.unwrap_or(has_s3),
        s4: table.s4.unwrap_or(true),
        wakes_once: board == BoardKind::Q35 && *firmware == Firmware::Builtin,
        suspend: table.suspend.unwrap_or_else(default),
        suspend_timeout: table.suspend_timeout.unwrap_or(SUSPEND),
        hibernate_timeout: table.hibernate_timeout.unwrap_or(HIBERNATE),
        compress: table.compress.unwrap_or(false),
        // A host with a device in a guest's hands can hang in its sleep; without, nothing is lost.
        host_sleep: table.host_sleep.unwrap_or(match has_devices {
            true => HostSleep::Suspend,
            false => HostSleep::None,
        }),
        host_sleep_failure: table.host_sleep_failure.unwrap_or(match has_devices {
            true => SleepFailure::StayAwake,
            false => SleepFailure::Sleep,
        }),
    };
    if power.suspend.is_empty() {
        return Err(PowerError::Nothing);
    }
    // Most guests are never put to sleep: only who thought of it is told.
    if layer.power.is_some() && power.wakes_once && power.s3 && power.suspend.contains(&Sleep::Ram)
    {
        notes.push(WAKES_ONCE.to_owned());
    }
    Ok(power)
}
