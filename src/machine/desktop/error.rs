//! Why there is no such desktop.

use crate::error::{ExitCode, Hint};
use crate::ids::Id;
use crate::machine::BoardKind;
use crate::machine::check::LackError;

/// A display or a device of it that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DesktopError {
    /// A number out of its range.
    #[error("`{key}` is {value}, and may be {least} to {most}")]
    Range {
        /// The key.
        key: String,
        /// Its value.
        value: u32,
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
    /// A key of other models.
    #[error("`{key}` means nothing for `{model}`")]
    NotOf {
        /// The key.
        key: String,
        /// The model.
        model: &'static str,
    },
    /// A size that is none.
    #[error("`{0}` is not a power of two from 1M on")]
    PowerOfTwo(String),
    /// A relative path, which would depend on where mvm was started.
    #[error("`{key}`: {path:?} is not an absolute path")]
    Relative {
        /// The key.
        key: String,
        /// The path.
        path: String,
    },
    /// No bus for it.
    #[error("`{0}`: the board {1} has no PCI")]
    NoPci(String, BoardKind),
    /// The board has no such model.
    #[error("`{key}`: the board {board} has no {model}")]
    NoModel {
        /// The key.
        key: String,
        /// The model.
        model: &'static str,
        /// The board.
        board: BoardKind,
    },
    /// Nor such a bus for that.
    #[error("`{key}`: the board {board} has no {device} on {bus}")]
    NoBus {
        /// The key.
        key: String,
        /// The device.
        device: &'static str,
        /// The bus.
        bus: &'static str,
        /// The board.
        board: BoardKind,
    },
    /// More than there are places for.
    #[error("{count} {what} are more than the {most} that a guest can have")]
    TooMany {
        /// How many.
        count: usize,
        /// Of what.
        what: &'static str,
        /// How many there can be.
        most: usize,
    },
    /// Firmware draws on one.
    #[error("video `{first}` and `{second}` are both `primary`")]
    TwoPrimaries {
        /// The one.
        first: Id,
        /// The other.
        second: Id,
    },
    /// VGA there is once.
    #[error("video `{id}`: {model} can only be the primary one")]
    PrimaryOnly {
        /// The device.
        id: Id,
        /// The model.
        model: &'static str,
    },
    /// An input that is nothing.
    #[error("`{0}` does not say what it is")]
    NoKind(String),
    /// An evdev input without the device.
    #[error("`{0}` names no device of the host")]
    NoEvdev(String),
    /// QEMU has one `-display`.
    #[error("QEMU can have one of the displays `{first}` and `{second}`, not both")]
    TwoWindows {
        /// The one.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// Nobody would see it.
    #[error("the display `egl-headless` shows nothing by itself")]
    EglAlone,
    /// A key that wants another.
    #[error("`{key}` means nothing without `{other}`")]
    Without {
        /// The key.
        key: &'static str,
        /// What it wants.
        other: &'static str,
    },
    /// A key of ports.
    #[error("`{0}` means nothing with a Unix socket")]
    SocketAnd(String),
    /// Another user cannot make a file there.
    #[error(
        "`{key}`: QEMU is to run as the user `{user}`, who can make no socket in mvm's directories"
    )]
    SocketAs {
        /// The key.
        key: String,
        /// The user.
        user: String,
    },
    /// Not an address.
    #[error("`{key}`: {address:?} is not an address or a host's name")]
    BadAddress {
        /// The key.
        key: String,
        /// The text.
        address: String,
    },
    /// Not a connector.
    #[error("`display.local.connectors`: {0:?} is not the name of a connector")]
    BadConnector(String),
    /// All are taken.
    #[error("none of the ports 5930 to 5999 is free for SPICE")]
    NoPort,
    /// SPICE without a socket carries no GPU's pictures.
    #[error(
        "`display.spice.gl` needs `display.spice.socket = true`: with this QEMU ({0}) SPICE hands the GPU's pictures to viewers of this host only"
    )]
    RemoteGl(String),
    /// 3D without a GPU.
    #[error("`accel-3d` needs a display with the host's GPU")]
    NoGl,
    /// It goes through SPICE.
    #[error("`{0}` needs the display `spice`")]
    NeedsSpice(String),
    /// It goes through D-Bus.
    #[error("`{0}` needs the display `dbus`")]
    NeedsDbus(String),
    /// It goes through a display.
    #[error("`{0}` needs a display")]
    NoDisplay(String),
    /// Viewers are to hear what is not there.
    #[error("`{key}` names the sound card `{id}`, which the guest does not have")]
    NoAudio {
        /// The key.
        key: &'static str,
        /// The card.
        id: Id,
    },
    /// D-Bus carries its own.
    #[error("`display.dbus.audio`: the backend of the sound card `{0}` is not `dbus`")]
    AudioBackend(Id),
    /// No sound server.
    #[error("`{key}`: the user {user} has no {backend} running")]
    NoSoundServer {
        /// The key.
        key: String,
        /// The backend.
        backend: &'static str,
        /// The user.
        user: String,
    },
    /// Nobody is there.
    #[error("{}", no_session(.0.as_deref()))]
    NoSession(Option<String>),
    /// Only sessions that somebody says he has.
    #[error("`display.local`: of the sessions on this host none was opened by a login at its screen ({})", .0.join(", "))]
    UnknownSessions(Vec<String>),
    /// Which of them?
    #[error("several users have a graphical session: {}", .0.join(", "))]
    SeveralSessions(Vec<String>),
    /// It is somebody else's.
    #[error(
        "the window would open in the session of `{session}`, and QEMU runs as `{qemu}`, whom that session does not let in"
    )]
    OtherSession {
        /// Whose session.
        session: String,
        /// As whom QEMU runs.
        qemu: String,
    },
    /// An option of another QEMU.
    #[error("`{key}`: this QEMU ({version}) has no option `{option}` of the display {toolkit}")]
    NoOption {
        /// The key.
        key: String,
        /// QEMU's option.
        option: String,
        /// The toolkit.
        toolkit: &'static str,
        /// QEMU's version.
        version: String,
        /// Whether Intel's has it.
        of_intel: bool,
    },
    /// This QEMU lacks something.
    #[error(transparent)]
    Lacks(LackError),
}

