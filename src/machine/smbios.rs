//! What the guest's firmware says of the machine (SMBIOS): as the profile has it, or as this host's own says.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{BoardKind, Firmware};
use crate::error::{ExitCode, Hint};
use crate::host::{DmiFacts, dmi};
use crate::profile::schema::SmbiosTable;

/// What `-smbios` is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Smbios {
    /// The tables, by their types.
    pub tables: Vec<Table>,
    /// Texts of type 11.
    pub oem_strings: Vec<String>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its type: 0 the firmware, 1 the system, 2 the board, 3 the chassis.
    pub number: u8,
    /// QEMU's names of its fields, and what they say.
    pub fields: Vec<(String, String)>,
}

/// What cannot be said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SmbiosError {
    /// A board without.
    #[error("`[smbios]`: the board {0} has no SMBIOS tables")]
    NoTables(BoardKind),
    /// A host without.
    #[error(
        "`smbios.host = true`: this host has no SMBIOS tables (/sys/{})",
        dmi::PLACE
    )]
    HostHasNone,
    /// Not two numbers.
    #[error("`smbios.bios.release` is `{0}`; it is two numbers up to 255, as in `5.27`")]
    Release(String),
    /// Not a UUID.
    #[error("`smbios.system.uuid` is `{0}`, which is no UUID")]
    Uuid(String),
}

impl Hint for SmbiosError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::HostHasNone => ExitCode::Host,
            _ => ExitCode::Profile,
        }
    }
}

/// The guest's UUID, where the profile says one.
pub(super) fn uuid(table: &SmbiosTable) -> Result<Option<Uuid>, SmbiosError> {
    let text = table
        .system
        .as_ref()
        .and_then(|system| system.uuid.as_ref());
    text.map(|text| Uuid::parse_str(text).map_err(|_| SmbiosError::Uuid(text.clone())))
        .transpose()
}

/// QEMU's name of a field, what the profile says, and the kernel's name of what the host says.
type Field = (&'static str, Option<String>, &'static str);

/// The tables.
pub(super) fn smbios(
    table: &SmbiosTable,
    board: BoardKind,
    firmware: &Firmware,
    host: &DmiFacts,
    notes: &mut Vec<String>,
) -> Result<Smbios, SmbiosError> {
    let copies = table.host == Some(true);
    if copies && host.is_empty() {
        return Err(SmbiosError::HostHasNone);
    }
    let bios = table.bios.clone().unwrap_or_default();
    let system = table.system.clone().unwrap_or_default();
    let baseboard = table.baseboard.clone().unwrap_or_default();
    let chassis = table.chassis.clone().unwrap_or_default();
    if let Some(release) = &bios.release {
        if !is_release(release) {
            return Err(SmbiosError::Release(release.clone()));
        }
    }
    let all: [(u8, &[Field]); 4] = [
        (
            0,
            &[
                ("vendor", bios.vendor, "bios_vendor"),
                ("version", bios.version, "bios_version"),
                ("date", bios.date, "bios_date"),
                ("release", bios.release, "bios_release"),
            ],
        ),
        (
            1,
            &[
                ("manufacturer", system.manufacturer, "sys_vendor"),
                ("product", system.product, "product_name"),
                ("version", system.version, "product_version"),
                ("serial", system.serial, "product_serial"),
                ("sku", system.sku, "product_sku"),
                ("family", system.family, "product_family"),
            ],
        ),
        (
            2,
            &[
                ("manufacturer", baseboard.manufacturer, "board_vendor"),
                ("product", baseboard.product, "board_name"),
                ("version", baseboard.version, "board_version"),
                ("serial", baseboard.serial, "board_serial"),
                ("asset", baseboard.asset, "board_asset_tag"),
                // The kernel does not show the host's.
                ("location", baseboard.location, ""),
            ],
        ),
        (
            3,
            &[
                ("manufacturer", chassis.manufacturer, "chassis_vendor"),
                ("version", chassis.version, "chassis_version"),
                ("serial", chassis.serial, "chassis_serial"),
                ("asset", chassis.asset, "chassis_asset_tag"),
                ("sku", chassis.sku, ""),
            ],
        ),
    ];
    let mut hidden = Vec::new();
    let mut tables = Vec::new();
    for (number, fields) in all {
        let mut said = Vec::new();
        for (field, own, of_host) in fields {
            let copied = host.texts.get(*of_host).filter(|_| copies);
            // Odd ones are a matter of the host's firmware, not of the profile.
            let copied = copied.filter(|text| *field != "release" || is_release(text));
            match own.as_ref().or(copied) {
                Some(text) => said.push(((*field).to_owned(), text.clone())),
                None if copies && host.hidden.iter().any(|name| name == of_host) => {
                    hidden.push(*of_host);
                }
                None => {}
            }
        }
        if !said.is_empty() {
            let fields = said;
            tables.push(Table { number, fields });
        }
    }
    let smbios = Smbios {
        tables,
        oem_strings: table.oem_strings.clone().unwrap_or_default(),
    };
    if smbios == Smbios::default() {
        return Ok(smbios);
    }
    match board {
        BoardKind::Microvm => return Err(SmbiosError::NoTables(board)),
        // The tables reach a guest of this board by way of UEFI.
        BoardKind::Virt if !matches!(firmware, Firmware::Flash { .. }) => notes.push(
            "`[smbios]` is not seen by this guest: on virt it is UEFI that hands the tables on, \
             and the guest has none"
                .to_owned(),
        ),
        BoardKind::Virt | BoardKind::Q35 | BoardKind::Pc => {}
    }
    if !hidden.is_empty() {
        notes.push(format!(
            "`smbios.host` leaves out {}, which only root may read",
            hidden.join(", ")
        ));
    }
    Ok(smbios)
}

fn is_release(text: &str) -> bool {
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u8>().is_ok();
    text.split_once('.')
        .is_some_and(|(major, minor)| number(major) && number(minor))
}
