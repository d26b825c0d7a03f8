//! Stopping all guests with the host: in the reverse of the order in which they start with it, all within one
//! deadline.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use serde_json::json;

use super::guests::{self, Life, Seen};
use super::targets::join_all;
use super::{Context, Failure, autostart, background, block_on, output};
use crate::units::Span;

/// For a QEMU without supervisor to get one, which can be asked.
const ADOPT: Duration = Duration::from_secs(20);

/// Stops every guest that runs. Those of one order are stopped together; each order has an equal part of what is
/// left of the time, so that one that does not heed takes nothing from the next.
pub(super) fn stop(
    own: Option<Span>,
    within: Span,
    force: bool,
    context: &Context,
) -> Result<(), Failure> {
    let end = Instant::now() + within.duration();
    let mut groups: BTreeMap<u32, Vec<Seen>> = BTreeMap::new();
    for seen in guests::running(&context.dirs)? {
        let order = autostart::order_of(context, seen.name.as_str());
        groups.entry(order).or_default().push(seen);
    }
    let mut failures = Vec::new();
    let mut left = u32::try_from(groups.len()).unwrap_or(u32::MAX);
    for (order, group) in groups.into_iter().rev() {
        let names: Vec<&str> = group.iter().map(|seen| seen.name.as_str()).collect();
        output::progress(&format!("stopping {} (order {order})", names.join(", ")));
        let part = end.saturating_duration_since(Instant::now()) / left.max(1);
        left = left.saturating_sub(1);
        let limit = own.map_or(part, |own| own.duration().min(part));
        failures.extend(stop_group(&group, limit, force, context)?);
    }
    Failure::collect(failures)
}

fn stop_group(
    group: &[Seen],
    limit: Duration,
    force: bool,
    context: &Context,
) -> Result<Vec<Failure>, Failure> {
    let mut failures = Vec::new();
    let mut asked = Vec::new();
    for seen in group {
        match seen.life {
            Life::Unsupervised => match adopt(seen, context) {
                Ok(()) => asked.push(seen),
                Err(failure) => failures.push(failure),
            },
            Life::Supervised => asked.push(seen),
            Life::Gone => {}
        }
    }
    let request = json!({ "do": "stop", "force": force, "timeout-ms": limit.as_millis() as u64 });
    let request = &request;
    let all = asked.into_iter().map(|seen| {
        Box::pin(async move {
            let answer = seen.control().await?.ask(request, limit).await;
            answer.map(drop).map_err(Failure::from)
        })
    });
    let results = block_on(async { Ok(join_all(all.collect()).await) })?;
    failures.extend(results.into_iter().filter_map(Result::err));
    Ok(failures)
}

fn adopt(seen: &Seen, context: &Context) -> Result<(), Failure> {
    let words: [OsString; 4] = [
        "recover".into(),
        "--supervisor".into(),
        "--".into(),
        seen.name.as_str().into(),
    ];
    background::start(&words, context, ADOPT).map(drop)
}