fn no_session(user: Option<&str>) -> String {
    match user {
        Some(user) => format!("the user `{user}` has no graphical session on this host"),
        None => "there is no graphical session for `display.local` on this host".to_owned(),
    }
}

impl Hint for DesktopError {
    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::Lacks(lack) => return lack.hints(),
            Self::NoKind(key) => format!("set `{key}.device`"),
            Self::NoEvdev(key) => {
                format!("set `{key}.evdev.path`; /dev/input/by-id has names that stay")
            }
            Self::TwoWindows { .. } => {
                "`vnc` and `spice` go together with any one of the others".to_owned()
            }
            Self::EglAlone => "`display.type = [\"spice\", \"egl-headless\"]` shows it".to_owned(),
            Self::SocketAs { .. } => {
                "leave `socket` out: the port is on 127.0.0.1; `password-file` keeps other users of this host away"
                    .to_owned()
            }
            Self::NoGl => {
                "`display.local.gl`, `display.spice.gl`, `display.dbus.gl` and `egl-headless` have it"
                    .to_owned()
            }
            Self::NoSession(_) => {
                "log in there first, or take `--display vnc` or `--display spice`".to_owned()
            }
            Self::SeveralSessions(_) => "`display.local.user` names one".to_owned(),
            Self::UnknownSessions(users) => format!(
                "`display.local.user = \"{}\"` takes that user's session all the same",
                users.first().map_or("USER", String::as_str)
            ),
            Self::OtherSession { session, .. } => {
                format!("`security.user = \"{session}\"` runs QEMU as that user")
            }
            Self::NoOption { of_intel: true, .. } => {
                "it is an option of Intel's QEMU; `qemu.binary` names another QEMU".to_owned()
            }
            Self::NoPort => "`display.spice.port` names one, `display.spice.socket` does without".to_owned(),
            _ => return Vec::new(),
        };
        vec![hint]
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Lacks(lack) => lack.exit_code(),
            Self::NoPort
            | Self::RemoteGl(_)
            | Self::NoSoundServer { .. }
            | Self::NoSession(_)
            | Self::UnknownSessions(_)
            | Self::SeveralSessions(_)
            | Self::OtherSession { .. }
            | Self::NoOption { .. } => ExitCode::Host,
            _ => ExitCode::Profile,
        }
    }
}
