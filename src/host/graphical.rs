//! Whose desktops are on this host, and how a program gets onto them: found by what their own processes
//! use, by logind's records and by the sockets that are there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::facts::Roots;

/// A user who is logged in, and what serves him.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Session {
    /// The user.
    pub uid: u32,
    /// The name.
    pub user: String,
    /// `XDG_RUNTIME_DIR`.
    pub runtime: Option<PathBuf>,
    /// The X server, as in `:0`.
    pub x11: Option<String>,
    /// The file with the X server's cookie.
    pub xauthority: Option<PathBuf>,
    /// The Wayland compositor's socket.
    pub wayland: Option<PathBuf>,
    /// PulseAudio's socket, or what stands in for it.
    pub pulse: Option<PathBuf>,
    /// PipeWire's socket.
    pub pipewire: Option<PathBuf>,
    /// The session bus's socket.
    pub bus: Option<PathBuf>,
    /// Whether it is more than what its user's own processes say: logind has a record of it, or is not there.
    pub known: bool,
}

impl Session {
    /// Whether a window can open there.
    pub fn is_graphical(&self) -> bool {
        self.x11.is_some() || self.wayland.is_some()
    }
}

/// What processes and records tell of a user, best first.
#[derive(Debug, Default)]
struct Told {
    /// logind has a record of it.
    known: bool,
    runtime: Vec<PathBuf>,
    x11: Vec<String>,
    xauthority: Vec<PathBuf>,
    wayland: Vec<PathBuf>,
}

/// Everybody who is logged in, in the order of their numbers.
pub fn read(roots: &Roots) -> Vec<Session> {
    let mut told: BTreeMap<u32, Told> = BTreeMap::new();
    logind(roots, &mut told);
    processes(roots, &mut told);
    for entry in fs::read_dir(roots.path("/run/user"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let uid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(uid) = uid {
            told.entry(uid).or_default();
        }
    }
    let names = names(roots);
    // Where nobody keeps records, everybody who shows something has a session.
    let records = roots.path("/run/systemd/sessions").is_dir();
    told.into_iter()
        .map(|(uid, told)| {
            let known = told.known || !records;
            let session = session(roots, uid, names.get(&uid), told);
            Session { known, ..session }
        })
        .filter(|session| {
            session.is_graphical() || session.pulse.is_some() || session.pipewire.is_some()
        })
        .collect()
}

fn session(roots: &Roots, uid: u32, user: Option<&(String, PathBuf)>, told: Told) -> Session {
    let there = |path: &Path| roots.path(path).exists();
    let own = PathBuf::from(format!("/run/user/{uid}"));
    let mut runtimes = told.runtime;
    runtimes.push(own);
    let runtime = runtimes.into_iter().find(|dir| there(dir));
    let in_runtime = |name: &str| {
        let path = runtime.as_ref()?.join(name);
        there(&path).then_some(path)
    };
    let wayland = told.wayland.into_iter().find_map(|name| {
        let path = match &runtime {
            Some(dir) => dir.join(&name),
            None => name,
        };
        (path.is_absolute() && there(&path)).then_some(path)
    });
    let wayland = wayland.or_else(|| in_runtime("wayland-0"));
    let x11 = told.x11.into_iter().find(|display| answers(roots, display));
    let xauthority = x11.as_ref().and_then(|_| {
        let home = user.map(|(_, home)| home.join(".Xauthority"));
        told.xauthority
            .into_iter()
            .chain(cookies(roots, runtime.as_deref()))
            .chain(home)
            .find(|path| there(path))
    });
    Session {
        uid,
        user: user.map_or_else(|| uid.to_string(), |(name, _)| name.clone()),
        x11,
        xauthority,
        wayland,
        pulse: in_runtime("pulse/native"),
        pipewire: in_runtime("pipewire-0"),
        bus: in_runtime("bus"),
        known: true,
        runtime,
    }
}

/// The cookies that display managers and compositors leave in a runtime directory.
fn cookies(roots: &Roots, runtime: Option<&Path>) -> Vec<PathBuf> {
    let Some(dir) = runtime else {
        return Vec::new();
    };
    let mut found = vec![dir.join("gdm/Xauthority")];
    let entries = fs::read_dir(roots.path(dir))
        .into_iter()
        .flatten()
        .flatten();
    let mut others: Vec<PathBuf> = entries
        .map(|entry| entry.file_name())
        .filter(|name| {
            let name = name.to_string_lossy();
            name.starts_with(".mutter-Xwaylandauth.") || name.starts_with("xauth_")
        })
        .map(|name| dir.join(name))
        .collect();
    others.sort();
    found.extend(others);
    found
}

/// Whether the X server's socket is there. One of another host is taken at its word.
fn answers(roots: &Roots, display: &str) -> bool {
    let Some(number) = display.strip_prefix(':') else {
        return display.contains(':');
    };
    let number = number.split('.').next().unwrap_or_default();
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let socket = format!("/tmp/.X11-unix/X{number}");
    // Some listen on an abstract socket only, which has no file.
    let abstract_one = || {
        let list = fs::read_to_string(roots.path("/proc/net/unix")).unwrap_or_default();
        list.lines()
            .any(|line| line.ends_with(&format!("@{socket}")))
    };
    roots.path(&socket).exists() || abstract_one()
}

/// logind's records of its sessions: one file each, `KEY=value` lines.
fn logind(roots: &Roots, told: &mut BTreeMap<u32, Told>) {
    let entries = fs::read_dir(roots.path("/run/systemd/sessions"));
    let mut records: Vec<(bool, u32, Option<String>, bool)> = Vec::new();
    for entry in entries.into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let field = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(str::to_owned)
        };
        let Some(uid) = field("UID").and_then(|uid| uid.parse().ok()) else {
            continue;
        };
        if field("CLASS").is_some_and(|class| class != "user") {
            continue;
        }
        // Who comes by the network has no screen here, whatever he starts.
        let graphical = matches!(field("TYPE").as_deref(), Some("x11" | "wayland" | "mir"));
        let at_screen = graphical || field("SEAT").is_some_and(|seat| !seat.is_empty());
        let remote = field("REMOTE").as_deref() == Some("1");
        records.push((
            field("ACTIVE").as_deref() != Some("1"),
            uid,
            field("DISPLAY"),
            at_screen && !remote,
        ));
    }
    // Those on the screen first.
    records.sort();
    for (_, uid, display, known) in records {
        let told = told.entry(uid).or_default();
        told.known |= known;
        told.x11.extend(display);
    }
}

