//! What is done inside a guest, by its agent: commands run, files copied, questions asked.
//!
//! The agent takes one short call at a time, and everybody who wants something of the guest shares it: a
//! long piece of work is many short calls with room between them. Whatever has to outlive a call lies in
//! files of the guest.

pub mod clock;
pub mod copy;
mod error;
pub mod exec;
mod files;
pub mod mounts;
pub mod net;
pub mod os;
mod script;
mod shell;

#[cfg(test)]
mod here;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;

use std::time::Duration;

use serde_json::Value;

pub use error::CallError;

/// A guest whose agent can be asked.
pub trait Inside {
    /// The guest's name.
    fn guest(&self) -> &str;

    /// One command of the agent's, and what it returned.
    fn call(
        &mut self,
        command: &str,
        arguments: Value,
        within: Duration,
    ) -> impl Future<Output = Result<Value, CallError>>;
}
