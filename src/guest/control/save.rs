//! Saving: the guest is held, QEMU writes its state to a file, and ends.
//!
//! Up to the mark everything can be taken back: a save that fails, is cancelled or takes too long leaves the
//! guest as it was before. With the mark it is saved, whatever happens to QEMU then.

use std::fs::File;
use std::future::pending;
use std::time::Duration;

use mvm_qmp::{Qmp, QmpError};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::super::RunDir;
use super::super::asleep::{self, Asleep, Kind};
use super::super::lifecycle::Input;
use super::super::saved::image::{self, ImageError};
use super::super::saved::{self, Saved};
use super::super::state::{self, Condition, Reason};
use super::sleep::{Awake, end_of, one_at_a_time, runs, unable};
use super::verbs::{SOON, ended, gone, qmp_failed, reached};
use super::{Progress, Request, Shared};
use crate::error::{ExitCode, Report};
use crate::plan::Plan;
use crate::qemu;

/// Between two words about how far it is.
const TELL: Duration = Duration::from_secs(1);

/// Saves the guest.
pub(super) async fn save(
    request: &Request,
    shared: &mut Shared,
    out: &Progress,
) -> Result<Value, Report> {
    let _one = one_at_a_time(shared)?;
    if shared.condition() == Condition::Suspended {
        let name = shared.name();
        // QEMU before 9.0 restores it as running; nothing wakes it then.
        return Err(Report::new(
            ExitCode::Failed,
            format!(
                "guest `{name}` is suspended and cannot be saved: QEMU does not keep its sleep"
            ),
        )
        .hint(format!("wake it first: `mvm wakeup {name}`")));
    }
    if shared.condition() != Condition::Paused {
        runs(shared, "saved")?;
    }
    let limit = request.timeout(shared.sleeper.power.hibernate_timeout.duration());
    match to_file(shared, out, limit, request.compress).await {
        Ok(value) => Ok(value),
        Err(Awake::Failed(report)) => Err(report),
        Err(Awake::Unable { why, hint }) => {
            let mut report = Report::new(
                ExitCode::Failed,
                format!("guest `{}` cannot be saved: {why}", shared.name()),
            );
            report.hints.extend(hint);
            Err(report)
        }
    }
}

/// Refuses what would change the guest under the hands of a save.
pub(super) fn leave_alone(verb: &str, shared: &Shared) -> Result<(), Report> {
    let changes = matches!(
        verb,
        "stop" | "reboot" | "reset" | "pause" | "resume" | "attach" | "detach"
    );
    if !changes || shared.view.borrow().state.saving.is_none() {
        return Ok(());
    }
    Err(Report::new(
        ExitCode::Failed,
        format!("guest `{}` is being saved", shared.name()),
    )
    .hint("wait for that, or end that command: the guest goes on then"))
}

/// Saves a guest that runs or is paused.
pub(super) async fn to_file(
    shared: &mut Shared,
    out: &Progress,
    limit: Duration,
    compress: bool,
) -> Result<Value, Awake> {
    if let Some(why) = shared.sleeper.no_save() {
        return Err(unable(why, None));
    }
    let name = shared.name();
    let qmp = shared.links()?.qmp.clone();
    let reasons = image::blocked(&qmp).await;
    let reasons = reasons.map_err(|error| qmp_failed(&name, &error))?;
    if !reasons.is_empty() {
        let told: Vec<String> = reasons.iter().map(|reason| in_words(reason)).collect();
        return Err(unable(told.join("; "), None));
    }
    let run = shared.hotplug.run().clone();
    let plan = plan(&run)?;
    if saved::devices(&plan.command) != saved::devices(&qemu::command_line(&plan.machine)) {
        return Err(unable(
            "it has other devices than those that it was started with, and its next start would not know them",
            Some("detach what was attached, and attach what was detached".to_owned()),
        ));
    }
    let before = shared.condition();
    let (stay, left) = oneshot::channel::<()>();
    let saving = Saving {
        shared: shared.clone(),
        out: out.clone(),
        qmp,
        run,
        plan,
        before,
        limit,
        compress: compress || shared.sleeper.power.compress,
    };
    // It is brought to one of its two ends, even when the one who asked is gone: then to the other.
    let done = tokio::spawn(saving.run(left)).await;
    drop(stay);
    done.map_err(|error| {
        Report::new(ExitCode::Failed, format!("the supervisor failed: {error}"))
    })??;
    match end_of(shared).await? {
        end if end.reason == Reason::Saved => Ok(ended(&end, Condition::Stopped)),
        end => Err(Awake::Failed(Report::new(
            ExitCode::Failed,
            format!("guest `{name}` has ended: {}", end.reason.as_str()),
        ))),
    }
}