/// What users' processes have in their environments. Those of other users only root can read.
fn processes(roots: &Roots, told: &mut BTreeMap<u32, Told>) {
    let entries = fs::read_dir(roots.path("/proc"))
        .into_iter()
        .flatten()
        .flatten();
    let mut pids: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    // What this process itself was told comes before what others were.
    let own = std::process::id();
    pids.sort_unstable_by_key(|pid| (*pid != own, *pid));
    for pid in pids {
        let dir = roots.path(format!("/proc/{pid}"));
        let environ = dir.join("environ");
        let Ok(meta) = fs::metadata(&environ) else {
            continue;
        };
        let Ok(text) = fs::read(&environ) else {
            continue;
        };
        let get = |key: &str| {
            text.split(|byte| *byte == 0).find_map(|pair| {
                let pair = std::str::from_utf8(pair).ok()?;
                let value = pair.strip_prefix(key)?.strip_prefix('=')?;
                (!value.is_empty()).then(|| value.to_owned())
            })
        };
        let (x11, wayland) = (get("DISPLAY"), get("WAYLAND_DISPLAY"));
        if x11.is_none() && wayland.is_none() {
            continue;
        }
        // An environment says what its user wants: of another one only what is on this host and his own.
        let uid = meta.uid();
        let ours = uid == nix::unistd::Uid::effective().as_raw();
        let his = |path: &PathBuf| {
            ours || fs::metadata(roots.path(path)).is_ok_and(|meta| meta.uid() == uid)
        };
        let path = |key: &str| get(key).map(PathBuf::from).filter(his);
        let told = told.entry(uid).or_default();
        add(
            &mut told.x11,
            x11.filter(|display| ours || display.starts_with(':')),
        );
        add(&mut told.wayland, wayland.map(PathBuf::from));
        add(&mut told.xauthority, path("XAUTHORITY"));
        add(&mut told.runtime, path("XDG_RUNTIME_DIR"));
    }
}

fn add<T: PartialEq>(list: &mut Vec<T>, one: Option<T>) {
    if let Some(one) = one.filter(|one| !list.contains(one)) {
        list.push(one);
    }
}

/// Names and homes.
fn names(roots: &Roots) -> BTreeMap<u32, (String, PathBuf)> {
    let text = fs::read_to_string(roots.path("/etc/passwd")).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let uid = fields.nth(1)?.parse().ok()?;
            let home = PathBuf::from(fields.nth(2)?);
            Some((uid, (name, home)))
        })
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
#[path = "graphical_tests.rs"]
mod tests;
