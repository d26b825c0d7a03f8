//! procd: a script in `/etc/init.d` with an instance that procd starts anew however it ends. A guest that is to
//! stay stopped therefore asks procd to stop its service ([`super::rest`]).

use super::{
    Around, DELAY, Guest, Host, Item, Kind, PERIOD, STARTS, Set, autostart_words, head, quote,
    run_words, stop_all_words, stop_seconds,
};

pub(super) fn files(kind: Kind<'_>, around: &Around) -> Set {
    let name = kind.service();
    let script = format!("/etc/init.d/{name}");
    let body = match kind {
        Kind::Guest(guest) => guest_script(guest, around),
        Kind::Host(host) => host_script(host, around),
    };
    let mut items = vec![Item::File {
        path: script.into(),
        mode: 0o755,
        text: format!(
            "#!/bin/sh /etc/rc.common\n{}USE_PROCD=1\nSTART={START}\nSTOP={STOP}\n\n{body}",
            head(kind, around)
        ),
    }];
    // As `/etc/init.d/mvm enable` makes them.
    if let Kind::Host(_) = kind {
        for link in [format!("S{START}{name}"), format!("K{STOP}{name}")] {
            items.push(Item::Link {
                path: format!("/etc/rc.d/{link}").into(),
                target: format!("../init.d/{name}").into(),
            });
        }
    }
    Set {
        items,
        notes: Vec::new(),
    }
}

/// Last of all.
const START: u8 = 99;
/// Before the network goes.
const STOP: u8 = 10;

fn environment(around: &Around) -> String {
    let variables: Vec<String> = around
        .environment
        .iter()
        .map(|(name, value)| quote::shell(&format!("{name}={value}")))
        .collect();
    if variables.is_empty() {
        return String::new();
    }
    format!("\tprocd_set_param env {}\n", variables.join(" "))
}

/// The words with the variables before them.
fn command(words: &[String], around: &Around) -> String {
    let variables = around.environment.iter();
    let variables: String = variables
        .map(|(name, value)| format!("{name}={} ", quote::shell(value)))
        .collect();
    variables + &quote::shell_words(words)
}

fn guest_script(guest: &Guest, around: &Around) -> String {
    let limits = if guest.locks_memory {
        "\tprocd_set_param limits memlock=\"unlimited unlimited\"\n"
    } else {
        ""
    };
    format!(
        "start_service() {{\n\tprocd_open_instance\n\
         \tprocd_set_param command {}\n{}{limits}\
         \tprocd_set_param respawn {PERIOD} {DELAY} {STARTS}\n\
         \tprocd_set_param term_timeout {}\n\
         \tprocd_set_param stdout 1\n\tprocd_set_param stderr 1\n\
         \tprocd_close_instance\n}}\n",
        quote::shell_words(&run_words(guest, around)),
        environment(around),
        stop_seconds(guest.stop),
    )
}

fn host_script(host: &Host, around: &Around) -> String {
    format!(
        "start_service() {{\n\tprocd_open_instance\n\
         \tprocd_set_param command {}\n{}\
         \tprocd_set_param stdout 1\n\tprocd_set_param stderr 1\n\
         \tprocd_close_instance\n}}\n\n\
         stop_service() {{\n\t{}\n}}\n",
        quote::shell_words(&autostart_words(around)),
        environment(around),
        command(&stop_all_words(host, around), around),
    )
}
