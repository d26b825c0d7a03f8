//! The flags that change a profile, the same for `run`, `start`, `create` and `profile show`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;

use super::per_guest::Flag;
use super::{Failure, import};
use crate::error::ExitCode;
use crate::profile::Choices;
use crate::profile::schema::DisplayType;
use crate::units::Size;

/// What is laid over the profile.
#[derive(Debug, Clone, Default, Args)]
#[command(about = None, long_about = None)]
#[command(next_help_heading = "What is changed in the profile")]
pub(super) struct ChoiceArgs {
    /// Set any key, as in `memory.size=8G` or `disk.system.cache=none`
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Switch a variant of the profile on
    #[arg(long, value_name = "NAME")]
    variant: Vec<String>,
    /// The firmware: `bios`, `uefi` or `none`
    #[arg(long, value_name = "KIND")]
    firmware: Vec<String>,
    /// Where its pictures go: `headless`, `vnc`, `spice`, `local`, `egl-headless`, `dbus`, several as in
    /// `spice,egl-headless`, or a word that the profile's variants know
    #[arg(long, value_name = "KIND")]
    display: Vec<String>,
    /// How many outputs its first video device has: `display.outputs`
    #[arg(long, value_name = "NUMBER")]
    output: Vec<String>,
    /// The host's connectors of a local display, as in `HDMI-1,DP-1`: `display.local.connectors`
    #[arg(long, value_name = "NAMES")]
    connectors: Vec<String>,
    /// A local display fills the screen: `display.local.full-screen`
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "on", value_name = "GUEST")]
    full_screen: Vec<String>,
    /// A local display shows its frames in a second: `display.local.show-fps`
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "on", value_name = "GUEST")]
    show_fps: Vec<String>,
    /// The pointer goes from one output of a local display to the next: `display.local.extend-abs-mode`
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "on", value_name = "GUEST")]
    extend_abs_mode: Vec<String>,
    /// A local display takes nothing of the host's keyboard and mouse: `display.local.host-input = false`
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "on", value_name = "GUEST")]
    disable_host_input: Vec<String>,
    /// The TPM: `emulator` or `passthrough` (the host's own), with `:crb` or `:tis` for what the guest sees, or `none`
    #[arg(long, value_name = "KIND")]
    tpm: Vec<String>,
    /// The GPU: `vf:N`, `vf:auto`, `vf` (also `sriov`), `whole` (also `gvtd`), `upt`, `mdev:TYPE`, `mdev:UUID`,
    /// `virtio` or `none`; `vf:1@0000:03:00.0` where the host has several
    #[arg(long, value_name = "KIND")]
    gpu: Vec<String>,
    /// Give the guest a PCI device: `0000:01:00.0`, `8086:15f3`, words of its name (`wi-fi`, `i225:2` for the
    /// second) or a virtual function (`vf:1@0000:01:00.0`, `vf:auto@x550`)
    #[arg(long, value_name = "DEVICE")]
    pci: Vec<String>,
    /// Give the guest a USB device: `046d:c52b`, `1-3.2` (a port), `serial:TEXT`, `keyboard` or other words
    #[arg(long, value_name = "DEVICE")]
    usb: Vec<String>,
    /// Give the guest a mediated device: the UUID of one, or `TYPE` or `TYPE@PARENT` for a new one
    #[arg(long, value_name = "DEVICE")]
    mdev: Vec<String>,
    /// Lay a file over the profile: a piece of one, with devices or any other keys
    #[arg(long, value_name = "FILE")]
    device: Vec<String>,
    /// Give the guest the devices of a file of libvirt's, `<hostdev>` and others
    #[arg(long, value_name = "FILE")]
    xml: Vec<String>,
    /// Take devices although the host itself uses them: its disk, its network, its screen
    #[arg(long)]
    take_from_host: bool,
    /// The memory: `memory.size`
    #[arg(long, value_name = "SIZE")]
    memory: Vec<String>,
    /// The number of processors: `cpu.count`
    #[arg(long, value_name = "COUNT")]
    cpus: Vec<String>,
    /// The image of the disk `system`; `./here` is taken as it is, `name` from the image folders
    #[arg(long, value_name = "IMAGE")]
    disk: Option<PathBuf>,
    /// The kernel to start: `boot.kernel`
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Its initial ramdisk: `boot.initrd`
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Its command line: `boot.append`
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    append: Option<String>,
}

