//! The verb `watch`: what happens to the guest, a line each, until it has ended or the client goes away.

use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::super::feed;
use super::{Progress, Shared};
use crate::error::{ExitCode, Report};

/// Tells the state, and then everything that happens.
pub(super) async fn watch(shared: &Shared, out: &Progress) -> Result<Value, Report> {
    // Nothing can happen between these two: the supervisor is one thread.
    let mut items = shared.feed.subscribe();
    let (now, ended) = {
        let view = shared.view.borrow();
        (feed::of_state(&view.state), view.ended.is_some())
    };
    tell(out, &now).await?;
    if ended {
        return Ok(json!({}));
    }
    loop {
        match items.recv().await {
            Ok(item) => {
                if item
                    .value
                    .as_object()
                    .is_some_and(|value| !value.is_empty())
                {
                    tell(out, &item.value).await?;
                }
                if item.last {
                    break;
                }
            }
            // States that were missed are made good for by the one that holds now.
            Err(RecvError::Lagged(count)) => {
                tell(out, &json!({ "lost": count })).await?;
                let now = feed::of_state(&shared.view.borrow().state);
                tell(out, &now).await?;
            }
            Err(RecvError::Closed) => break,
        }
    }
    Ok(json!({}))
}

async fn tell(out: &Progress, happened: &Value) -> Result<(), Report> {
    // Whoever does not read keeps his place, and nobody else from anything.
    if out.patiently(&json!({ "happened": happened })).await {
        Ok(())
    } else {
        Err(Report::new(ExitCode::Failed, "nobody listens any more"))
    }
}
