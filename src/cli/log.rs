//! `mvm log`

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use clap::Args;

use super::guests::{self, Life};
use super::{Context, Failure, output};
use crate::error::{ExitCode, Report};
use crate::guest::RunDir;
use crate::ids::{GuestName, Id};

/// Print what a guest's supervisor, its QEMU or its console said
///
/// The logs stay when the guest has stopped; the next start begins the console's anew.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm log web
  mvm log web --console -f
  mvm log web --qemu -n 20")]
pub(super) struct LogArgs {
    /// The guest
    name: String,
    /// What came over its console, `main` by default
    #[arg(long, value_name = "CONSOLE", num_args = 0..=1, default_missing_value = "main", conflicts_with = "qemu")]
    console: Option<Id>,
    /// What QEMU itself printed
    #[arg(long)]
    qemu: bool,
    /// Go on printing until the guest is gone
    #[arg(short, long)]
    follow: bool,
    /// Only that many lines at the end
    #[arg(short = 'n', long, value_name = "COUNT")]
    lines: Option<usize>,
}

/// How often a followed log is looked at.
const EVERY: Duration = Duration::from_millis(100);

pub(super) fn run(args: &LogArgs, context: &Context) -> Result<(), Failure> {
    let name = GuestName::from_str(&args.name)?;
    let run = RunDir::new(&context.dirs, &name);
    let path = match &args.console {
        Some(console) => run.console_log(console.as_str()),
        None if args.qemu => run.qemu_log(),
        None => run.supervisor_log(),
    };
    let mut log = match Log::open(&path) {
        Ok(log) => log,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(missing(args, context, &path));
        }
        Err(error) => return Err(failed(&path, &error)),
    };
    if let Some(lines) = args.lines {
        log.skip_to_last(lines)
            .map_err(|error| failed(&path, &error))?;
    }
    loop {
        // Looked at before the last read, so that nothing written before its end is missed.
        let over = !args.follow
            || !matches!(guests::look(&context.dirs, &args.name)?, Some(seen) if seen.life != Life::Gone);
        let mut piece = Vec::new();
        log.read(&mut piece)
            .map_err(|error| failed(&path, &error))?;
        if !output::stream(&piece)? || over {
            return Ok(());
        }
        std::thread::sleep(EVERY);
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::message(
        ExitCode::Failed,
        format!("cannot read {}: {error}", path.display()),
    )
}

fn missing(args: &LogArgs, context: &Context, path: &Path) -> Failure {
    match guests::find(&context.dirs, &args.name) {
        Err(failure) => failure,
        Ok(_) => Report::new(ExitCode::Failed, format!("{} has no such log", args.name))
            .hint(format!("looked for {}", path.display()))
            .into(),
    }
}

/// A file that grows, is begun anew, or is replaced.
struct Log {
    path: PathBuf,
    file: File,
    read: u64,
}

impl Log {
    fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: File::open(path)?,
            read: 0,
        })
    }

    /// What was written since the last time.
    fn read(&mut self, piece: &mut Vec<u8>) -> std::io::Result<()> {
        let ours = self.file.metadata()?;
        let there = std::fs::metadata(&self.path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) != (ours.dev(), ours.ino())) {
            self.file = File::open(&self.path)?;
            self.read = 0;
        } else if ours.len() < self.read {
            self.file.seek(SeekFrom::Start(0))?;
            self.read = 0;
        }
        self.read += self.file.read_to_end(piece)? as u64;
        Ok(())
    }

    /// Moves to the start of the last lines; reads from the end, as logs can be large.
    fn skip_to_last(&mut self, lines: usize) -> std::io::Result<()> {
        const BLOCK: u64 = 64 * 1024;
        let end = self.file.metadata()?.len();
        let mut start = end;
        let mut found = 0;
        while start > 0 {
            let from = start.saturating_sub(BLOCK);
            self.file.seek(SeekFrom::Start(from))?;
            let mut block = Vec::new();
            (&self.file).take(start - from).read_to_end(&mut block)?;
            for (at, _) in block
                .iter()
                .enumerate()
                .rev()
                .filter(|(_, byte)| **byte == b'\n')
            {
                let at = from + at as u64;
                // The newline that ends the last line begins none.
                if at + 1 == end {
                    continue;
                }
                found += 1;
                if found == lines {
                    return self.go_to(at + 1);
                }
            }
            start = from;
        }
        self.go_to(if lines == 0 { end } else { 0 })
    }

    fn go_to(&mut self, at: u64) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(at))?;
        self.read = at;
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn last(text: &str, lines: usize) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, text).unwrap();
        let mut log = Log::open(&path).unwrap();
        log.skip_to_last(lines).unwrap();
        let mut piece = Vec::new();
        log.read(&mut piece).unwrap();
        String::from_utf8(piece).unwrap()
    }

    #[test]
    fn the_last_lines_are_whole_lines() {
        assert_eq!(last("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(last("a\nb\nc", 2), "b\nc");
        assert_eq!(last("a\nb\n", 9), "a\nb\n");
        assert_eq!(last("a\nb\n", 0), "");
        let long = format!("{}\nend\n", "x".repeat(200_000));
        assert_eq!(last(&long, 1), "end\n");
        assert_eq!(last(&long, 2), long);
    }

    #[test]
    fn a_log_that_begins_anew_is_read_from_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "a long line\n").unwrap();
        let mut log = Log::open(&path).unwrap();
        let mut piece = Vec::new();
        log.read(&mut piece).unwrap();
        std::fs::write(&path, "new\n").unwrap();
        piece.clear();
        log.read(&mut piece).unwrap();
        assert_eq!(piece, b"new\n");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "other\n").unwrap();
        piece.clear();
        log.read(&mut piece).unwrap();
        assert_eq!(piece, b"other\n");
    }
}
