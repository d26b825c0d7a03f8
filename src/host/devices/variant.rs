//! VFIO's drivers for devices of one kind: vfio-pci with what its maker adds, such as `mlx5_vfio_pci`.
//!
//! The kernel's `modules.alias` lists them as `alias vfio_pci:PATTERN MODULE`, with patterns of the form that a
//! device's `modalias` has (`scripts/mod/file2alias.c` of Linux). vfio-pci itself is there with a pattern of
//! stars alone; of several that match, the one with the fewest stars is meant for the device.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{DeviceFacts, PciDevice};
use crate::ids::PciRef;

/// A driver for devices of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// The devices: `v000015B3d0000101Esv*sd*bc*sc*i*`.
    pub pattern: String,
    /// The module. Its driver has this name, maybe with hyphens.
    pub driver: String,
}

/// Those that this kernel has as modules.
pub(super) fn read(around: &Path) -> Vec<Variant> {
    let release = fs::read_to_string(around.join("proc/sys/kernel/osrelease")).unwrap_or_default();
    let dir = around.join("lib/modules").join(release.trim());
    let text = fs::read(dir.join("modules.alias")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter_map(|line| {
        let (pattern, driver) = line.strip_prefix("alias vfio_pci:")?.split_once(' ')?;
        let driver = driver.trim();
        (driver != "vfio_pci").then(|| Variant {
            pattern: pattern.to_owned(),
            driver: driver.to_owned(),
        })
    });
    lines.collect()
}

impl DeviceFacts {
    /// The driver that is made for a function, where there is one beside vfio-pci. A virtual function that does
    /// not exist yet is known by what its physical one tells.
    pub fn variant_for(&self, function: PciRef) -> Option<&str> {
        let name = match self.get(function) {
            Some(device) => alias(device, device.device),
            None => {
                let pf = self.function(function.physical())?;
                alias(pf, pf.sriov.as_ref()?.vf_device?)
            }
        };
        let fits = self
            .vfio
            .variants
            .iter()
            .filter(|one| matches(&one.pattern, &name));
        let best = fits.min_by_key(|one| one.pattern.matches('*').count());
        best.map(|one| one.driver.as_str())
    }
}

/// As `modalias` has it, after the bus.
fn alias(device: &PciDevice, id: u16) -> String {
    let (vendor, board) = device.subsystem.unwrap_or_default();
    let class = device.class;
    format!(
        "v{:08X}d{id:08X}sv{vendor:08X}sd{board:08X}bc{:02X}sc{:02X}i{:02X}",
        device.vendor,
        class >> 16 & 0xff,
        class >> 8 & 0xff,
        class & 0xff
    )
}

/// Whether a text is of a pattern in which a star is anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::{put, roots};
    use crate::hosts::Host;

    #[test]
    fn the_driver_that_is_made_for_a_device_is_found() {
        let host = Host::new("server-nics");
        put(host.root(), "proc/sys/kernel/osrelease", "6.12.1\n");
        let facts = || DeviceFacts::read(&roots(host.root()));
        let of = |facts: &DeviceFacts, function: &str| {
            let function = function.parse().ok()?;
            facts.variant_for(function).map(str::to_owned)
        };
        assert_eq!(of(&facts(), "vf:1@d8:00.0"), None, "there is no list");
        put(
            host.root(),
            "lib/modules/6.12.1/modules.alias",
            "# Aliases extracted from modules themselves.\n\
             alias pci:v000015B3d00001018sv*sd*bc*sc*i* mlx5_core\n\
             alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n\
             alias vfio_pci:v000015B3d*sv*sd*bc02sc*i* other_vfio_pci\n\
             alias vfio_pci:v000015B3d00001018sv*sd*bc02sc*i* mlx5_vfio_pci\n\
             alias vfio_pci:v00008086d00001572sv*sd*bc03sc*i* gpu_vfio_pci\n",
        );
        let facts = facts();
        assert_eq!(facts.vfio.variants.len(), 3);
        // One that does not exist yet, the device itself, and one whose class is another.
        assert_eq!(of(&facts, "vf:1@d8:00.0").as_deref(), Some("mlx5_vfio_pci"));
        assert_eq!(of(&facts, "d8:00.0").as_deref(), Some("other_vfio_pci"));
        assert_eq!(of(&facts, "5e:00.0"), None);
        assert_eq!(of(&facts, "vf:1@3b:00.0"), None);
    }

    #[test]
    fn stars_are_anything() {
        for (pattern, text, fits) in [
            ("v1d*sv*", "v1d2sv3", true),
            ("v1d*sv*", "v1d2", false),
            ("v*d2", "v1d2", true),
            ("v*d2*", "v1d22", true),
            ("v*d2", "v1d23", false),
            ("v1", "v12", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }
}
