//! busybox init: lines of `/etc/inittab`. It has no words to start or stop one line: a guest's line starts with
//! the host, and its supervisor stays there, asleep, when the guest is to stay stopped ([`super::rest`]).

use super::{
    Around, Item, Kind, Set, autostart_words, quote, run_words, runtime_line, stop_all_words,
    stop_words,
};

/// The file.
const INITTAB: &str = "/etc/inittab";

pub(super) fn files(kind: Kind<'_>, around: &Around) -> Set {
    let (action, start, stop) = match kind {
        Kind::Guest(guest) => (
            "respawn",
            run_words(guest, around),
            stop_words(guest, around),
        ),
        Kind::Host(host) => (
            "once",
            autostart_words(around),
            stop_all_words(host, around),
        ),
    };
    let text = format!(
        "{}\n{}\n::{action}:{}\n::shutdown:{}\n",
        super::mark(kind),
        runtime_line(&around.runtime),
        line(start, around),
        line(stop, around)
    );
    let mut notes = vec!["`kill -HUP 1` lets init read its table now".to_owned()];
    if let Kind::Guest(_) = kind {
        notes.push(
            "the guest starts with the host: busybox init can start and stop no single line"
                .to_owned(),
        );
    }
    Set {
        items: vec![Item::Lines {
            path: INITTAB.into(),
            text,
        }],
        notes,
    }
}

/// A command as init hands it to a shell, after `exec`: variables need a program that sets them.
fn line(words: Vec<String>, around: &Around) -> String {
    let variables = around.environment.iter();
    let mut all: Vec<String> = variables
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if !all.is_empty() {
        all.insert(0, "/usr/bin/env".to_owned());
    }
    all.extend(words);
    quote::shell_words(&all)
}
