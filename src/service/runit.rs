//! runit: a folder in `/etc/sv` with `run` and `finish`, and a link to it where `runsvdir` looks. A guest has a
//! file `down` too: it waits for `mvm autostart` or `sv start`.

use super::{
    AGAIN, Around, DELAY, Item, Kind, Set, autostart_words, exports, head, quote, recover_words,
    run_words, stop_all_words,
};

pub(super) fn files(kind: Kind<'_>, around: &Around) -> Set {
    let name = kind.service();
    let folder = format!("/etc/sv/{name}");
    let script = |body: &str| {
        format!(
            "#!/bin/sh\n{}exec 2>&1\n{}{body}",
            head(kind, around),
            exports(around)
        )
    };
    let file = |name: &str, mode, text| Item::File {
        path: format!("{folder}/{name}").into(),
        mode,
        text,
    };
    let (run, finish, notes) = match kind {
        Kind::Guest(guest) => (
            format!(
                "{}exec {}\n",
                if guest.locks_memory {
                    "ulimit -l unlimited\n"
                } else {
                    ""
                },
                quote::shell_words(&run_words(guest, around))
            ),
            format!(
                "# -1: by a signal, with a QEMU that perhaps lives.\n\
                 {}\ncase $1 in\n{AGAIN} | -1) sleep {DELAY} ;;\n*) printf d >supervise/control ;;\nesac\n",
                quote::shell_words(&recover_words(guest, around))
            ),
            Vec::new(),
        ),
        Kind::Host(host) => (
            format!(
                "{}\n# It has started all; from here on it is there to be stopped.\nexec tail -f /dev/null\n",
                quote::shell_words(&autostart_words(around))
            ),
            format!(
                "exec {}\n",
                quote::shell_words(&stop_all_words(host, around))
            ),
            vec![format!(
                "runit ends all services at once, some seconds after it has told them: let its shutdown script \
                 (/etc/runit/rc.shutdown, /etc/rc.shutdown) run `mvm stop --all --within {}s --force` before",
                host.stop.as_secs()
            )],
        ),
    };
    let mut items = vec![
        file("run", 0o755, script(&run)),
        file("finish", 0o755, script(&finish)),
    ];
    if let Kind::Guest(_) = kind {
        items.push(file("down", 0o644, String::new()));
    }
    items.push(Item::Link {
        path: format!("{}/{name}", around.runit).into(),
        target: folder.into(),
    });
    Set { items, notes }
}
