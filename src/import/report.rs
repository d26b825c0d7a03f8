//! What nobody looked at, and how the lists are written into a machine file.

use super::draft::Draft;
use super::reader::{self, El};
use super::{Imported, Told};

/// The width of the lines of comments.
const WIDTH: usize = 110;

/// As many of a kind are shown one by one.
const SHOWN: usize = 4;

/// Everything that nobody looked at is not carried over.
pub(super) fn rest(root: El<'_>, out: &mut Draft) {
    for rest in reader::rest(root) {
        out.left.push(Told {
            line: rest.line,
            what: rest.what,
            why: rest.why.to_owned(),
        });
    }
}

impl Imported {
    /// The machine file: the keys, and below them as comments what has none.
    pub fn text(&self, head: &str) -> String {
        let mut text = String::new();
        for line in head.lines() {
            text.push_str(format!("# {line}").trim_end());
            text.push('\n');
        }
        text.push('\n');
        text.push_str(self.toml.trim_start_matches('\n'));
        if !self.left.is_empty() {
            text.push_str("\n# Not carried over, with the line of the XML:\n#\n");
            self.left
                .iter()
                .for_each(|told| text.push_str(&told.lines("# ")));
        }
        let mut whys: Vec<&str> = Vec::new();
        for told in &self.fine {
            if !whys.contains(&told.why.as_str()) {
                whys.push(&told.why);
            }
        }
        if !whys.is_empty() {
            text.push_str("\n# What needs no key here, with the line of the XML:\n#\n");
        }
        for why in whys {
            let all: Vec<_> = self.fine.iter().filter(|told| told.why == why).collect();
            for told in all.iter().take(SHOWN) {
                text.push_str(&format!("# {}: {}\n", told.line, told.what));
            }
            if all.len() > SHOWN {
                let lines = all[SHOWN..].iter().map(|told| told.line.to_string());
                text.push_str(&format!(
                    "# … and on the lines {}\n",
                    lines.collect::<Vec<_>>().join(", ")
                ));
            }
            text.push_str(&wrapped("# ", why));
        }
        text
    }
}

impl Told {
    /// It and why, as lines that begin so.
    pub fn lines(&self, begin: &str) -> String {
        let place = if self.line > 0 {
            format!("{}: ", self.line)
        } else {
            String::new()
        };
        let text = format!("{begin}{place}{}\n", self.what);
        text + &wrapped(begin, &self.why)
    }
}

/// A sentence as indented lines that begin so.
fn wrapped(begin: &str, sentence: &str) -> String {
    let (mut text, mut line) = (String::new(), String::new());
    for word in sentence.split_whitespace() {
        if !line.is_empty() && line.chars().count() + word.chars().count() > WIDTH {
            text.push_str(&format!("{begin}    {line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    text + &format!("{begin}    {line}\n")
}
