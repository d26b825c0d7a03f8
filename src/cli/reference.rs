//! `docs/commands.md`, made from the definition of the command line.

use std::fmt::Write as _;

use clap::{Arg, Command};

/// The reference of every command, as Markdown. A test compares it with the file.
pub fn markdown() -> String {
    let mut root = super::definition();
    root.build();
    let mut text = String::from(
        "# The commands of mvm\n\n\
         Made from the program's own definitions by `UPDATE_DOCS=1 cargo test --test it commands`; \
         do not edit it by hand.\n\n",
    );
    // The same paragraphs as `mvm --help`.
    paragraphs(&root, &mut text);
    text.push_str("| command | |\n|---|---|\n");
    for (path, command) in visible(&root, "mvm") {
        let _ = writeln!(
            text,
            "| [`{path}`](#{}) | {} |",
            path.replace(' ', "-"),
            about(command)
        );
    }
    text.push('\n');
    options(&root, "Options of every command", &mut text);
    for (path, command) in visible(&root, "mvm") {
        let _ = writeln!(text, "## {path}\n");
        paragraphs(command, &mut text);
        let usage = command
            .clone()
            .bin_name(&path)
            .render_usage()
            .to_string()
            .replace("Usage: ", "");
        let _ = writeln!(text, "```text\n{}\n```\n", usage.trim());
        options(command, "", &mut text);
        if let Some(examples) = command.get_after_help() {
            let examples = examples.to_string();
            let body = examples.strip_prefix("Examples:\n").unwrap_or(&examples);
            let _ = writeln!(text, "```sh\n{}\n```\n", unindent(body));
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// The commands that do something themselves, with the words that call them.
fn visible<'a>(command: &'a Command, path: &str) -> Vec<(String, &'a Command)> {
    command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
        .flat_map(|sub| {
            let path = format!("{path} {}", sub.get_name());
            if sub.has_subcommands() {
                visible(sub, &path)
            } else {
                vec![(path, sub)]
            }
        })
        .collect()
}

fn about(command: &Command) -> String {
    command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn paragraphs(command: &Command, text: &mut String) {
    let words = command
        .get_long_about()
        .or(command.get_about())
        .map(ToString::to_string)
        .unwrap_or_default();
    let _ = writeln!(text, "{words}\n");
}

fn options(command: &Command, title: &str, text: &mut String) {
    let rows: Vec<String> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set())
        .filter(|arg| {
            title.is_empty() != arg.is_global_set()
                && !["help", "version"].contains(&arg.get_id().as_str())
        })
        .map(row)
        .collect();
    if rows.is_empty() {
        return;
    }
    if !title.is_empty() {
        let _ = writeln!(text, "{title}:\n");
    }
    let _ = writeln!(text, "| argument | |\n|---|---|\n{}\n", rows.join("\n"));
}

fn row(arg: &Arg) -> String {
    let value = || {
        let names = arg.get_value_names().unwrap_or_default();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        names.join(" ")
    };
    let mut name = match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (None, Some(long)) => format!("--{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, None) => value(),
    };
    if !arg.is_positional() && arg.get_action().takes_values() {
        name = format!("{name} {}", value());
    }
    let help = arg
        .get_long_help()
        .or(arg.get_help())
        .map(ToString::to_string)
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let words: Vec<String> =
        if arg.get_action().takes_values() && !arg.is_hide_possible_values_set() {
            arg.get_possible_values()
                .iter()
                .map(|word| format!("`{}`", word.get_name()))
                .collect()
        } else {
            Vec::new()
        };
    let mut extra = String::new();
    if !words.is_empty() {
        extra = format!(" ({})", words.join(", "));
    }
    if let ([default], true) = (arg.get_default_values(), arg.get_action().takes_values()) {
        let _ = write!(extra, " [default: `{}`]", default.to_string_lossy());
    }
    format!(
        "| `{}` | {}{extra} |",
        name.trim(),
        help.replace('|', "\\|")
    )
}

fn unindent(text: &str) -> String {
    text.lines()
        .map(|line| line.strip_prefix("  ").unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}
