//! Every file of every init, whole; and what a shell thinks of the scripts.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::*;

fn around(init: Init) -> Around {
    Around {
        init,
        program: "/usr/bin/mvm".to_owned(),
        environment: Vec::new(),
        runtime: "/run/mvm".to_owned(),
        state: "/var/lib/mvm".to_owned(),
        user: None,
        systemd: Some(252),
        runit: "/etc/service".to_owned(),
    }
}

/// Everything that needs quotes.
fn hostile(init: Init) -> Around {
    Around {
        program: "/opt/a b/50%$x/mvm".to_owned(),
        environment: vec![
            (
                "MVM_CONFIG_DIR".to_owned(),
                "/etc/it's \"100%\" $HOME\\".to_owned(),
            ),
            ("MVM_STATE_DIR".to_owned(), "/srv/`id`;b".to_owned()),
        ],
        state: "/srv/`id`;b".to_owned(),
        ..around(init)
    }
}

fn guest(locks_memory: bool) -> Guest {
    Guest {
        name: "web".parse().expect("a name"),
        stop: Duration::from_secs(60),
        locks_memory,
    }
}

fn host() -> Host {
    Host {
        stop: Duration::from_secs(120),
    }
}

fn show(set: &Set) -> String {
    let mut text = String::new();
    for item in &set.items {
        text += &match item {
            Item::File { path, mode, text } => {
                format!("==> {} {mode:o}\n{text}", path.display())
            }
            Item::Link { path, target } => {
                format!("==> {} -> {}\n", path.display(), target.display())
            }
            Item::Lines { path, text } => format!("==> in {}\n{text}", path.display()),
        };
    }
    for note in &set.notes {
        text += &format!("note: {note}\n");
    }
    text
}

#[test]
fn the_files_of_every_init() {
    for init in Init::ALL {
        let around = around(init);
        let plain = files(Kind::Guest(&guest(false)), &around).expect("it can be written");
        insta::assert_snapshot!(format!("{init}_guest"), show(&plain));
        let host = files(Kind::Host(&host()), &around).expect("it can be written");
        insta::assert_snapshot!(format!("{init}_host"), show(&host));
        let odd = files(Kind::Guest(&guest(true)), &hostile(init)).expect("it can be written");
        insta::assert_snapshot!(format!("{init}_quoted"), show(&odd));
    }
}

#[test]
fn what_runs_around_the_host_s_sleep() {
    use super::hostsleep::{Callers, files};
    let systemd = files(&around(Init::Systemd), None).expect("it can be written");
    insta::assert_snapshot!("systemd_sleep", show(&systemd));
    let quoted = files(&hostile(Init::Systemd), None).expect("it can be written");
    insta::assert_snapshot!("systemd_sleep_quoted", show(&quoted));
    for (name, elogind, acpid) in [
        ("elogind", true, true),
        ("acpid", false, true),
        ("plain", false, false),
    ] {
        let callers = Some(Callers { elogind, acpid });
        let set = files(&around(Init::Openrc), callers).expect("it can be written");
        insta::assert_snapshot!(format!("sleep_{name}"), show(&set));
        let odd = files(&hostile(Init::Busybox), callers);
        // `#` is no part of these words.
        for item in odd.expect("it can be written").items {
            if let Item::File {
                text, mode: 0o755, ..
            } = item
            {
                shell_accepts(&text);
            }
        }
    }
    let mut users = around(Init::Systemd);
    users.user = Some("/home/ann/.config/systemd/user".into());
    let error = files(&users, None).expect_err("it is the system's");
    assert_eq!(error, ServiceError::OfTheSystem);
}

#[test]
fn a_user_s_units_are_his_own_and_systemd_s() {
    let mut around = around(Init::Systemd);
    around.user = Some("/home/ann/.config/systemd/user".into());
    around.systemd = Some(257);
    let set = files(Kind::Guest(&guest(true)), &around).expect("it can be written");
    insta::assert_snapshot!("systemd_user", show(&set));
    let set = files(Kind::Host(&host()), &around).expect("it can be written");
    insta::assert_snapshot!("systemd_user_host", show(&set));
    around.init = Init::Runit;
    let error = files(Kind::Host(&host()), &around).expect_err("it has none");
    assert_eq!(error, ServiceError::NoUserUnits { init: Init::Runit });
}

#[test]
fn what_a_file_cannot_hold_is_refused() {
    for (init, program) in [
        (Init::Systemd, "/a\nb/mvm"),
        (Init::Busybox, "/a#b/mvm"),
        (Init::Runit, "/a\u{7}/mvm"),
    ] {
        let around = Around {
            program: program.to_owned(),
            ..around(init)
        };
        let error = files(Kind::Guest(&guest(false)), &around).expect_err("it is refused");
        assert!(matches!(error, ServiceError::Unwritable { .. }), "{error}");
    }
}

/// What a shell makes of a text: it is read and not run.
fn shell_accepts(text: &str) {
    let mut shell = Command::new("sh")
        .arg("-n")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut stdin = shell.stdin.take().expect("it was piped");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    let output = shell.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

#[test]
fn shells_accept_every_script_and_line() {
    let mut scripts = 0;
    for init in Init::ALL {
        for around in [around(init), hostile(init)] {
            let guest = guest(true);
            let host = host();
            for kind in [Kind::Guest(&guest), Kind::Host(&host)] {
                for item in files(kind, &around).expect("it can be written").items {
                    match item {
                        Item::File { text, .. } if text.starts_with("#!") => {
                            shell_accepts(&text);
                            scripts += 1;
                        }
                        Item::Lines { text, .. } => {
                            for line in text.lines().filter(|line| !line.starts_with('#')) {
                                let command = line.splitn(4, ':').nth(3).expect("four fields");
                                shell_accepts(&format!("exec {command}"));
                                scripts += 1;
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    assert_eq!(scripts, 4 * (1 + 2 + 2 + 1 + 2 + 1));
}

/// The words that a script hands on are the ones that were meant, through both readings of OpenRC.
#[test]
fn quoted_words_come_through_a_shell() {
    let around = hostile(Init::Openrc);
    let set = files(Kind::Guest(&guest(false)), &around).expect("it can be written");
    let Some(Item::File { text, .. }) = set.items.first() else {
        panic!("a script");
    };
    let script = format!(
        "{text}\neval \"printf '%s\\n' $command -- $command_args\"; printf '%s\\n' \"$MVM_CONFIG_DIR\""
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.pop(), Some("/etc/it's \"100%\" $HOME\\"));
    assert_eq!(lines.remove(0), around.program);
    assert_eq!(
        lines.join(" "),
        "-- run web --name web --no-console --unit openrc"
    );
}

#[test]
fn services_are_started_by_the_words_of_their_init() {
    let name: GuestName = "web".parse().expect("a name");
    let mut lines = String::new();
    for init in Init::ALL {
        let around = around(init);
        let line =
            |words: Option<Vec<String>>| words.map_or("-".to_owned(), |words| words.join(" "));
        lines += &format!(
            "{init}: {} | {} | {:?} | {}\n",
            line(rest::start(&around, &name)),
            line(rest::cancel(&around, &name)),
            rest::at_rest(init, &name),
            line(rest::reload(&around)),
        );
    }
    insta::assert_snapshot!(lines);
}
