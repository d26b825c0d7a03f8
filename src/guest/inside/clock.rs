//! The guest's clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{CallError, Inside};
pub use crate::units::time::{read, write};

/// For a look at the clock.
const LOOK: Duration = Duration::from_secs(10);
/// For setting it: the agent writes the guest's hardware clock as well.
const SET: Duration = Duration::from_secs(30);
/// How far off a clock may be that was just set.
const NEAR: i64 = 2_000_000_000;

/// A clock that was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// How far it was ahead before, in nanoseconds; negative where it was behind.
    pub was_ahead: i64,
    /// What the guest shows now, in nanoseconds since 1970.
    pub now: i64,
    /// What the agent could not do beside: its hardware clock.
    pub but: Option<String>,
}

/// Sets the guest's clock to a time, or to this host's, and looks that it is so.
///
/// # Errors
/// An agent that fails, a clock that is another afterwards.
pub async fn set(inside: &mut impl Inside, time: Option<i64>) -> Result<Set, CallError> {
    let before = look(inside).await?;
    let target = time.unwrap_or_else(now);
    let was_ahead = before - target;
    let began = Instant::now();
    let done = inside
        .call("guest-set-time", json!({ "time": target }), SET)
        .await;
    // The agent sets the clock, then has `hwclock` write the hardware's, and fails where that fails.
    let but = match done {
        Ok(_) => None,
        Err(error) if error.is_failure() => {
            let shown = look(inside).await?;
            if !near(shown, target, began) {
                return Err(error);
            }
            Some(error.to_string())
        }
        Err(error) => return Err(error),
    };
    let shown = look(inside).await?;
    if !near(shown, target, began) {
        let what = format!("its clock is at {} nevertheless", write(shown));
        return Err(CallError::strange("guest-set-time", what));
    }
    Ok(Set {
        was_ahead,
        now: shown,
        but,
    })
}

/// Whether a clock that was set to `target` since then can show that.
fn near(shown: i64, target: i64, began: Instant) -> bool {
    let gone = i64::try_from(began.elapsed().as_nanos()).unwrap_or(i64::MAX);
    let since = shown.saturating_sub(target);
    (-NEAR..=gone.saturating_add(NEAR)).contains(&since)
}

/// What the guest's clock shows.
///
/// # Errors
/// An agent that fails.
pub async fn look(inside: &mut impl Inside) -> Result<i64, CallError> {
    let time = inside.call("guest-get-time", Value::Null, LOOK).await?;
    time.as_i64()
        .ok_or_else(|| CallError::strange("guest-get-time", time.to_string()))
}

/// What this host's clock shows.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
}
