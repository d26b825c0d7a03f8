//! What two guests cannot both have, found before anything is touched.

mod error;

use std::fs;
use std::io;
use std::net::{SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{RunDir, asleep, holders, presence, state};
use crate::dirs::Dirs;
use crate::ids::GuestName;
use crate::machine::ports::{Exclusive, SPICE, exclusive};
use crate::machine::{Addition, Firmware, Forward, Machine, NicBackend};
use crate::ops::{OpsError, lock};
use crate::plan::Plan;

pub use error::Conflict;

/// For other starts to be prepared; each takes some milliseconds.
const GATE: Duration = Duration::from_secs(30);

/// Lets one start at a time compare itself with the others, until its own plan is there to be seen.
///
/// # Errors
/// The run-time directory is not usable, or others take too long.
pub(crate) fn gate(dirs: &Dirs) -> Result<OwnedFd, Conflict> {
    let end = Instant::now() + GATE;
    // A guest's name does not begin with a dot.
    let path = dirs.runtime.join(".starting");
    loop {
        match lock::take(&path) {
            Ok(lock) => return Ok(lock),
            Err(OpsError::Held { .. }) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(OpsError::Held { .. }) => return Err(Conflict::Gate),
            Err(error) => return Err(error.into()),
        }
    }
}

/// As much of another guest's plan as matters here.
#[derive(Deserialize)]
struct Other {
    machine: Machine,
}

/// Compares devices on their way into `running` with what it has, with the other guests that run and
/// with the host's ports.
///
/// # Errors
/// What the two both want, and who has it.
pub fn check_addition(dirs: &Dirs, running: &Machine, addition: &Addition) -> Result<(), Conflict> {
    let alone = addition.alone(running);
    if let Some((path, disk)) = own_image(&alone, running) {
        return Err(Conflict::Own { path, disk });
    }
    compare(&alone, &running.name, running)?;
    others(dirs, &alone)
}

/// Compares a plan with the guests that run and with the host's ports.
///
/// # Errors
/// What the two both want, and who has it.
pub fn check(dirs: &Dirs, plan: &Plan) -> Result<(), Conflict> {
    others(dirs, &plan.machine)
}

/// The same where disks of guests that are hibernated may be taken: those guests are told.
///
/// # Errors
/// As [`check`].
pub fn check_discarding(dirs: &Dirs, plan: &Plan) -> Result<Vec<GuestName>, Conflict> {
    awake(dirs, &plan.machine)?;
    let sleepers = asleep::list(dirs).into_iter();
    Ok(sleepers
        .filter(|(name, other)| {
            *name != plan.machine.name && shared_image(&plan.machine, &other.machine).is_some()
        })
        .map(|(name, _)| name)
        .collect())
}

fn others(dirs: &Dirs, ours: &Machine) -> Result<(), Conflict> {
    awake(dirs, ours)?;
    for (name, other) in asleep::list(dirs) {
        if name == ours.name {
            continue;
        }
        if let Some(path) = shared_image(ours, &other.machine) {
            return Err(Conflict::Asleep {
                path: path.to_owned(),
                guest: name.to_string(),
                kind: other.kind,
            });
        }
    }
    Ok(())
}

fn awake(dirs: &Dirs, ours: &Machine) -> Result<(), Conflict> {
    for (name, there) in presence::list(dirs)? {
        if name == ours.name || !there.is_alive() {
            continue;
        }
        match state::read::<Other>(&RunDir::new(dirs, &name).plan()) {
            Ok(Some(other)) => compare(ours, &name, &other.machine)?,
            // Not that far yet, or gone meanwhile.
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, guest = %name, "cannot read its plan"),
        }
    }
    forwards(ours).try_for_each(|(_, forward)| try_port(dirs, forward))
}

/// The ports that other guests' displays are to have, whether or not they listen yet.
pub fn display_ports(dirs: &Dirs, us: &GuestName) -> Vec<u16> {
    let there = presence::list(dirs).unwrap_or_default().into_iter();
    let alive = there.filter(|(name, there)| name != us && there.is_alive());
    let plans = alive.filter_map(|(name, _)| {
        // One that cannot be read is told when the two are compared.
        state::read::<Other>(&RunDir::new(dirs, &name).plan()).ok()?
    });
    let machines: Vec<Machine> = plans.map(|other| other.machine).collect();
    let ends = machines.iter().flat_map(exclusive);
    ends.filter_map(|(_, end)| match end {
        Exclusive::Port {
            udp: false, port, ..
        } => Some(port),
        Exclusive::Port { .. } | Exclusive::Path(_) => None,
    })
    .collect()
}

