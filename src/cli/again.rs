//! `mvm start` of a guest that runs: it is left alone, or stopped first.

use std::str::FromStr as _;

use serde_json::json;

use super::choices::words;
use super::guests;
use super::prepare::Wanted;
use super::targets::LONGEST;
use super::{Context, Failure, block_on, by_unit, machine_file, output};
use crate::error::{ExitCode, Report};
use crate::guest::{self, Presence};
use crate::ids::GuestName;
use crate::profile::Choices;

/// What stands in a start's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Nothing.
    Free,
    /// The guest runs and is left alone.
    Runs,
}

/// Looks whether the guest that is to be started runs, and with `restart` stops it; what would keep it from being
/// started anew is told before. A profile without a machine file is not one guest: another one is started of it,
/// unless it is to be started anew.
pub(super) fn make_way(
    what: &str,
    name: Option<&GuestName>,
    restart: bool,
    choices: &Choices,
    context: &Context,
) -> Result<Way, Failure> {
    let Some(own) = name.cloned().or_else(|| own_name(what)) else {
        return Ok(Way::Free);
    };
    // By `--name` another guest is meant, whose name is taken.
    let one = name.is_none() && machine_file::find(context, &own).is_some();
    match (guest::look(&context.dirs, &own)?, restart) {
        (Presence::Supervised(_), true) => {
            expect_a_start(what, name, &own, choices, context)?;
            stop(&own, context).map(|()| Way::Free)
        }
        (Presence::Supervised(_), false) if one => {
            let unheard = match words(choices).first() {
                Some(word) => format!(", without `{}`", word.to_string_lossy()),
                None => String::new(),
            };
            output::note(&format!(
                "note: {own} runs already and is left alone{unheard}; `--restart` starts it anew"
            ));
            Ok(Way::Runs)
        }
        (Presence::Unsupervised(_), true) => Err(Report::new(
            ExitCode::Failed,
            format!("{own} runs without a supervisor, and cannot be stopped by one"),
        )
        .hint(format!(
            "`mvm recover {own}` gives it one; then start it anew"
        ))
        .into()),
        _ => Ok(Way::Free),
    }
}

/// That the guest can be started as it is asked for, as far as that is known while it still runs: what the host
/// lacks may be what the guest itself has.
fn expect_a_start(
    what: &str,
    name: Option<&GuestName>,
    own: &GuestName,
    choices: &Choices,
    context: &Context,
) -> Result<(), Failure> {
    if let Some(unit) = by_unit::of(own, context)? {
        by_unit::refuse(&unit, &words(choices))?;
    }
    let wanted = Wanted::load(context, what, name, choices)?;
    match wanted.plan(context, own) {
        Err(failure) if matches!(failure.exit_code(), ExitCode::Profile | ExitCode::Usage) => {
            Err(failure)
        }
        _ => Ok(()),
    }
}

fn own_name(what: &str) -> Option<GuestName> {
    let file = what.rsplit_once('/').map(|(_, file)| file);
    let stem = file.map(|file| file.strip_suffix(".toml").unwrap_or(file));
    GuestName::from_str(stem.unwrap_or(what)).ok()
}

/// Asks it to shut down, and ends it where it does not within its own time.
fn stop(name: &GuestName, context: &Context) -> Result<(), Failure> {
    output::note(&format!("note: {name} runs already: it is stopped first"));
    let seen = guests::find(&context.dirs, name.as_str())?;
    block_on(async {
        let request = json!({ "do": "stop", "force": true });
        let done = seen.control().await?.ask(&request, LONGEST).await?;
        if let Some(note) = done["note"].as_str() {
            output::note(&format!("note: {name}: {note}"));
        }
        Ok(())
    })
}