fn plan(run: &RunDir) -> Result<Plan, Report> {
    let plan = state::read::<Plan>(&run.plan());
    let plan = plan.and_then(|plan| plan.ok_or_else(|| std::io::ErrorKind::NotFound.into()));
    plan.map_err(|error: std::io::Error| {
        Report::new(
            ExitCode::Failed,
            format!("cannot read {}: {error}", run.plan().display()),
        )
    })
}

/// QEMU's reason for not saving, for people.
fn in_words(reason: &str) -> String {
    let quoted = |text: &str| text.split('\'').nth(1).map(str::to_owned);
    if reason.to_ascii_lowercase().contains("vfio") {
        return format!(
            "it has a device of the host, whose state only the device knows (QEMU says: {reason})"
        );
    }
    if let Some((_, tag)) = reason.split_once("mount_tag") {
        return format!(
            "its share `{}` is mounted: unmount it in the guest first",
            quoted(tag).unwrap_or_default()
        );
    }
    if let Some((_, device)) = reason.split_once("non-migratable device") {
        let device = device.trim_matches([':', ' ', '\'']);
        return format!("its device `{device}` is of a kind that QEMU cannot save");
    }
    format!("QEMU says: {reason}")
}

/// One save.
struct Saving {
    shared: Shared,
    out: Progress,
    qmp: Qmp,
    run: RunDir,
    plan: Plan,
    /// What the guest did before.
    before: Condition,
    limit: Duration,
    compress: bool,
}

impl Saving {
    async fn run(mut self, left: oneshot::Receiver<()>) -> Result<(), Report> {
        let name = self.shared.name();
        match self.begin_and_write(left).await {
            Ok(()) => {
                // Nobody may be there any more: then QEMU is gone already.
                let _ = self.shared.inputs.send(Input::Saved).await;
                Ok(())
            }
            Err(report) => match self.take_back().await {
                Ok(()) => Err(report),
                Err(error) => Err(Report::new(
                    ExitCode::Failed,
                    format!(
                        "{}, and then {}",
                        report.chain.join(": "),
                        error.chain.join(": ")
                    ),
                )
                .hint(format!("`mvm resume {name}` may let it go on"))),
            },
        }
    }

    async fn begin_and_write(&mut self, left: oneshot::Receiver<()>) -> Result<(), Report> {
        let before = self.before;
        self.saving(Some(before)).await?;
        if before == Condition::Running {
            self.shared.qmp("stop").await?;
            reached(&mut self.shared, Condition::Paused).await?;
        }
        let name = self.shared.name();
        let failed = |error: ImageError| self.failed(&error);
        let file = image::create(&self.run).map_err(failed)?;
        let gone_away = async {
            match left.await {
                Err(_) => {}
                Ok(()) => pending().await,
            }
        };
        tokio::select! {
            biased;
            done = timeout(self.limit, self.write(&file)) => match done {
                Ok(done) => done?,
                Err(_) => return Err(Report::new(
                    ExitCode::Failed,
                    format!("guest `{name}` has not been saved within {:.0?}", self.limit),
                )
                .hint("`--timeout` gives it longer")),
            },
            () = gone_away => return Err(Report::new(ExitCode::Failed, "nobody waits for it any more")),
        }
        self.mark(&file, &name).await
    }

    async fn write(&self, file: &File) -> Result<(), Report> {
        let (tell, mut told) = mpsc::channel(1);
        let mut next = Instant::now() + TELL;
        let writing = async move {
            let done = image::write(&self.qmp, file, self.compress, |done, total| {
                if Instant::now() >= next && total > 0 {
                    next = Instant::now() + TELL;
                    // One that is not told yet is as good.
                    let _ = tell.try_send(done.saturating_mul(100) / total);
                }
            });
            done.await
        };
        let telling = async {
            while let Some(percent) = told.recv().await {
                let text = format!(
                    "{}: {percent} % of its memory is written",
                    self.shared.name()
                );
                self.out.tell(&text).await;
            }
            pending::<()>().await;
        };
        tokio::select! {
            done = writing => done.map_err(|error| self.failed(&error)),
            () = telling => Ok(()),
        }
    }

