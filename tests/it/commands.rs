//! The shape of the command line itself.

use std::io::Read as _;
use std::process::Stdio;

use crate::env::TestEnv;

/// `UPDATE_DOCS=1 cargo test --test it commands` writes it anew.
#[test]
fn the_reference_of_commands_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/commands.md");
    let made = mvm::cli::markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &made).expect("docs can be written");
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        there == made,
        "docs/commands.md is stale: run `UPDATE_DOCS=1 cargo test --test it commands`"
    );
}

#[test]
fn help_is_data_and_wrong_usage_is_not() {
    let env = TestEnv::new();
    for args in [
        "--help",
        "-h",
        "disk --help",
        "disk create --help",
        "--version",
    ] {
        let ran = env.mvm(args).exits(0);
        assert!(!ran.stdout.is_empty() && ran.stderr.is_empty(), "{args}");
    }
    for args in ["", "lst", "disk", "disk create", "list --format yaml"] {
        let ran = env.mvm(args).exits(2);
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{args}");
    }
    env.mvm("lst").exits(2).says("list");
}

#[test]
fn help_of_every_command_has_an_example() {
    fn check(command: &clap::Command, path: &str, lacking: &mut Vec<String>) {
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let path = format!("{path} {}", sub.get_name());
            if sub.has_subcommands() {
                check(sub, &path, lacking);
                continue;
            }
            let after = sub.get_after_help().map(ToString::to_string);
            let shown = after.unwrap_or_default().contains(&path);
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            if !shown || about.is_empty() || about.ends_with('.') {
                lacking.push(path);
            }
        }
    }
    let mut lacking = Vec::new();
    check(&mvm::cli::definition(), "mvm", &mut lacking);
    assert!(lacking.is_empty(), "{lacking:?}");
}

#[test]
fn completions_and_manual_pages_name_the_commands() {
    let env = TestEnv::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = env.mvm(&format!("completions {shell}")).exits(0).stdout;
        assert!(script.contains("resize"), "{shell}");
    }
    let page = env.mvm("man").exits(0).stdout;
    assert!(
        page.starts_with(".ie") && page.contains(".SH"),
        "{page:.80}"
    );
    assert!(env.mvm("man disk resize").exits(0).stdout.contains("mvm"));
    env.mvm("man nosuch").exits(2).says("`nosuch`");
    env.mvm("man --dir pages").exits(0);
    for page in ["mvm.1", "mvm-disk.1", "mvm-disk-create.1"] {
        assert!(env.path("pages").join(page).is_file(), "{page}");
    }
}

/// Rust programs ignore SIGPIPE: a reader that goes away early must not become an error or a panic.
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let env = TestEnv::new();
    for args in [&["completions", "zsh"][..], &["man", "disk"]] {
        let mut child = env
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("mvm starts");
        drop(child.stdout.take());
        let mut said = String::new();
        let mut stderr = child.stderr.take().expect("it was piped");
        stderr.read_to_string(&mut said).expect("text");
        assert!(child.wait().expect("it ends").success(), "{said}");
        assert_eq!(said, "");
    }
}
