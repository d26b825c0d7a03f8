//! The lab: emulated hosts with a real Linux kernel, IOMMU, VFIO, SR-IOV, mediated devices, USB and KVM,
//! in which the mvm under test runs as root and starts real guests. `make lab` runs all of it; `make test`
//! only the tests whose name begins with `ci_`. One host at a time is awake.
//!
//! ```no_run
//! #[test]
//! fn the_nic_is_taken_and_given_back() {
//!     let host = Host::x86().boot(); // ended when dropped, however the test ends
//!     let before = host.snapshot();
//!
//!     // Commands run as root in the host, at the same time where several threads ask.
//!     let said = host.run("lspci -nn -s 04:00.0"); // must succeed; what it printed
//!     assert!(said.contains("8086:10d3"));
//!     let out = host.sh("mvm run nosuch", Duration::from_secs(20));
//!     assert_ne!(out.status, 0);
//!     assert!(out.stderr.contains("nosuch"), "{out}");
//!
//!     // Guests run under KVM in the host. The images are those of tests/guest/make.sh.
//!     let guest = host.start( // waits for the shell on its console
//!         "inner",
//!         "mvm start linux --name inner --kernel /images/x86_64/kernel --initrd /images/x86_64/initrd",
//!     );
//!     assert_eq!(guest.run("uname -m"), "x86_64");
//!     host.run("mvm kill inner");
//!
//!     // What is plugged into the host can be pulled out, by its name in `devices.rs`.
//!     host.unplug("stick");
//!     host.plug("stick");
//!
//!     host.settles_to(&before); // waits a little, then fails with what differs
//! }
//! ```
//!
//! What a host has is told in `devices.rs` and in `docs/lab.md`. A failed test prints what was asked of the
//! host, what it answered and the end of the logs of its kernel and of mvm.

#![cfg(target_arch = "x86_64")]
#![expect(
    clippy::print_stdout,
    reason = "what the test harness shows of a test that failed"
)]

mod agent;
mod arm;
mod byhand;
mod devices;
mod guest;
mod host;
mod hosts;
mod hotplug;
mod input;
mod inside;
mod iommufd;
mod kernel;
mod killed;
mod kvm;
mod mdev;
mod outer;
mod pci;
mod qmp;
mod recorded;
mod sleep;
mod snapshot;
mod sweep;
mod sweeps;
mod syscalls;
mod tracer;
#[path = "../hosts/mod.rs"]
mod trees;
mod uinput;
mod units;
mod user;
mod vfs;

/// A file of this folder that is no module here would be a test that never runs.
#[test]
fn ci_no_test_file_is_forgotten() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab");
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