impl ChoiceArgs {
    /// Flags of a window beside a display that is none.
    fn only_for_windows(&self) -> Result<(), Failure> {
        let Some(display) = once("display", &self.display)? else {
            return Ok(());
        };
        // What only a variant knows may be a window.
        let kinds: Vec<&str> = display.split(',').map(str::trim).collect();
        let known = |kind: &&str| DisplayType::ALL.iter().any(|one| one.as_str() == *kind);
        if kinds.contains(&"local") || !kinds.iter().all(known) {
            return Ok(());
        }
        for (flag, said) in [
            ("connectors", !self.connectors.is_empty()),
            ("full-screen", on("full-screen", &self.full_screen)?),
            ("show-fps", on("show-fps", &self.show_fps)?),
            (
                "extend-abs-mode",
                on("extend-abs-mode", &self.extend_abs_mode)?,
            ),
            (
                "disable-host-input",
                on("disable-host-input", &self.disable_host_input)?,
            ),
        ] {
            if said {
                return Err(Failure::message(
                    ExitCode::Usage,
                    format!("`--{flag}` is for a local display, and `--display {display}` is none"),
                ));
            }
        }
        Ok(())
    }

    /// What can be said for each guest by itself.
    fn lists(&mut self) -> [(Flag, &mut Vec<String>); 19] {
        let flag = |name, owned, switch| Flag {
            name,
            owned,
            switch,
        };
        let any = |name| flag(name, false, false);
        let owned = |name| flag(name, true, false);
        let switch = |name| flag(name, false, true);
        [
            (any("set"), &mut self.set),
            (any("variant"), &mut self.variant),
            (any("firmware"), &mut self.firmware),
            (any("display"), &mut self.display),
            (owned("gpu"), &mut self.gpu),
            (owned("pci"), &mut self.pci),
            (owned("usb"), &mut self.usb),
            (owned("mdev"), &mut self.mdev),
            (any("device"), &mut self.device),
            (owned("xml"), &mut self.xml),
            (any("memory"), &mut self.memory),
            (any("cpus"), &mut self.cpus),
            (any("output"), &mut self.output),
            (any("connectors"), &mut self.connectors),
            (switch("full-screen"), &mut self.full_screen),
            (switch("show-fps"), &mut self.show_fps),
            (switch("extend-abs-mode"), &mut self.extend_abs_mode),
            (switch("disable-host-input"), &mut self.disable_host_input),
            (owned("tpm"), &mut self.tpm),
        ]
    }

    /// The values of these, as they were given.
    pub(super) fn flags(&self) -> Vec<(Flag, String)> {
        let mut all = Vec::new();
        for (flag, values) in self.clone().lists() {
            all.extend(values.drain(..).map(|value| (flag, value)));
        }
        all
    }

    /// The same with those values of these that are picked, as they are picked.
    pub(super) fn of(&self, pick: &dyn Fn(&Flag, &str) -> Option<String>) -> Self {
        let mut some = self.clone();
        for (flag, values) in some.lists() {
            *values = values
                .iter()
                .filter_map(|value| pick(&flag, value))
                .collect();
        }
        some
    }

    /// The choices for the profile: what is said with `--set` lies over the flags of their own.
    pub(super) fn choices(&self) -> Result<Choices, Failure> {
        let text = |key: &str, text: &str| format!("{key}={}", toml::Value::from(text));
        let mut set = Vec::new();
        for path in &self.xml {
            set.extend(import::devices(Path::new(path))?);
        }
        if let Some(size) = once("memory", &self.memory)? {
            let size: Size = size
                .parse()
                .map_err(|error| wrong("memory", size, &error))?;
            set.push(text("memory.size", &size.to_string()));
        }
        if let Some(count) = once("cpus", &self.cpus)? {
            let count: u32 = count
                .parse()
                .map_err(|error| wrong("cpus", count, &error))?;
            set.push(format!("cpu.count={count}"));
        }
        for (key, path) in [
            ("disk.system.file.path", &self.disk),
            ("boot.kernel", &self.kernel),
            ("boot.initrd", &self.initrd),
        ] {
            if let Some(path) = path {
                set.push(text(key, &place(path)?));
            }
        }
        if let Some(count) = once("output", &self.output)? {
            let count: u32 = count
                .parse()
                .map_err(|error| wrong("output", count, &error))?;
            set.push(format!("display.outputs={count}"));
        }
        if let Some(names) = once("connectors", &self.connectors)? {
            let names = names.split(',').map(str::trim);
            let names = toml::Value::Array(names.map(toml::Value::from).collect());
            set.push(format!("display.local.connectors={names}"));
        }
        for (key, said, value) in [
            ("full-screen", on("full-screen", &self.full_screen)?, true),
            ("show-fps", on("show-fps", &self.show_fps)?, true),
            (
                "extend-abs-mode",
                on("extend-abs-mode", &self.extend_abs_mode)?,
                true,
            ),
            (
                "host-input",
                on("disable-host-input", &self.disable_host_input)?,
                false,
            ),
        ] {
            if said {
                set.push(format!("display.local.{key}={value}"));
            }
        }
        self.only_for_windows()?;
        if let Some(kind) = once("tpm", &self.tpm)? {
            set.push(tpm(kind)?);
        }
        set.extend(self.append.as_deref().map(|line| text("boot.append", line)));
        set.extend(self.set.iter().cloned());
        Ok(Choices {
            gpu: once("gpu", &self.gpu)?.cloned(),
            pci: self.pci.clone(),
            usb: self.usb.clone(),
            mdev: self.mdev.clone(),
            // A supervisor in the background may have another current folder.
            device: self
                .device
                .iter()
                .map(|path| whole(Path::new(path)))
                .collect::<Result<_, _>>()?,
            take_from_host: self.take_from_host,
            display: once("display", &self.display)?.cloned(),
            firmware: once("firmware", &self.firmware)?.cloned(),
            set,
            variants: self.variant.clone(),
        })
    }
}

