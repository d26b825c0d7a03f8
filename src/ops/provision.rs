//! What Intel's GPU drivers let one give to each virtual function.
//!
//! i915 has it beside the card (`prelim_iov` or `iov`), xe of Linux 6.19 beside the PCI function
//! (`sriov_admin`: the scheduling values), and every xe in debugfs. Written before the functions are
//! made: until then they are the physical function's to give.

use std::path::{Component, Path, PathBuf};

use super::device_error::DeviceError;
use super::driver::dir_of;
use super::sysfs::{Device, Place};
use crate::handover::Provision;
use crate::ids::Bdf;
use crate::plan::step::Attribute;

/// The files to write, in that order, for `count` virtual functions.
///
/// # Errors
/// The driver has no such setting.
pub(crate) fn settings(
    place: &Place,
    pf: Bdf,
    count: u32,
    wanted: &Provision,
) -> Result<Vec<Attribute>, DeviceError> {
    let bytes = |size: Option<crate::units::Size>| size.map(crate::units::Size::as_bytes);
    let number = |number: Option<u32>| number.map(u64::from);
    let of_pf = [
        ("ggtt_spare", bytes(wanted.ggtt_spare)),
        ("contexts_spare", number(wanted.contexts_spare)),
        ("doorbells_spare", number(wanted.doorbells_spare)),
    ];
    let of_vf = [
        ("ggtt_quota", bytes(wanted.ggtt_quota)),
        ("lmem_quota", bytes(wanted.lmem_quota)),
        ("contexts_quota", number(wanted.contexts_quota)),
        ("doorbells_quota", number(wanted.doorbells_quota)),
        ("exec_quantum_ms", number(wanted.exec_quantum_ms)),
        ("preempt_timeout_us", number(wanted.preempt_timeout_us)),
    ];
    let mut found = Vec::new();
    let who = std::iter::once("pf".to_owned());
    for (name, value) in of_pf {
        find(place, pf, who.clone(), name, value, &mut found)?;
    }
    for (name, value) in of_vf {
        let who = (1..=count).map(|index| format!("vf{index}"));
        find(place, pf, who, name, value, &mut found)?;
    }
    Ok(found)
}

fn find(
    place: &Place,
    pf: Bdf,
    who: impl Iterator<Item = String>,
    name: &'static str,
    value: Option<u64>,
    found: &mut Vec<Attribute>,
) -> Result<(), DeviceError> {
    let Some(value) = value else {
        return Ok(());
    };
    let before = found.len();
    for who in who {
        // The first place that has it: the others show the same.
        let paths = folders(place, pf, &who).into_iter().find_map(|folders| {
            let paths: Vec<PathBuf> = folders
                .into_iter()
                .map(|folder| folder.join(name))
                .filter(|path| place.exists(path))
                .collect();
            (!paths.is_empty()).then_some(paths)
        });
        found.extend(paths.into_iter().flatten().map(|path| Attribute {
            path,
            value: value.to_string(),
        }));
    }
    if found.len() > before {
        return Ok(());
    }
    Err(DeviceError::NoSetting {
        pf: pf.to_string(),
        setting: name,
    })
}

/// Where the settings of `pf` or `vf1` may be: for each place the folders, one for each GT.
fn folders(place: &Place, pf: Bdf, who: &str) -> Vec<Vec<PathBuf>> {
    let mut places = Vec::new();
    for card in place.list(dir_of(pf).join("drm")) {
        if !card.starts_with("card") {
            continue;
        }
        for iov in ["prelim_iov", "iov"] {
            let top = dir_of(pf).join("drm").join(&card).join(iov).join(who);
            let mut all: Vec<PathBuf> = gts(place, &top).map(|gt| top.join(gt)).collect();
            all.push(top);
            places.push(all);
        }
    }
    places.push(vec![
        dir_of(pf).join("sriov_admin").join(who).join("profile"),
    ]);
    let debug = Path::new("kernel/debug/dri").join(pf.to_string());
    places.push(
        gts(place, &debug)
            .map(|gt| debug.join(gt).join(who))
            .collect(),
    );
    places
}

fn gts(place: &Place, dir: &Path) -> impl Iterator<Item = String> {
    place
        .list(dir)
        .into_iter()
        .filter(|name| name.starts_with("gt"))
}

/// The same files with what they hold now.
///
/// # Errors
/// One of them cannot be read.
pub(crate) fn as_now(
    device: &Device<'_>,
    settings: &[Attribute],
) -> Result<Vec<Attribute>, DeviceError> {
    let mut now = Vec::with_capacity(settings.len());
    for Attribute { path, .. } in settings {
        if let Some(value) = device.read(path)? {
            let path = path.clone();
            now.push(Attribute { path, value });
        }
    }
    Ok(now)
}

/// Writes a setting where it differs. The driver may round it.
///
/// # Errors
/// It does not take it.
pub(crate) fn write(device: &Device<'_>, setting: &Attribute) -> Result<(), DeviceError> {
    let within = |part| matches!(part, Component::Normal(_));
    if !setting.path.components().all(within) {
        return Err(DeviceError::BadName {
            name: setting.path.display().to_string(),
        });
    }
    let now = device.read(&setting.path)?;
    if now.as_deref() == Some(&setting.value) || setting.value.is_empty() {
        return Ok(());
    }
    device.command(&setting.path, &format!("{}\n", setting.value))
}
