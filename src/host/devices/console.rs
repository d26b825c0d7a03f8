//! What shows the host's console on a screen.

use serde::{Deserialize, Serialize};

use crate::ids::Bdf;

/// Something that draws the host's console on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BootConsole {
    /// How it does so.
    pub kind: ConsoleKind,
    /// Its name: `vtcon1`, `efi-framebuffer.0`.
    pub device: String,
    /// The GPU whose memory it draws into, where that is known.
    pub gpu: Option<Bdf>,
}

/// How the console is drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsoleKind {
    /// A virtual terminal bound to a frame buffer: `/sys/class/vtconsole/NAME/bind` holds 1.
    Vt,
    /// A platform device with the firmware's frame buffer.
    Platform {
        /// Its driver: `efi-framebuffer`, `vesa-framebuffer`, `simple-framebuffer` (also simpledrm's).
        driver: String,
    },
}
