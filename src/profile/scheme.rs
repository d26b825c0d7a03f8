//! Names of guests that say what they are, as the guest machine guide has them:
//! `game_nvidia_win10_x64_q35_uefi_6c12t` is purpose, vendor of the GPU (which may be left out, or stand behind the
//! system), system, architecture, chipset, firmware and topology. Such a name is a profile by itself, below
//! any file of that name.

use std::fmt::Write as _;

/// What a system's name stands for: the profile, and its variant.
const SYSTEMS: [(&str, &str, Option<&str>); 11] = [
    ("win10", "windows10", None),
    ("win11", "windows11", None),
    ("winxp", "retro-pc", Some("winxp")),
    ("win2k", "retro-pc", Some("winxp")),
    ("win98", "retro-pc", None),
    ("win95", "retro-pc", None),
    ("ubuntu", "ubuntu", None),
    ("debian", "debian", None),
    ("redhat", "redhat", None),
    ("arch", "client", None),
    ("android", "android", None),
];
const VENDORS: [&str; 4] = ["amd", "intel", "nvidia", "virtgpu"];

/// The parts of a name.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    purpose: &'a str,
    vendor: Option<&'a str>,
    system: (&'static str, &'static str, Option<&'static str>),
    arch: &'static str,
    chipset: &'static str,
    firmware: &'a str,
    cores: u32,
    threads: u32,
}

fn parts(name: &str) -> Option<Parts<'_>> {
    let words: Vec<&str> = name.split('_').collect();
    let (purpose, between, rest) = match words.as_slice() {
        [purpose, system, rest @ ..] if rest.len() == 4 => (*purpose, [Some(*system), None], rest),
        [purpose, a, b, rest @ ..] if rest.len() == 4 => (*purpose, [Some(*a), Some(*b)], rest),
        _ => return None,
    };
    let mut between = between.into_iter().flatten();
    let system_of = |word: &str| SYSTEMS.into_iter().find(|(name, ..)| *name == word);
    let vendor_of = |word: &'_ str| VENDORS.into_iter().find(|vendor| *vendor == word);
    let (first, second) = (between.next()?, between.next());
    let (system, vendor) = match (system_of(first), second) {
        (Some(system), None) => (system, None),
        (Some(system), Some(vendor)) => (system, Some(vendor_of(vendor)?)),
        (None, Some(second)) => (system_of(second)?, Some(vendor_of(first)?)),
        (None, None) => return None,
    };
    let [arch, chipset, firmware, topology] = rest else {
        return None;
    };
    let (arch, chipset) = match (*arch, *chipset) {
        ("x64" | "x86", "q35") => ("x86_64", "q35"),
        ("x64" | "x86", "i440fx") => ("x86_64", "pc"),
        // The others are x86's alone.
        ("aarch64", "virt") if matches!(system.1, "ubuntu" | "debian" | "redhat" | "client") => {
            ("aarch64", "virt")
        }
        _ => return None,
    };
    let (cores, threads) = topology.strip_suffix('t')?.split_once('c')?;
    let number = |text: &str| {
        text.parse::<u32>()
            .ok()
            .filter(|number| (1..=288).contains(number))
    };
    let (cores, threads) = (number(cores)?, number(threads)?);
    let fits = matches!(*firmware, "bios" | "uefi") && threads % cores == 0 && !purpose.is_empty();
    fits.then_some(Parts {
        purpose,
        vendor,
        system,
        arch,
        chipset,
        firmware,
        cores,
        threads,
    })
}