    /// From here on it is saved.
    async fn mark(&self, file: &File, name: &str) -> Result<(), Report> {
        let status = self.shared.qmp("query-status").await?;
        if status["status"] != "postmigrate" {
            return Err(Report::new(
                ExitCode::Failed,
                format!("guest `{name}` was let go on by another QMP client while it was saved"),
            ));
        }
        let board = json!({ "path": "/machine", "property": "type" });
        let board = self.qmp.call("qom-get", Some(board)).await;
        let board = board.map_err(|error| qmp_failed(name, &error))?;
        let (run, plan) = (self.run.clone(), self.plan.clone());
        let (file, paused) = (file.try_clone(), self.before == Condition::Paused);
        let work = move || -> Result<(), String> {
            let file = file.map_err(|error| error.to_string())?;
            image::keep(&run, &file).map_err(|error| error.to_string())?;
            let saved = Saved::of(&run, &plan, paused).map_err(|error| error.to_string())?;
            let mut machine = plan.machine;
            // By its kind it is another one with another QEMU.
            if let Some(board) = board.as_str() {
                machine.board.machine_type = board.trim_end_matches("-machine").to_owned();
            }
            let asleep = Asleep {
                kind: Kind::Saved,
                at: state::now(),
                machine,
                saved: Some(saved),
            };
            asleep::write(&run, &asleep).map_err(|error| error.to_string())
        };
        let done = tokio::task::spawn_blocking(work).await;
        let done = done.unwrap_or_else(|error| Err(error.to_string()));
        done.map_err(|why| {
            Report::new(
                ExitCode::Failed,
                format!("guest `{name}` cannot be saved: {why}"),
            )
        })
    }

    /// The guest as it was before.
    async fn take_back(&mut self) -> Result<(), Report> {
        let name = self.shared.name();
        if self.qmp.is_closed() {
            // What there is of the file goes with its end.
            return Ok(());
        }
        let ask = |error: QmpError| qmp_failed(&name, &error);
        image::cancel(&self.qmp).await.map_err(ask)?;
        if let Err(error) = asleep::forget(&self.run) {
            return Err(Report::from(error));
        }
        if self.before == Condition::Running {
            // A moment after it was cancelled QEMU may still be putting its disks back.
            let mut tries = 0;
            while let Err(report) = self.shared.qmp("cont").await {
                tries += 1;
                if tries == 20 || self.qmp.is_closed() {
                    return Err(report);
                }
                sleep(Duration::from_millis(100)).await;
            }
            reached(&mut self.shared, Condition::Running).await?;
        }
        self.saving(None).await
    }

    /// Says that the guest is held, or is no more, and sees that it is written down.
    async fn saving(&mut self, before: Option<Condition>) -> Result<(), Report> {
        self.shared.tell(Input::Saving(before)).await?;
        let seen = self
            .shared
            .see(SOON, |view| {
                view.ended.is_some() || view.state.saving == before
            })
            .await;
        match seen {
            Some(view) if view.ended.is_none() => Ok(()),
            _ => Err(gone(&self.shared.name())),
        }
    }

    fn failed(&self, error: &ImageError) -> Report {
        let name = self.shared.name();
        if let ImageError::Qmp(error) = error {
            if error.is_closed() {
                return gone(&name);
            }
        }
        Report::new(
            ExitCode::Failed,
            format!("guest `{name}` cannot be saved: {error}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_forbids_it_is_told_in_words() {
        for (reason, told) in [
            (
                "0000:00:04.0: VFIO migration is not supported in kernel",
                "a device of the host",
            ),
            (
                "Migration is disabled when VirtFS export path '/srv' is mounted in the guest using mount_tag 'data'",
                "share `data` is mounted",
            ),
            (
                "State blocked by non-migratable device '0000:00:03.0/nvme'",
                "device `0000:00:03.0/nvme`",
            ),
            ("The moon is full", "QEMU says: The moon is full"),
        ] {
            let said = in_words(reason);
            assert!(said.contains(told), "{said}");
        }
    }
}
