//! The TPM.

use super::args::{Args, Object, Options, path};
use super::command::FdSource;
use crate::machine::tpm::{SIDECAR, TpmBackend};
use crate::machine::{Machine, drivers};
use crate::sidecar::Sidecar;

/// The TPM's back end, and the socket that leads to it.
const BACKEND: &str = "mvm-tpm-backend";
/// The set of descriptors with the host's TPM in it.
const FDSET: u32 = 1;

pub(super) fn add(args: &mut Args, machine: &Machine) {
    let Some(tpm) = &machine.tpm else {
        return;
    };
    match &tpm.backend {
        TpmBackend::Emulator { .. } => {
            let socket = Sidecar::socket_in(&machine.run_dir, SIDECAR);
            let chardev = Options::new("socket").set("id", BACKEND);
            let real = chardev.clone().set("fd", "{fd:tpm}");
            args.options_fd("-chardev", real, chardev.set("path", path(&socket)));
            args.fd("tpm", FdSource::Connect(socket));
            let backend = Options::new("emulator").set("id", BACKEND);
            args.options("-tpmdev", backend.set("chardev", BACKEND));
        }
        TpmBackend::Passthrough { path: node, cancel } => {
            let set = Options::with("fd", "{fd:tpm}").set("set", FDSET);
            args.real_options("-add-fd", set);
            args.fd("tpm", FdSource::Device(node.clone()));
            let backend = Options::new("passthrough").set("id", BACKEND);
            let cancel = path(cancel);
            let with = |node: String| {
                backend
                    .clone()
                    .set("path", node)
                    .set("cancel-path", &cancel)
            };
            args.options_fd(
                "-tpmdev",
                with(format!("/dev/fdset/{FDSET}")),
                with(path(node)),
            );
        }
    }
    let driver = drivers::tpm(tpm.model, machine.board.kind);
    args.device(Object::device(driver, "mvm-tpm").set("tpmdev", BACKEND));
}
