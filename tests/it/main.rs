//! Tests through the `mvm` command: one binary, because linking is what takes the time.

mod agent;
mod agent_files;
mod commands;
mod conflicts;
mod cpu;
mod dependencies;
mod device_plans;
mod devices;
mod disk;
mod displays;
mod emulated_host;
mod env;
mod firmware;
mod guests;
mod hooks;
#[path = "../hosts/mod.rs"]
mod hosts;
mod hotplug;
mod import;
mod import_runs;
mod lifecycle;
mod lifecycle_options;
mod machines;
mod media;
mod memory;
mod moments;
mod paths;
mod places;
mod plans;
mod portfolio;
mod power;
mod profiles;
mod qualcomm;
mod recovery;
mod save;
mod security;
mod several;
mod shares;
mod shell;
mod terminal;
mod tpm;
mod units;

/// A file of this folder that is no module here would be a test that never runs.
#[test]
fn no_test_file_is_forgotten() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it");
    let main = include_str!("main.rs");
    for entry in std::fs::read_dir(folder).expect("the folder of this file") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy();
        if name != "main" && path.extension().is_some_and(|kind| kind == "rs") {
            let line = format!("\nmod {name};");
            assert!(main.contains(&line), "main.rs lacks `mod {name};`");
        }
    }
}
