//! Files into and out of a guest.
//!
//! What is written in the guest is a new file beside the destination, which becomes the destination when
//! it is complete. Where the guest has no shell, nothing in it can rename a file: it is written in place.

use std::time::Duration;

use uuid::Uuid;

use super::files::Open;
use super::{CallError, Inside, script};
use crate::error::{ExitCode, Hint};

/// Bytes that are best written at once.
pub const PIECE: usize = super::files::WRITE;

/// For a small script.
const SCRIPT: Duration = Duration::from_secs(30);

/// Why a file was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The agent failed, or could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The guest's file system says no.
    #[error("{path} in the guest {why}")]
    Path {
        /// The path in the guest.
        path: String,
        /// What it is, or is not.
        why: &'static str,
        /// What to do instead.
        hint: Option<&'static str>,
    },
    /// The complete file cannot take its place.
    #[error("{path} in the guest cannot be replaced: {why}")]
    Replace {
        /// The destination.
        path: String,
        /// What the guest said.
        why: String,
    },
}

impl Hint for CopyError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Call(source) => source.hints(),
            Self::Path { hint, .. } => hint.iter().map(ToString::to_string).collect(),
            Self::Replace { .. } => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Call(source) => source.exit_code(),
            _ => ExitCode::Failed,
        }
    }
}

/// What a script's exit status says of the path that it was given.
fn refusal(status: u8, path: &str) -> CopyError {
    let (why, hint) = match status {
        20 => ("does not exist", None),
        21 => (
            "is a folder",
            Some("folders go by tar: `mvm exec NAME -- tar -C FOLDER -cf - . | tar -xf -`"),
        ),
        22 => ("is in no folder that exists", None),
        23 => ("is a link that leads nowhere", None),
        24 => ("is not an ordinary file", None),
        25 => (
            "is in a folder where no file can be made",
            Some("it may be read-only, or full"),
        ),
        26 => ("cannot be read by its agent", None),
        _ => ("cannot be looked at by its shell", None),
    };
    CopyError::Path {
        path: path.to_owned(),
        why,
        hint,
    }
}

/// A file in the guest that is being written.
#[derive(Debug)]
pub struct Incoming {
    file: Open,
    /// Written in place: there was no shell.
    in_place: bool,
    path: String,
    becomes: String,
}

