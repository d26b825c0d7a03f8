//! QEMU's threads where the profile wants them, before the guest's first instruction: they are known from when
//! QEMU's monitor answers.

use std::collections::BTreeMap;
use std::io;

use mvm_qmp::{Qmp, QmpError};
use serde_json::{Value, json};

use crate::machine::threads::Policy;
use crate::machine::{Machine, Threads};
use crate::ops::threads as ops;
use crate::units::CpuList;

/// What is wanted of QEMU's threads and processors.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    threads: Threads,
    iothreads: bool,
    features: BTreeMap<String, bool>,
}

/// Threads that are not as the profile wants them. What to do about it is in the table of [`super::explain`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum ThreadsError {
    /// QEMU does not answer.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// An answer that says too little.
    #[error("QEMU does not tell its threads: {0}")]
    Strange(String),
    /// Processors that share a thread.
    #[error(
        "`[pin]` and `[scheduler]`: QEMU runs all processors of this guest in one thread, as TCG does for some \
         guests of another architecture"
    )]
    OneThread,
    /// One could not be moved.
    #[error("{who} cannot be moved to the host's CPUs {list}: {source}")]
    Pin {
        /// Whose thread.
        who: String,
        /// Where to.
        list: CpuList,
        /// Why not.
        source: io::Error,
    },
    /// The kernel took some of the CPUs only.
    #[error("{who} is to run on the host's CPUs {wanted} and runs on {found}")]
    Elsewhere {
        /// Whose thread.
        who: String,
        /// Where it is to be.
        wanted: CpuList,
        /// Where it is.
        found: CpuList,
    },
    /// One could not be scheduled so.
    #[error("{who} cannot be scheduled as {policy}: {source}")]
    Schedule {
        /// Whose thread.
        who: String,
        /// How.
        policy: Policy,
        /// Why not.
        source: io::Error,
    },
    /// A feature that is not as it was asked for.
    #[error("`cpu.features.{name} = {wanted}`: the guest's processor has it {}", on(!wanted))]
    Feature {
        /// The feature.
        name: String,
        /// What was asked for.
        wanted: bool,
    },
}

