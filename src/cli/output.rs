//! What leaves the process: data on stdout, everything else on stderr.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::error::{ExitCode, Report};

/// `--format`, for every command that prints data.
#[derive(Debug, Clone, Copy, Args)]
pub struct FormatArg {
    /// How the result is printed: for people, or as JSON for programs.
    #[arg(long, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub format: Format,
}

/// The shape of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// JSON for programs.
    Json,
}

/// Writes data to stdout. A reader that has gone away (`mvm list | head -1`) is not an error.
///
/// # Errors
/// Anything else that keeps stdout from taking it, such as a full disk.
pub fn print(text: &str) -> Result<(), Report> {
    stream(text.as_bytes()).map(|_| ())
}

/// Writes bytes to stdout at once and says whether anybody is still there to read more.
///
/// # Errors
/// As for [`print`].
pub fn stream(bytes: &[u8]) -> Result<bool, Report> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Report::new(
            ExitCode::Failed,
            format!("cannot write to standard output: {error}"),
        )),
    }
}

/// Whether nobody can read any more what is written to stdout, a pipe whose other end is closed.
pub fn reader_is_gone() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let seen = poll(&mut fds, Some(&Timespec::default()));
    seen.is_ok() && fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Writes a value as JSON.
///
/// # Errors
/// As for [`print`].
pub fn print_json(value: &impl Serialize) -> Result<(), Report> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| {
        Report::new(
            ExitCode::Failed,
            format!("cannot write the result as JSON: {error}"),
        )
    })?;
    text.push('\n');
    print(&text)
}

/// Tells people something that is not data, on stderr.
pub fn note(text: &str) {
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Tells people at a terminal what is going on meanwhile.
pub fn progress(text: &str) {
    if io::stderr().is_terminal() {
        note(&clean(text));
    }
}

/// Columns for people.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with that head.
    pub fn new(head: &[&str]) -> Self {
        Self {
            rows: vec![head.iter().map(ToString::to_string).collect()],
        }
    }

    /// A table without a head.
    pub fn bare() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows
            .push(cells.into_iter().map(|cell| clean(&cell.into())).collect());
    }

    /// The table as text; every column but the last is padded.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Prints the table.
    ///
    /// # Errors
    /// As for [`print`].
    pub fn print(&self) -> Result<(), Report> {
        print(&self.render())
    }
}

/// A text that stays on its line and sends nothing to the terminal: control characters are escaped.
pub fn clean(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|c| -> Box<dyn Iterator<Item = char>> {
            if c.is_control() {
                Box::new(c.escape_default())
            } else {
                Box::new(std::iter::once(c))
            }
        })
        .collect()
}

/// A span of time in its one or two largest units: `3m`, `2h 5m`, `4d 1h`.
pub fn human_duration(span: Duration) -> String {
    let secs = span.as_secs();
    let (large, small) = match secs {
        0..60 => return format!("{secs}s"),
        60..3600 => return format!("{}m", secs / 60),
        3600..86_400 => ((secs / 3600, "h"), (secs % 3600 / 60, "m")),
        _ => ((secs / 86_400, "d"), (secs % 86_400 / 3600, "h")),
    };
    if small.0 == 0 {
        format!("{}{}", large.0, large.1)
    } else {
        format!("{}{} {}{}", large.0, large.1, small.0, small.1)
    }
}

/// A number of bytes in its largest unit, to one decimal: `193K`, `1.5G`.
pub fn human_bytes(bytes: u64) -> String {
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_240 && unit < 4 {
        tenths /= 1024;
        unit += 1;
    }
    let name = ["", "K", "M", "G", "T"][unit];
    match tenths % 10 {
        0 => format!("{}{name}", tenths / 10),
        tenth => format!("{}.{tenth}{name}", tenths / 10),
    }
}

/// Whether stderr shows colours: a terminal, and no `NO_COLOR` (<https://no-color.org>).
pub fn stderr_colour() -> bool {
    io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Writes reports to stderr, one after the other.
pub fn render_reports(reports: &[Report]) {
    let colour = stderr_colour();
    let mut stderr = io::stderr().lock();
    for report in reports {
        let text = report.to_string();
        // A closed stderr leaves nobody to tell.
        let _ = stderr.write_all(if colour { paint(&text) } else { text }.as_bytes());
    }
}

/// Colours the labels that start lines; the text says everything without them.
fn paint(text: &str) -> String {
    text.lines()
        .map(|line| {
            if let Some(rest) = line.strip_prefix("error:") {
                format!("\x1b[1;31merror:\x1b[0m{rest}\n")
            } else if let Some(rest) = line.strip_prefix("hint:") {
                format!("\x1b[1;36mhint:\x1b[0m{rest}\n")
            } else {
                format!("{line}\n")
            }
        })
        .collect()
}

/// A panic gives the terminal back before it speaks, says that it is a bug, and goes on unwinding, so
/// that guards still give back what they hold.
pub fn set_panic_hook() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        super::terminal::restore();
        default(info);
        note(
            "this is a bug in mvm; what it changed on the host is being given back (see `mvm recover`)",
        );
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["ubuntu-2", "running"]);
        table.row(["a\nb", ""]);
        assert_eq!(
            table.render(),
            "NAME      STATE\nubuntu-2  running\na\\nb\n"
        );
    }

    #[test]
    fn bytes_are_told_in_their_largest_unit() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (196_616, "192K"),
            (3 << 29, "1.5G"),
            (4 << 30, "4G"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn spans_are_told_in_their_largest_units() {
        for (secs, text) in [
            (0, "0s"),
            (59, "59s"),
            (190, "3m"),
            (7200, "2h"),
            (7500, "2h 5m"),
            (4 * 86_400 + 3700, "4d 1h"),
        ] {
            assert_eq!(human_duration(Duration::from_secs(secs)), text);
        }
    }
}
