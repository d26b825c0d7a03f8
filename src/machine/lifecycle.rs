//! What follows when the guest shuts down, reboots or crashes.

use serde::{Deserialize, Serialize};

use super::extras::ExtraError;
use super::{BoardKind, Bus};
use crate::profile::schema::{Layer, LifecycleTable, OnCrash, OnPoweroff, OnReboot, Restart};

/// New starts in a row where the profile says nothing.
const RESTART_LIMIT: u32 = 10;

/// What follows a guest's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// When it shuts itself down.
    pub on_poweroff: OnPoweroff,
    /// When it reboots or is reset.
    pub on_reboot: OnReboot,
    /// When QEMU or its kernel crashes.
    pub on_crash: OnCrash,
    /// New starts in a row.
    pub restart_limit: u32,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::of(&LifecycleTable::default())
    }
}

impl Lifecycle {
    /// What the profile says; `restart` is what the other keys are by default.
    pub(super) fn of(table: &LifecycleTable) -> Self {
        let restart = table.restart.unwrap_or(Restart::Never);
        let on_poweroff = match restart {
            Restart::Always => OnPoweroff::Restart,
            Restart::Never | Restart::OnCrash => OnPoweroff::Stop,
        };
        let on_crash = match restart {
            Restart::Always | Restart::OnCrash => OnCrash::Restart,
            Restart::Never => OnCrash::Stop,
        };
        Self {
            on_poweroff: table.on_poweroff.unwrap_or(on_poweroff),
            on_reboot: table.on_reboot.unwrap_or(OnReboot::Reset),
            on_crash: table.on_crash.unwrap_or(on_crash),
            restart_limit: table.restart_limit.unwrap_or(RESTART_LIMIT),
        }
    }

    /// Whether any of its ends is followed by a new start.
    pub fn restarts(&self) -> bool {
        self.on_poweroff == OnPoweroff::Restart
            || self.on_reboot == OnReboot::Restart
            || self.on_crash == OnCrash::Restart
    }
}

/// Whether there is a panic device, and what is to be said where one was wanted by the way only.
pub(super) fn panic(
    layer: &Layer,
    lifecycle: &Lifecycle,
    board: BoardKind,
    notes: &mut Vec<String>,
) -> Result<bool, ExtraError> {
    let table = layer.panic.as_ref();
    let asked = table.map(|panic| panic.enabled.unwrap_or(true));
    let possible = board.bus() != Bus::Mmio;
    match asked {
        Some(true) if !possible => Err(ExtraError::NoPanic(board)),
        Some(asked) => Ok(asked),
        None if lifecycle.on_crash == OnCrash::Stop => Ok(false),
        None => {
            if !possible {
                notes.push(format!(
                    "the board {board} has no place for a panic device: of `lifecycle.on-crash` only a crash of QEMU is seen"
                ));
            }
            Ok(possible)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_is_what_the_others_are_by_default() {
        let of = |restart| {
            Lifecycle::of(&LifecycleTable {
                restart,
                ..LifecycleTable::default()
            })
        };
        assert!(!of(None).restarts());
        assert_eq!(of(None), of(Some(Restart::Never)));
        let crash = of(Some(Restart::OnCrash));
        assert_eq!(
            (crash.on_poweroff, crash.on_crash),
            (OnPoweroff::Stop, OnCrash::Restart)
        );
        let always = of(Some(Restart::Always));
        assert_eq!(
            (always.on_poweroff, always.on_reboot, always.on_crash),
            (OnPoweroff::Restart, OnReboot::Reset, OnCrash::Restart)
        );
        let finer = Lifecycle::of(&LifecycleTable {
            restart: Some(Restart::Always),
            on_crash: Some(OnCrash::Preserve),
            ..LifecycleTable::default()
        });
        assert_eq!(finer.on_crash, OnCrash::Preserve);
    }
}
