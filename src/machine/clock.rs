//! The guest's clocks, but for those that are options of its processor.

use serde::{Deserialize, Serialize};

use super::cpu_options::{is_pc, without_kvm};
use super::{AccelKind, Board, BoardKind};
use crate::error::{ExitCode, Hint};
use crate::profile::schema::{ClockTable, Irqchip, PitPolicy, RtcPolicy};
use crate::units::time;

/// What `-rtc`, `-machine` and the interval timer are told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// What the hardware clock shows at the start, in QEMU's words.
    pub base: Option<String>,
    /// What becomes of ticks of it that were late.
    pub rtc: Option<RtcPolicy>,
    /// The same of KVM's interval timer.
    pub pit: Option<PitPolicy>,
    /// Whether there is an HPET.
    pub hpet: Option<bool>,
}

/// A clock that the guest cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// What is no time.
    #[error("`clock.base` is `{0}`, which is no time")]
    Base(String),
    /// A clock of another board.
    #[error("`clock.{key}` is for {boards}, not for {board}")]
    Board {
        /// The key.
        key: &'static str,
        /// Which boards have it.
        boards: &'static str,
        /// This one.
        board: BoardKind,
    },
    /// KVM has its interval timer only together with its interrupt controllers.
    #[error(
        "`clock.pit` is for the interval timer in the kernel, which `machine.irqchip = \"{0}\"` does without"
    )]
    NoKernelPit(Irqchip),
}

impl Hint for ClockError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Base(_) => {
                vec!["it is `utc`, `localtime` or a time such as `2026-11-28T20:15:00Z`".to_owned()]
            }
            Self::Board { .. } => Vec::new(),
            Self::NoKernelPit(_) => vec!["leave one of the two out".to_owned()],
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Profile
    }
}

/// The clocks.
pub(super) fn clock(
    table: &ClockTable,
    board: &Board,
    accel: AccelKind,
    notes: &mut Vec<String>,
) -> Result<Clock, ClockError> {
    let x86 = board.kind != BoardKind::Virt;
    for (key, said, has, boards) in [
        ("rtc", table.rtc.is_some(), x86, "q35, pc and microvm"),
        ("pit", table.pit.is_some(), x86, "q35, pc and microvm"),
        (
            "hpet",
            table.hpet.is_some(),
            is_pc(board.kind),
            "q35 and pc",
        ),
    ] {
        if said && !has {
            let board = board.kind;
            return Err(ClockError::Board { key, boards, board });
        }
    }
    let pit = match (table.pit, accel, board.irqchip) {
        (None, ..) => None,
        (Some(_), AccelKind::Tcg, _) => {
            notes.push(without_kvm("`clock.pit`"));
            None
        }
        (Some(_), AccelKind::Kvm, Some(chip @ (Irqchip::Split | Irqchip::Off))) => {
            return Err(ClockError::NoKernelPit(chip));
        }
        (policy, AccelKind::Kvm, _) => policy,
    };
    Ok(Clock {
        base: table.base.as_deref().map(base).transpose()?,
        rtc: table.rtc,
        pit,
        hpet: table.hpet,
    })
}

/// QEMU's word for it: a time is one in UTC, without a zone.
fn base(text: &str) -> Result<String, ClockError> {
    if matches!(text, "utc" | "localtime") {
        return Ok(text.to_owned());
    }
    let bad = || ClockError::Base(text.to_owned());
    let nanos = time::read(text).ok_or_else(bad)?;
    let told = time::write(nanos);
    let told = told.strip_suffix('Z').unwrap_or(&told);
    // Beyond four digits of a year there is no clock to show it.
    if told.len() != "2026-11-28T20:15:00".len() || told.starts_with('-') {
        return Err(bad());
    }
    Ok(told.to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;

    #[test]
    fn times_are_told_in_utc() {
        assert_eq!(base("utc").unwrap(), "utc");
        assert_eq!(base("2026-11-28T20:15:00Z").unwrap(), "2026-11-28T20:15:00");
        assert_eq!(
            base("2026-11-28T20:15:00+01:00").unwrap(),
            "2026-11-28T19:15:00"
        );
        for bad in ["", "UTC", "now", "2026-11-28", "20:15"] {
            assert_eq!(base(bad), Err(ClockError::Base(bad.to_owned())));
        }
    }
}
