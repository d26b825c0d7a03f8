//! Devices that the guest does without while it sleeps: out before, back after.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mvm_qmp::{Agent, AgentError};
use serde_json::Value;
use tokio::sync::Mutex;

use super::super::hotplug::{Hotplug, HotplugError};
use super::super::inside::mounts::{self, MountError};
use super::super::inside::{CallError, Inside};
use super::{Links, Progress, Shared};
use crate::error::{ExitCode, Report};
use crate::ids::Id;

/// For the guest to let one device go.
const LEAVE: Duration = Duration::from_secs(30);
/// For the guest to unmount, and to find its disks and mount again.
const MOUNT: Duration = Duration::from_secs(60);
/// For an agent that has just woken.
const AWAKE: Duration = Duration::from_secs(30);

/// What is parked comes back, whoever wakes the guest.
pub(crate) struct Parking {
    name: String,
    hotplug: Arc<Hotplug>,
    links: Arc<OnceLock<Links>>,
    /// Held while anything leaves or comes back. What did not come back last, for whoever asks.
    troubles: Mutex<Vec<String>>,
}

impl Parking {
    pub(crate) fn new(name: String, hotplug: &Arc<Hotplug>, links: &Arc<OnceLock<Links>>) -> Self {
        Self {
            name,
            hotplug: Arc::clone(hotplug),
            links: Arc::clone(links),
            troubles: Mutex::default(),
        }
    }

    /// Makes the host's side ready before the guest wakes.
    pub(super) async fn ready(&self) {
        let _held = self.troubles.lock().await;
        self.hotplug.ready_parked().await;
    }

    /// Gives the guest back what is parked, and mounts what was mounted; a guest that sleeps is left alone. What
    /// did not come back, in words.
    pub(crate) async fn back(&self) -> Vec<String> {
        let mut troubles = self.troubles.lock().await;
        self.come_back(&mut troubles).await;
        std::mem::take(&mut *troubles)
    }

    /// The same for who has nobody to tell: the next one who asks hears it.
    pub(crate) async fn back_by_itself(self: Arc<Self>) {
        let mut troubles = self.troubles.lock().await;
        self.come_back(&mut troubles).await;
    }

    /// The same for a guest that was adopted: what its last supervisor was parking leaves first.
    pub(crate) async fn back_after_adoption(self: Arc<Self>) {
        let mut troubles = self.troubles.lock().await;
        self.hotplug.parking_ends(LEAVE).await;
        self.come_back(&mut troubles).await;
    }

    async fn come_back(&self, troubles: &mut Vec<String>) {
        if self.hotplug.has_parked().await && !self.sleeps().await {
            *troubles = self.bring_back().await;
        }
    }

    async fn sleeps(&self) -> bool {
        let Some(links) = self.links.get() else {
            return true;
        };
        let status = links.qmp.call("query-status", None).await;
        status.map_or(true, |status| status["status"] == "suspended")
    }

    async fn bring_back(&self) -> Vec<String> {
        let (came, failed) = self.hotplug.unpark().await;
        let in_words = |error| Report::from(error).chain.join(": ");
        let mut told: Vec<String> = failed
            .into_iter()
            .map(|(id, error)| format!("`{id}` is not back: {}", in_words(error)))
            .collect();
        let mounts = self.hotplug.mounts().await;
        if mounts.is_empty() && came {
            if let Err(why) = self.mount(&[]).await {
                tracing::info!("the guest is not asked to look for its devices: {why}");
            }
        } else if !mounts.is_empty() {
            if let Err(why) = self.mount(&mounts).await {
                told.push(why);
            }
            // What failed is told, and is the guest's own matter from here on.
            if let Err(error) = self.hotplug.note_mounts(Vec::new()).await {
                tracing::warn!(%error, "cannot write devices.json");
            }
        }
        for text in &told {
            tracing::warn!("{text}");
        }
        told
    }

    async fn mount(&self, all: &[mounts::Mount]) -> Result<(), String> {
        let agent = self.links.get().and_then(|links| links.agent.clone());
        let agent = agent.ok_or("the guest has no agent to mount what was unmounted")?;
        let mut inside = Direct {
            name: &self.name,
            agent,
        };
        if let Err(error) = inside.agent.ping(AWAKE).await {
            return Err(format!("what was unmounted is not mounted again: {error}"));
        }
        let done = mounts::mount_again(&mut inside, all, MOUNT).await;
        done.map_err(|error| error.to_string())
    }

