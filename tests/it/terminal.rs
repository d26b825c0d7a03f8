//! `mvm console` on a real terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};

use crate::env::{TestEnv, eventually, kill};

fn is_raw(terminal: &OwnedFd) -> bool {
    !flags(terminal).local_flags.contains(LocalFlags::ICANON)
}

fn flags(terminal: &OwnedFd) -> Termios {
    tcgetattr(terminal).expect("a terminal")
}

#[test]
fn the_terminal_is_raw_meanwhile_and_given_back() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    env.mvm("start demo").exits(0);
    env.mvm("wait demo --for agent --timeout 120s").exits(0);
    let pty = openpty(None, None).expect("a pseudo-terminal");
    let before = flags(&pty.slave);
    let end = |file: &OwnedFd| Stdio::from(file.try_clone().expect("a descriptor"));
    let console = || {
        env.command(&["console", "demo"])
            .stdin(end(&pty.slave))
            .stdout(end(&pty.slave))
            .spawn()
            .expect("mvm starts")
    };
    let mut keys = File::from(pty.master.try_clone().expect("a descriptor"));
    // What is not read would one day stop the writers.
    let mut screen = keys.try_clone().expect("a descriptor");
    std::thread::spawn(move || {
        let mut bytes = [0; 1024];
        while screen.read(&mut bytes).is_ok_and(|got| got > 0) {}
    });
    let short = Duration::from_secs(10);

    // Ctrl-] leaves it, and the guest goes on.
    let mut child = console();
    eventually("the terminal is raw", short, || is_raw(&pty.slave));
    keys.write_all(b"\r\x1d").expect("keys");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(flags(&pty.slave), before);
    assert_eq!(env.row("demo")["state"], "running");

    // A signal from elsewhere.
    let mut child = console();
    eventually("the terminal is raw", short, || is_raw(&pty.slave));
    kill(child.id().try_into().expect("an id"), Signal::SIGTERM);
    assert!(!child.wait().expect("it ends").success());
    assert_eq!(flags(&pty.slave), before);

    // The guest ends.
    let mut child = console();
    eventually("the terminal is raw", short, || is_raw(&pty.slave));
    env.mvm("kill demo").exits(0);
    assert!(child.wait().expect("it ends").success());
    assert_eq!(flags(&pty.slave), before);
}

/// `mvm run` on a terminal: the console first, then, Ctrl-] pressed, only the supervisor; and the end of
/// the terminal ends the guest in good order.
#[test]
fn run_gives_the_terminal_back_and_goes_on() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let pty = openpty(None, None).expect("a pseudo-terminal");
    let before = flags(&pty.slave);
    let end = || Stdio::from(pty.slave.try_clone().expect("a descriptor"));
    let mut child = env
        .command(&["run", "demo"])
        .stdin(end())
        .stdout(end())
        .stderr(Stdio::null())
        .spawn()
        .expect("mvm starts");
    let mut keys = File::from(pty.master.try_clone().expect("a descriptor"));
    let mut screen = keys.try_clone().expect("a descriptor");
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut bytes = [0; 1024];
        while let Ok(got @ 1..) = screen.read(&mut bytes) {
            text.extend_from_slice(&bytes[..got]);
            if text.windows(12).any(|part| part == b"guest: ready") {
                // Only the first time is waited for.
                let _ = tell.send(());
            }
        }
    });
    told.recv_timeout(Duration::from_secs(120))
        .expect("the guest boots on the screen");
    assert!(is_raw(&pty.slave));
    keys.write_all(b"\x1d").expect("keys");
    eventually(
        "the terminal is given back",
        Duration::from_secs(10),
        || flags(&pty.slave) == before,
    );
    assert_eq!(env.row("demo")["state"], "running");
    kill(child.id().try_into().expect("an id"), Signal::SIGHUP);
    assert!(child.wait().expect("it ends").success());
    assert_eq!(flags(&pty.slave), before);
    let shown = env.mvm("show demo --format json").exits(0).json();
    assert_eq!(shown["ended"]["reason"], "guest-shutdown", "{shown}");
}
