//! What makes guests sleep and wake with their host: `mvm sleep pre` before it, `mvm sleep post` after it.
//!
//! systemd: a unit that the host's sleep requires, so that it does not sleep where `pre` refuses. It begins
//! before `sleep.target`, where nothing of any user is frozen yet, and is stopped when the sleep is over.
//! Elsewhere it is elogind's hook, or a program that puts the host to sleep, which acpid may call.

use std::path::PathBuf;

use super::{
    Around, Item, ServiceError, Set, expect_writable, exports, quote, runtime_line, words,
};
use crate::host::Init;

/// Seconds after which systemd gives up: each guest has a deadline of its own, and they run at the same time.
const LONGEST: u32 = 1800;
/// The template of systemd's units; the instance is how the host sleeps.
const UNIT: &str = "/etc/systemd/system/mvm-sleep@.service";
/// What puts a host without systemd or elogind to sleep.
const PROGRAM: &str = "/usr/sbin/mvm-host-sleep";

/// What of the host, beside its init, calls hooks around its sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Callers {
    /// elogind, which runs hooks as systemd-sleep does.
    pub elogind: bool,
    /// acpid, which runs programs at events such as a sleep key.
    pub acpid: bool,
}

/// What tells a file of ours.
pub fn mark() -> String {
    "# mvm-unit: sleep".to_owned()
}

/// The files for a host with these callers; without them all that there may be.
///
/// # Errors
/// The init cannot have it.
pub fn files(around: &Around, callers: Option<Callers>) -> Result<Set, ServiceError> {
    if around.user.is_some() {
        return Err(ServiceError::OfTheSystem);
    }
    let values = around.environment.iter().map(|(_, value)| value);
    for text in values.chain([&around.program, &around.runtime]) {
        expect_writable(text, around.init)?;
    }
    if around.init == Init::Systemd {
        return Ok(systemd(around));
    }
    let is = |wanted: fn(Callers) -> bool| callers.is_none_or(wanted);
    let mut set = Set::default();
    if is(|callers| callers.elogind) {
        set.items.push(file(
            "/etc/elogind/system-sleep/mvm",
            0o755,
            format!(
                "#!/bin/sh\n{}{}{}",
                head(around),
                exports(around),
                hook(around)
            ),
        ));
        set.notes.push(
            "elogind sleeps although a hook refuses, unless its sleep.conf says `AllowSuspendInterrupts=yes`"
                .to_owned(),
        );
    }
    if is(|callers| !callers.elogind) {
        set.items.push(file(
            PROGRAM,
            0o755,
            format!(
                "#!/bin/sh\n{}{}{}",
                head(around),
                exports(around),
                program(around)
            ),
        ));
        set.notes.push(format!(
            "`{PROGRAM}` puts the host to sleep, its guests first: let that be called where it sleeps"
        ));
    }
    if is(|callers| callers.acpid && !callers.elogind) {
        set.items.push(file(
            "/etc/acpi/events/mvm-sleep",
            0o644,
            format!(
                "{}event=button/sleep.*\naction={PROGRAM} suspend\n",
                head(around)
            ),
        ));
        set.notes.push(
            "acpid runs all that answers an event: take out what else answers `button/sleep` in /etc/acpi/events"
                .to_owned(),
        );
    }
    Ok(set)
}

fn file(path: &str, mode: u32, text: String) -> Item {
    Item::File {
        path: path.into(),
        mode,
        text,
    }
}

fn head(around: &Around) -> String {
    format!(
        "{}\n{}\n# Written by `mvm unit --sleep --install`; `mvm unit --sleep --remove` takes it away.\n",
        mark(),
        runtime_line(&around.runtime)
    )
}

fn systemd(around: &Around) -> Set {
    let environment: String = around
        .environment
        .iter()
        .map(|(name, value)| {
            format!(
                "Environment={}\n",
                quote::systemd(&format!("{name}={value}"))
            )
        })
        .collect();
    // `%i` is read by systemd: it must not be quoted away.
    let pre = quote::systemd_command(&words(&around.program, &["sleep", "pre"]));
    let post = quote::systemd_command(&words(&around.program, &["sleep", "post"]));
    let text = format!(
        "{}[Unit]\nDescription=mvm guests before and after the host sleeps (%i)\n\
         Before=sleep.target\nStopWhenUnneeded=yes\n\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\n{environment}\
         ExecStart={pre} %i\nExecStop={post} %i\n\
         TimeoutStartSec={LONGEST}\nTimeoutStopSec={LONGEST}\n",
        head(around)
    );
    let mut items = vec![file(UNIT, 0o644, text)];
    for (sleep, how) in [
        ("suspend", "suspend"),
        ("hibernate", "hibernate"),
        ("hybrid-sleep", "suspend"),
        ("suspend-then-hibernate", "suspend"),
    ] {
        items.push(Item::Link {
            path: PathBuf::from(format!(
                "/etc/systemd/system/systemd-{sleep}.service.requires/mvm-sleep@{how}.service"
            )),
            target: "../mvm-sleep@.service".into(),
        });
    }
    Set {
        items,
        notes: Vec::new(),
    }
}

fn hook(around: &Around) -> String {
    let pre = |how| quote::shell_words(&words(&around.program, &["sleep", "pre", how]));
    let post = quote::shell_words(&words(&around.program, &["sleep", "post"]));
    format!(
        "case $1:$2 in\npre:hibernate) exec {} ;;\npre:*) exec {} ;;\npost:*) exec {post} ;;\nesac\n",
        pre("hibernate"),
        pre("suspend"),
    )
}

fn program(around: &Around) -> String {
    let pre = quote::shell_words(&words(&around.program, &["sleep", "pre"]));
    let post = quote::shell_words(&words(&around.program, &["sleep", "post"]));
    format!(
        "# Puts the host to sleep, its guests first. Word: suspend or hibernate; by default suspend.\n\
         how=${{1:-suspend}}\n\
         case $how in\nsuspend) state=mem ;;\nhibernate) state=disk ;;\n\
         *)\n\techo \"usage: ${{0##*/}} [suspend|hibernate]\" >&2\n\texit 2\n\t;;\nesac\n\
         {pre} \"$how\" || exit\n\
         echo $state >/sys/power/state\nstatus=$?\n\
         {post}\nexit $status\n"
    )
}
