//! The lives of a guest under one supervisor: the first, and those that follow when it is started anew.

use std::time::Instant;

use tokio::runtime::Runtime;

use super::RunDir;
use super::adopt::{self, Adopted};
use super::claim::Claim;
use super::end::Gone;
use super::error::StartError;
use super::restart::{Again, Renewal, Rested, Row, rest};
use super::signals::Signals;
use super::start::{OnReady, Options, prepare, runtime};
use super::state::Ended;
use super::supervise::supervise;
use crate::dirs::Dirs;
use crate::machine::Lifecycle;
use crate::ops::dirs as folders;
use crate::plan::Plan;

/// A life that is over, and what another one would need.
pub(crate) struct Over {
    /// The right to start it.
    pub(crate) claim: Claim,
    /// How it ended.
    pub(crate) gone: Gone,
    /// The plan that it was started with.
    pub(crate) plan: Plan,
}

/// What a guest's lives have in common.
pub(crate) struct Lives<'a, 'b> {
    dirs: &'a Dirs,
    run: &'a RunDir,
    renewal: Renewal<'b>,
    row: Row,
    runtime: Runtime,
    /// What the next life hears; made before the one before is over, so that no signal is lost between two.
    signals: Option<Signals>,
}

impl<'a, 'b> Lives<'a, 'b> {
    /// None yet.
    pub(crate) fn new(
        dirs: &'a Dirs,
        run: &'a RunDir,
        renewal: Renewal<'b>,
    ) -> Result<Self, StartError> {
        Ok(Self {
            dirs,
            run,
            renewal,
            row: Row::default(),
            runtime: runtime()?,
            signals: None,
        })
    }

    /// One life, from its first step to the host as it was.
    pub(crate) fn one(
        &mut self,
        plan: Plan,
        options: Options,
        on_ready: OnReady,
    ) -> Result<Gone, StartError> {
        let began = Instant::now();
        let lifecycle = plan.machine.lifecycle;
        let Self {
            dirs,
            run,
            renewal,
            row,
            runtime,
            signals,
        } = self;
        runtime.block_on(async {
            // From here on: what ends a start must not leave behind what it has made by then.
            let heard = hear(signals.take())?;
            *signals = Some(hear(None)?);
            let (begin, end) = prepare(dirs, run, plan, options, on_ready)?;
            let outcome = supervise(begin, heard).await;
            let next = row.after(&lifecycle, outcome.past(began.elapsed()));
            Ok(end.of(dirs, run, outcome, renewal.next(next)).await)
        })
    }

    /// The life of a guest whose supervisor died.
    pub(crate) fn adopt(&mut self, claim: Claim, on_ready: OnReady) -> Result<Adopted, StartError> {
        let Self {
            dirs,
            run,
            renewal,
            row,
            runtime,
            signals,
        } = self;
        runtime.block_on(async {
            *signals = Some(hear(None)?);
            let follows = |lifecycle: &Lifecycle, past| renewal.next(row.after(lifecycle, past));
            adopt::orphan(dirs, run, claim, on_ready, follows).await
        })
    }

    /// The lives that follow, as long as any does.
    ///
    /// # Errors
    /// The last one did not start.
    pub(crate) fn go_on(mut self, over: Over) -> Result<Ended, StartError> {
        let Over {
            mut claim,
            mut gone,
            mut plan,
        } = over;
        while let Some(again) = gone.again.take() {
            match self.rest(&gone, &again) {
                Ok(Rested::Over) => {}
                Ok(Rested::BrokenOff) => {
                    folders::remove_dir(self.run.path())?;
                    break;
                }
                Err(error) => {
                    // The error that matters is told.
                    let _ = folders::remove_dir(self.run.path());
                    return Err(error);
                }
            }
            let lifecycle = plan.machine.lifecycle;
            match self.start(&mut plan) {
                Ok(next) => gone = next,
                Err(error) => {
                    let next = self.row.after_failure(&lifecycle);
                    gone.failed_again(self.run, error, next);
                    if gone.again.is_none() {
                        claim.give_up(self.run)?;
                        break;
                    }
                    claim = claim.renew(self.run)?;
                    folders::empty_dir(self.run.path())?;
                }
            }
        }
        drop(claim);
        gone.told()
    }

    fn rest(&mut self, gone: &Gone, again: &Again) -> Result<Rested, StartError> {
        let Self {
            dirs,
            run,
            runtime,
            signals,
            ..
        } = self;
        runtime.block_on(async {
            let mut heard = hear(signals.take())?;
            let rested = rest(
                dirs,
                run,
                gone.state.clone(),
                &gone.ended,
                again,
                &mut heard,
            )
            .await;
            *signals = Some(heard);
            rested
        })
    }

    /// The next life, by the ordinary way of a start.
    fn start(&mut self, plan: &mut Plan) -> Result<Gone, StartError> {
        let (next, on_ready) = self.renewal.plan(plan).map_err(StartError::Plan)?;
        *plan = next.clone();
        // What was given up for the first life is gone.
        self.one(next, Options::default(), on_ready)
    }
}

fn hear(signals: Option<Signals>) -> Result<Signals, StartError> {
    signals.map_or_else(|| Signals::new().map_err(StartError::Setup), Ok)
}
