//! Video devices.

use serde::{Deserialize, Serialize};

use super::{Around, DesktopError};
use crate::ids::Id;
use crate::machine::slots::VIDEO_MAX;
use crate::machine::{BoardKind, Bus, HostDeviceKind};
use crate::profile::schema::{Layer, VideoModel, VideoTable};
use crate::units::Size;

/// The name of the device that `gpu.virtio` makes.
pub const GPU_ID: &str = "mvm-gpu";
/// The name of the one that a guest with a display has by itself.
pub const DEFAULT_ID: &str = "video0";
/// `VIRTIO_GPU_MAX_SCANOUTS`
const MOST_OUTPUTS: u32 = 16;

/// A video device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Video {
    /// Its name.
    pub id: Id,
    /// What it is.
    pub model: VideoModel,
    /// Whether firmware draws on it.
    pub primary: bool,
    /// How many outputs it has, where that is said.
    pub outputs: Option<u32>,
    /// Whether pictures are shared with the host's GPU.
    pub blob: Option<bool>,
    /// Whether the guest computes on the host's GPU.
    pub accel_3d: bool,
    /// qxl's `ram`.
    pub ram: Option<Size>,
    /// qxl's `vram`.
    pub vram: Option<Size>,
    /// The memory of the screen.
    pub vgamem: Option<Size>,
    /// virtio's window to the host's memory.
    pub hostmem: Option<Size>,
    /// The width that it proposes.
    pub xres: Option<u32>,
    /// The height that it proposes.
    pub yres: Option<u32>,
}

/// A value of a device's property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(u64),
}

impl Video {
    fn new(id: Id, model: VideoModel) -> Self {
        Self {
            id,
            model,
            primary: true,
            outputs: None,
            blob: None,
            accel_3d: false,
            ram: None,
            vram: None,
            vgamem: None,
            hostmem: None,
            xres: None,
            yres: None,
        }
    }