    /// Takes the marked devices out of a guest that is awake.
    async fn leave(&self, out: &Progress) -> Result<(), Report> {
        let _held = self.troubles.lock().await;
        let ids = self.hotplug.to_park().await.map_err(Report::from)?;
        if ids.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = ids.iter().map(Id::as_str).collect();
        out.tell(&format!("`{}` leaves the guest", names.join("`, `")))
            .await;
        self.unmount(&ids).await?;
        for id in &ids {
            if let Err(error) = Arc::clone(&self.hotplug).park(id, LEAVE).await {
                // It may still leave, and must not do so under a file system.
                let may_leave = matches!(error, HotplugError::Silent { .. });
                let why = Report::from(error);
                let mut report = Report::new(
                    ExitCode::Failed,
                    format!(
                        "guest `{}` does not sleep, for `{id}` cannot be parked: {}",
                        self.name,
                        why.chain.join(": ")
                    ),
                );
                report.hints = why.hints;
                if may_leave && !self.hotplug.mounts().await.is_empty() {
                    self.hotplug.note_mounts(Vec::new()).await?;
                    report = report.hint("what was unmounted for it stays unmounted");
                }
                for text in self.bring_back().await {
                    report = report.hint(text);
                }
                return Err(report);
            }
        }
        Ok(())
    }

    /// Unmounts what is mounted from them, having noted it.
    async fn unmount(&self, ids: &[Id]) -> Result<(), Report> {
        let refused = |why: String| {
            Report::new(
                ExitCode::Failed,
                format!(
                    "guest `{}` does not sleep, for `{}` cannot be parked: {why}",
                    self.name, ids[0]
                ),
            )
        };
        let agent = self.links.get().and_then(|links| links.agent.clone());
        let agent =
            agent.ok_or_else(|| refused("it has no agent to say what is in use".to_owned()))?;
        let mut inside = Direct {
            name: &self.name,
            agent,
        };
        if let Err(error) = inside.agent.ping(AWAKE).await {
            return Err(refused(error.to_string()).hint(
                "install qemu-guest-agent in the guest: it says whether the device is in use",
            ));
        }
        if is_windows(&mut inside).await {
            // It refuses by itself to let go of what is in use.
            return Ok(());
        }
        let addresses = self.hotplug.guest_addresses(ids).await?;
        let told = |error| match error {
            MountError::Guest(why) => refused(why).hint(
                "end what uses it in the guest, or let the profile not park it: `park = false`",
            ),
            MountError::Call(error) => refused(error.to_string()),
        };
        let there = mounts::look(&mut inside, &addresses, MOUNT).await;
        self.hotplug.note_mounts(there.map_err(told)?).await?;
        let done = mounts::let_go(&mut inside, &addresses, MOUNT).await;
        if let Err(MountError::Guest(_)) = &done {
            // All is as it was.
            self.hotplug.note_mounts(Vec::new()).await?;
        }
        done.map_err(told)
    }
}

async fn is_windows(inside: &mut Direct<'_>) -> bool {
    let told = inside.call("guest-get-osinfo", Value::Null, AWAKE).await;
    told.is_ok_and(|info| info["id"] == "mswindows")
}

/// Takes the marked devices out of the guest, which is about to sleep.
pub(super) async fn leave(shared: &Shared, out: &Progress) -> Result<(), Report> {
    // It is brought to its end, also when the one who asked is gone.
    let (parking, out) = (Arc::clone(&shared.parking), out.clone());
    let done = tokio::spawn(async move { parking.leave(&out).await }).await;
    done.unwrap_or_else(|error| {
        Err(Report::new(
            ExitCode::Failed,
            format!("the supervisor failed: {error}"),
        ))
    })
}

/// The guest's agent, from beside it.
struct Direct<'a> {
    name: &'a str,
    agent: Agent,
}

impl Inside for Direct<'_> {
    fn guest(&self) -> &str {
        self.name
    }

    async fn call(
        &mut self,
        command: &str,
        arguments: Value,
        within: Duration,
    ) -> Result<Value, CallError> {
        let arguments = Some(arguments).filter(|arguments| !arguments.is_null());
        let done = self.agent.call(command, arguments, within).await;
        done.map_err(|error| match error {
            AgentError::Command { class, desc, .. } => CallError::Refused {
                command: command.to_owned(),
                class,
                desc,
                hints: Vec::new(),
            },
            other => CallError::Silent {
                sent: !matches!(other, AgentError::Silent { .. }),
                message: other.to_string(),
                hints: Vec::new(),
            },
        })
    }
}
