//! The shape of the command line itself.

use std::fs;
use std::io::Read as _;
use std::path::Path;
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
        "help disk create",
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
        for sub in command.get_subcommands() {
            if sub.is_hide_set() || sub.get_name() == "help" {
                continue;
            }
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
        // Nor what is hidden from the help.
        assert!(!script.contains("internal"), "{shell}");
        assert!(!script.contains("--supervisor"), "{shell}");
    }
    let page = env.mvm("man").exits(0).stdout;
    assert!(
        page.starts_with(".ie") && page.contains(".SH"),
        "{page:.80}"
    );
    assert!(env.mvm("man disk resize").exits(0).stdout.contains("mvm"));
    let page = env.mvm("man run").exits(0).stdout;
    assert!(page.contains(".SH EXAMPLES\n.nf\n") && !page.contains("EXTRA"));
    env.mvm("man nosuch").exits(2).says("`nosuch`");
    env.mvm("man disk resise").exits(2).says("`resize`");
    env.mvm("man --dir pages").exits(0);
    for page in ["mvm.1", "mvm-disk.1", "mvm-disk-create.1"] {
        assert!(env.path("pages").join(page).is_file(), "{page}");
    }
}

/// In the shell itself, with a guest that is defined.
#[test]
fn bash_completes_names() {
    let env = TestEnv::new();
    env.mvm("create web --profile demo").exits(0);
    let script = env.path("mvm.bash");
    fs::write(&script, env.mvm("completions bash").exits(0).stdout).expect("a script");
    let complete = |words: &str| {
        let run = format!(
            "source '{}'; COMP_WORDS=(\"$MVM\" {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _mvm_with_names \"$MVM\" \"${{COMP_WORDS[COMP_CWORD]}}\" ''; echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let mvm = env.command::<&str>(&[]);
        let mut bash = std::process::Command::new("bash");
        bash.args(["--norc", "-c", &run]);
        for (name, value) in mvm.get_envs() {
            if let Some(value) = value {
                bash.env(name, value);
            }
        }
        let ran = bash.env("MVM", mvm.get_program()).output();
        String::from_utf8(ran.expect("bash runs").stdout).expect("text")
    };
    assert_eq!(complete("show w").trim(), "web");
    assert_eq!(complete("stop ''").trim(), "web");
    assert_eq!(complete("start de").trim(), "debian demo");
    let ubuntus = "ubuntu ubuntu-rt ubuntu_rt";
    assert_eq!(complete("create x --profile ub").trim(), ubuntus);
    assert!(complete("st").contains("stop"));
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

/// What the pages tell people to type is understood: no command, flag or argument that is not there.
#[test]
fn the_commands_that_pages_show_are_understood() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md")];
    for folder in ["docs", "machine-profiles"] {
        let entries = fs::read_dir(root.join(folder)).expect("a folder");
        pages.extend(entries.map(|entry| entry.expect("an entry").path()));
    }
    let mut seen = 0;
    let mut wrong = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).expect("a page");
        // In a page the blocks of code that are no mere patterns; in a profile the remarks.
        let mut typed = page.extension().is_some_and(|kind| kind == "toml");
        let mut block = false;
        for line in text.lines() {
            if line.starts_with("```") {
                block = !block;
                typed = block && line != "```text";
                continue;
            }
            let line = line.trim_start_matches(['#', ' ', '$']);
            if !typed || !line.starts_with("mvm ") {
                continue;
            }
            for words in commands_of(line) {
                seen += 1;
                if let Err(error) = mvm::cli::definition().try_get_matches_from(&words) {
                    if error.use_stderr() {
                        wrong.push(format!("{}: {words:?}\n{error}", page.display()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 60, "only {seen} were found");
}

/// The calls of mvm in a line, up to a remark, a pipe or a redirection.
fn commands_of(line: &str) -> Vec<Vec<String>> {
    let mut calls = Vec::new();
    // A remark stands two or more columns behind the command.
    let code = line.split("  ").next().expect("a first part");
    let words = shlex::split(code).unwrap_or_default();
    for part in words.split(|word| ["&&", "&", "|", ";"].contains(&word.as_str())) {
        let end = part.iter().position(|word| word.starts_with(['<', '>']));
        let part = &part[..end.unwrap_or(part.len())];
        if part.first().is_some_and(|word| word == "mvm") {
            calls.push(part.to_vec());
        }
    }
    calls
}
