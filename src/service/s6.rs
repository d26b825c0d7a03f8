//! s6: a service directory in `/etc/s6/sv`, for s6-rc (`type`) and for a bare `s6-svscan` alike. Whoever keeps
//! the services puts it into the database or the scan directory, which are not in `/etc`.

use super::{
    AGAIN, Around, DELAY, Item, Kind, Set, autostart_words, exports, head, quote, recover_words,
    run_words, stop_all_words,
};

/// Where the directories are.
const SERVICES: &str = "/etc/s6/sv";
/// The descriptor on which a supervisor tells that its guest runs.
pub(super) const READY: u8 = 3;

pub(super) fn files(kind: Kind<'_>, around: &Around) -> Set {
    let folder = format!("{SERVICES}/{}", kind.service());
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
    let (run, finish) = match kind {
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
                "# 256: by a signal, with a QEMU that perhaps lives. 125 is s6's word for: not again.\n\
                 {}\ncase $1 in\n{AGAIN} | 256) sleep {DELAY} ;;\n*) exit 125 ;;\nesac\n",
                quote::shell_words(&recover_words(guest, around))
            ),
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
        ),
    };
    // In milliseconds; 5 s are what s6 gives by itself, and devices take longer to be given back.
    let finish_time = match kind {
        Kind::Guest(_) => 60_000,
        Kind::Host(host) => super::stop_seconds(host.stop) * 1000,
    };
    let mut items = vec![
        file("run", 0o755, script(&run)),
        file("finish", 0o755, script(&finish)),
    ];
    if let Kind::Guest(_) = kind {
        items.push(file("notification-fd", 0o644, format!("{READY}\n")));
        items.push(file("down", 0o644, String::new()));
    }
    items.push(file("type", 0o644, "longrun\n".to_owned()));
    items.push(file("timeout-finish", 0o644, format!("{finish_time}\n")));
    Set {
        items,
        notes: vec![format!(
            "link {folder} into the scan directory, or compile it into the database of s6-rc: mvm changes neither"
        )],
    }
}
