//! `mvm sleep`

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::guests::{self, Life, Seen};
use super::targets::{LONGEST, join_all};
use super::{Context, Failure, background, block_on, output, show};
use crate::error::{ExitCode, Report};
use crate::guest::hostsleep::{self, Record, Waking};
use crate::guest::state::Condition;
use crate::ids::GuestName;
use crate::machine::Power;
use crate::profile::schema::{HostSleep, SleepFailure};
use crate::settings::Settings;

/// For a guest to be woken, or to go on.
const WAKE: Duration = Duration::from_secs(60);

/// Before and after the host sleeps: put the guests to sleep, wake them
///
/// For the hooks that run around the host's own sleep. Each guest that runs does what its profile says in
/// `power.host-sleep`, all at the same time, each within its own deadline.
#[derive(Debug, Subcommand)]
pub(super) enum SleepCommand {
    Pre(PreArgs),
    Post(PostArgs),
}

/// Before the host sleeps
///
/// Exit code 1 where the host should stay awake: a guest did not do what its profile says, and
/// `power.host-sleep-failure` (with a device of the host: by default) wants that. What slept already is woken then.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm sleep pre && echo mem > /sys/power/state; mvm sleep post
  mvm sleep pre hibernate")]
pub(super) struct PreArgs {
    /// How the host is about to sleep
    #[arg(value_enum, default_value = "suspend")]
    how: How,
}

/// After the host has slept
///
/// Wakes what `mvm sleep pre` put to sleep, and nothing else: a guest that slept or was paused before stays so.
/// A guest that hibernated is started again where it has a machine file.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm sleep post")]
pub(super) struct PostArgs {
    /// How the host has slept; it makes no difference
    #[arg(value_enum, default_value = "suspend")]
    _how: How,
}

/// How the host sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum How {
    /// Its memory is kept
    Suspend,
    /// Its memory goes to its disk
    Hibernate,
}

pub(super) fn run(command: &SleepCommand, context: &Context) -> Result<(), Failure> {
    match command {
        SleepCommand::Pre(args) => pre(args.how, context),
        SleepCommand::Post(_) => {
            let mut record = Record::open(&context.dirs)?;
            post(&mut record, context)
        }
    }
}

/// A guest that is asked, and how it is to sleep.
struct Asked {
    seen: Seen,
    power: Power,
}

fn pre(how: How, context: &Context) -> Result<(), Failure> {
    let mut record = Record::open(&context.dirs)?;
    let mut asked = Vec::new();
    let mut awake = Vec::new();
    for seen in guests::running(&context.dirs)? {
        let power = show::plan(&seen).map(|plan| plan.machine.power);
        let power = power.unwrap_or_default();
        if power.host_sleep == HostSleep::None {
            continue;
        }
        if seen.life == Life::Unsupervised {
            let report = guests::supervised(&seen).err();
            awake.extend(report.map(|failure| (power, failure)));
            continue;
        }
        let state = seen.state.as_ref().map(|state| state.state);
        // One that sleeps or is held already is somebody else's to wake.
        if state == Some(Condition::Running) {
            record.note(&seen.name)?;
            asked.push(Asked { seen, power });
        }
    }
    let word = how.to_possible_value().expect("every word has a name");
    let request = json!({ "do": "sleep-with-host", "for": word.get_name() });
    awake.extend(block_on(async {
        let asking = asked.iter().map(|one| {
            Box::pin(async {
                let done = ask(&one.seen, &request).await;
                done.err().map(|failure| (one.power.clone(), failure))
            })
        });
        let results = join_all(asking.collect()).await;
        Ok(results.into_iter().flatten().collect::<Vec<_>>())
    })?);
    let stay = |(power, _): &(Power, Failure)| power.host_sleep_failure == SleepFailure::StayAwake;
    let keeps = awake.iter().any(stay);
    let mut failures: Vec<Failure> = awake.into_iter().map(|(_, failure)| failure).collect();
    if !keeps {
        let settings = Settings::load(&context.dirs)?;
        // The host can be woken all the same, by fewer things.
        if let Err(error) = record.wake_by(&settings.sleep.wake_sources) {
            failures.push(error.into());
        }
    }
    if keeps {
        failures.extend(post(&mut record, context).err());
        let all = Failure::collect(failures);
        output::note(
            "note: the host should stay awake: `power.host-sleep-failure` is `stay-awake`",
        );
        return all;
    }
    for failure in failures {
        failure.render();
        output::note(
            "note: the host may sleep all the same: `power.host-sleep-failure` is `sleep`",
        );
    }
    Ok(())
}

async fn ask(seen: &Seen, request: &serde_json::Value) -> Result<(), Failure> {
    let done = seen.control().await?.ask(request, LONGEST).await?;
    if let Some(note) = done["note"].as_str() {
        output::note(&format!("note: {}: {note}", seen.name));
    }
    Ok(())
}

/// Wakes what was put to sleep. What cannot be woken stays in the record, for another try.
fn post(record: &mut Record, context: &Context) -> Result<(), Failure> {
    let names = record.slept.guests.clone();
    let mut failures = Vec::new();
    if let Err(error) = record.wake_as_before() {
        failures.push(error.into());
    }
    let mut requests = BTreeMap::new();
    for name in &names {
        // One that cannot be looked at keeps no other from being woken.
        let waking = match hostsleep::waking(&context.dirs, name) {
            Ok(waking) => waking,
            Err(error) => {
                failures.push(error.into());
                continue;
            }
        };
        match waking {
            Waking::Wake => {
                requests.insert(name.clone(), json!({ "do": "wakeup" }));
            }
            Waking::Resume => {
                requests.insert(name.clone(), json!({ "do": "resume" }));
            }
            Waking::Recover => match guests::find_supervised(context, name.as_str()) {
                // One that has just come back is asked like the others: it goes on if it sleeps.
                Ok(_) => {
                    requests.insert(name.clone(), json!({ "do": "resume" }));
                }
                Err(failure) => failures.push(failure),
            },
            Waking::Start => match start(name, context) {
                Ok(()) => failures.extend(record.strike(name).err().map(Failure::from)),
                Err(failure) => failures.push(failure),
            },
            Waking::Nothing => failures.extend(record.strike(name).err().map(Failure::from)),
        }
    }
    let results = block_on(async {
        let asking = requests.iter().map(|(name, request)| {
            Box::pin(async move {
                let seen = guests::find_supervised(context, name.as_str());
                match seen {
                    Ok(seen) => (name, wake(&seen, request).await),
                    Err(failure) => (name, Err(failure)),
                }
            })
        });
        Ok(join_all(asking.collect()).await)
    })?;
    for (name, result) in results {
        match result {
            Ok(()) => record.strike(name)?,
            Err(failure) => failures.push(failure),
        }
    }
    Failure::collect(failures)
}

async fn wake(seen: &Seen, request: &serde_json::Value) -> Result<(), Failure> {
    seen.control().await?.ask(request, WAKE).await?;
    Ok(())
}

/// What flags a guest without machine file was started with is not known any more.
fn start(name: &GuestName, context: &Context) -> Result<(), Failure> {
    if super::machine_file::find(context, name).is_none() {
        return Err(Report::new(
            ExitCode::Failed,
            format!(
                "{name} hibernated before the host slept, and has no machine file to start it by"
            ),
        )
        .hint(format!(
            "start it as it was started before: `mvm start … --name {name}`"
        ))
        .into());
    }
    background::start(
        &["start", "--supervisor", "--", name.as_str()],
        context,
        WAKE,
    )?;
    Ok(())
}