fn forwards(machine: &Machine) -> impl Iterator<Item = (&str, &Forward)> {
    machine.nics.iter().flat_map(|nic| {
        let forwards = match &nic.backend {
            NicBackend::User { forwards, .. } => forwards.as_slice(),
            _ => &[],
        };
        forwards.iter().map(|forward| (nic.id.as_str(), forward))
    })
}

fn taps(machine: &Machine) -> impl Iterator<Item = &str> {
    machine.nics.iter().filter_map(|nic| match &nic.backend {
        NicBackend::Tap { name, .. } => Some(name.as_str()),
        _ => None,
    })
}

/// The files that a machine opens, and whether it writes to them.
fn images(machine: &Machine) -> Vec<(&Path, bool)> {
    let mut found: Vec<(&Path, bool)> = machine
        .disks
        .iter()
        .filter_map(|disk| {
            let image = disk.image.as_ref()?;
            Some((
                image.path.as_path(),
                !disk.read_only && disk.overlay.is_none(),
            ))
        })
        .collect();
    if let Firmware::Flash {
        vars: Some(vars), ..
    } = &machine.firmware
    {
        found.push((&vars.path, true));
    }
    found
}

fn same_file(a: &Path, b: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    match (id(a), id(b)) {
        (Ok(a), Ok(b)) => a == b,
        // What is not there yet is the same when it is called the same.
        _ => a == b,
    }
}

fn compare(ours: &Machine, name: &GuestName, theirs: &Machine) -> Result<(), Conflict> {
    let guest = || name.to_string();
    for (_, our) in forwards(ours) {
        if forwards(theirs).any(|(_, their)| overlap(our, their)) {
            return Err(Conflict::Port {
                protocol: protocol(our),
                address: our.address,
                port: our.host,
                by: format!("guest `{name}`"),
            });
        }
    }
    for nic in &ours.nics {
        if theirs.nics.iter().any(|their| their.mac == nic.mac) {
            return Err(Conflict::Mac {
                mac: nic.mac.to_string(),
                nic: nic.id.to_string(),
                guest: guest(),
            });
        }
    }
    if let (Some(our), Some(their)) = (ours.vsock, theirs.vsock) {
        if our == their {
            return Err(Conflict::Cid {
                cid: our,
                guest: guest(),
            });
        }
    }
    if let Some(tap) = taps(ours).find(|tap| taps(theirs).any(|their| their == *tap)) {
        return Err(Conflict::Tap {
            name: tap.to_owned(),
            guest: guest(),
        });
    }
    for (our, end) in exclusive(ours) {
        if let Some((their, _)) = exclusive(theirs).find(|(_, other)| other.meets(&end)) {
            let chosen = ours
                .desktop
                .spice
                .as_ref()
                .is_some_and(|spice| spice.any_port);
            return Err(Conflict::End {
                again: chosen && our == SPICE,
                end: end.to_string(),
                ours: our,
                theirs: their,
                guest: guest(),
            });
        }
    }
    if let Some(path) = other_owner(ours, theirs) {
        return Err(Conflict::Evdev {
            path: path.to_owned(),
            guest: guest(),
        });
    }
    match shared_image(ours, theirs) {
        Some(path) => Err(Conflict::Image {
            path: path.to_owned(),
            guest: guest(),
        }),
        None => Ok(()),
    }
}

/// A keyboard or pointer of the host that both have, each by a user of its own. It would come back to the wrong one.
fn other_owner<'a>(ours: &'a Machine, theirs: &Machine) -> Option<&'a Path> {
    fn nodes(machine: &Machine) -> impl Iterator<Item = &Path> {
        let inputs = machine.desktop.inputs.iter();
        inputs.filter_map(|input| Some(input.evdev.as_ref()?.path.as_path()))
    }
    let user = |machine: &Machine| machine.run_as.as_ref().map(|user| user.uid);
    if user(ours) == user(theirs) {
        return None;
    }
    nodes(ours).find(|our| nodes(theirs).any(|their| same_node(our, their)))
}

/// A device may have several names: links of udev's.
fn same_node(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// An image of ours that the other has too, one of us writing to it.
fn shared_image<'a>(ours: &'a Machine, theirs: &Machine) -> Option<&'a Path> {
    let their_images = images(theirs);
    let taken = |path: &Path, writes: bool| {
        their_images
            .iter()
            .any(|(their, they_write)| (writes || *they_write) && same_file(path, their))
    };
    let mut ours = images(ours).into_iter();
    ours.find(|(path, writes)| taken(path, *writes))
        .map(|(path, _)| path)
}

