//! How much a guest may do with a disk.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::DiskError;
use crate::ids::Id;
use crate::machine::Disk;
use crate::profile::schema::ThrottleTable;

/// How much the guest may do with a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// The disks that share the limits.
    pub group: Option<Id>,
    /// The limits, by the names of QEMU's `ThrottleLimits`.
    pub limits: BTreeMap<String, u64>,
}

/// The limits of a table.
fn limits(table: &ThrottleTable) -> BTreeMap<String, u64> {
    // A throttle is plain data, with QEMU's own names.
    let value = serde_json::to_value(table).unwrap_or_default();
    let keys = value.as_object().into_iter().flatten();
    keys.filter_map(|(key, value)| Some((key.clone(), value.as_u64()?)))
        .chain(sizes(table))
        .collect()
}

/// Those that are sizes, which as text are not numbers.
fn sizes(table: &ThrottleTable) -> impl Iterator<Item = (String, u64)> {
    [
        ("bps-total", table.bps_total),
        ("bps-read", table.bps_read),
        ("bps-write", table.bps_write),
        ("bps-total-max", table.bps_total_max),
        ("bps-read-max", table.bps_read_max),
        ("bps-write-max", table.bps_write_max),
        ("iops-size", table.iops_size),
    ]
    .into_iter()
    .filter_map(|(key, size)| Some((key.to_owned(), size?.as_bytes())))
}

/// The limits of a disk. A group's are those that one of its disks says; `others` are the disks there are.
pub(super) fn throttle<'a>(
    id: &Id,
    table: Option<&ThrottleTable>,
    others: impl Iterator<Item = &'a Disk>,
) -> Result<Option<Throttle>, DiskError> {
    let Some(table) = table else { return Ok(None) };
    let mut limits = limits(table);
    check(id, &limits)?;
    let throttles =
        others.filter_map(|disk| disk.options.throttle.as_ref().map(|one| (&disk.id, one)));
    if let Some(group) = &table.group {
        let mut same = throttles.filter(|(_, one)| one.group.as_ref() == Some(group));
        if let Some((first, one)) = same.find(|(_, one)| !one.limits.is_empty()) {
            if limits.is_empty() {
                limits.clone_from(&one.limits);
            } else if limits != one.limits {
                return Err(DiskError::GroupDiffers {
                    group: group.clone(),
                    first: first.clone(),
                    second: id.clone(),
                });
            }
        }
    } else if limits.is_empty() {
        return Err(DiskError::NoLimits(id.clone()));
    }
    Ok(Some(Throttle {
        group: table.group.clone(),
        limits,
    }))
}

/// Gives the disks of a group that stand before the one that says the limits theirs.
pub(super) fn settle(disks: &mut [Disk]) -> Result<(), DiskError> {
    let said: Vec<(Id, BTreeMap<String, u64>)> = disks
        .iter()
        .filter_map(|disk| disk.options.throttle.as_ref())
        .filter(|one| !one.limits.is_empty())
        .filter_map(|one| Some((one.group.clone()?, one.limits.clone())))
        .collect();
    for disk in disks {
        let Some(throttle) = disk
            .options
            .throttle
            .as_mut()
            .filter(|one| one.limits.is_empty())
        else {
            continue;
        };
        let group = throttle.group.as_ref();
        match said.iter().find(|(other, _)| Some(other) == group) {
            Some((_, limits)) => throttle.limits.clone_from(limits),
            None => return Err(DiskError::NoLimits(disk.id.clone())),
        }
    }
    Ok(())
}

/// What QEMU would refuse (`throttle_is_valid` of util/throttle.c).
fn check(id: &Id, limits: &BTreeMap<String, u64>) -> Result<(), DiskError> {
    let error = |message: String| DiskError::Limits {
        id: id.clone(),
        message,
    };
    let get = |key: &str| limits.get(key).copied();
    for unit in ["iops", "bps"] {
        for suffix in ["", "-max"] {
            let total = format!("{unit}-total{suffix}");
            let parts = [
                format!("{unit}-read{suffix}"),
                format!("{unit}-write{suffix}"),
            ];
            if let Some(part) = parts.iter().find(|part| get(part).is_some()) {
                if get(&total).is_some() {
                    return Err(error(format!("`{part}` goes without `{total}`")));
                }
            }
        }
        for kind in ["total", "read", "write"] {
            let base = format!("{unit}-{kind}");
            let max = format!("{base}-max");
            let length = format!("{max}-length");
            match (get(&base), get(&max), get(&length)) {
                (None, Some(_), _) => {
                    return Err(error(format!("`{max}` needs `{base}`")));
                }
                (Some(base_value), Some(max_value), _) if max_value < base_value => {
                    return Err(error(format!("`{max}` is less than `{base}`")));
                }
                (_, None, Some(_)) => return Err(error(format!("`{length}` needs `{max}`"))),
                (_, _, Some(0)) => return Err(error(format!("`{length}` is at least 1"))),
                (Some(0), ..) => {
                    return Err(error(format!(
                        "`{base}` is 0, by which nothing would be done"
                    )));
                }
                _ => {}
            }
        }
    }
    if get("iops-size").is_some()
        && !limits
            .keys()
            .any(|key| key.starts_with("iops-") && key != "iops-size")
    {
        return Err(error("`iops-size` needs a limit of requests".to_owned()));
    }
    Ok(())
}
