//! Firmware, kernel, boot order.

use std::path::Path;

use super::args::{Args, Object, Options, path};
use crate::machine::{BootMenu, Firmware, Machine};
use crate::profile::schema::DiskFormat;

/// The flash chip with the firmware's code.
pub(super) const CODE_NODE: &str = "mvm-firmware-code";
/// The flash chip with its variables.
pub(super) const VARS_NODE: &str = "mvm-firmware-vars";

pub(super) fn add(args: &mut Args, machine: &Machine) {
    args.options("-boot", menu(&machine.boot_menu));
    match &machine.firmware {
        Firmware::Builtin => {}
        Firmware::Bios(file) => args.raw("-bios", path(file)),
        Firmware::Flash {
            code,
            code_format,
            vars,
            smm,
        } => {
            flash(args, CODE_NODE, code, *code_format, true);
            if let Some(vars) = vars {
                flash(args, VARS_NODE, &vars.path, vars.format, false);
            }
            if *smm {
                // The variables can be written from System Management Mode only.
                let secure = Options::with("driver", "cfi.pflash01")
                    .set("property", "secure")
                    .set("value", "on");
                args.options("-global", secure);
            }
        }
    }
    if let Some(kernel) = &machine.kernel {
        args.raw("-kernel", path(&kernel.image));
        if let Some(initrd) = &kernel.initrd {
            args.raw("-initrd", path(initrd));
        }
        if !kernel.append.is_empty() {
            args.raw("-append", kernel.append.clone());
        }
    }
}

fn menu(menu: &BootMenu) -> Options {
    // Only what has a place in the boot order is booted from.
    let mut options = Options::with("strict", if menu.any { "off" } else { "on" });
    if menu.menu {
        options = options.set("menu", "on");
    }
    if let Some(splash) = &menu.splash {
        options = options.set("splash", path(splash));
    }
    match menu.timeout_ms {
        Some(timeout) => options.set("splash-time", timeout),
        None => options,
    }
}

fn flash(args: &mut Args, node: &str, file: &Path, format: DiskFormat, read_only: bool) {
    let below = format!("{node}-file");
    let protocol = Object::new("driver", "file")
        .set("node-name", below.as_str())
        .set("filename", path(file))
        .set("read-only", read_only);
    args.json("-blockdev", protocol);
    let chip = Object::new("driver", format.as_str())
        .set("node-name", node)
        .set("file", below)
        .set("read-only", read_only);
    args.json("-blockdev", chip);
}
