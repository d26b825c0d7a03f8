//! What two guests cannot both have, found before anything is touched.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{RunDir, asleep, holders, presence, state};
use crate::dirs::Dirs;
use crate::error::{ExitCode, Hint};
use crate::ids::GuestName;
use crate::machine::ports::{Exclusive, exclusive};
use crate::machine::{Addition, Firmware, Forward, Machine, NicBackend};
use crate::ops::{OpsError, lock};
use crate::plan::Plan;

/// For other starts to be prepared; each takes some milliseconds.
const GATE: Duration = Duration::from_secs(30);

/// Something that only one can have.
#[derive(Debug, thiserror::Error)]
pub enum Conflict {
    /// A forwarded port of the host.
    #[error("{protocol} port {port} of this host ({address}) is taken by {by}")]
    Port {
        /// TCP or UDP.
        protocol: &'static str,
        /// The address.
        address: Ipv4Addr,
        /// The port.
        port: u16,
        /// Who has it.
        by: String,
    },
    /// A port that this user may not have.
    #[error("{protocol} port {port} of this host ({address}) cannot be had")]
    PortRefused {
        /// TCP or UDP.
        protocol: &'static str,
        /// The address.
        address: Ipv4Addr,
        /// The port.
        port: u16,
        /// Why not.
        source: io::Error,
    },
    /// An address of a network card.
    #[error("the MAC address {mac} of network card `{nic}` is guest `{guest}`'s")]
    Mac {
        /// The address.
        mac: String,
        /// The card that wants it.
        nic: String,
        /// Who has it.
        guest: String,
    },
    /// A context id.
    #[error("the vsock context id {cid} is guest `{guest}`'s")]
    Cid {
        /// The id.
        cid: u32,
        /// Who has it.
        guest: String,
    },
    /// An image that one of the two writes to.
    #[error("{} is in use by guest `{guest}`", path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// Who has it.
        guest: String,
    },
    /// An image in which a guest lies that is hibernated, or counts on as it is saved.
    #[error("{} is in use by guest `{guest}`, which {}", path.display(), kind.in_words())]
    Asleep {
        /// The image.
        path: PathBuf,
        /// Who has it.
        guest: String,
        /// How it sleeps.
        kind: asleep::Kind,
    },
    /// A tap device.
    #[error("the tap `{name}` is guest `{guest}`'s")]
    Tap {
        /// The device.
        name: String,
        /// Who has it.
        guest: String,
    },
    /// The other end of a console or channel.
    #[error("{end} is guest `{guest}`'s: its {theirs} leads there, as {ours} is to")]
    End {
        /// The end.
        end: String,
        /// What leads there.
        ours: String,
        /// What of the other guest does.
        theirs: String,
        /// Who has it.
        guest: String,
    },
    /// Other starts take very long.
    #[error("another guest's start has not come to its QEMU for {} s", GATE.as_secs())]
    Gate,
    /// The other guests cannot be looked at.
    #[error(transparent)]
    Ops(#[from] OpsError),
}

impl Hint for Conflict {
    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::Port { by, .. } => match guest_in(by) {
                Some(guest) => {
                    format!("forward another port of the host, or end it: `mvm stop {guest}`")
                }
                None => "forward another port of the host, or end that process".to_owned(),
            },
            Self::PortRefused { port, .. } if *port < 1024 => {
                "ports below 1024 are root's: forward a higher one".to_owned()
            }
            Self::PortRefused { .. } => "forward another port of the host".to_owned(),
            Self::Mac { nic, .. } => {
                format!("leave out `mac` in [network.{nic}]: each guest then gets one of its own")
            }
            Self::Cid { .. } => {
                "leave out `cid` in [vsock]: each guest then gets one of its own".to_owned()
            }
            Self::Image { guest, .. } => format!(
                "give each guest an image of its own, let both have it read-only or `ephemeral`, or end the other: `mvm stop {guest}`"
            ),
            Self::Asleep { guest, .. } => format!(
                "let it go on and shut it down: `mvm start {guest}`, `mvm stop {guest}`; or give up what it had open: `--discard-hibernation`"
            ),
            Self::Tap { .. } => "give each guest a tap of its own".to_owned(),
            Self::End { .. } => "give each guest an end of its own".to_owned(),
            Self::Gate => "`mvm list` shows what is starting".to_owned(),
            Self::Ops(error) => return error.hints(),
        };
        vec![hint]
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Ops(error) => error.exit_code(),
            _ => ExitCode::Failed,
        }
    }
}

fn guest_in(by: &str) -> Option<&str> {
    by.strip_prefix("guest `")?.split('`').next()
}

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
            return Err(Conflict::End {
                end: end.to_string(),
                ours: our,
                theirs: their,
                guest: guest(),
            });
        }
    }
    match shared_image(ours, theirs) {
        Some(path) => Err(Conflict::Image {
            path: path.to_owned(),
            guest: guest(),
        }),
        None => Ok(()),
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
