use super::super::testing::facts;
use super::super::tpm::is_tpm;
use super::super::{Tpm, TpmBackend};
use super::{error, machine, machine_on, message};
use crate::error::{ExitCode, Report};
use crate::host::{HostFacts, TpmFacts};
use crate::profile::schema::{TpmModel, TpmVersion};

const ARM: &str = "machine.arch = \"aarch64\"\nboot.kernel = \"k\"\n";

fn tpm(text: &str) -> Tpm {
    machine(text).unwrap().tpm.unwrap()
}

#[test]
fn each_board_has_the_model_that_its_guests_know() {
    for (text, model, version) in [
        ("", TpmModel::Crb, TpmVersion::V2),
        ("machine.type = \"pc\"\n", TpmModel::Crb, TpmVersion::V2),
        ("tpm.version = \"1.2\"\n", TpmModel::Tis, TpmVersion::V1),
        ("tpm.model = \"tis\"\n", TpmModel::Tis, TpmVersion::V2),
        (ARM, TpmModel::Tis, TpmVersion::V2),
    ] {
        let tpm = tpm(&format!("{text}tpm.emulator = {{}}"));
        assert_eq!(tpm.model, model, "{text}");
        let TpmBackend::Emulator {
            version: found,
            state,
            ..
        } = &tpm.backend
        else {
            panic!("{tpm:?}");
        };
        assert_eq!(*found, version, "{text}");
        // Another version finds another file: neither reads what the other wrote.
        let name = if version == TpmVersion::V1 {
            "tpm1.state"
        } else {
            "tpm2.state"
        };
        assert!(state.ends_with(name), "{state:?}");
    }
    assert!(message("machine.type = \"microvm\"\ntpm.emulator = {}").contains("has no TPM"));
    let arm = format!("{ARM}tpm.emulator = {{}}\ntpm.model = \"crb\"");
    assert!(message(&arm).contains("is for x86_64"));
    let old = "tpm = { emulator = {}, model = \"crb\", version = \"1.2\" }";
    assert!(message(old).contains("is for TPM 2.0"));
}

#[test]
fn without_swtpm_the_package_is_named() {
    let mut facts = facts();
    facts.programs.swtpm = None;
    facts.os = crate::host::OsRelease::parse("ID=fedora\n");
    let report: Report = machine_on("tpm.emulator = {}", &facts).unwrap_err().into();
    assert_eq!(report.code, ExitCode::Host);
    assert_eq!(report.hints, ["`sudo dnf install swtpm`"]);
}

fn host_with(tpm: Option<TpmFacts>) -> HostFacts {
    HostFacts { tpm, ..facts() }
}

fn host_tpm(why_not: Option<&str>, version: Option<u32>) -> Option<TpmFacts> {
    Some(TpmFacts {
        path: "/dev/tpm0".into(),
        why_not: why_not.map(str::to_owned),
        version,
        cancel: (version == Some(1)).then(|| "/sys/class/tpm/tpm0/device/cancel".into()),
    })
}

#[test]
fn the_host_s_tpm_is_given_where_nobody_has_it() {
    let text = "tpm.passthrough = {}";
    let on = |facts: &HostFacts| machine_on(text, facts);
    let given = on(&host_with(host_tpm(None, Some(2)))).unwrap();
    assert!(given.sidecars().is_empty());
    let given = given.tpm.unwrap();
    assert_eq!(given.model, TpmModel::Crb);
    let passed = |tpm: Tpm| match tpm.backend {
        TpmBackend::Passthrough { path, cancel } => (path, cancel),
        TpmBackend::Emulator { .. } => panic!("an emulator"),
    };
    assert_eq!(passed(given), ("/dev/tpm0".into(), "/dev/null".into()));
    let old = on(&host_with(host_tpm(None, Some(1))))
        .unwrap()
        .tpm
        .unwrap();
    assert_eq!(old.model, TpmModel::Tis);
    assert!(passed(old).1.ends_with("cancel"));
    let held = host_with(host_tpm(Some("process 7 (tcsd) has it"), Some(2)));
    let report: Report = on(&held).unwrap_err().into();
    assert_eq!(report.code, ExitCode::Host);
    assert!(
        report.chain[0].ends_with("process 7 (tcsd) has it"),
        "{report}"
    );
    let wrong = "tpm.passthrough.path = \"/dev/sda\"";
    assert_eq!(error(wrong).code, ExitCode::Profile);
    let version = format!("{text}\ntpm.version = \"2.0\"");
    assert!(message(&version).contains("has its own"));
}

#[test]
fn only_nodes_of_tpms_are_looked_at() {
    for (path, is) in [
        ("/dev/tpm0", true),
        ("/dev/tpmrm12", true),
        ("/dev/tpm", false),
        ("/dev/tpm0x", false),
        ("/dev/../etc/passwd", false),
    ] {
        assert_eq!(is_tpm(path), is, "{path}");
    }
}
