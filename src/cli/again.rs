//! `mvm start` of a guest that runs: it is left alone, or stopped first.

use std::str::FromStr as _;

use serde_json::json;

use super::guests;
use super::targets::LONGEST;
use super::{Context, Failure, block_on, machine_file, output};
use crate::guest::{self, Presence};
use crate::ids::GuestName;

/// What stands in a start's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Nothing.
    Free,
    /// The guest runs and is left alone.
    Runs,
}

/// Looks whether the guest that is to be started runs, and with `restart` stops it. A profile without a machine
/// file is not one guest: another one is started of it, unless it is to be started anew.
pub(super) fn make_way(
    what: &str,
    name: Option<&GuestName>,
    restart: bool,
    context: &Context,
) -> Result<Way, Failure> {
    let Some(own) = name.cloned().or_else(|| own_name(what)) else {
        return Ok(Way::Free);
    };
    let one = name.is_some() || machine_file::find(context, &own).is_some();
    let runs = matches!(guest::look(&context.dirs, &own)?, Presence::Supervised(_));
    match (runs, restart) {
        (true, true) => stop(&own, context).map(|()| Way::Free),
        (true, false) if one => {
            output::note(&format!(
                "note: {own} runs already and is left alone; `--restart` starts it anew"
            ));
            Ok(Way::Runs)
        }
        _ => Ok(Way::Free),
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