    /// QEMU's device type.
    pub const fn driver(&self, board: BoardKind) -> &'static str {
        let vga = self.primary && matches!(board, BoardKind::Q35 | BoardKind::Pc);
        match (self.model, vga, self.accel_3d, board.bus()) {
            (VideoModel::Qxl, true, ..) => "qxl-vga",
            (VideoModel::Qxl, ..) => "qxl",
            (VideoModel::VirtioVga, true, false, _) => "virtio-vga",
            (VideoModel::VirtioVga, true, true, _) => "virtio-vga-gl",
            (VideoModel::VirtioVga | VideoModel::VirtioGpu, _, false, Bus::Mmio) => {
                "virtio-gpu-device"
            }
            (VideoModel::VirtioVga | VideoModel::VirtioGpu, _, true, Bus::Mmio) => {
                "virtio-gpu-gl-device"
            }
            (VideoModel::VirtioVga | VideoModel::VirtioGpu, _, false, _) => "virtio-gpu-pci",
            (VideoModel::VirtioVga | VideoModel::VirtioGpu, _, true, _) => "virtio-gpu-gl-pci",
            (VideoModel::Std, true, ..) => "VGA",
            (VideoModel::Std, ..) => "secondary-vga",
            (VideoModel::Cirrus, ..) => "cirrus-vga",
            (VideoModel::Bochs, ..) => "bochs-display",
            (VideoModel::Ramfb | VideoModel::None, ..) => "ramfb",
        }
    }

    /// Whether it sits on the board's bus; ramfb is a part of the firmware's configuration.
    pub fn has_place(&self) -> bool {
        self.model != VideoModel::Ramfb
    }

    /// Whether it is a virtio device.
    pub fn is_virtio(&self) -> bool {
        matches!(self.model, VideoModel::VirtioVga | VideoModel::VirtioGpu)
    }

    /// The properties that the profile sets, with QEMU's names.
    pub fn properties(&self) -> Vec<(&'static str, Value)> {
        let mib = |size: Size| Value::Number(size.as_bytes() >> 20);
        let bytes = |size: Size| Value::Number(size.as_bytes());
        let number = |number: u32| Value::Number(number.into());
        let vgamem = match self.model {
            VideoModel::Bochs => self.vgamem.map(|size| ("vgamem", bytes(size))),
            _ => self.vgamem.map(|size| ("vgamem_mb", mib(size))),
        };
        [
            self.outputs.map(|outputs| ("max_outputs", number(outputs))),
            self.blob.map(|blob| ("blob", Value::Bool(blob))),
            self.ram.map(|size| ("ram_size_mb", mib(size))),
            self.vram.map(|size| ("vram_size_mb", mib(size))),
            vgamem,
            self.hostmem.map(|size| ("hostmem", bytes(size))),
            self.xres.map(|width| ("xres", number(width))),
            self.yres.map(|height| ("yres", number(height))),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The model of a board that draws for whoever looks.
const fn usual(board: BoardKind) -> VideoModel {
    match board {
        BoardKind::Q35 | BoardKind::Pc => VideoModel::VirtioVga,
        BoardKind::Virt | BoardKind::Microvm => VideoModel::VirtioGpu,
    }
}

/// The video devices, the primary one first.
pub(super) fn videos(
    layer: &Layer,
    outputs: Option<u32>,
    shown: bool,
    around: &Around,
) -> Result<Vec<Video>, DesktopError> {
    let board = around.board.kind;
    let mut said = false;
    let mut videos = Vec::new();
    for (id, table) in layer.video.iter().flatten() {
        said = true;
        let model = table.model.unwrap_or(usual(board));
        if model != VideoModel::None {
            videos.push(video(id, model, table, board)?);
        }
    }
    let gpu = layer.gpu.as_ref().and_then(|gpu| gpu.virtio) == Some(true);
    // A guest with all of a GPU has that one's own outputs.
    let whole = layer
        .gpu
        .as_ref()
        .is_some_and(|gpu| gpu.whole == Some(true))
        && around
            .devices
            .devices
            .iter()
            .any(|device| matches!(device.kind, HostDeviceKind::Pci(_)));
    if gpu && !videos.iter().any(Video::is_virtio) {
        let id: Id = GPU_ID.parse().expect("it is an id");
        let mut video = Video::new(id, usual(board));
        video.primary = !videos.iter().any(|other| other.primary);
        videos.push(video);
    } else if shown && !said && !gpu && !whole {
        let id: Id = DEFAULT_ID.parse().expect("it is an id");
        videos.push(Video::new(id, usual(board)));
    }
    let mut primaries = videos.iter().filter(|video| video.primary);
    if let (Some(first), Some(second)) = (primaries.next(), primaries.next()) {
        return Err(DesktopError::TwoPrimaries {
            first: first.id.clone(),
            second: second.id.clone(),
        });
    }
    // The others keep the order of their names.
    videos.sort_by_key(|video| !video.primary);
    if let Some(first) = videos.first_mut() {
        first.primary = true;
        if outputs.is_some() {
            first.outputs = outputs;
        }
    }
    let pci = videos.iter().filter(|video| video.has_place()).count();
    let most = if board == BoardKind::Microvm {
        1
    } else {
        VIDEO_MAX
    };
    if pci > most {
        return Err(DesktopError::TooMany {
            count: pci,
            what: "video devices",
            most,
        });
    }
    for video in &videos {
        fits(video, board)?;
    }
    Ok(videos)
}

fn video(
    id: &Id,
    model: VideoModel,
    table: &VideoTable,
    board: BoardKind,
) -> Result<Video, DesktopError> {
    let virtio = matches!(model, VideoModel::VirtioVga | VideoModel::VirtioGpu);
    let qxl = model == VideoModel::Qxl;
    let vga = matches!(model, VideoModel::Std | VideoModel::Cirrus);
    let bochs = model == VideoModel::Bochs;
    for (key, said, fits) in [
        ("outputs", table.outputs.is_some(), virtio || qxl),
        ("blob", table.blob.is_some(), virtio),
        ("accel-3d", table.accel_3d.is_some(), virtio),
        ("ram", table.ram.is_some(), qxl),
        ("vram", table.vram.is_some(), qxl),
        ("vgamem", table.vgamem.is_some(), qxl || vga || bochs),
        ("hostmem", table.hostmem.is_some(), virtio),
        (
            "xres",
            table.xres.is_some(),
            virtio || qxl || bochs || model == VideoModel::Std,
        ),
        (
            "yres",
            table.yres.is_some(),
            virtio || qxl || bochs || model == VideoModel::Std,
        ),
    ] {
        if said && !fits {
            return Err(DesktopError::NotOf {
                key: format!("video.{id}.{key}"),
                model: model.as_str(),
            });
        }
    }
    for (key, size) in [
        ("ram", table.ram),
        ("vram", table.vram),
        ("vgamem", table.vgamem),
    ] {
        if size.is_some_and(|size| !size.as_bytes().is_power_of_two() || size.as_bytes() < 1 << 20)
        {
            return Err(DesktopError::PowerOfTwo(format!("video.{id}.{key}")));
        }
    }
    let board_has = match board {
        BoardKind::Q35 | BoardKind::Pc => true,
        BoardKind::Virt => virtio || bochs || model == VideoModel::Ramfb,
        BoardKind::Microvm => virtio,
    };
    if !board_has {
        return Err(DesktopError::NoModel {
            key: format!("video.{id}"),
            model: model.as_str(),
            board,
        });
    }
    Ok(Video {
        primary: table.primary == Some(true),
        outputs: table.outputs,
        blob: table.blob,
        accel_3d: table.accel_3d == Some(true),
        ram: table.ram,
        vram: table.vram,
        vgamem: table.vgamem,
        hostmem: table.hostmem,
        xres: table.xres,
        yres: table.yres,
        ..Video::new(id.clone(), model)
    })
}

/// What depends on `display.outputs` and on which device is the primary one.
fn fits(video: &Video, board: BoardKind) -> Result<(), DesktopError> {
    let several = video.is_virtio() || video.model == VideoModel::Qxl;
    let most = if several { MOST_OUTPUTS } else { 1 };
    let key = || format!("video.{}.outputs", video.id);
    if let Some(outputs) = video.outputs {
        if !(1..=most).contains(&outputs) {
            return Err(DesktopError::Range {
                key: key(),
                value: outputs,
                least: 1,
                most,
            });
        }
    }
    let second = !video.primary && matches!(board, BoardKind::Q35 | BoardKind::Pc);
    if second && matches!(video.model, VideoModel::Cirrus) {
        return Err(DesktopError::PrimaryOnly {
            id: video.id.clone(),
            model: video.model.as_str(),
        });
    }
    Ok(())
}
