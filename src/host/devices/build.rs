//! Writes the list of PCI names that mvm falls back on.
//!
//! The crate's own tables would take 2.8 MB of the program, and a millisecond of each of its starts for
//! a hundred thousand pointers that have to be moved; as text in the format of `pci.ids`, without
//! subsystems, it takes 0.7 MB, and is read as the host's own file is.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=src/host/devices/build.rs");
    let mut list = String::new();
    for vendor in pci_ids::Vendors::iter() {
        line(
            &mut list,
            format_args!("{:04x}  {}", vendor.id(), vendor.name()),
        );
        for device in vendor.devices() {
            line(
                &mut list,
                format_args!("\t{:04x}  {}", device.id(), device.name()),
            );
        }
    }
    for class in pci_ids::Classes::iter() {
        line(
            &mut list,
            format_args!("C {:02x}  {}", class.id(), class.name()),
        );
        for sub in class.subclasses() {
            line(
                &mut list,
                format_args!("\t{:02x}  {}", sub.id(), sub.name()),
            );
        }
    }
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(PathBuf::from(out).join("pci.ids"), list).expect("OUT_DIR can be written to");
}

fn line(list: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(list, "{text}").expect("a string takes all text");
}
