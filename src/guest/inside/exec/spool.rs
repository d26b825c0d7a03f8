//! The files of a command in the guest, and what its shell says of them at the end.

use super::super::files::Open;
use super::super::script::PLACES;
use super::super::{CallError, Inside};
use super::Stream;

/// The command's folder, which is in the first of [`PLACES`] that took it.
struct Folder {
    token: String,
    place: Option<&'static str>,
}

impl Folder {
    /// Opens a file of it; `None` while it is not there.
    async fn open(
        &mut self,
        inside: &mut impl Inside,
        name: &str,
        mode: &str,
    ) -> Result<Option<Open>, CallError> {
        let places: &[&'static str] = match &self.place {
            Some(place) => std::slice::from_ref(place),
            None => &PLACES,
        };
        for place in places {
            let path = format!("{place}/{}/{name}", self.token);
            match Open::new(inside, &path, mode).await {
                Ok(file) => {
                    self.place = Some(place);
                    return Ok(Some(file));
                }
                Err(error) if error.is_failure() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// What the command prints.
pub(super) struct Spool {
    folder: Folder,
    out: Tail,
    err: Tail,
}

/// One of the files, and how much of it was read.
#[derive(Default)]
struct Tail {
    file: Option<Open>,
    taken: u64,
}

impl Spool {
    pub(super) fn new(token: String) -> Self {
        Self {
            folder: Folder { token, place: None },
            out: Tail::default(),
            err: Tail::default(),
        }
    }

    /// The name of its folder.
    pub(super) fn token(&self) -> &str {
        &self.folder.token
    }

    /// How much of that stream was read.
    pub(super) fn taken(&self, stream: Stream) -> usize {
        let tail = match stream {
            Stream::Out => &self.out,
            Stream::Err => &self.err,
        };
        usize::try_from(tail.taken).unwrap_or(usize::MAX)
    }

    /// What has come to that stream; nothing where there is nothing yet.
    pub(super) async fn read(
        &mut self,
        inside: &mut impl Inside,
        stream: Stream,
    ) -> Result<Vec<u8>, CallError> {
        let (tail, name) = match stream {
            Stream::Out => (&mut self.out, "out"),
            Stream::Err => (&mut self.err, "err"),
        };
        if tail.file.is_none() {
            let Some(file) = self.folder.open(inside, name, "r").await? else {
                return Ok(Vec::new());
            };
            if tail.taken > 0 {
                file.seek(inside, tail.taken).await?;
            }
            tail.file = Some(file);
        }
        let Some(file) = &tail.file else {
            return Ok(Vec::new());
        };
        match file.read(inside).await {
            Ok(bytes) => {
                tail.taken += bytes.len() as u64;
                Ok(bytes)
            }
            Err(error) => {
                // Where it stands now is not known.
                tail.file = None;
                Err(error)
            }
        }
    }

    /// Lets go of the files.
    pub(super) async fn close(&mut self, inside: &mut impl Inside) {
        for tail in [&mut self.out, &mut self.err] {
            if let Some(file) = tail.file.take() {
                if let Err(error) = file.close(inside).await {
                    tracing::debug!(%error, "a file stays open in the guest");
                }
            }
        }
    }
}

/// The way of input that comes while the command runs.
pub(super) struct Feed {
    folder: Folder,
    file: Option<Open>,
    waiting: Vec<u8>,
    ended: bool,
}

impl Feed {
    pub(super) fn new(token: String, first: Vec<u8>) -> Self {
        Self {
            folder: Folder { token, place: None },
            file: None,
            waiting: first,
            ended: false,
        }
    }

    /// Whether it takes more now.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.ended
    }

    /// More input, or its end.
    pub(super) fn take(&mut self, input: Option<Vec<u8>>) {
        match input {
            Some(bytes) => self.waiting = bytes,
            None => self.ended = true,
        }
    }

    /// Writes what waits, as soon as the command's shell has made the file; whether all is done.
    pub(super) async fn push(&mut self, inside: &mut impl Inside) -> Result<bool, CallError> {
        if self.is_idle() {
            return Ok(false);
        }
        if self.file.is_none() {
            // Not made here: the shell's making of it would throw away what was written before.
            self.file = self.folder.open(inside, "in", "r+").await?;
        }
        let Some(file) = &self.file else {
            return Ok(false);
        };
        file.write(inside, &self.waiting).await?;
        self.waiting.clear();
        if self.ended {
            self.close(inside).await?;
            if let Some(mark) = self.folder.open(inside, "eof", "w").await? {
                mark.close(inside).await?;
            }
        }
        Ok(self.ended)
    }

    /// Lets go of the file.
    pub(super) async fn close(&mut self, inside: &mut impl Inside) -> Result<(), CallError> {
        match self.file.take() {
            Some(file) => file.close(inside).await,
            None => Ok(()),
        }
    }
}

/// The first line of what a command's shell says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// The exit status; the output follows.
    Given(u8),
    /// The exit status; the output is in the files.
    Kept(u8),
    /// There is no folder for files.
    NoPlace,
    /// It cannot run where it was to.
    NoCwd,
}

impl Head {
    /// Splits it from the output.
    pub(super) fn split<'a>(token: &str, said: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let end = said.iter().position(|byte| *byte == b'\n')?;
        let line = std::str::from_utf8(&said[..end]).ok()?;
        let mut words = line.strip_prefix(token)?.split_whitespace();
        let kind = words.next()?;
        let status = words.next().map(str::parse);
        let head = match (kind, status) {
            ("given", Some(Ok(status))) => Self::Given(status),
            ("kept", Some(Ok(status))) => Self::Kept(status),
            ("no-place", None) => Self::NoPlace,
            ("no-cwd", None) => Self::NoCwd,
            _ => return None,
        };
        Some((head, &said[end + 1..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shells_word_is_told_from_the_output() {
        let split = |said: &'static str| Head::split("t-1", said.as_bytes());
        assert_eq!(
            split("t-1 given 3\na\nb"),
            Some((Head::Given(3), &b"a\nb"[..]))
        );
        assert_eq!(split("t-1 kept 0\n"), Some((Head::Kept(0), &b""[..])));
        assert_eq!(split("t-1 no-cwd\n"), Some((Head::NoCwd, &b""[..])));
        for none in [
            "",
            "t-1 given 3",
            "t-2 given 3\n",
            "t-1 given\n",
            "t-1 given 300\n",
        ] {
            assert_eq!(split(none), None, "{none}");
        }
    }
}
