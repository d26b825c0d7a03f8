//! The host's consoles (`drivers/tty/vt/vt.c`): what one of them lets go, the dummy has.

use super::{Done, Kernel, number};

impl Kernel {
    /// `vtconsole/vtconN/bind`.
    pub(super) fn console(&self, dir: &str, console: &str, text: &str) -> Done {
        // simple_strtoul: what is no number is zero.
        let on = number(text).unwrap_or(0) != 0;
        let home = dir.rsplit_once('/').unwrap().0;
        self.put(&format!("{dir}/bind"), u8::from(on));
        let system = |name: &str| {
            self.get(&format!("{home}/{name}/name"))
                .is_some_and(|n| n.starts_with("(S)"))
        };
        for other in self.list(home) {
            let moves = other != console && (on || system(&other)) && other.starts_with("vtcon");
            if moves {
                self.put(&format!("{home}/{other}/bind"), u8::from(!on));
            }
        }
        Ok(())
    }
}
