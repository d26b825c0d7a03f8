//! A window in a graphical session of this host.

use super::display::{Local, Window, lack};
use super::{Around, DesktopError};
use crate::host::Session;
use crate::profile::schema::{DisplayTable, LocalTable, Toolkit};

/// QEMU's names and whether they are on.
type Switches = Vec<(String, bool)>;

/// The window.
pub(super) fn window(table: &DisplayTable, around: &Around) -> Result<Window, DesktopError> {
    let table = table.local.clone().unwrap_or_default();
    let toolkit = toolkit(&table, around)?;
    let session = session(&table, around)?;
    let (switches, connectors) = options(&table, toolkit, around)?;
    Ok(Window::Local(Box::new(Local {
        toolkit,
        session,
        switches,
        connectors,
    })))
}

fn toolkit(table: &LocalTable, around: &Around) -> Result<Toolkit, DesktopError> {
    let displays = &around.caps.displays;
    let has = |toolkit: &Toolkit| displays.is_empty() || displays.contains(toolkit.as_str());
    let wanted = match table.toolkit {
        Some(toolkit) => vec![toolkit],
        None => Toolkit::ALL.to_vec(),
    };
    wanted.iter().copied().find(has).ok_or_else(|| {
        let first = wanted.first().copied().unwrap_or(Toolkit::Gtk);
        let known = format!("display.{first}");
        lack(
            around,
            "display.local",
            &format!("the display {first}"),
            &known,
        )
    })
}

/// The switches with QEMU's names, in a fixed order; those that this QEMU lacks are refused.
fn options(
    table: &LocalTable,
    toolkit: Toolkit,
    around: &Around,
) -> Result<(Switches, Vec<String>), DesktopError> {
    let keys = [
        ("gl", table.gl),
        ("full-screen", table.full_screen),
        // Closing the window would be the guest's sudden end.
        ("window-close", Some(table.window_close == Some(true))),
        ("show-cursor", table.show_cursor),
        ("zoom-to-fit", table.zoom_to_fit),
        ("show-tabs", table.show_tabs),
        ("show-menubar", table.show_menubar),
        ("show-fps", table.show_fps),
        ("extend-abs-mode", table.extend_abs_mode),
        ("input", table.host_input),
        ("hw-cursor", table.hw_cursor),
    ];
    let mut switches = Vec::new();
    for (name, value) in keys {
        if let Some(value) = value {
            known(name, key(name), toolkit, around)?;
            switches.push((name.to_owned(), value));
        }
    }
    let connectors = table.connectors.clone().unwrap_or_default();
    if !connectors.is_empty() {
        known("connectors", "connectors", toolkit, around)?;
    }
    for connector in &connectors {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if connector.is_empty() || !connector.chars().all(fits) {
            return Err(DesktopError::BadConnector(
                connector.chars().take(40).collect(),
            ));
        }
    }
    Ok((switches, connectors))
}

/// The profile's key of one of QEMU's switches.
fn key(name: &str) -> &str {
    match name {
        "input" => "host-input",
        name => name,
    }
}

/// Whether this QEMU has the option, be it of the toolkit or of all displays.
fn known(name: &str, key: &str, toolkit: Toolkit, around: &Around) -> Result<(), DesktopError> {
    let options = &around.caps.display_options;
    let has = options.is_empty()
        || options.contains(name)
        || options.contains(&format!("{toolkit}.{name}"));
    if has {
        return Ok(());
    }
    Err(DesktopError::NoOption {
        key: format!("display.local.{key}"),
        option: name.to_owned(),
        toolkit: toolkit.as_str(),
        version: around.caps.version.to_string(),
        of_intel: matches!(
            name,
            "connectors" | "show-fps" | "extend-abs-mode" | "input" | "hw-cursor"
        ),
    })
}

/// The session that the window opens in.
fn session(table: &LocalTable, around: &Around) -> Result<Session, DesktopError> {
    let users = &around.facts.users;
    let shown: Vec<&Session> = around
        .facts
        .sessions
        .iter()
        .filter(|session| session.is_graphical())
        .collect();
    let found = match (&table.user, users.uid) {
        (Some(name), _) => shown.iter().find(|session| session.user == *name),
        // Root's own, or the one that somebody has who is logged in: whoever can start a program could say that he
        // has one.
        (None, 0) => {
            let trusted = |session: &&&Session| session.known || session.uid == 0;
            let known: Vec<&&Session> = shown.iter().filter(trusted).collect();
            if let [_, _, ..] = known.as_slice() {
                return Err(DesktopError::SeveralSessions(
                    known.iter().map(|session| session.user.clone()).collect(),
                ));
            }
            known.first().copied()
        }
        (None, uid) => shown.iter().find(|session| session.uid == uid),
    };
    let Some(session) = found else {
        let others = shown.iter().map(|session| session.user.clone());
        return Err(match &table.user {
            Some(user) => DesktopError::NoSession(Some(user.clone())),
            None if shown.is_empty() || users.uid != 0 => DesktopError::NoSession(None),
            None => DesktopError::UnknownSessions(others.collect()),
        });
    };
    let uid = around.run_as.map_or(users.uid, |user| user.uid);
    // A display lets in its own user, and root.
    if uid != 0 && uid != session.uid {
        return Err(DesktopError::OtherSession {
            session: session.user.clone(),
            qemu: around
                .run_as
                .map_or_else(|| uid.to_string(), |user| user.name.clone()),
        });
    }
    Ok((*session).clone())
}
