//! `[display]`: where the guest's pictures go.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::Id;

table! {
    /// `[display]`: where the guest's pictures go. Several at once are possible.
    DisplayTable {
        /// One of `headless`, `vnc`, `spice`, `local`, `egl-headless` and `dbus`, or a list of them, as in
        /// `["spice", "egl-headless"]`. By default those that have a table of their own, else `headless`.
        r#type: DisplayTypes,
        /// How many outputs the guest's first video device has, 1 to 16.
        outputs: u32,
        /// Host and guest share a clipboard: with SPICE through its own agent, else through QEMU's, which the
        /// guest's spice-vdagent talks to. By default with SPICE.
        clipboard: bool,
        /// A VNC server.
        vnc: VncTable,
        /// A SPICE server.
        spice: SpiceTable,
        /// A window in a session of this host.
        local: LocalTable,
        /// Pictures are computed by the host's GPU and shown elsewhere.
        egl_headless: EglTable,
        /// A display on D-Bus.
        dbus: DbusTable,
    }
}

table! {
    /// `[display.vnc]`
    VncTable {
        /// The address that it listens on. By default `127.0.0.1`: this host only.
        listen: String,
        /// The port, 5900 or more, or `auto` (the default): the first that is free from 5900 on.
        port: DisplayPort,
        /// The last port that may be taken instead, where `port` is not free.
        to: u16,
        /// A Unix socket in the guest's run-time directory, in place of a port.
        socket: bool,
        /// A file with the password that viewers need; of that protocol only 8 characters count.
        password_file: String,
        /// The folder with `ca-cert.pem`, `server-cert.pem` and `server-key.pem`: connections are encrypted.
        tls: String,
        /// With `tls`: viewers need a certificate of that authority too.
        tls_verify: bool,
        /// What a second viewer means. By default `allow-exclusive`.
        share: VncShare,
        /// The `[audio.NAME]` that viewers hear.
        audio: Id,
    }
}

table! {
    /// `[display.spice]`
    SpiceTable {
        /// The address that it listens on. By default `127.0.0.1`: this host only.
        listen: String,
        /// The port, or `auto` (the default): the first that is free from 5930 to 5999.
        port: DisplayPort,
        /// A Unix socket in the guest's run-time directory, in place of a port.
        socket: bool,
        /// A file with the password that viewers need.
        password_file: String,
        /// The folder with `ca-cert.pem`, `server-cert.pem` and `server-key.pem`: connections are encrypted, and
        /// `port` takes no others.
        tls: String,
        /// How pictures are compressed. By default `auto-glz`.
        image_compression: SpiceImages,
        /// Whether pictures are compressed with losses on slow connections. By default `auto`.
        jpeg_compression: SpiceWan,
        /// Whether pictures are compressed once more on slow connections. By default `auto`.
        zlib_compression: SpiceWan,
        /// Whether sound is compressed. On by default.
        playback_compression: bool,
        /// Which parts of the picture are sent as video. By default `off`.
        streaming: SpiceStreaming,
        /// The guest has the channel of SPICE's agent, `com.redhat.spice.0`. On by default.
        agent: bool,
        /// The pointer goes through the agent. On by default.
        agent_mouse: bool,
        /// Files can be dropped on the guest, through the agent. On by default.
        file_transfer: bool,
        /// The guest has the channel of shared folders, `org.spice-space.webdav.0`.
        webdav: bool,
        /// Pictures are computed by the host's GPU and handed to a viewer on this host. Wants `socket`.
        gl: bool,
        /// The GPU's render node, as in `/dev/dri/renderD128`. By default the first.
        rendernode: String,
    }
}

table! {
    /// `[display.local]`: a window in a graphical session of this host.
    LocalTable {
        /// The user whose session it is. By default the user who runs mvm, for root the one whose session is
        /// there.
        user: String,
        /// What draws the window. By default `gtk` where QEMU has it, else `sdl`.
        toolkit: Toolkit,
        /// Pictures are computed by the host's GPU.
        gl: bool,
        /// The window fills the screen.
        full_screen: bool,
        /// The window's close button ends the guest. Off by default: QEMU would end without a word to the guest.
        window_close: bool,
        /// The host's pointer stays visible over the window.
        show_cursor: bool,
        /// The picture takes the window's size (`gtk`).
        zoom_to_fit: bool,
        /// Tabs instead of a window for each output (`gtk`).
        show_tabs: bool,
        /// A menu bar (`gtk`, from QEMU 7.1 on). On by default, but for a full screen.
        show_menubar: bool,
        /// The host's connectors, one for each output, as in `["HDMI-1", "DP-1"]` (Intel's QEMU).
        connectors: Vec<String>,
        /// Frames in a second are shown on the first output (Intel's QEMU).
        show_fps: bool,
        /// The pointer goes from one output to the next (Intel's QEMU).
        extend_abs_mode: bool,
        /// `false`: the guest gets nothing of the host's keyboard and mouse (Intel's QEMU).
        host_input: bool,
        /// The pointer is drawn by the host's GPU (Intel's QEMU).
        hw_cursor: bool,
    }
}

