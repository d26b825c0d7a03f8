//! Where on the host QEMU's threads run, and how the host schedules them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::AccelKind;
use crate::error::{ExitCode, Hint};
use crate::host::{CpuFacts, RealtimeFacts};
use crate::ids::{Arch, Id};
use crate::profile::schema::{Layer, PolicyTable, SchedulerPolicy};
use crate::units::CpuList;

/// The priorities in real time.
const PRIORITIES: std::ops::RangeInclusive<u32> = 1..=99;

/// Where QEMU's threads run, and how. Nothing of it is left on the host when QEMU has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threads {
    /// What runs on no other.
    pub all: Option<CpuList>,
    /// Processors of the guest, by their numbers.
    pub vcpus: BTreeMap<u32, CpuList>,
    /// QEMU beside its processors and I/O threads.
    pub emulator: Option<CpuList>,
    /// I/O threads, by their names.
    #[serde(default)]
    pub iothreads: BTreeMap<Id, CpuList>,
    /// How processors are scheduled.
    pub vcpu_policy: Option<Policy>,
    /// How the rest of QEMU is scheduled.
    pub emulator_policy: Option<Policy>,
    /// How I/O threads are scheduled.
    #[serde(default)]
    pub iothread_policy: Option<Policy>,
}

/// How a thread is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The policy.
    pub policy: SchedulerPolicy,
    /// The priority; 0 for [`SchedulerPolicy::Other`].
    pub priority: u32,
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.policy {
            SchedulerPolicy::Other => write!(f, "{}", self.policy),
            SchedulerPolicy::Fifo | SchedulerPolicy::Rr => {
                write!(f, "{} {}", self.policy, self.priority)
            }
        }
    }
}

impl Threads {
    /// Whether all threads are as they come.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The CPUs that QEMU is started on: its first thread's, from which others inherit theirs.
    pub fn first(&self) -> Option<&CpuList> {
        self.emulator.as_ref().or(self.all.as_ref())
    }
}

/// Threads that cannot run as the profile wants it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ThreadError {
    /// A processor that the guest does not have.
    #[error("`pin.vcpu.{key}`: the guest has {count} processors, numbered from 0")]
    NoVcpu {
        /// The key.
        key: String,
        /// How many it has.
        count: u32,
    },
    /// An I/O thread that the guest does not have.
    #[error("`pin.iothread.{0}`: there is no `[iothread.{0}]`")]
    NoIothread(Id),
    /// I/O threads of a guest that has none.
    #[error("`scheduler.iothread`: the guest has no `[iothread.NAME]`")]
    NoIothreads,
    /// A text that is neither a list nor one of the two words.
    #[error("`cpu.host-cpus` is `{0}`; it is a list of CPUs as in `0-3,8`, `big` or `little`")]
    HostCpus(String),
    /// `big` or `little` where all are the same.
    #[error("`cpu.host-cpus = \"{0}\"`: this host does not tell several kinds of core apart")]
    OneKind(String),
    /// CPUs that are not there.
    #[error("`{key}` is `{wanted}`, and this host's CPUs are {online}")]
    Offline {
        /// The key.
        key: String,
        /// What it says.
        wanted: CpuList,
        /// What is online.
        online: String,
    },
    /// A priority that does not exist.
    #[error("`scheduler.{0}.priority` is {1}; in real time it is 1 to 99")]
    Priority(&'static str, u32),
    /// A priority outside real time.
    #[error("`scheduler.{0}.priority` is for the policies `fifo` and `rr`")]
    NoPriority(&'static str),
    /// This user may not.
    #[error(
        "`scheduler.{what}` asks for the priority {priority} in real time, and {}",
        may(*limit)
    )]
    NotAllowed {
        /// Whose.
        what: &'static str,
        /// The priority.
        priority: u32,
        /// What is allowed.
        limit: u32,
    },
}

fn may(limit: u32) -> String {
    match limit {
        0 => "this user may have no thread scheduled so".to_owned(),
        limit => format!("this user may have {limit} at most"),
    }
}

