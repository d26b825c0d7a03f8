//! What a command failed with: one report, or several where it worked on several guests.

use super::output;
use crate::error::{ExitCode, Report};

/// The reports of a command that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    reports: Vec<Report>,
    /// The worst of the codes whose reason another process has told already.
    told: Option<ExitCode>,
    /// The exit status of a command in a guest, which is passed on as it is.
    status: Option<u8>,
}

impl<E: Into<Report>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            reports: vec![error.into()],
            told: None,
            status: None,
        }
    }
}

impl Failure {
    /// A failure of a message alone.
    pub fn message(code: ExitCode, message: impl Into<String>) -> Self {
        Report::new(code, message).into()
    }

    /// All of them as one; `Ok` when there is none.
    ///
    /// # Errors
    /// The failures, in their order.
    pub fn collect(failures: impl IntoIterator<Item = Self>) -> Result<(), Self> {
        let mut all: Option<Self> = None;
        for failure in failures {
            match &mut all {
                Some(all) => {
                    all.reports.extend(failure.reports);
                    let codes = all.told.into_iter().chain(failure.told);
                    all.told = codes.max_by_key(|code| badness(*code));
                }
                None => all = Some(failure),
            }
        }
        all.map_or(Ok(()), Err)
    }

    /// The same, of one guest among several that a command is for.
    #[must_use]
    pub fn of_guest(mut self, name: &str) -> Self {
        for report in &mut self.reports {
            // Many say the name themselves.
            let says = |text: &String| {
                text.contains(&format!("`{name}`")) || text.starts_with(&format!("{name} "))
            };
            if let Some(first) = report.chain.first_mut().filter(|text| !says(text)) {
                *first = format!("{name}: {first}");
            }
        }
        self
    }

    /// A failure whose reason the user knows already.
    pub fn told(code: ExitCode) -> Self {
        Self {
            reports: Vec::new(),
            told: Some(code),
            status: None,
        }
    }

    /// The first of its reports, of a failure that is one.
    pub fn first(self) -> Report {
        let code = self.exit_code();
        let mut reports = self.reports.into_iter();
        reports
            .next()
            .unwrap_or_else(|| Report::new(code, "it failed"))
    }

    /// A command in a guest that ended with that exit status, which is mvm's own then.
    pub fn status(status: u8) -> Self {
        Self {
            reports: Vec::new(),
            told: None,
            status: Some(status),
        }
    }

    /// The status that the process ends with.
    pub fn process_status(&self) -> u8 {
        self.status.unwrap_or(self.exit_code() as u8)
    }

    /// The reports.
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }

    /// The worst of their exit codes.
    pub fn exit_code(&self) -> ExitCode {
        self.reports
            .iter()
            .map(|report| report.code)
            .chain(self.told)
            .max_by_key(|code| badness(*code))
            .unwrap_or(ExitCode::Failed)
    }

    /// Writes the reports to stderr.
    pub fn render(&self) {
        output::render_reports(&self.reports);
    }
}

/// What was tried and did not work is worse than what could not be tried.
const fn badness(code: ExitCode) -> u8 {
    match code {
        ExitCode::NotRunning => 0,
        ExitCode::Usage => 1,
        ExitCode::Profile => 2,
        ExitCode::Host => 3,
        ExitCode::Failed => 4,
        ExitCode::Again => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_several_is_named_once() {
        let told = |text: &str, name: &str| {
            let failure = Failure::message(ExitCode::Failed, text).of_guest(name);
            failure.first().chain[0].clone()
        };
        assert_eq!(told("there is a disk less", "a"), "a: there is a disk less");
        assert_eq!(told("guest `a` runs", "a"), "guest `a` runs");
        assert_eq!(told("a does not run", "a"), "a does not run");
    }

    #[test]
    fn the_worst_code_wins() {
        let failure = |code| Failure::message(code, "no");
        assert!(Failure::collect([]).is_ok());
        let both = Failure::collect([failure(ExitCode::Failed), failure(ExitCode::NotRunning)]);
        let both = both.expect_err("there were two");
        assert_eq!(both.reports().len(), 2);
        assert_eq!(both.exit_code(), ExitCode::Failed);
    }
}
