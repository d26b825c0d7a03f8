//! What shows the host's console on a screen.

use serde::{Deserialize, Serialize};

use super::pci::PciDevice;
use super::place;
use super::slow::Answers;
use crate::host::sysfs::Sysfs;
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

/// Where the console's drivers are.
const VT: &str = "class/vtconsole";

/// The files that tell which of them draw, read beside others that may not answer.
pub(super) fn slow_files(sysfs: &Sysfs) -> Vec<String> {
    let names = sysfs.list(VT).unwrap_or_default();
    let on_frame_buffer = |name: &&String| {
        sysfs
            .read(format!("{VT}/{name}/name"))
            .is_ok_and(|text| text.contains("frame buffer"))
    };
    names.iter().filter(on_frame_buffer).map(bind).collect()
}

fn bind(name: &String) -> String {
    format!("{VT}/{name}/bind")
}

/// What draws the console.
///
/// The GPU of a frame buffer is the one that the frame buffer's device is, or is below (firmware frame
/// buffers since Linux 6.9); else the one on which the firmware showed its messages.
pub(super) fn read(sysfs: &Sysfs, pci: &[PciDevice], answers: &Answers) -> Vec<BootConsole> {
    let boot_gpu = || pci.iter().find(|device| device.boot_vga).map(|gpu| gpu.bdf);
    let gpu_of = |rel: &str| place::of(sysfs, rel).function().or_else(boot_gpu);
    let mut all = Vec::new();
    let names = sysfs.list(VT).unwrap_or_default();
    for name in names {
        if answers.text(&bind(&name)) == Some("1") {
            // The console is on the first frame buffer, unless somebody moved it by hand.
            let buffers = sysfs.list("class/graphics").unwrap_or_default();
            let first = buffers.iter().find(|name| {
                let number = name.strip_prefix("fb").unwrap_or_default();
                !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
            });
            all.push(BootConsole {
                kind: ConsoleKind::Vt,
                device: name,
                gpu: first.and_then(|fb| gpu_of(&format!("class/graphics/{fb}"))),
            });
        }
    }
    for device in sysfs.list("bus/platform/devices").unwrap_or_default() {
        let firmware = device
            .rsplit_once('.')
            .is_some_and(|(name, _)| name.ends_with("-framebuffer"));
        let dir = format!("bus/platform/devices/{device}");
        let driver = firmware.then(|| sysfs.link_name(format!("{dir}/driver")));
        if let Some(Ok(Some(driver))) = driver {
            all.push(BootConsole {
                kind: ConsoleKind::Platform { driver },
                gpu: gpu_of(&dir),
                device,
            });
        }
    }
    all
}
