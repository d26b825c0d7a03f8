//! systemd: `mvm@NAME.service` for a guest, `mvm.service` for the host, of the system or of a user.
//!
//! A guest's unit is of type notify, so `systemctl start` returns when QEMU runs. `KillMode=process` leaves
//! QEMU to its supervisor: a stop is the guest's own shutdown, and a supervisor that dies leaves a guest that
//! the next start adopts. The ping of the watchdog comes from the supervisor's loop.
//!
//! Guests are ordered before `mvm.service`, which is therefore stopped first when the host shuts down, and stops
//! all guests in their order.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::{
    AGAIN, Around, DELAY, Guest, Host, Item, Kind, PERIOD, START, STARTS, Set, autostart_words,
    head, quote, recover_words, run_words, stop_all_words, stop_seconds,
};
use crate::ids::GuestName;

/// Where units of the system are.
const SYSTEM: &str = "/etc/systemd/system";
/// Seconds without a ping after which the supervisor's loop is taken for dead.
const WATCHDOG: u32 = 60;
/// The first version that waits longer from restart to restart.
const STEPS: u32 = 254;

/// The unit of a guest.
pub(super) fn unit(name: &GuestName) -> String {
    format!("mvm@{name}.service")
}

fn folder(around: &Around) -> PathBuf {
    around.user.clone().unwrap_or_else(|| SYSTEM.into())
}

pub(super) fn files(kind: Kind<'_>, around: &Around) -> Set {
    let folder = folder(around);
    let (name, text) = match kind {
        Kind::Guest(guest) => (unit(&guest.name), guest_unit(guest, around)),
        Kind::Host(host) => ("mvm.service".to_owned(), host_unit(host, around)),
    };
    let mut items = vec![Item::File {
        path: folder.join(&name),
        mode: 0o644,
        text: head(kind, around) + &text,
    }];
    let mut notes = Vec::new();
    match kind {
        // As `systemctl enable` makes it.
        Kind::Host(_) => items.push(Item::Link {
            path: folder.join(format!("{}.wants", target(around))).join(&name),
            target: PathBuf::from("..").join(&name),
        }),
        Kind::Guest(guest) if guest.locks_memory && around.user.is_some() => notes.push(
            "the unit can raise the limit of locked memory only as far as user@.service has it"
                .to_owned(),
        ),
        Kind::Guest(_) => {}
    }
    Set { items, notes }
}

/// What wants the units that start with the host.
fn target(around: &Around) -> &'static str {
    if around.user.is_some() {
        "default.target"
    } else {
        "multi-user.target"
    }
}

fn environment(around: &Around) -> String {
    let lines = around.environment.iter();
    lines
        .map(|(name, value)| {
            format!(
                "Environment={}\n",
                quote::systemd(&format!("{name}={value}"))
            )
        })
        .collect()
}

/// What the system's units wait for; those of a user begin when all that is there.
fn after(around: &Around, more: &str) -> String {
    let state = quote::systemd(&around.state);
    match around.user {
        Some(_) => String::new(),
        None => format!("After=network.target remote-fs.target{more}\nRequiresMountsFor={state}\n"),
    }
}

fn guest_unit(guest: &Guest, around: &Around) -> String {
    let mut text = format!(
        "[Unit]\nDescription={}\n{}Before=mvm.service\nStartLimitIntervalSec={PERIOD}\nStartLimitBurst={STARTS}\n\n\
         [Service]\nType=notify\n{}ExecStart={}\nExecStopPost={}\n\
         KillMode=process\nOOMPolicy=continue\n\
         Restart=on-failure\nSuccessExitStatus={AGAIN}\nRestartForceExitStatus={AGAIN}\n\
         RestartPreventExitStatus=1 2 3 4 5\nRestartSec={DELAY}\n",
        Kind::Guest(guest).description(),
        after(around, ""),
        environment(around),
        quote::systemd_command(&run_words(guest, around)),
        quote::systemd_command(&recover_words(guest, around)),
    );
    // Older ones complain of keys that they do not know.
    if around.systemd.is_some_and(|version| version >= STEPS) {
        text.push_str("RestartSteps=5\nRestartMaxDelaySec=60\n");
    }
    // Writing into a text does not fail.
    let _ = write!(
        text,
        "TimeoutStartSec={}\nTimeoutStopSec={}\nWatchdogSec={WATCHDOG}\n",
        START.as_secs(),
        stop_seconds(guest.stop)
    );
    if guest.locks_memory {
        text.push_str("LimitMEMLOCK=infinity\n");
    }
    let _ = write!(text, "\n[Install]\nWantedBy={}\n", target(around));
    text
}

/// What stops the guests is no `ExecStop`, which is not run where the unit is stopped while it still starts guests.
fn host_unit(host: &Host, around: &Around) -> String {
    format!(
        "[Unit]\nDescription={}\n{}\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\n{}\
         ExecStart=-{}\nExecStopPost={}\nKillMode=process\n\
         TimeoutStartSec=infinity\nTimeoutStopSec={}\n\n\
         [Install]\nWantedBy={}\n",
        Kind::Host(host).description(),
        after(around, " network-online.target"),
        environment(around),
        quote::systemd_command(&autostart_words(around)),
        quote::systemd_command(&stop_all_words(host, around)),
        stop_seconds(host.stop),
        target(around),
    )
}