impl Hint for ThreadError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::OneKind(_) => vec!["name the CPUs, as in `cpu.host-cpus = \"0-3\"`".to_owned()],
            Self::NotAllowed { priority, .. } => vec![format!(
                "run mvm as root, or raise the limit of real-time priority to {priority}: \
                 `LimitRTPRIO=` of a unit, `rtprio` in /etc/security/limits.conf, `ulimit -r`"
            )],
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::OneKind(_) | Self::Offline { .. } | Self::NotAllowed { .. } => ExitCode::Host,
            _ => ExitCode::Profile,
        }
    }
}

/// What the threads depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'a> {
    /// How many processors the guest has.
    pub(super) count: u32,
    /// Its I/O threads.
    pub(super) iothreads: &'a [Id],
    /// The guest's architecture.
    pub(super) arch: Arch,
    /// The accelerator.
    pub(super) accel: AccelKind,
    /// The host's processors.
    pub(super) host: &'a CpuFacts,
    /// What may be scheduled in real time.
    pub(super) realtime: RealtimeFacts,
}

/// The threads.
pub(super) fn threads(
    layer: &Layer,
    around: Around,
    notes: &mut Vec<String>,
) -> Result<Threads, ThreadError> {
    let pin = layer.pin.clone().unwrap_or_default();
    let scheduler = layer.scheduler.clone().unwrap_or_default();
    let online = around.host.online_cpus();
    let there = |key: String, list: CpuList| {
        if list.cpus().iter().all(|cpu| online.contains(cpu)) {
            return Ok(list);
        }
        Err(ThreadError::Offline {
            key,
            wanted: list,
            online: CpuList::of(online.clone()).map_or_else(|| "unknown".to_owned(), String::from),
        })
    };
    let all = layer.cpu.as_ref().and_then(|cpu| cpu.host_cpus.as_deref());
    let all = all.map(|text| host_cpus(text, around.host)).transpose()?;
    let all = all.map(|list| there("cpu.host-cpus".to_owned(), list));
    let all = all.transpose()?;
    let mut vcpus = BTreeMap::new();
    for (key, list) in pin.vcpu.into_iter().flatten() {
        let digits = key.bytes().all(|byte| byte.is_ascii_digit());
        let number = key.parse().ok().filter(|_| digits);
        let Some(number) = number.filter(|number| *number < around.count) else {
            let count = around.count;
            return Err(ThreadError::NoVcpu { key, count });
        };
        vcpus.insert(number, there(format!("pin.vcpu.{key}"), list)?);
    }
    let mut iothreads = BTreeMap::new();
    for (name, list) in pin.iothread.into_iter().flatten() {
        if !around.iothreads.contains(&name) {
            return Err(ThreadError::NoIothread(name));
        }
        let list = there(format!("pin.iothread.{name}"), list)?;
        iothreads.insert(name, list);
    }
    if scheduler.iothread.is_some() && around.iothreads.is_empty() {
        return Err(ThreadError::NoIothreads);
    }
    let emulator = pin
        .emulator
        .map(|list| there("pin.emulator".to_owned(), list));
    let policy = |what, table: Option<PolicyTable>| match table {
        Some(table) => policy(what, &table, around.realtime),
        None => Ok(None),
    };
    let threads = Threads {
        all,
        vcpus,
        emulator: emulator.transpose()?,
        iothreads,
        vcpu_policy: policy("vcpu", scheduler.vcpu)?,
        emulator_policy: policy("emulator", scheduler.emulator)?,
        iothread_policy: policy("iothread", scheduler.iothread)?,
    };
    one_kind(&threads, around, notes);
    let free = (0..around.count).any(|number| !threads.vcpus.contains_key(&number));
    if threads
        .vcpu_policy
        .is_some_and(|policy| policy.priority > 0)
        && free
    {
        notes.push(
            "processors of the guest are scheduled in real time without a CPU of their own: \
             what else runs on this host may stand still; `[pin]` gives them one"
                .to_owned(),
        );
    }
    Ok(threads)
}