/// What can be given once.
fn once<'a>(flag: &str, values: &'a [String]) -> Result<Option<&'a String>, Failure> {
    match values {
        [] => Ok(None),
        [value] => Ok(Some(value)),
        _ => Err(Failure::message(
            ExitCode::Usage,
            format!("`--{flag}` is given twice for one guest"),
        )),
    }
}

/// Whether a switch is on.
fn on(flag: &str, values: &[String]) -> Result<bool, Failure> {
    match once(flag, values)?.map(String::as_str) {
        None | Some("off") => Ok(false),
        Some("on") => Ok(true),
        Some(value) => Err(wrong(flag, value, &"it is `on`, `off`, or a guest's name")),
    }
}

/// The key that `--tpm KIND` is: `emulator`, `passthrough:crb`.
fn tpm(kind: &str) -> Result<String, Failure> {
    let (what, model) = match kind.split_once(':') {
        Some((what, model)) => (what, Some(model)),
        None => (kind, None),
    };
    let model = match model {
        None => String::new(),
        Some(model @ ("crb" | "tis")) => format!(", model = \"{model}\""),
        Some(_) => return Err(wrong("tpm", kind, &"what the guest sees is `crb` or `tis`")),
    };
    match what {
        "emulator" | "passthrough" | "none" => Ok(format!("tpm={{ {what} = {{}}{model} }}")),
        _ => Err(wrong(
            "tpm",
            kind,
            &"it is `emulator`, `passthrough` or `none`",
        )),
    }
}

fn wrong(flag: &str, value: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::message(ExitCode::Usage, format!("--{flag} {value}: {error}"))
}

/// The words that say the same on a command line.
pub(super) fn words(choices: &Choices) -> Vec<OsString> {
    let mut words = Vec::new();
    // In one word each: a value may begin with a dash.
    let mut add = |flag: &str, value: &str| words.push(format!("--{flag}={value}").into());
    choices.set.iter().for_each(|set| add("set", set));
    choices
        .variants
        .iter()
        .for_each(|name| add("variant", name));
    for (flag, value) in [
        ("firmware", &choices.firmware),
        ("display", &choices.display),
        ("gpu", &choices.gpu),
    ] {
        if let Some(value) = value {
            add(flag, value);
        }
    }
    for (flag, values) in [
        ("pci", &choices.pci),
        ("usb", &choices.usb),
        ("mdev", &choices.mdev),
    ] {
        values.iter().for_each(|value| add(flag, value));
    }
    for path in &choices.device {
        let mut word = OsString::from("--device=");
        word.push(path);
        words.push(word);
    }
    if choices.take_from_host {
        words.push("--take-from-host".into());
    }
    words
}

/// The path from the root on.
pub(super) fn whole(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| {
        Failure::message(ExitCode::Usage, format!("`{}`: {error}", path.display()))
    })
}

/// The path as a profile takes it: `./here` is made absolute, as a profile knows no current folder.
pub(super) fn place(path: &Path) -> Result<String, Failure> {
    let wrong =
        |why: String| Failure::message(ExitCode::Usage, format!("`{}`: {why}", path.display()));
    let path = if path.starts_with(".") || path.starts_with("..") {
        &std::path::absolute(path).map_err(|error| wrong(error.to_string()))?
    } else {
        path
    };
    path.to_str()
        .map(ToOwned::to_owned)
        .ok_or_else(|| wrong("is not UTF-8, and QEMU takes no other path".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_their_own_become_keys_below_set() {
        let args = ChoiceArgs {
            memory: vec!["512M".to_owned()],
            append: Some("a=\"1\"".to_owned()),
            kernel: Some("./vmlinuz".into()),
            disk: Some("a b.qcow2".into()),
            set: vec!["memory.size=1G".to_owned()],
            ..ChoiceArgs::default()
        };
        let set = args.choices().expect("they are fine").set;
        assert_eq!(set[0], "memory.size=\"512M\"");
        assert_eq!(set[1], "disk.system.file.path=\"a b.qcow2\"");
        assert!(set[2].starts_with("boot.kernel=\"/"), "{}", set[2]);
        assert_eq!(set.last().map(String::as_str), Some("memory.size=1G"));
    }
}
