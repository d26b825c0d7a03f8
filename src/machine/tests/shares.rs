//! Shares that virtiofsd serves.

use super::super::testing::facts;
use super::{error, machine, machine_on, message};
use crate::error::{ExitCode, Report};
use crate::host::{HostFacts, OsRelease, Virtiofsd, VirtiofsdKind};

fn share(rest: &str) -> String {
    format!("[share.data]\npath = \"/srv/a,b\"\n{rest}")
}

/// A host with the virtiofsd written in Rust.
fn rust(readonly: bool) -> HostFacts {
    let mut facts = facts();
    facts.programs.virtiofsd = Some(Virtiofsd {
        path: "/usr/libexec/virtiofsd".into(),
        kind: VirtiofsdKind::Rust,
        readonly,
    });
    facts
}

fn args(text: &str, facts: &HostFacts) -> String {
    let machine = machine_on(text, facts).unwrap();
    let sidecars = machine.sidecars();
    assert_eq!(sidecars.len(), 1);
    assert_eq!(sidecars[0].name, "share-data");
    sidecars[0].args.join(" ")
}

#[test]
fn each_virtiofsd_has_its_own_options() {
    let own = facts();
    let with = |rest: &str, facts: &HostFacts| args(&share(rest), facts);
    assert_eq!(
        with("virtiofs = {}", &own),
        "--fd={socket} -o source=/srv/a\\,b -o cache=auto,sandbox=namespace,no_xattr,log_level=warn"
    );
    let all = "virtiofs = { cache = \"never\", xattr = true, sandbox = \"chroot\" }";
    assert_eq!(
        with(all, &own),
        "--fd={socket} -o source=/srv/a\\,b -o cache=none,sandbox=chroot,xattr,log_level=warn"
    );
    assert_eq!(
        with("virtiofs = {}", &rust(true)),
        "--fd={socket} --shared-dir=/srv/a,b --cache=auto --sandbox=namespace"
    );
    assert_eq!(
        with(&format!("read-only = true\n{all}"), &rust(true)),
        "--fd={socket} --shared-dir=/srv/a,b --cache=never --sandbox=chroot --xattr --readonly"
    );
}

#[test]
fn what_this_virtiofsd_cannot_is_an_error() {
    let missing = || {
        let mut facts = facts();
        facts.programs.virtiofsd = None;
        facts.os = OsRelease::parse("ID=debian\n");
        facts
    };
    let report = |rest: &str, facts: &HostFacts| -> Report {
        machine_on(&share(rest), facts).unwrap_err().into()
    };
    let absent = report("virtiofs = {}", &missing());
    assert_eq!(absent.code, ExitCode::Host);
    assert!(
        absent.hints[0].contains("apt install virtiofsd"),
        "{absent}"
    );
    // 9p goes without.
    assert!(machine_on(&share(""), &missing()).is_ok());

    let read_only = "read-only = true\nvirtiofs = {}";
    for host in [facts(), rust(false)] {
        let refused = report(read_only, &host);
        assert_eq!(refused.code, ExitCode::Host);
        assert!(
            refused.chain[0].contains("`read-only` is beyond"),
            "{refused}"
        );
    }
    for (rest, says) in [
        ("virtiofs = {}\nfmode = \"0644\"", "`fmode` is for 9p"),
        (
            "virtiofs = {}\nsecurity-model = \"none\"",
            "`security-model` is for 9p",
        ),
        ("virtiofs.queue-size = 100", "powers of two"),
        ("virtiofs.queue-size = 2048", "powers of two"),
        ("virtiofs.sandbox = \"none\"", "has no `sandbox = \"none\"`"),
    ] {
        assert!(message(&share(rest)).contains(says), "{rest}");
    }
    let tag = |length, more: &str| share(&format!("tag = \"{}\"\n{more}", "x".repeat(length)));
    assert!(machine(&tag(36, "virtiofs = {}")).is_ok());
    assert!(message(&tag(37, "virtiofs = {}")).contains("1 to 36 bytes"));
    assert!(message(&tag(36, "")).contains("1 to 31 bytes"));
    // The guest's memory is shared with it.
    let private = format!("memory.share = false\n{}", share("virtiofs = {}"));
    let private = error(&private);
    assert!(
        private.chain[0].contains("the virtiofsd of share `data`"),
        "{private}"
    );
}

#[test]
fn ordinary_users_need_the_one_written_in_rust() {
    let ordinary = |mut facts: HostFacts| {
        facts.users.uid = 1000;
        facts
    };
    let text = share("virtiofs = {}");
    let refused: Report = machine_on(&text, &ordinary(facts())).unwrap_err().into();
    assert_eq!(refused.code, ExitCode::Host);
    assert!(
        refused.chain[0].contains("needs root's rights"),
        "{refused}"
    );
    let served = args(&text, &ordinary(rust(true)));
    assert!(served.ends_with("--sandbox=none"), "{served}");
    let sandbox = share("virtiofs.sandbox = \"namespace\"");
    let refused: Report = machine_on(&sandbox, &ordinary(rust(true)))
        .unwrap_err()
        .into();
    assert!(refused.chain[0].contains("an ordinary user"), "{refused}");
}
