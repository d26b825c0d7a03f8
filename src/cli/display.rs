//! `mvm display`

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use serde_json::json;

use super::output::{self, Format, FormatArg, Table};
use super::{Context, Failure, guests, show};
use crate::error::{ExitCode, Report};

/// Tell where a guest's displays are, or open one
///
/// What is told is what QEMU itself said when the guest was started: the URI that viewers such as
/// remote-viewer take.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm display web
  remote-viewer \"$(mvm display web)\"
  mvm display web --open")]
pub(super) struct DisplayArgs {
    /// The guest
    name: String,
    /// Open it with the first viewer that this host has, until that is closed
    #[arg(long, conflicts_with = "format")]
    open: bool,
    #[command(flatten)]
    format: FormatArg,
}

/// Viewers, and which protocols they take.
const VIEWERS: [(&str, &[&str]); 5] = [
    ("remote-viewer", &["spice", "vnc"]),
    ("spicy", &["spice"]),
    ("vncviewer", &["vnc"]),
    ("gvncviewer", &["vnc"]),
    ("krdc", &["vnc"]),
];

pub(super) fn run(args: &DisplayArgs, context: &Context) -> Result<(), Failure> {
    let seen = guests::find_supervised(context, &args.name)?;
    let displays = seen.state.as_ref().map(|state| state.displays.clone());
    let displays = displays.unwrap_or_default();
    if displays.is_empty() {
        return Err(Report::new(
            ExitCode::Failed,
            format!("guest `{}` has no display", args.name),
        )
        .hint("start it with `--display vnc` or `--display spice`, or write `[display]` into its profile")
        .into());
    }
    if args.open {
        let password = show::plan(&seen).is_some_and(|plan| {
            let desktop = &plan.machine.desktop;
            let vnc = desktop.vnc.as_ref().map(|vnc| &vnc.server);
            let spice = desktop.spice.as_ref().map(|spice| &spice.server);
            [vnc, spice]
                .into_iter()
                .flatten()
                .any(|server| server.password.is_some())
        });
        if password {
            output::note(
                "note: the viewer will ask for the password that the profile's `password-file` holds",
            );
        }
        return open(&displays.into_iter().collect::<Vec<_>>());
    }
    match args.format.format {
        Format::Json => output::print_json(&json!(displays))?,
        Format::Table => match displays.iter().collect::<Vec<_>>().as_slice() {
            // Alone it is for scripts as it is.
            [(_, uri)] => output::print(&format!("{uri}\n"))?,
            all => {
                let mut table = Table::bare();
                for (kind, uri) in all {
                    table.row([kind.as_str(), uri.as_str()]);
                }
                table.print()?;
            }
        },
    }
    Ok(())
}

fn open(displays: &[(String, String)]) -> Result<(), Failure> {
    let uris: Vec<&str> = displays
        .iter()
        .map(|(_, uri)| uri.as_str())
        .filter(|uri| uri.contains("://"))
        .collect();
    if uris.is_empty() {
        let (_, words) = &displays[0];
        return Err(Report::new(
            ExitCode::Failed,
            format!("its display is no viewer's: {words}"),
        )
        .into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let Some((program, words)) = viewer(&uris, &|name| {
        dirs.iter()
            .map(|dir| dir.join(name))
            .find(|file| file.is_file())
    }) else {
        return Err(Report::new(
            ExitCode::Host,
            format!("this host has no viewer for {}", uris.join(", ")),
        )
        .hint("Debian and Ubuntu: `apt install virt-viewer` has remote-viewer")
        .into());
    };
    output::progress(&format!("{} {}", program.display(), words.join(" ")));
    let status = Command::new(&program).args(&words).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::message(
            ExitCode::Failed,
            format!("{} has ended with {status}", program.display()),
        )),
        Err(error) => Err(Failure::message(
            ExitCode::Failed,
            format!("cannot run {}: {error}", program.display()),
        )),
    }
}

/// The first viewer that is there for one of these, with its arguments.
fn viewer(
    uris: &[&str],
    there: &dyn Fn(&str) -> Option<PathBuf>,
) -> Option<(PathBuf, Vec<String>)> {
    for (name, protocols) in VIEWERS {
        let Some(program) = there(name) else { continue };
        for protocol in protocols {
            let own = |uri: &&&str| uri.starts_with(protocol);
            if let Some(words) = uris.iter().find(own).and_then(|uri| words(name, uri)) {
                return Some((program, words));
            }
        }
    }
    None
}

/// How a viewer is told of a URI; `None` where it cannot be.
fn words(viewer: &str, uri: &str) -> Option<Vec<String>> {
    let socket = uri.strip_prefix("vnc+unix://").map(Path::new);
    match viewer {
        "remote-viewer" => socket.is_none().then(|| vec![uri.to_owned()]),
        "spicy" => Some(vec![format!("--uri={uri}")]),
        "vncviewer" => match (
            socket,
            uri.strip_prefix("vnc://")
                .and_then(|at| at.rsplit_once(':')),
        ) {
            (Some(socket), _) => Some(vec![socket.display().to_string()]),
            // One colon would be a display's number.
            (None, Some((host, port))) => Some(vec![format!("{host}::{port}")]),
            (None, None) => None,
        },
        "gvncviewer" => {
            let (host, port) = uri.strip_prefix("vnc://")?.rsplit_once(':')?;
            let display = port.parse::<u16>().ok()?.checked_sub(5900)?;
            Some(vec![format!("{host}:{display}")])
        }
        _ => socket.is_none().then(|| vec![uri.to_owned()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_viewer_is_told_in_its_own_words() {
        let only =
            |name: &'static str| move |asked: &str| (asked == name).then(|| PathBuf::from(asked));
        let told = |name: &'static str, uris: &[&str]| {
            viewer(uris, &only(name)).map(|(_, words)| words.join(" "))
        };
        let vnc = "vnc://127.0.0.1:5901";
        assert_eq!(
            told("remote-viewer", &[vnc, "spice://h:5930"]).as_deref(),
            Some("spice://h:5930")
        );
        assert_eq!(
            told("vncviewer", &[vnc]).as_deref(),
            Some("127.0.0.1::5901")
        );
        assert_eq!(told("gvncviewer", &[vnc]).as_deref(), Some("127.0.0.1:1"));
        assert_eq!(
            told("spicy", &["spice+unix:///run/s"]).as_deref(),
            Some("--uri=spice+unix:///run/s")
        );
        assert_eq!(told("spicy", &[vnc]), None);
        assert_eq!(told("xeyes", &[vnc]), None);
    }
}
