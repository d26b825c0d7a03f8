//! A supervisor that an init system runs (`mvm run --unit`): what it does at the guest's end, so that the init
//! leaves a guest alone that is to stay stopped.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use super::{Failure, output};
use crate::error::ExitCode;
use crate::host::Init;
use crate::ids::GuestName;
use crate::ops::{process, session};
use crate::service::rest::{Rest, at_rest};

/// The word of an init that is to end this process.
pub(super) struct Told {
    word: Receiver<()>,
}

impl Told {
    /// Listens for it from now on, beside the supervisor, which takes it as the wish to stop the guest.
    pub(super) fn listen() -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::message(
                ExitCode::Failed,
                format!("cannot wait for signals: {error}"),
            )
        };
        let (tell, word) = mpsc::channel();
        let (ready, listens) = mpsc::channel();
        let listen = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                let kinds = [SignalKind::terminate(), SignalKind::interrupt()];
                let [Ok(mut terminate), Ok(mut interrupt)] = kinds.map(signal) else {
                    return;
                };
                // Whoever asked for it waits here.
                let _ = ready.send(());
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                let _ = tell.send(());
            });
        };
        std::thread::Builder::new()
            .name("told".to_owned())
            .spawn(listen)
            .map_err(cannot)?;
        // Where it cannot listen, nothing comes.
        let _ = listens.recv_timeout(Duration::from_secs(5));
        Ok(Self { word })
    }
}

/// Tells the init that the guest runs, where it wants to hear it by a descriptor.
pub(super) fn ready(init: Init) {
    let Some(fd) = crate::service::rest::ready_fd(init) else {
        return;
    };
    // By its name: that there is one at all is the init's doing.
    let told = std::fs::OpenOptions::new()
        .write(true)
        .open(format!("/proc/self/fd/{fd}"))
        .and_then(|mut pipe| std::io::Write::write_all(&mut pipe, b"\n"));
    if let Err(error) = told {
        tracing::debug!(%error, "{init} cannot be told that the guest runs");
    }
}

/// Stays until the init has ended its service, where the init needs that: it would start the guest anew.
/// `told` is there where a guest ran.
pub(super) fn rest(init: Init, name: &GuestName, told: Option<Told>) -> Result<(), Failure> {
    let words = match at_rest(init, name) {
        Rest::End => return Ok(()),
        Rest::Ask(words) => words,
        Rest::Stay => Vec::new(),
    };
    let told = match told {
        Some(told) => told,
        None => Told::listen()?,
    };
    if told.word.try_recv().is_ok() {
        return Ok(());
    }
    if let Some((program, rest)) = words.split_first() {
        let path = match Path::new(program).is_absolute() {
            true => Some(program.into()),
            false => process::find(program, Some(Path::new("/sbin/init"))),
        };
        let mut command = Command::new(path.unwrap_or_else(|| program.into()));
        command.args(rest).stdin(std::process::Stdio::null());
        session::inherit_nothing(&mut command);
        // It ends this process, and must not end with it.
        session::detach(&mut command);
        if let Err(error) = command.spawn() {
            output::note(&format!(
                "`{program}` cannot be run, and the service stays: {error}"
            ));
        }
    }
    output::note(&format!(
        "{name} stays stopped; this process waits for {init} to end it"
    ));
    // As long as the service is there: that is for the init, and for who stops it, to say.
    let _ = told.word.recv();
    Ok(())
}
