//! Machine to QEMU command line: one file per family of switches, pure.

pub mod command;
