//! The clock of a guest that was away.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mvm_qmp::Agent;
use serde_json::json;

/// For an agent that has just woken.
const AWAKE: Duration = Duration::from_secs(30);
/// For the agent to set the clock, and the guest's hardware clock by it.
const SET: Duration = Duration::from_secs(20);

/// Sets the guest's clock to the host's time. A guest that counts on its own clock loses nothing by a
/// failure: it is told in the log.
pub(crate) async fn set(agent: Agent) {
    if let Err(error) = agent.ping(AWAKE).await {
        tracing::info!(%error, "the guest's clock is not set");
        return;
    }
    // Not earlier: what was waited must not be missing.
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else {
        return;
    };
    let time = json!({ "time": u64::try_from(now.as_nanos()).unwrap_or(u64::MAX) });
    match agent.call("guest-set-time", Some(time), SET).await {
        Ok(_) => tracing::info!("the guest's clock is set"),
        Err(error) => tracing::info!(%error, "the guest's clock is not set"),
    }
}