/// The profile that a name is; none where it is not such a name.
pub(super) fn text(name: &str) -> Option<String> {
    let parts = parts(name)?;
    let (system, profile, variant) = parts.system;
    // The GPU of a desktop for games is the host's.
    let desktop = parts.purpose == "game"
        && profile.starts_with("windows")
        && matches!(parts.vendor, Some("amd" | "nvidia"));
    // What Ubuntu and Arch have of x86's own, Debian has not.
    let on_arm = parts.arch == "aarch64" && matches!(profile, "ubuntu" | "client");
    let below = match (desktop, on_arm) {
        (true, _) => "gaming-vfio",
        (_, true) => "debian",
        _ => profile,
    };
    let mut variants: Vec<&str> = variant.into_iter().collect();
    variants.extend(parts.vendor.filter(|_| desktop));
    let mut text = format!(
        "summary = \"{system} as its name says: {}, {}, {} processors\"\nextends = [\"{below}\"]\nvariants = {variants:?}\n",
        parts.chipset, parts.firmware, parts.threads
    );
    let gpu = match parts.vendor {
        Some("virtgpu") => "[gpu]\nvirtio = true\n".to_owned(),
        // As a variant: `--gpu` may choose another kind.
        Some(vendor) => format!(
            "[gpu]\nwhole = true\n[variant.of-maker]\nwhen = {{ gpu = \"whole\" }}\n\
             [variant.of-maker.gpu]\nvendor = \"{vendor}\"\n"
        ),
        None => String::new(),
    };
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "[machine]\narch = \"{}\"\ntype = \"{}\"\n[firmware]\ntype = \"{}\"\n[cpu]\ncount = {}\nsockets = 1\ncores = {}\nthreads = {}\n\
         [disk.system]\nfile = {{ path = \"{name}.qcow2\" }}\n{gpu}",
        parts.arch,
        parts.chipset,
        parts.firmware,
        parts.threads,
        parts.cores,
        parts.threads / parts.cores,
    );
    Some(text)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::profile::Choices;
    use crate::profile::schema::{FirmwareWord, GpuVendor};
    use crate::profile::testing::Home;

    #[test]
    fn a_name_says_what_the_guest_is() {
        let home = Home::new();
        let load = |name: &str| home.load(name, &Choices::default()).unwrap().layer;
        let game = load("game_nvidia_win10_x64_q35_uefi_6c12t");
        let (machine, cpu) = (game.machine.unwrap(), game.cpu.unwrap());
        assert_eq!(machine.r#type.as_deref(), Some("q35"));
        assert_eq!(
            (cpu.count, cpu.sockets, cpu.cores, cpu.threads),
            (Some(12), Some(1), Some(6), Some(2))
        );
        assert_eq!(game.firmware.unwrap().r#type, Some(FirmwareWord::Uefi));
        let gpu = game.gpu.unwrap();
        assert_eq!(
            (gpu.whole, gpu.vendor),
            (Some(true), Some(GpuVendor::Nvidia))
        );
        // What a flag chooses is no GPU of that maker's.
        let choices = Choices {
            gpu: Some("virtio".to_owned()),
            ..Choices::default()
        };
        let other = home.load("game_nvidia_win10_x64_q35_uefi_6c12t", &choices);
        assert_eq!(other.unwrap().layer.gpu.unwrap().vendor, None);
        let arm = load("dev_ubuntu_aarch64_virt_uefi_2c2t");
        assert!(arm.clock.is_none() && arm.hyperv.is_none());
        assert_eq!(game.hyperv.unwrap().vendor_id.as_deref(), Some("mvm"));
        let disk = &game.disk.unwrap()[&"system".parse().unwrap()];
        let path = disk.file.as_ref().unwrap().path.as_deref();
        assert_eq!(path, Some("game_nvidia_win10_x64_q35_uefi_6c12t.qcow2"));

        let retro = load("retro_win98_x86_i440fx_bios_1c1t");
        assert_eq!(retro.machine.unwrap().r#type.as_deref(), Some("pc"));
        assert!(retro.gpu.is_none());
        let xp = load("retro_winxp_amd_x86_i440fx_bios_2c4t");
        assert_eq!(xp.cpu.unwrap().threads, Some(2));
    }

    #[test]
    fn other_names_are_not_understood_by_half() {
        for name in [
            "ubuntu_rt",
            "game_nvidia_win10_x64_q35_uefi",
            "game_voodoo_win10_x64_q35_uefi_6c12t",
            "game_nvidia_beos_x64_q35_uefi_6c12t",
            "game_nvidia_win10_x64_q35_efi_6c12t",
            "game_nvidia_win10_x64_q35_uefi_6c13t",
            "game_nvidia_win10_aarch64_q35_uefi_6c12t",
            "game_nvidia_win10_aarch64_virt_uefi_6c12t",
            "game_nvidia_win10_x64_q35_uefi_0c0t",
        ] {
            assert_eq!(text(name), None, "{name}");
        }
    }
}
