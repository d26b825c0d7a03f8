//! Files of sysfs whose reading takes a lock that a stuck device holds: `driver_override` and the like.
//!
//! On the real `/sys` they are read by a process of its own, which can be left behind: a reader that
//! waits for such a lock does not even die.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Write};
use std::process::Command;
use std::time::Duration;

use crate::host::bounded;
use crate::host::sysfs::Sysfs;

/// Set in the reading process.
const CHILD_MARK: &str = "MVM_READ_ATTRIBUTES";

/// How long the files may take together. Each takes microseconds where nothing is stuck, but on a busy or slow
/// machine the process that reads them is late.
const LIMIT: Duration = Duration::from_secs(3);

/// How many stuck files are stepped over before the rest is given up.
const STUCK: usize = 3;

/// A child's stdin is a pipe that has to take all names at once.
const INPUT: usize = 50_000;

/// The last line of the reading process.
const END: &str = "end";

/// What was read, by the names of the files.
#[derive(Debug, Default)]
pub(super) struct Answers {
    texts: BTreeMap<String, String>,
    silent: BTreeSet<String>,
}

impl Answers {
    /// The text of a file; `None` where it is not there or did not answer.
    pub(super) fn text(&self, file: &str) -> Option<&str> {
        self.texts.get(file).map(String::as_str)
    }

    /// Whether the file did not answer in time.
    pub(super) fn is_silent(&self, file: &str) -> bool {
        self.silent.contains(file)
    }
}

/// Reads the files, relative to the root of `sysfs`.
pub(super) fn read(sysfs: &Sysfs, files: &[String]) -> Answers {
    let mut answers = Answers::default();
    if sysfs.root() != std::path::Path::new("/sys") {
        // Ordinary files.
        for file in files {
            if let Ok(text) = sysfs.read(file) {
                answers.texts.insert(file.clone(), text);
            }
        }
        return answers;
    }
    if std::env::var_os(CHILD_MARK).is_some() {
        return answers;
    }
    let mut rest = files;
    let mut stuck = 0;
    while !rest.is_empty() {
        let batch = batch(rest);
        let mut command = Command::new("/proc/self/exe");
        command.args(["internal", "read-attributes"]);
        command.env(CHILD_MARK, "1");
        let read = ask(command, batch, &mut answers);
        rest = &rest[read..];
        if read == batch.len() {
            continue;
        }
        let Some((silent, after)) = rest.split_first() else {
            break;
        };
        answers.silent.insert(silent.clone());
        rest = after;
        stuck += 1;
        if stuck == STUCK {
            answers.silent.extend(rest.iter().cloned());
            break;
        }
    }
    answers
}

/// As many of the files as a pipe takes.
fn batch(files: &[String]) -> &[String] {
    let mut size = 0;
    let fits = files.iter().take_while(|file| {
        size += file.len() + 1;
        size < INPUT
    });
    let count = fits.count().max(1);
    &files[..count]
}

/// Has a process read the files, and returns how many it got through: all, but for one that is stuck.
fn ask(command: Command, files: &[String], answers: &mut Answers) -> usize {
    let mut input = files.join("\n");
    input.push_str("\n\n");
    let outcome = match bounded::talk(command, input.as_bytes(), END.as_bytes(), LIMIT) {
        Ok(outcome) => outcome,
        // Without a reader nothing is known of these files, and nothing is stuck either.
        Err(_) => return files.len(),
    };
    let in_time = outcome.stdout.is_some();
    let text = outcome.stdout.unwrap_or(outcome.cut);
    let text = String::from_utf8_lossy(&text);
    let mut lines = 0;
    // A line that the time cut off is none.
    for (file, line) in files.iter().zip(text.split_inclusive('\n')) {
        match serde_json::from_str(line.trim_end()) {
            Ok(Some(text)) => drop(answers.texts.insert(file.clone(), text)),
            Ok::<Option<String>, _>(None) => {}
            Err(_) => break,
        }
        lines += 1;
    }
    if in_time { files.len() } else { lines }
}

/// What the hidden command `mvm internal read-attributes` does: for each line of `input` up to an empty
/// one, the text of that file of `/sys` as a line of JSON, `null` where it cannot be read.
///
/// # Errors
/// Nobody is there to read on.
pub fn child(input: impl BufRead, mut output: impl Write) -> std::io::Result<()> {
    let sysfs = Sysfs::at("/sys");
    for line in input.lines() {
        let file = line?;
        if file.is_empty() {
            break;
        }
        let text = sysfs.read(&file).ok();
        let line = serde_json::to_string(&text).expect("a text can be written as JSON");
        writeln!(output, "{line}")?;
        output.flush()?;
    }
    writeln!(output, "{END}")?;
    output.flush()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn files(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_reader_that_hangs_tells_what_it_had() {
        let mut answers = Answers::default();
        let files = files(&["a", "b", "c"]);
        let script = shell("echo '\"(null)\"'; echo null; printf '\"cut'; exec sleep 60");
        assert_eq!(ask(script, &files, &mut answers), 2);
        assert_eq!(answers.text("a"), Some("(null)"));
        assert_eq!((answers.text("b"), answers.text("c")), (None, None));
    }

    #[test]
    fn a_reader_that_is_none_says_nothing() {
        let mut answers = Answers::default();
        let files = files(&["a", "b"]);
        assert_eq!(ask(shell("exit 1"), &files, &mut answers), 2);
        assert!(answers.texts.is_empty() && answers.silent.is_empty());
    }

    #[test]
    fn the_child_answers_line_by_line() {
        let mut out = Vec::new();
        child(b"kernel/mm\nno/such\n\nmore\n".as_slice(), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "null\nnull\nend\n");
    }

    #[test]
    fn batches_fit_into_a_pipe() {
        let many: Vec<String> = (0..3000)
            .map(|n| format!("bus/pci/devices/{n:04}/driver_override"))
            .collect();
        let mut rest = many.as_slice();
        let mut sizes = Vec::new();
        while !rest.is_empty() {
            let batch = batch(rest);
            assert!(batch.join("\n").len() < INPUT);
            sizes.push(batch.len());
            rest = &rest[batch.len()..];
        }
        assert_eq!(sizes.iter().sum::<usize>(), many.len());
    }
}