/// An image that the guest itself has, and as what.
fn own_image(addition: &Machine, running: &Machine) -> Option<(PathBuf, String)> {
    let path = shared_image(addition, running)?;
    let mut disks = running.disks.iter();
    let disk = disks.find(|disk| {
        let image = disk.image.as_ref();
        image.is_some_and(|image| same_file(&image.path, path))
    })?;
    Some((path.to_owned(), disk.id.to_string()))
}

fn protocol(forward: &Forward) -> &'static str {
    if forward.udp { "UDP" } else { "TCP" }
}

fn overlap(a: &Forward, b: &Forward) -> bool {
    let same_place =
        a.address == b.address || a.address.is_unspecified() || b.address.is_unspecified();
    a.udp == b.udp && a.host == b.host && same_place
}

/// Whether the port can be had, found out by having it for a moment: the tables in `/proc/net` do not
/// say which sockets of IPv6 take IPv4's port too.
fn try_port(dirs: &Dirs, forward: &Forward) -> Result<(), Conflict> {
    let at = SocketAddrV4::new(forward.address, forward.host);
    let tried = if forward.udp {
        UdpSocket::bind(at).map(drop)
    } else {
        TcpListener::bind(at).map(drop)
    };
    match tried {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(Conflict::Port {
            protocol: protocol(forward),
            address: forward.address,
            port: forward.host,
            by: port_holder(dirs, forward),
        }),
        Err(source) => Err(Conflict::PortRefused {
            protocol: protocol(forward),
            address: forward.address,
            port: forward.host,
            source,
        }),
    }
}

fn port_holder(dirs: &Dirs, forward: &Forward) -> String {
    let tables = if forward.udp {
        ["udp", "udp6"]
    } else {
        ["tcp", "tcp6"]
    };
    tables
        .iter()
        .filter_map(|table| fs::read_to_string(Path::new("/proc/net").join(table)).ok())
        .flat_map(|text| inodes(&text, forward))
        .find_map(|inode| holders::of_socket(inode).into_iter().next())
        .map_or_else(
            || "another process".to_owned(),
            |holder| holder.describe(Some(dirs)),
        )
}

/// The sockets of a table in `/proc/net` that are bound to that port.
fn inodes(table: &str, forward: &Forward) -> Vec<u64> {
    let port = format!(":{:04X}", forward.host);
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let local = fields.nth(1)?;
            let state = fields.nth(1)?;
            let inode: u64 = fields.nth(5)?.parse().ok()?;
            // 0A is a listening TCP socket.
            (local.ends_with(&port) && (forward.udp || state == "0A")).then_some(inode)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;
    use crate::guest::testguest::Place;
    use crate::machine::desktop::input::{Evdev, Input};
    use crate::machine::run_as::RunAs;
    use crate::profile::schema::{InputBus, InputDevice};

    #[test]
    fn a_keyboard_of_the_host_has_one_owner() {
        let place = Place::new();
        let with = |name: &str, node: &str, uid: Option<u32>| {
            let mut machine = place.plan(name).machine;
            machine.disks.clear();
            machine.firmware = Firmware::Builtin;
            machine.vsock = None;
            machine.nics.clear();
            machine.run_as = uid.map(|uid| RunAs {
                name: format!("user{uid}"),
                uid,
                gid: uid,
                groups: Vec::new(),
            });
            machine.desktop.inputs = vec![Input {
                id: "keys".parse().unwrap(),
                device: InputDevice::Evdev,
                bus: InputBus::Usb,
                evdev: Some(Evdev {
                    path: node.into(),
                    grab_all: None,
                    repeat: None,
                    hotkey: None,
                }),
            }];
            machine
        };
        let other = "b".parse().unwrap();
        let of = |ours: &Machine, theirs: &Machine| compare(ours, &other, theirs);
        let one = with("a", "/dev/input/event900", Some(7));
        let told = of(&one, &with("b", "/dev/input/event900", Some(8))).unwrap_err();
        assert_eq!(
            told.to_string(),
            "/dev/input/event900 is given to the user of guest `b`, and a node has one owner"
        );
        of(&with("a", "/dev/input/event900", None), &one).unwrap_err();
        // Guests of one user take turns with it.
        of(&one, &with("b", "/dev/input/event900", Some(7))).unwrap();
        of(&one, &with("b", "/dev/input/event901", Some(8))).unwrap();
    }
}
