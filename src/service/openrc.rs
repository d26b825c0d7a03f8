//! OpenRC: a script in `/etc/init.d`, run by `supervise-daemon`, which starts its program anew however that
//! ends. A guest that is to stay stopped therefore asks OpenRC to stop its service ([`super::rest`]).

use super::{
    Around, DELAY, Guest, Host, Item, Kind, PERIOD, STARTS, Set, autostart_words, exports, head,
    quote, recover_words, run_words, stop_all_words, stop_seconds,
};

/// Where the scripts are.
pub(super) const SCRIPTS: &str = "/etc/init.d";

pub(super) fn files(kind: Kind<'_>, around: &Around) -> Set {
    let name = kind.service();
    let path = format!("{SCRIPTS}/{name}");
    let body = match kind {
        Kind::Guest(guest) => guest_script(guest, around),
        Kind::Host(host) => host_script(host, around),
    };
    let mut items = vec![Item::File {
        path: path.clone().into(),
        mode: 0o755,
        text: format!(
            "#!/sbin/openrc-run\n{}{}{body}",
            head(kind, around),
            exports(around)
        ),
    }];
    // As `rc-update add mvm default` makes it.
    if let Kind::Host(_) = kind {
        items.push(Item::Link {
            path: format!("/etc/runlevels/default/{name}").into(),
            target: path.into(),
        });
    }
    Set {
        items,
        notes: Vec::new(),
    }
}

fn guest_script(guest: &Guest, around: &Around) -> String {
    let words = run_words(guest, around);
    let (program, rest) = words.split_at(1);
    let limits = if guest.locks_memory {
        "rc_ulimit=\"-l unlimited\"\n"
    } else {
        ""
    };
    format!(
        "description={}\n\
         supervisor=supervise-daemon\n\
         # Both are read by a shell once more.\n\
         command={}\ncommand_args={}\n\
         retry=TERM/{}/KILL/5\n\
         respawn_delay={DELAY}\nrespawn_max={STARTS}\nrespawn_period={PERIOD}\n{limits}\n\
         depend() {{\n\tafter localmount net netmount bootmisc\n\tbefore mvm\n}}\n\n\
         stop_post() {{\n\t{}\n}}\n",
        quote::shell(&Kind::Guest(guest).description()),
        quote::shell(&quote::shell_words(program)),
        quote::shell(&quote::shell_words(rest)),
        stop_seconds(guest.stop),
        quote::shell_words(&recover_words(guest, around)),
    )
}

fn host_script(host: &Host, around: &Around) -> String {
    format!(
        "description={}\n\n\
         depend() {{\n\tafter localmount net netmount bootmisc\n}}\n\n\
         start() {{\n\tebegin \"Starting guests\"\n\t{}\n\t# One that does not start leaves the others as they are.\n\teend 0\n}}\n\n\
         stop() {{\n\tebegin \"Stopping guests\"\n\t{}\n\teend $?\n}}\n",
        quote::shell(&Kind::Host(host).description()),
        quote::shell_words(&autostart_words(around)),
        quote::shell_words(&stop_all_words(host, around)),
    )
}
