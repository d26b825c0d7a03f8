//! A guest's QMP, through the socket that its supervisor shares.

use std::path::PathBuf;
use std::time::Duration;

use mvm_qmp::{Events, Qmp, QmpError};

use super::guests::{self, Seen};
use super::{Context, Failure};
use crate::error::{ExitCode, Report};

/// The socket that any number of QMP clients can connect to.
pub(super) fn socket(seen: &Seen) -> PathBuf {
    seen.run.qmp()
}

/// A QMP connection with a running guest, each call limited by `within`.
pub(super) async fn connect(
    name: &str,
    context: &Context,
    within: Duration,
) -> Result<(Qmp, Events), Failure> {
    let seen = guests::find_supervised(context, name)?;
    Qmp::connect(&socket(&seen), within).await.map_err(failure)
}

/// A QMP error as what the user sees.
pub(super) fn failure(error: QmpError) -> Failure {
    report(&error).into()
}

/// The same, open to more hints.
pub(super) fn report(error: &QmpError) -> Report {
    let mut chain = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        chain.push(cause.to_string());
        source = cause.source();
    }
    let code = if matches!(error, QmpError::Closed) {
        ExitCode::NotRunning
    } else {
        ExitCode::Failed
    };
    Report {
        chain,
        hints: Vec::new(),
        code,
    }
}
