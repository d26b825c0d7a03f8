//! How an init is told to start a guest's service, and to leave it alone.

use super::{Around, openrc, service, systemd};
use crate::host::Init;
use crate::ids::GuestName;

/// What a supervisor does at the end of a guest that is to stay stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    /// It ends: its exit status says all.
    End,
    /// The init would start it anew: these words make it stop the service first, which ends the supervisor.
    Ask(Vec<String>),
    /// The init would start it anew and takes no word: it stays until it is told to end.
    Stay,
}

/// What that init needs.
pub fn at_rest(init: Init, name: &GuestName) -> Rest {
    match init {
        Init::Systemd | Init::Runit | Init::S6 | Init::Sysv => Rest::End,
        Init::Openrc => Rest::Ask(vec![
            "rc-service".to_owned(),
            service(name),
            "stop".to_owned(),
        ]),
        Init::Procd => Rest::Ask(vec![script(name), "stop".to_owned()]),
        Init::Busybox => Rest::Stay,
    }
}

/// The descriptor on which that init hears of a service that it is ready.
pub fn ready_fd(init: Init) -> Option<u8> {
    (init == Init::S6).then_some(super::s6::READY)
}

fn script(name: &GuestName) -> String {
    format!("{}/{}", openrc::SCRIPTS, service(name))
}

/// The words that start a guest's service; `None` where the init has none.
pub fn start(around: &Around, name: &GuestName) -> Option<Vec<String>> {
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
    let unit = systemd::unit(name);
    let service = service(name);
    match around.init {
        Init::Systemd if around.user.is_some() => words(&["systemctl", "--user", "start", &unit]),
        Init::Systemd => words(&["systemctl", "start", &unit]),
        Init::Openrc => words(&["rc-service", &service, "start"]),
        Init::Procd | Init::Sysv => words(&[&script(name), "start"]),
        Init::Runit => words(&["sv", "start", &format!("{}/{service}", around.runit)]),
        Init::S6 => words(&["s6-svc", "-u", &format!("/run/service/{service}")]),
        Init::Busybox => None,
    }
}

/// The words that take such a start back whose time is over.
pub fn cancel(around: &Around, name: &GuestName) -> Option<Vec<String>> {
    let mut words = start(around, name)?;
    match around.init {
        Init::Systemd => {
            let unit = words.pop()?;
            words.pop();
            words.extend(["stop".to_owned(), "--no-block".to_owned(), unit]);
        }
        Init::S6 => {
            if let Some(flag) = words.iter_mut().find(|word| *word == "-u") {
                "-d".clone_into(flag);
            }
        }
        _ => {
            if let Some(verb) = words.iter_mut().find(|word| *word == "start") {
                "stop".clone_into(verb);
            }
        }
    }
    Some(words)
}

/// The words that make the init read what was installed or removed.
pub fn reload(around: &Around) -> Option<Vec<String>> {
    let words = match (around.init, &around.user) {
        (Init::Systemd, Some(_)) => ["systemctl", "--user", "daemon-reload"].as_slice(),
        (Init::Systemd, None) => &["systemctl", "daemon-reload"],
        _ => return None,
    };
    Some(words.iter().map(|word| (*word).to_owned()).collect())
}