/// The CPUs that the text means.
fn host_cpus(text: &str, host: &CpuFacts) -> Result<CpuList, ThreadError> {
    if !matches!(text, "big" | "little") {
        return text
            .parse()
            .map_err(|_| ThreadError::HostCpus(text.to_owned()));
    }
    let kinds = host.kinds();
    let kind = match text {
        "little" => kinds.first(),
        _ => kinds.last(),
    };
    let several = kinds.len() > 1 && kinds.iter().all(|kind| kind.is_ranked());
    kind.filter(|_| several)
        .and_then(|kind| CpuList::of(kind.cpus.clone()))
        .ok_or_else(|| ThreadError::OneKind(text.to_owned()))
}

fn policy(
    what: &'static str,
    table: &PolicyTable,
    realtime: RealtimeFacts,
) -> Result<Option<Policy>, ThreadError> {
    let policy = table.policy.unwrap_or(SchedulerPolicy::Other);
    if policy == SchedulerPolicy::Other {
        return match table.priority {
            Some(_) => Err(ThreadError::NoPriority(what)),
            None => Ok(table.policy.map(|policy| Policy {
                policy,
                priority: 0,
            })),
        };
    }
    let priority = table.priority.unwrap_or(1);
    if !PRIORITIES.contains(&priority) {
        return Err(ThreadError::Priority(what, priority));
    }
    if !realtime.sys_nice && realtime.limit < priority {
        return Err(ThreadError::NotAllowed {
            what,
            priority,
            limit: realtime.limit,
        });
    }
    Ok(Some(Policy { policy, priority }))
}

