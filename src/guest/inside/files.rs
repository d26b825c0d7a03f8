//! Files of the guest, opened, read and written by its agent.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{CallError, Inside};

/// For one call: an emulated guest under load takes a second for the largest.
pub(super) const CALL: Duration = Duration::from_secs(30);
/// How much is read by one call. Larger pieces are hardly faster, and others wait for the agent meanwhile.
pub(super) const READ: usize = 256 << 10;
/// How much is written by one call: the way into a guest is slower than the way out.
pub(super) const WRITE: usize = 128 << 10;

/// A file that the agent holds open. It stays open until it is closed, or the agent ends.
#[derive(Debug)]
pub(super) struct Open(i64);

impl Open {
    /// Opens it, with the mode of C's `fopen`.
    pub(super) async fn new(
        inside: &mut impl Inside,
        path: &str,
        mode: &str,
    ) -> Result<Self, CallError> {
        const COMMAND: &str = "guest-file-open";
        let arguments = json!({ "path": path, "mode": mode });
        let answer = inside.call(COMMAND, arguments, CALL).await?;
        let handle = answer.as_i64();
        handle
            .map(Self)
            .ok_or_else(|| CallError::strange(COMMAND, answer.to_string()))
    }

    /// What follows, at most [`READ`] bytes; none at the end, which a file that grows may have behind it soon.
    pub(super) async fn read(&self, inside: &mut impl Inside) -> Result<Vec<u8>, CallError> {
        const COMMAND: &str = "guest-file-read";
        let arguments = json!({ "handle": self.0, "count": READ });
        let answer = inside.call(COMMAND, arguments, CALL).await?;
        bytes(COMMAND, &answer["buf-b64"])
    }

    /// Goes to that place in it.
    pub(super) async fn seek(&self, inside: &mut impl Inside, to: u64) -> Result<(), CallError> {
        let arguments = json!({ "handle": self.0, "offset": to, "whence": "set" });
        inside.call("guest-file-seek", arguments, CALL).await?;
        Ok(())
    }

    /// Writes all of it, through to the file.
    pub(super) async fn write(
        &self,
        inside: &mut impl Inside,
        mut rest: &[u8],
    ) -> Result<(), CallError> {
        const COMMAND: &str = "guest-file-write";
        if rest.is_empty() {
            return Ok(());
        }
        while !rest.is_empty() {
            let piece = &rest[..rest.len().min(WRITE)];
            let arguments = json!({ "handle": self.0, "buf-b64": text(piece) });
            let answer = inside.call(COMMAND, arguments, CALL).await?;
            let count = answer["count"].as_u64().unwrap_or_default();
            let count = usize::try_from(count).unwrap_or_default();
            if count == 0 || count > piece.len() {
                let what = format!("{count} of {} bytes", piece.len());
                return Err(CallError::strange(COMMAND, what));
            }
            rest = &rest[count..];
        }
        let arguments = json!({ "handle": self.0 });
        inside.call("guest-file-flush", arguments, CALL).await?;
        Ok(())
    }

    /// Closes it.
    pub(super) async fn close(self, inside: &mut impl Inside) -> Result<(), CallError> {
        let arguments = json!({ "handle": self.0 });
        inside.call("guest-file-close", arguments, CALL).await?;
        Ok(())
    }
}

/// Bytes as the agent's protocol carries them.
pub(super) fn text(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes of an answer; what is not there is empty.
pub(super) fn bytes(command: &str, value: &Value) -> Result<Vec<u8>, CallError> {
    let text = value.as_str().unwrap_or_default();
    STANDARD
        .decode(text)
        .map_err(|error| CallError::strange(command, error.to_string()))
}