const fn on(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

impl Wanted {
    /// All that this machine wants.
    pub(crate) fn of(machine: &Machine) -> Self {
        Self {
            threads: machine.threads.clone(),
            iothreads: !machine.iothreads.is_empty(),
            features: machine.cpu.features.clone(),
        }
    }

    fn is_nothing(&self) -> bool {
        self.threads.is_default() && self.features.is_empty()
    }

    /// Makes it so, and looks that it is.
    ///
    /// # Errors
    /// What is not so; the guest is not to run.
    pub(crate) async fn make(&self, qmp: &Qmp, process: u32) -> Result<(), ThreadsError> {
        if self.is_nothing() {
            return Ok(());
        }
        let cpus = processors(qmp).await?;
        if let Some(cpu) = cpus.first() {
            self.look_at_features(qmp, &cpu.path).await?;
        }
        let threads = &self.threads;
        if threads.is_default() {
            return Ok(());
        }
        let mut numbers: Vec<u32> = cpus.iter().map(|cpu| cpu.thread).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let told_apart = !threads.vcpus.is_empty() || threads.vcpu_policy.is_some();
        if numbers.len() < cpus.len() && told_apart {
            return Err(ThreadsError::OneThread);
        }
        // QEMU was started where the emulator is: what is not pinned goes where everything is, or anywhere.
        let elsewhere = match (&threads.all, &threads.emulator) {
            (Some(all), _) => Some(all.clone()),
            (None, Some(_)) => Some(anywhere()?),
            (None, None) => None,
        };
        for cpu in &cpus {
            let who = format!("processor {}", cpu.number);
            if let Some(list) = threads.vcpus.get(&cpu.number).or(elsewhere.as_ref()) {
                pin(&who, cpu.thread, list)?;
            }
            schedule(&who, cpu.thread, threads.vcpu_policy)?;
        }
        if self.iothreads {
            for (name, thread) in iothreads(qmp).await? {
                let who = format!("I/O thread {name}");
                let own = threads.iothreads.iter().find(|(id, _)| id.as_str() == name);
                let own = own.map(|(_, list)| list);
                if let Some(list) = own.or(elsewhere.as_ref()) {
                    pin(&who, thread, list)?;
                }
                schedule(&who, thread, threads.iothread_policy)?;
                numbers.push(thread);
            }
        }
        let rest = ops::of_process(process).unwrap_or_default();
        for thread in rest.into_iter().filter(|thread| !numbers.contains(thread)) {
            let gone = |error: &ThreadsError| match error {
                ThreadsError::Pin { source, .. } | ThreadsError::Schedule { source, .. } => {
                    source.raw_os_error() == Some(nix::libc::ESRCH)
                }
                _ => false,
            };
            let place = || {
                if let Some(list) = threads.first() {
                    pin("QEMU", thread, list)?;
                }
                schedule("QEMU", thread, threads.emulator_policy)
            };
            match place() {
                // Workers come and go.
                Err(error) if gone(&error) => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// The same of a guest that runs: what it was started with is kept, and only told where it is not so.
    pub(crate) async fn renew(&self, qmp: &Qmp, process: u32) {
        if let Err(error) = self.make(qmp, process).await {
            tracing::warn!(%error, "threads of the guest are not where its profile wants them");
        }
    }

    /// QEMU switches off what its accelerator lacks and goes on with a warning: what came of it is asked.
    async fn look_at_features(&self, qmp: &Qmp, path: &str) -> Result<(), ThreadsError> {
        for (name, wanted) in &self.features {
            let question = json!({ "path": path, "property": name });
            let found = qmp.call("qom-get", Some(question)).await?;
            if found.as_bool() != Some(*wanted) {
                return Err(ThreadsError::Feature {
                    name: name.clone(),
                    wanted: *wanted,
                });
            }
        }
        Ok(())
    }
}

/// A processor of the guest.
struct Processor {
    number: u32,
    thread: u32,
    path: String,
}

async fn processors(qmp: &Qmp) -> Result<Vec<Processor>, ThreadsError> {
    let answer = qmp.call("query-cpus-fast", None).await?;
    let one = |cpu: &Value| {
        let number = |key: &str| u32::try_from(cpu.get(key)?.as_u64()?).ok();
        Some(Processor {
            number: number("cpu-index")?,
            thread: number("thread-id")?,
            path: cpu.get("qom-path")?.as_str()?.to_owned(),
        })
    };
    let all: Option<Vec<Processor>> = answer.as_array().into_iter().flatten().map(one).collect();
    all.filter(|all| !all.is_empty())
        .ok_or_else(|| ThreadsError::Strange(answer.to_string()))
}

/// The I/O threads, by their names.
async fn iothreads(qmp: &Qmp) -> Result<Vec<(String, u32)>, ThreadsError> {
    let answer = qmp.call("query-iothreads", None).await?;
    let one = |thread: &Value| {
        let id = thread.get("id")?.as_str()?.to_owned();
        Some((id, u32::try_from(thread.get("thread-id")?.as_u64()?).ok()?))
    };
    let all: Option<Vec<_>> = answer.as_array().into_iter().flatten().map(one).collect();
    all.ok_or_else(|| ThreadsError::Strange(answer.to_string()))
}

/// Where this process may run, and with it all that is not said.
fn anywhere() -> Result<CpuList, ThreadsError> {
    ops::cpus(0).map_err(|error| ThreadsError::Strange(error.to_string()))
}

fn pin(who: &str, thread: u32, list: &CpuList) -> Result<(), ThreadsError> {
    let failed = |source| ThreadsError::Pin {
        who: who.to_owned(),
        list: list.clone(),
        source,
    };
    if ops::cpus(thread).map_err(failed)? == *list {
        return Ok(());
    }
    ops::pin(thread, list).map_err(failed)?;
    let found = ops::cpus(thread).map_err(failed)?;
    if found != *list {
        return Err(ThreadsError::Elsewhere {
            who: who.to_owned(),
            wanted: list.clone(),
            found,
        });
    }
    Ok(())
}

fn schedule(who: &str, thread: u32, policy: Option<Policy>) -> Result<(), ThreadsError> {
    let Some(wanted) = policy else { return Ok(()) };
    let failed = |source| ThreadsError::Schedule {
        who: who.to_owned(),
        policy: wanted,
        source,
    };
    let Policy { policy, priority } = wanted;
    let as_wanted = (ops::number(policy), i32::try_from(priority).unwrap_or(-1));
    if ops::scheduling(thread).map_err(failed)? == as_wanted {
        return Ok(());
    }
    ops::schedule(thread, policy, priority).map_err(failed)?;
    if ops::scheduling(thread).map_err(failed)? != as_wanted {
        return Err(failed(io::Error::other("the kernel keeps it as it was")));
    }
    Ok(())
}