impl Incoming {
    /// Begins a file at `to`, or in it where it is a folder and the source has a name.
    ///
    /// # Errors
    /// A destination that no file can be written to, an agent that fails.
    pub async fn begin(
        inside: &mut impl Inside,
        to: &str,
        name: Option<&str>,
    ) -> Result<Self, CopyError> {
        let temporary = format!(".mvm-{}", Uuid::new_v4());
        let words = [to, name.unwrap_or_default(), &temporary];
        let done = match script::run(inside, script::RECEIVE, &words, SCRIPT).await {
            Ok(done) => done,
            Err(error) if error.is_failure() => {
                tracing::debug!(%error, "the guest has no shell");
                return Ok(Self {
                    file: Open::new(inside, to, "w").await?,
                    in_place: true,
                    path: to.to_owned(),
                    becomes: to.to_owned(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        if done.status != 0 {
            return Err(refusal(done.status, to));
        }
        // The agent takes text only.
        let text = String::from_utf8(done.stdout).map_err(|_| refusal(0, to))?;
        let (path, becomes) = text.split_once('\0').ok_or_else(|| refusal(0, to))?;
        let (path, becomes) = (path.to_owned(), becomes.to_owned());
        match Open::new(inside, &path, "w").await {
            Ok(file) => Ok(Self {
                file,
                in_place: false,
                path,
                becomes,
            }),
            Err(error) => {
                remove(inside, &path).await;
                Err(error.into())
            }
        }
    }

    /// Whether the destination itself is written to, so that it is incomplete meanwhile.
    pub fn is_in_place(&self) -> bool {
        self.in_place
    }

    /// What it will be.
    pub fn becomes(&self) -> &str {
        &self.becomes
    }

    /// Adds to it.
    ///
    /// # Errors
    /// A file system that is full, an agent that fails.
    pub async fn add(&self, inside: &mut impl Inside, bytes: &[u8]) -> Result<(), CopyError> {
        Ok(self.file.write(inside, bytes).await?)
    }

    /// It is complete and takes its place, with that mode or else with that of what was there.
    ///
    /// # Errors
    /// A place that cannot be taken; then the new file is gone.
    pub async fn finish(
        self,
        inside: &mut impl Inside,
        mode: Option<u32>,
    ) -> Result<(), CopyError> {
        self.file.close(inside).await?;
        if self.in_place {
            return Ok(());
        }
        let mode = mode.map(|mode| format!("{mode:o}")).unwrap_or_default();
        let words = [self.path.as_str(), &self.becomes, &mode];
        let done = script::run(inside, script::BECOME, &words, SCRIPT).await?;
        if done.status == 0 {
            return Ok(());
        }
        remove(inside, &self.path).await;
        let why = String::from_utf8_lossy(&done.stderr);
        Err(CopyError::Replace {
            path: self.becomes,
            why: why.lines().next().unwrap_or("it says no why").to_owned(),
        })
    }

    /// It is not wanted any more; what was at its place still is.
    pub async fn discard(self, inside: &mut impl Inside) {
        if let Err(error) = self.file.close(inside).await {
            tracing::debug!(%error, "a file stays open in the guest");
        }
        if !self.in_place {
            remove(inside, &self.path).await;
        }
    }
}

async fn remove(inside: &mut impl Inside, path: &str) {
    let done = script::run(inside, "rm -f \"$1\"\n", &[path], SCRIPT).await;
    match done {
        Ok(done) if done.status == 0 => {}
        _ => tracing::warn!("{path} stays in the guest"),
    }
}

/// A file of the guest that is being read.
#[derive(Debug)]
pub struct Outgoing {
    file: Open,
    /// Its mode, where the guest could tell.
    pub mode: Option<u32>,
    /// Its size when it was opened, likewise.
    pub size: Option<u64>,
}

impl Outgoing {
    /// Opens it.
    ///
    /// # Errors
    /// What is no file, an agent that fails.
    pub async fn open(inside: &mut impl Inside, path: &str) -> Result<Self, CopyError> {
        let (mode, size) = match script::run(inside, script::SEND, &[path], SCRIPT).await {
            Ok(done) if done.status == 0 => mode_and_size(&String::from_utf8_lossy(&done.stdout)),
            Ok(done) => return Err(refusal(done.status, path)),
            Err(error) if error.is_failure() => (None, None),
            Err(error) => return Err(error.into()),
        };
        let file = Open::new(inside, path, "r").await?;
        Ok(Self { file, mode, size })
    }

    /// What follows; nothing at the end.
    ///
    /// # Errors
    /// An agent that fails.
    pub async fn next(&self, inside: &mut impl Inside) -> Result<Vec<u8>, CopyError> {
        Ok(self.file.read(inside).await?)
    }

    /// Lets go of it.
    pub async fn close(self, inside: &mut impl Inside) {
        if let Err(error) = self.file.close(inside).await {
            tracing::debug!(%error, "a file stays open in the guest");
        }
    }
}

fn mode_and_size(text: &str) -> (Option<u32>, Option<u64>) {
    let mut words = text.split_whitespace();
    let mode = words
        .next()
        .and_then(|mode| u32::from_str_radix(mode, 8).ok());
    let size = words.next().and_then(|size| size.parse().ok());
    (mode, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_tells_of_a_file_is_read() {
        assert_eq!(mode_and_size("4755 1024\n"), (Some(0o4755), Some(1024)));
        assert_eq!(mode_and_size(""), (None, None));
        assert_eq!(mode_and_size("rw 1k"), (None, None));
    }
}
