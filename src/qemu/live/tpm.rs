//! TPMs, with a real swtpm behind them.

use std::process::{Child, Command};

use command_fds::{CommandFdExt, FdMapping};
use serde_json::json;

use super::runs;
use super::session::{Session, installed};
use crate::host::TpmFacts;
use crate::machine::testing;
use crate::qemu::command::{Fd, FdSource};
use crate::qemu::command_line;

struct StandIn(Child);

impl Drop for StandIn {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn has_swtpm() -> bool {
    let there = std::path::Path::new("/usr/bin/swtpm").exists();
    if !there {
        assert!(std::env::var_os("MVM_TEST_ALL").is_none(), "no swtpm");
        eprintln!("skipped: swtpm is not installed");
    }
    there
}

#[test]
fn each_board_has_its_tpm() {
    if !has_swtpm() {
        return;
    }
    let arm = "machine.arch = \"aarch64\"\nfirmware.type = \"none\"\nboot.kernel = \"k\"\n";
    for (text, driver, model) in [
        ("", "tpm-crb", "tpm-crb"),
        (
            "machine.type = \"pc\"\ntpm.model = \"tis\"\n",
            "tpm-tis",
            "tpm-tis",
        ),
        ("tpm.version = \"1.2\"\n", "tpm-tis", "tpm-tis"),
        (arm, "tpm-tis-device", "tpm-tis"),
    ] {
        let text = format!("{text}tpm.emulator = {{}}\n");
        let Some((mut session, machine)) = runs(&text, &["k"]) else {
            return;
        };
        let found = session.call("query-tpm", json!({}));
        assert_eq!(found[0]["model"], model);
        assert_eq!(found[0]["options"]["type"], "emulator", "{found}");
        let device = json!({ "path": "/machine/peripheral/mvm-tpm", "property": "type" });
        assert_eq!(session.call("qom-get", device), driver);
        let state = machine.tpm.as_ref().unwrap().state().unwrap();
        assert!(state.exists(), "{text}");
        session.quit();
    }
}

/// QEMU asks the node for its version when it opens it: a connection to an swtpm answers as a node would.
#[test]
fn the_host_s_tpm_is_handed_over_open() {
    if !has_swtpm() {
        return;
    }
    let dir = tempfile::Builder::new().prefix("mvm").tempdir().unwrap();
    let mut facts = testing::facts();
    facts.tpm = Some(TpmFacts {
        path: "/dev/tpm0".into(),
        why_not: None,
        version: Some(2),
        cancel: None,
    });
    // The stand-in's buffer is larger than that of `crb`.
    let text = "tpm = { passthrough = {}, model = \"tis\" }";
    let machine = testing::real(dir.path(), text, &facts).unwrap();
    if !installed(&machine) {
        return;
    }
    let swtpm = "swtpm socket --tpm2 --server type=tcp,fd=10 --flags startup-clear --terminate";
    let state = format!("dir={}", dir.path().display());
    let words = swtpm.split(' ').chain(["--tpmstate", &state]);
    let words: Vec<&str> = words.collect();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut command = Command::new(words[0]);
    let mapped = FdMapping {
        parent_fd: theirs.into(),
        child_fd: 10,
    };
    command.fd_mappings(vec![mapped]).unwrap();
    let stand_in = StandIn(command.args(&words[1..]).spawn().unwrap());
    drop(command);
    // The command line as it really is, with the other end of that connection in the node's place.
    let line = command_line(&machine);
    let is_node = |fd: &Fd| fd.source == FdSource::Device("/dev/tpm0".into());
    assert!(line.fds.iter().any(is_node));
    let number = line.fd_number("tpm").unwrap();
    let real = line.argv();
    let value = |switch: &str| {
        let at = real.iter().position(|arg| arg == switch).unwrap();
        real[at + 1].clone()
    };
    let mut args = line.shown();
    let at = args.iter().position(|arg| arg == "-tpmdev").unwrap();
    args[at + 1] = value("-tpmdev");
    args.splice(0..0, ["-add-fd".to_owned(), value("-add-fd")]);
    let fd = Some((number, ours.into()));
    let mut session = Session::start_inheriting(&machine, args, fd, dir);
    let found = session.call("query-tpm", json!({}));
    assert_eq!(found[0]["options"]["type"], "passthrough", "{found}");
    assert_eq!(found[0]["model"], "tpm-tis");
    session.quit();
    drop(stand_in);
}
