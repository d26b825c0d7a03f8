//! Which sleep a guest is able to, as far as it can be told without asking it. Pure.

use crate::machine::{BoardKind, Machine, Power};

/// What of a machine decides how it sleeps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sleeper {
    /// What the profile says.
    pub(crate) power: Power,
    board: Option<BoardKind>,
    /// A disk whose writes are gone when the guest is.
    throwaway: Option<String>,
    /// Whether anything that is written outlives the guest.
    has_disk: bool,
}

impl Sleeper {
    pub(crate) fn of(machine: &Machine) -> Self {
        let throwaway = machine.disks.iter().find(|disk| disk.overlay.is_some());
        Self {
            power: machine.power.clone(),
            board: Some(machine.board.kind),
            throwaway: throwaway.map(|disk| disk.id.to_string()),
            has_disk: machine
                .disks
                .iter()
                .any(|disk| disk.image.is_some() && disk.overlay.is_none() && !disk.read_only)
                // A controller of the host's may have disks of its own.
                || !machine.host_devices.is_empty(),
        }
    }

    /// Whether there is a keyboard, with a key for sleep among its keys.
    pub(crate) fn has_keys(&self) -> bool {
        matches!(self.board, Some(BoardKind::Q35 | BoardKind::Pc))
    }

    /// Why it cannot sleep with its memory kept, having woken that often since its last reset.
    pub(crate) fn no_ram(&self, wakeups: u32) -> Option<String> {
        match self.board {
            Some(board @ (BoardKind::Virt | BoardKind::Microvm)) => Some(format!(
                "QEMU's board {board} has no sleep with its memory kept (S3)"
            )),
            _ if !self.power.s3 => {
                Some("its profile switches the sleep off (`power.s3 = false`)".to_owned())
            }
            _ if self.power.wakes_once && wakeups > 0 => Some(
                "it has slept once, and on q35 with its built-in BIOS it would not wake in order a second time"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// Why it cannot be saved, as far as that is not QEMU's word.
    pub(crate) fn no_save(&self) -> Option<String> {
        let disk = self.throwaway.as_ref()?;
        Some(format!(
            "what it has written to disk `{disk}` is thrown away when QEMU ends (`ephemeral`)"
        ))
    }

    /// Why it cannot hibernate, having woken that often since its last reset.
    pub(crate) fn no_disk(&self, wakeups: u32) -> Option<String> {
        if !self.power.s4 {
            return Some("its profile switches hibernation off (`power.s4 = false`)".to_owned());
        }
        if self.power.wakes_once && wakeups > 0 {
            return Some(
                "it has slept, and on q35 with its built-in BIOS it could not switch itself off after that"
                    .to_owned(),
            );
        }
        if let Some(disk) = &self.throwaway {
            return Some(format!(
                "what it writes to disk `{disk}` is thrown away when it ends (`ephemeral`)"
            ));
        }
        (!self.has_disk).then(|| "it has no disk that it could write its memory to".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(board: BoardKind) -> Sleeper {
        Sleeper {
            board: Some(board),
            has_disk: true,
            ..Sleeper::default()
        }
    }

    #[test]
    fn boards_and_profiles_set_limits() {
        let why = |sleeper: &Sleeper, wakeups| sleeper.no_ram(wakeups).unwrap_or_default();
        assert_eq!(why(&of(BoardKind::Q35), 7), "");
        assert!(why(&of(BoardKind::Virt), 0).contains("virt has no sleep"));
        let mut once = of(BoardKind::Q35);
        once.power.wakes_once = true;
        assert_eq!(why(&once, 0), "");
        assert!(why(&once, 1).contains("slept once"));
        assert_eq!(once.no_disk(0), None);
        assert!(
            once.no_disk(1)
                .is_some_and(|why| why.contains("switch itself off"))
        );
        once.power.s3 = false;
        assert!(why(&once, 0).contains("power.s3"));
    }

    #[test]
    fn memory_goes_to_a_disk_that_stays() {
        let mut sleeper = of(BoardKind::Virt);
        assert_eq!(sleeper.no_disk(0), None);
        sleeper.has_disk = false;
        assert!(sleeper.no_disk(0).is_some());
        sleeper.throwaway = Some("root".to_owned());
        assert!(sleeper.no_disk(0).is_some_and(|why| why.contains("`root`")));
        sleeper.power.s4 = false;
        assert!(
            sleeper
                .no_disk(0)
                .is_some_and(|why| why.contains("power.s4"))
        );
    }
}
