//! A guest at run time: its directory, its start, its supervision, its end.

mod adopt;
mod agent;
pub mod asleep;
mod claim;
mod clock;
pub mod conflicts;
mod connect;
mod console;
mod control;
mod devices;
mod displays;
mod end;
pub mod error;
pub mod explain;
mod farewell;
mod feed;
mod goal;
mod hangup;
pub mod holders;
pub mod hostsleep;
mod hotplug;
pub mod inside;
mod launch;
pub mod leftovers;
mod lifecycle;
mod lives;
mod news;
mod notify;
pub mod presence;
pub mod process;
pub mod recover;
mod restart;
pub mod rundir;
pub mod saved;
mod shrink;
mod sidecar;
mod signals;
mod sleeper;
pub mod start;
pub mod state;
mod supervise;
mod threads;

#[cfg(test)]
mod orphan_tests;
#[cfg(test)]
mod sweep_tests;
#[cfg(test)]
mod testguest;
#[cfg(test)]
mod tests;

pub use claim::while_stopped;
pub use error::StartError;
pub use goal::Goal;
pub use presence::{Presence, list, look};
pub use recover::{Recovered, recover};
pub use restart::{Renew, Renewal};
pub use rundir::RunDir;
pub use start::{OnReady, Options, adopt, run};
pub use state::{Condition, Ended, GuestState, Reason};
