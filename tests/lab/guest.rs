//! A guest in the host: its console's shell, through `mvm console`.

use std::time::{Duration, Instant};

use crate::agent::Output;
use crate::host::Host;

/// What a guest has of PCI: ids and driver of each function, to be run in it.
pub(crate) const PCI: &str = "for d in /sys/bus/pci/devices/*; do \
     echo $(cat $d/vendor $d/device) $(basename $(readlink $d/driver) 2>/dev/null); done";

/// A guest with a shell on its console (those of tests/guest).
pub(crate) struct Guest<'a> {
    host: &'a Host,
    name: String,
}

impl<'a> Guest<'a> {
    /// Waits until the shell is there. A guest whose kernel panicked fails at once.
    #[track_caller]
    pub(crate) fn open(host: &'a Host, name: &str) -> Self {
        Self::unless_panicked(host, name).unwrap_or_else(|| panic!("{name} panicked"))
    }

    /// Nothing where the guest's kernel panicked in an interrupt.
    #[track_caller]
    pub(crate) fn unless_panicked(host: &'a Host, name: &str) -> Option<Self> {
        let begin = Instant::now();
        loop {
            let seen = host.sh(
                &format!("mvm console {name} --until 'guest# ' --timeout 20s </dev/null"),
                Duration::from_secs(40),
            );
            if seen.status == 0 {
                return Some(Self {
                    host,
                    name: name.to_owned(),
                });
            }
            if seen
                .stdout
                .contains("Kernel panic - not syncing: Fatal exception in interrupt")
            {
                return None;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(300)
                    && !seen.stdout.contains("Kernel panic")
                    && !seen.stderr.contains("not running"),
                "no shell on the console of {name}: {seen}"
            );
        }
    }

    /// Runs a command in the guest that must succeed; what it printed.
    #[track_caller]
    pub(crate) fn run(&self, command: &str) -> String {
        let output = self.sh(command, Duration::from_secs(60));
        assert_eq!(output.status, 0, "`{command}` in {}: {output}", self.name);
        output.stdout.trim_end().to_owned()
    }

    /// Runs a command in the guest. What it says on stderr is on the console too, and so in `stdout`.
    #[track_caller]
    pub(crate) fn sh(&self, command: &str, limit: Duration) -> Output {
        let mark = self.host.number();
        // The terminal echoes the line, which must not look like its own result: hence the two quotes.
        let script = format!(
            "cat >/tmp/line.{mark} <<'END-OF-LINE'\n\
             echo begun-''{mark}; {command}; echo status-''{mark}=$? done-''{mark}\n\
             END-OF-LINE\n\
             mvm console {} --until done-{mark} --timeout {}s </tmp/line.{mark}",
            self.name,
            limit.as_secs()
        );
        let output = self.host.sh(&script, limit + Duration::from_secs(15));
        let text = output.stdout.replace('\r', "");
        let said = text
            .split_once(&format!("begun-{mark}\n"))
            .and_then(|(_, rest)| rest.rsplit_once(&format!("status-{mark}=")));
        let Some((said, rest)) = said else {
            panic!("`{command}` in {}: no end of it: {output}", self.name);
        };
        let status = rest.split(' ').next().and_then(|code| code.parse().ok());
        Output {
            status: status.unwrap_or_else(|| panic!("no status in {rest:?}")),
            stdout: said.to_owned(),
            stderr: String::new(),
        }
    }
}
