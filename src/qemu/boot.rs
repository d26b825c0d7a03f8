//! Firmware, kernel, boot order.

use std::path::Path;

use super::args::{Args, Object, Options, path};
use crate::machine::{Firmware, Machine};
use crate::profile::schema::DiskFormat;

/// The flash chip with the firmware's code.
pub(super) const CODE_NODE: &str = "mvm-firmware-code";
/// The flash chip with its variables.
pub(super) const VARS_NODE: &str = "mvm-firmware-vars";

pub(super) fn add(args: &mut Args, machine: &Machine) {
    // Only what has a place in the boot order is booted from.
    args.options("-boot", Options::with("strict", "on"));
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
