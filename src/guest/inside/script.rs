//! The scripts that run in the guest's shell, and how they are run.

use std::time::Duration;

use super::shell::{self, Done};
use super::{CallError, Inside};

/// Runs a command with its output in files.
pub(super) const EXEC: &str = include_str!("scripts/exec.sh");
/// Becomes that command.
pub(super) const EXEC_INNER: &str = include_str!("scripts/exec-inner.sh");
/// Sends it a signal.
pub(super) const SIGNAL: &str = include_str!("scripts/signal.sh");
/// Removes its files.
pub(super) const CLEAR: &str = include_str!("scripts/clear.sh");
/// Whether it still runs.
pub(super) const AFTERMATH: &str = include_str!("scripts/aftermath.sh");
/// Begins a file.
pub(super) const RECEIVE: &str = include_str!("scripts/receive.sh");
/// Puts it in its place.
pub(super) const BECOME: &str = include_str!("scripts/become.sh");
/// What a file is.
pub(super) const SEND: &str = include_str!("scripts/send.sh");
/// Where the files of a command may be: the scripts' list.
pub(super) const PLACES: [&str; 4] = ["/var/tmp", "/tmp", "/run", "/data/local/tmp"];

/// Runs a script that takes no time of its own.
pub(super) async fn run(
    inside: &mut impl Inside,
    script: &str,
    arguments: &[&str],
    within: Duration,
) -> Result<Done, CallError> {
    shell::script(inside, &bare(script), arguments, within).await
}

/// A script without its remarks, which would travel each time and show in the guest's `ps`.
pub(super) fn bare(script: &str) -> String {
    let code = |line: &&str| !line.trim_start().starts_with('#') && !line.is_empty();
    script
        .lines()
        .filter(code)
        .map(|line| format!("{line}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_do_not_travel() {
        assert_eq!(bare("# a\n\nx=$#\n  # b\n  y\n"), "x=$#\n  y\n");
    }

    #[test]
    fn the_scripts_look_in_the_same_places() {
        let list = format!("for p in {}; do", PLACES.join(" "));
        for script in [EXEC, SIGNAL, CLEAR, AFTERMATH] {
            assert!(script.contains(&list), "{script}");
        }
    }
}
