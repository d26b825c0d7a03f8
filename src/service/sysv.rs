//! System V init: a script with LSB headers in `/etc/init.d`. Nothing watches what it started: mvm's own
//! supervisor keeps the restart policy, and one that dies is replaced by `mvm recover` or the next start.

use super::{
    Around, Guest, Host, Item, Kind, Set, autostart_words, exports, head, quote, stop_all_words,
    stop_words, words,
};

pub(super) fn files(kind: Kind<'_>, around: &Around) -> Set {
    let name = kind.service();
    let body = match kind {
        Kind::Guest(guest) => guest_script(guest, around),
        Kind::Host(host) => host_script(host, around),
    };
    let info = format!(
        "### BEGIN INIT INFO\n# Provides:          {name}\n\
         # Required-Start:    $local_fs $remote_fs $network\n\
         # Required-Stop:     $local_fs $remote_fs $network\n\
         # Default-Start:     2 3 4 5\n# Default-Stop:      0 1 6\n\
         # Short-Description: {}\n### END INIT INFO\n",
        kind.description()
    );
    let mut items = vec![Item::File {
        path: format!("/etc/init.d/{name}").into(),
        mode: 0o755,
        text: format!(
            "#!/bin/sh\n{info}{}{}{body}",
            head(kind, around),
            exports(around)
        ),
    }];
    // As `update-rc.d mvm defaults` makes them.
    if let Kind::Host(_) = kind {
        for level in 0..=6 {
            let link = if (2..=5).contains(&level) {
                "S99"
            } else {
                "K01"
            };
            items.push(Item::Link {
                path: format!("/etc/rc{level}.d/{link}{name}").into(),
                target: format!("../init.d/{name}").into(),
            });
        }
    }
    let notes =
        vec!["System V init starts no supervisor anew that died: `mvm recover` does".to_owned()];
    Set {
        items,
        notes: if let Kind::Guest(_) = kind {
            notes
        } else {
            Vec::new()
        },
    }
}

const USAGE: &str =
    "*)\n\techo \"usage: $0 start|stop|restart|force-reload|status\" >&2\n\texit 2\n\t;;\nesac\n";

fn guest_script(guest: &Guest, around: &Around) -> String {
    let name = guest.name.as_str();
    let running = words(
        &around.program,
        &["wait", name, "--for", "running", "--timeout", "1s"],
    );
    let start = words(
        &around.program,
        &["start", name, "--name", name, "--no-unit"],
    );
    format!(
        "running() {{\n\t{} >/dev/null 2>&1\n}}\n\
         start() {{\n\trunning || {}\n}}\n\
         stop() {{\n\t# 5: it did not run.\n\t{} || [ $? = 5 ]\n}}\n\n\
         case ${{1:-}} in\n\
         start) start ;;\nstop) stop ;;\nrestart | force-reload) stop && start ;;\n\
         status)\n\trunning && echo {} || {{\n\t\techo {}\n\t\texit 3\n\t}}\n\t;;\n{USAGE}",
        quote::shell_words(&running),
        quote::shell_words(&start),
        quote::shell_words(&stop_words(guest, around)),
        quote::shell(&format!("{name} is running")),
        quote::shell(&format!("{name} is not running")),
    )
}

fn host_script(host: &Host, around: &Around) -> String {
    let list = words(&around.program, &["list"]);
    format!(
        "start() {{\n\t{}\n}}\nstop() {{\n\t{}\n}}\n\n\
         case ${{1:-}} in\n\
         start) start ;;\nstop) stop ;;\nrestart | force-reload) stop && start ;;\n\
         status) {} ;;\n{USAGE}",
        quote::shell_words(&autostart_words(around)),
        quote::shell_words(&stop_all_words(host, around)),
        quote::shell_words(&list),
    )
}
