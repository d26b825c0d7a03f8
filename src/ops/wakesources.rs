//! ACPI wake sources: what may wake the host (`/proc/acpi/wakeup`, `drivers/acpi/proc.c`). A name that is
//! written to it changes between enabled and disabled.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The kernel's table.
const TABLE: &str = "/proc/acpi/wakeup";

/// Wake sources that cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum WakeError {
    /// The kernel's table.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The table.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No line is that one's.
    #[error("this host has no ACPI wake source `{name}`; it has {}", has.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Those there are.
        has: Vec<String>,
    },
}

/// The kernel's table of a host.
#[derive(Debug)]
pub struct WakeSources {
    path: PathBuf,
}

impl Default for WakeSources {
    fn default() -> Self {
        Self { path: TABLE.into() }
    }
}

impl WakeSources {
    /// Which of these are to be enabled for the host's sleep, by the table's own names: those that are not.
    /// A source is known by its name (`XHC`) or its device (`pci:0000:00:14.0`, also without `pci:`).
    ///
    /// # Errors
    /// The table cannot be read, or has none of that name.
    pub fn disabled(&self, wanted: &[String]) -> Result<Vec<String>, WakeError> {
        let text = fs::read_to_string(&self.path).map_err(self.io("read"))?;
        disabled(&text, wanted)
    }

    /// Enables one that is disabled; one that is enabled is left so.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn enable(&self, name: &str) -> Result<(), WakeError> {
        self.set(name, true)
    }

    /// Disables one that is enabled.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn disable(&self, name: &str) -> Result<(), WakeError> {
        self.set(name, false)
    }

    fn set(&self, name: &str, wanted: bool) -> Result<(), WakeError> {
        let text = fs::read_to_string(&self.path).map_err(self.io("read"))?;
        let is = lines(&text)
            .find(|line| line.name == name)
            .map(|line| line.enabled);
        if is == Some(!wanted) {
            fs::write(&self.path, name).map_err(self.io("write to"))?;
        }
        Ok(())
    }

    fn io(&self, what: &'static str) -> impl FnOnce(io::Error) -> WakeError + use<> {
        let path: &Path = &self.path;
        let path = path.to_owned();
        move |source| WakeError::Io { what, path, source }
    }
}

struct Line<'a> {
    name: &'a str,
    enabled: bool,
    device: Option<&'a str>,
}

/// `XHC       S3    *enabled   pci:0000:00:14.0`, after a line of headings.
fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let mut rest = words.skip_while(|word| !word.starts_with('*'));
        let enabled = rest.next()? == "*enabled";
        Some(Line {
            name,
            enabled,
            device: rest.next(),
        })
    })
}

fn disabled(text: &str, wanted: &[String]) -> Result<Vec<String>, WakeError> {
    let mut found = Vec::new();
    for name in wanted {
        let is = |line: &Line<'_>| {
            let device = line.device.unwrap_or_default();
            line.name == name || device == name || device.strip_prefix("pci:") == Some(name)
        };
        let line = lines(text).find(is).ok_or_else(|| WakeError::Unknown {
            name: name.clone(),
            has: lines(text).map(|line| line.name.to_owned()).collect(),
        })?;
        if !line.enabled {
            found.push(line.name.to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const TEXT: &str = "Device\tS-state\t  Status   Sysfs node\n\
        PEG0\t  S4\t*disabled\n\
        XHC\t  S3\t*enabled   pci:0000:00:14.0\n\
        GLAN\t  S4\t*disabled  pci:0000:00:1f.6\n";

    #[test]
    fn what_is_disabled_is_found_by_name_and_device() {
        let wanted = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            disabled(TEXT, &names)
        };
        assert_eq!(wanted(&["XHC", "GLAN"]).unwrap(), ["GLAN"]);
        assert_eq!(wanted(&["0000:00:1f.6"]).unwrap(), ["GLAN"]);
        let error = wanted(&["XDCI"]).unwrap_err().to_string();
        assert!(error.contains("`XDCI`; it has PEG0, XHC, GLAN"), "{error}");
    }

    #[test]
    fn only_what_differs_is_written() {
        let top = tempfile::tempdir().unwrap();
        let table = WakeSources {
            path: top.path().join("wakeup"),
        };
        fs::write(&table.path, TEXT).unwrap();
        table.enable("XHC").unwrap();
        assert_eq!(fs::read_to_string(&table.path).unwrap(), TEXT);
        table.enable("GLAN").unwrap();
        assert_eq!(fs::read_to_string(&table.path).unwrap(), "GLAN");
    }
}
