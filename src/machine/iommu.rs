//! IOMMUs of hardware, as QEMU makes them: a part of the board rather than a device of virtio.

use serde::{Deserialize, Serialize};

use super::{Accel, AccelKind, Board, BoardKind};
use crate::error::{ExitCode, Hint};
use crate::profile::schema::{IommuModel, IommuTable, Irqchip};

/// An IOMMU of hardware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Iommu {
    /// VT-d.
    Intel(Intel),
    /// Arm's.
    Smmuv3,
}

/// What is said of VT-d. What is not said is as QEMU has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intel {
    /// Whether the guest tells of each change of its tables.
    pub caching_mode: bool,
    /// Whether devices keep translations.
    pub device_iotlb: bool,
    /// How wide the addresses of devices are.
    pub aw_bits: Option<u8>,
    /// Whether interrupts are translated.
    pub interrupt_remapping: Option<bool>,
}

impl Iommu {
    /// As profiles call it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Intel(_) => "intel",
            Self::Smmuv3 => "smmuv3",
        }
    }
}

impl Board {
    /// Whether the guest has an IOMMU, behind which each device sees memory of its own.
    pub const fn translates(&self) -> bool {
        self.virtio_iommu || self.iommu.is_some()
    }
}

/// An IOMMU that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IommuError {
    /// The board has another one.
    #[error("`iommu.model = \"{model}\"` is for the board {fits}, not for {board}")]
    OtherBoard {
        /// The model.
        model: IommuModel,
        /// The board that has it.
        fits: BoardKind,
        /// This one.
        board: BoardKind,
    },
    /// The key belongs to VT-d.
    #[error("`iommu.{0}` is for `iommu.model = \"intel\"`")]
    IntelOnly(&'static str),
    /// Another width.
    #[error("`iommu.aw-bits` is {0}; VT-d has 39 and 48")]
    Width(u8),
    /// QEMU's SMMUv3 does not tell VFIO of the guest's tables.
    #[error("`iommu.model = \"smmuv3\"` cannot carry devices of the host")]
    NoVfio,
    /// Devices of the host follow the guest's tables by it.
    #[error("devices of the host need `iommu.caching-mode`, which is off")]
    NoCaching,
    /// KVM does the work of the I/O APIC.
    #[error("`iommu.interrupt-remapping` does not go with `machine.irqchip = \"kernel\"`")]
    NeedsSplit,
}

impl Hint for IommuError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::OtherBoard { .. } => {
                vec!["`iommu.model = \"virtio\"` is for both q35 and virt".to_owned()]
            }
            Self::NoVfio => vec!["`iommu.model = \"virtio\"` can".to_owned()],
            Self::NoCaching => vec!["leave it out".to_owned()],
            Self::NeedsSplit => vec!["leave `machine.irqchip` out: it is `split` then".to_owned()],
            Self::IntelOnly(_) | Self::Width(_) => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Profile
    }
}

/// The IOMMU, without a look at devices of the host.
pub(super) fn iommu(table: &IommuTable, board: BoardKind) -> Result<Option<Iommu>, IommuError> {
    let model = table.model.unwrap_or(IommuModel::None);
    let intel_only = [
        ("caching-mode", table.caching_mode.is_some()),
        ("device-iotlb", table.device_iotlb.is_some()),
        ("aw-bits", table.aw_bits.is_some()),
        ("interrupt-remapping", table.interrupt_remapping.is_some()),
    ];
    let foreign = intel_only.iter().find(|(_, said)| *said);
    if let Some((key, _)) = foreign.filter(|_| model != IommuModel::Intel) {
        return Err(IommuError::IntelOnly(key));
    }
    let fits = match model {
        IommuModel::None | IommuModel::Virtio => return Ok(None),
        IommuModel::Intel => BoardKind::Q35,
        IommuModel::Smmuv3 => BoardKind::Virt,
    };
    if board != fits {
        return Err(IommuError::OtherBoard { model, fits, board });
    }
    if model == IommuModel::Smmuv3 {
        return Ok(Some(Iommu::Smmuv3));
    }
    if let Some(bits) = table.aw_bits.filter(|bits| ![39, 48].contains(bits)) {
        return Err(IommuError::Width(bits));
    }
    Ok(Some(Iommu::Intel(Intel {
        caching_mode: table.caching_mode.unwrap_or(false),
        device_iotlb: table.device_iotlb.unwrap_or(false),
        aw_bits: table.aw_bits,
        interrupt_remapping: table.interrupt_remapping,
    })))
}

/// Where KVM's interrupt controllers are: one that translates is QEMU's.
pub(super) fn irqchip(
    table: &IommuTable,
    asked: Option<Irqchip>,
    accel: &Accel,
) -> Result<Option<Irqchip>, IommuError> {
    if table.interrupt_remapping != Some(true) || accel.chosen != AccelKind::Kvm {
        return Ok(asked);
    }
    match asked {
        Some(Irqchip::Kernel) => Err(IommuError::NeedsSplit),
        asked => Ok(Some(asked.unwrap_or(Irqchip::Split))),
    }
}

/// The same for a guest that gets devices of the host through VFIO.
pub(super) fn with_vfio(
    table: &IommuTable,
    iommu: Option<Iommu>,
) -> Result<Option<Iommu>, IommuError> {
    match iommu {
        Some(Iommu::Smmuv3) => Err(IommuError::NoVfio),
        Some(Iommu::Intel(_)) if table.caching_mode == Some(false) => Err(IommuError::NoCaching),
        Some(Iommu::Intel(intel)) => Ok(Some(Iommu::Intel(Intel {
            caching_mode: true,
            ..intel
        }))),
        None => Ok(None),
    }
}