/// KVM shows a guest the core that it runs on: where that changes its kind, kernels of the host have refused to
/// make the processor, and guests see registers that differ.
fn one_kind(threads: &Threads, around: Around, notes: &mut Vec<String>) {
    let kinds = around.host.kinds();
    if around.accel != AccelKind::Kvm || around.arch != Arch::Aarch64 || kinds.len() < 2 {
        return;
    }
    let online = around.host.online_cpus();
    let everywhere = CpuList::of(online);
    let spread = (0..around.count)
        .filter_map(|number| threads.vcpus.get(&number).or(threads.all.as_ref()))
        .chain(
            everywhere
                .iter()
                .filter(|_| threads.all.is_none() && threads.vcpus.len() < around.count as usize),
        );
    let used: Vec<bool> = {
        let cpus: Vec<u32> = spread.flat_map(CpuList::cpus).copied().collect();
        let of = |kind: &crate::host::cpu::CpuKind| kind.cpus.iter().any(|cpu| cpus.contains(cpu));
        kinds.iter().map(of).collect()
    };
    if used.iter().filter(|used| **used).count() > 1 {
        notes.push(
            "this host has several kinds of core, and under KVM a guest's processors want to stay on one: \
             `cpu.host-cpus = \"big\"` or `\"little\"` keeps them there"
                .to_owned(),
        );
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;
    use crate::host::CpuCluster;
    use crate::machine::testing;

    fn big_little() -> CpuFacts {
        let cluster = |cpus: &[u32], capacity| CpuCluster {
            cpus: cpus.to_vec(),
            midr: Some(capacity),
            capacity: Some(capacity),
            hybrid: None,
        };
        CpuFacts {
            online: 8,
            clusters: vec![cluster(&[0, 1, 2, 3], 400), cluster(&[4, 5, 6, 7], 1024)],
            ..CpuFacts::default()
        }
    }

    fn made(
        text: &str,
        host: &CpuFacts,
        accel: AccelKind,
    ) -> Result<(Threads, Vec<String>), ThreadError> {
        let mut notes = Vec::new();
        let around = Around {
            count: 2,
            iothreads: &["io".parse().unwrap()],
            arch: Arch::Aarch64,
            accel,
            host,
            realtime: RealtimeFacts {
                sys_nice: false,
                limit: 10,
            },
        };
        threads(&testing::layer(text), around, &mut notes).map(|threads| (threads, notes))
    }

    #[test]
    fn a_kind_of_core_is_a_set_of_cpus() {
        let host = big_little();
        let all = |text: &str| {
            let (threads, notes) = made(text, &host, AccelKind::Kvm).unwrap();
            (threads.all.map(String::from), notes.len())
        };
        assert_eq!(all("cpu.host-cpus = 'big'"), (Some("4-7".into()), 0));
        assert_eq!(all("cpu.host-cpus = 'little'"), (Some("0-3".into()), 0));
        // Told where processors could wander between kinds.
        assert_eq!(all("cpu.host-cpus = '3-4'"), (Some("3-4".into()), 1));
        assert_eq!(all(""), (None, 1));
        assert_eq!(all("pin.vcpu = { '0' = '4', '1' = '5' }"), (None, 0));
        assert_eq!(all("pin.vcpu = { '0' = '4', '1' = '3' }").1, 1);
        assert_eq!(all("pin.vcpu = { '0' = '4' }").1, 1);
        // TCG shows every guest the same.
        assert_eq!(made("", &host, AccelKind::Tcg).unwrap().1.len(), 0);
        let uniform = CpuFacts {
            online: 8,
            ..CpuFacts::default()
        };
        let error = made("cpu.host-cpus = 'big'", &uniform, AccelKind::Kvm).unwrap_err();
        assert_eq!(error, ThreadError::OneKind("big".into()));
        let error = made("cpu.host-cpus = 'fast'", &uniform, AccelKind::Kvm).unwrap_err();
        assert_eq!(error, ThreadError::HostCpus("fast".into()));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let host = big_little();
        let said = |text: &str| made(text, &host, AccelKind::Tcg).unwrap_err().to_string();
        assert_eq!(
            said("pin.vcpu = { '0' = '6-8' }"),
            "`pin.vcpu.0` is `6-8`, and this host's CPUs are 0-7"
        );
        assert_eq!(
            said("pin.emulator = '9'"),
            "`pin.emulator` is `9`, and this host's CPUs are 0-7"
        );
        assert_eq!(
            said("cpu.host-cpus = '0-9'"),
            "`cpu.host-cpus` is `0-9`, and this host's CPUs are 0-7"
        );
        assert_eq!(
            said("pin.iothread = { io = '8' }"),
            "`pin.iothread.io` is `8`, and this host's CPUs are 0-7"
        );
        assert_eq!(
            said("pin.iothread = { oi = '1' }"),
            "`pin.iothread.oi`: there is no `[iothread.oi]`"
        );
        for key in ["2", "x", "+1", "-1", "1-2"] {
            assert_eq!(
                said(&format!("pin.vcpu = {{ '{key}' = '1' }}")),
                format!("`pin.vcpu.{key}`: the guest has 2 processors, numbered from 0")
            );
        }
    }

    #[test]
    fn real_time_has_limits() {
        let host = big_little();
        let of = |text: &str| {
            made(text, &host, AccelKind::Tcg)
                .map(|(threads, notes)| (threads.vcpu_policy, notes.len()))
        };
        let policy = |policy, priority| Some(Policy { policy, priority });
        assert_eq!(
            of("scheduler.vcpu = { policy = 'fifo' }").unwrap(),
            (policy(SchedulerPolicy::Fifo, 1), 1)
        );
        let pinned = "pin.vcpu = { '0' = '1', '1' = '2' }\nscheduler.vcpu = { policy = 'rr', priority = 10 }";
        assert_eq!(of(pinned).unwrap(), (policy(SchedulerPolicy::Rr, 10), 0));
        assert_eq!(
            of("scheduler.vcpu.policy = 'other'").unwrap(),
            (policy(SchedulerPolicy::Other, 0), 0)
        );
        let said = |text: &str| of(text).unwrap_err().to_string();
        assert_eq!(
            said("scheduler.vcpu = { policy = 'fifo', priority = 11 }"),
            "`scheduler.vcpu` asks for the priority 11 in real time, and this user may have 10 at most"
        );
        assert_eq!(
            said("scheduler.vcpu = { policy = 'fifo', priority = 100 }"),
            "`scheduler.vcpu.priority` is 100; in real time it is 1 to 99"
        );
        assert_eq!(
            said("scheduler.emulator = { priority = 3 }"),
            "`scheduler.emulator.priority` is for the policies `fifo` and `rr`"
        );
    }
}