table! {
    /// `[display.egl-headless]`
    EglTable {
        /// The GPU's render node, as in `/dev/dri/renderD128`. By default the first.
        rendernode: String,
    }
}

table! {
    /// `[display.dbus]`
    DbusTable {
        /// The bus, as in `unix:path=/run/user/1000/bus`. By default none: viewers connect through QMP.
        address: String,
        /// Pictures are computed by the host's GPU.
        gl: bool,
        /// The GPU's render node. By default the first.
        rendernode: String,
        /// The `[audio.NAME]` that viewers hear; its backend is `dbus`.
        audio: Id,
    }
}

words! {
    /// `display.type`
    DisplayType {
        /// Nowhere.
        Headless = "headless",
        /// A VNC server.
        Vnc = "vnc",
        /// A SPICE server.
        Spice = "spice",
        /// A window in a session of this host.
        Local = "local",
        /// The host's GPU, shown by VNC or SPICE.
        EglHeadless = "egl-headless",
        /// D-Bus.
        Dbus = "dbus",
    }
}

words! {
    /// `display.vnc.share`
    VncShare {
        /// A viewer may ask to be the only one.
        AllowExclusive = "allow-exclusive",
        /// All viewers share it.
        ForceShared = "force-shared",
        /// All viewers share it, whatever they ask for.
        Ignore = "ignore",
    }
}

words! {
    /// `display.spice.image-compression`
    SpiceImages {
        /// What suits the picture, GLZ among it.
        AutoGlz = "auto-glz",
        /// What suits the picture, LZ among it.
        AutoLz = "auto-lz",
        /// For photographs.
        Quic = "quic",
        /// LZ with a dictionary over all pictures.
        Glz = "glz",
        /// LZ.
        Lz = "lz",
        /// None.
        Off = "off",
    }
}

words! {
    /// `display.spice.jpeg-compression` and `zlib-compression`
    SpiceWan {
        /// On slow connections.
        Auto = "auto",
        /// Never.
        Never = "never",
        /// Always.
        Always = "always",
    }
}

words! {
    /// `display.spice.streaming`
    SpiceStreaming {
        /// None.
        Off = "off",
        /// Every part that changes often.
        All = "all",
        /// Those that look like video.
        Filter = "filter",
    }
}

words! {
    /// `display.local.toolkit`
    Toolkit {
        /// GTK.
        Gtk = "gtk",
        /// SDL.
        Sdl = "sdl",
    }
}

/// One kind of display or several.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DisplayTypes(pub Vec<DisplayType>);

impl Serialize for DisplayTypes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            all => all.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for DisplayTypes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = DisplayTypes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a kind of display or a list of them")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<DisplayTypes, E> {
                let one = DisplayType::deserialize(serde::de::value::StrDeserializer::new(text))?;
                Ok(DisplayTypes(vec![one]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<DisplayTypes, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(DisplayTypes(all))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for DisplayTypes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DisplayTypes".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = generator.subschema_for::<DisplayType>();
        schemars::json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// A port, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisplayPort {
    /// One that is free.
    Auto,
    /// That one.
    Number(u16),
}

impl Serialize for DisplayPort {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Number(number) => serializer.serialize_u16(*number),
        }
    }
}

impl<'de> Deserialize<'de> for DisplayPort {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = DisplayPort;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port from 1 to 65535 or `auto`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<DisplayPort, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Str(text), &self);
                match text {
                    "auto" => Ok(DisplayPort::Auto),
                    _ => text
                        .parse()
                        .ok()
                        .filter(|port| *port > 0)
                        .map(DisplayPort::Number)
                        .ok_or_else(wrong),
                }
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<DisplayPort, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Signed(number), &self);
                u16::try_from(number)
                    .ok()
                    .filter(|port| *port > 0)
                    .map(DisplayPort::Number)
                    .ok_or_else(wrong)
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<DisplayPort, E> {
                self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for DisplayPort {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DisplayPort".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 65535 }, { "const": "auto" }]
        })
    }
}
