//! Machine and command line to plan: which changes the host needs, in which order. Pure.

pub mod devices;

use std::path::Path;

use super::Plan;
use super::step::{Node, Owner, Step};
use crate::host::links::LinkFacts;
use crate::machine::{Firmware, Machine, NicBackend, Positions, RunAs, Tpm};
use crate::profile::schema::HookWhen;
use crate::qemu::command::{CommandLine, FdSource};

/// The mode of directories that only their owner may look into.
const PRIVATE_DIR: u32 = 0o700;
/// The mode of files that only their owner may read.
const PRIVATE_FILE: u32 = 0o600;

/// The plan that starts `machine` with `command`. A tap that is among the host's `links` is used and
/// left as it is.
pub fn build(machine: Machine, command: CommandLine, links: &LinkFacts) -> Plan {
    let run = &machine.run_dir;
    // Nothing but the run-time directory comes before the lock: another process may own the rest.
    let mut steps = vec![
        make_dir(run, false),
        Step::Lock {
            path: run.join("lock"),
        },
        make_dir(&machine.state_dir, true),
        make_dir(&machine.state_dir.join("log"), true),
    ];
    steps.push(Step::KeepPlaces {
        path: Positions::file(&machine.state_dir),
        places: machine.positions.clone(),
    });
    // Taken back last of all but the directories.
    steps.extend(hooks(&machine, HookWhen::PostStop, true));
    steps.extend(hooks(&machine, HookWhen::PreStart, false));
    if let Some(user) = &machine.run_as {
        steps.extend(open_dirs(&machine, user));
    }
    // First, as it is what fails where the host has no room.
    let pages = machine.ram.hugepages(machine.memory);
    steps.extend(pages.into_iter().map(|pages| Step::ClaimHugepages {
        size: pages.size,
        node: pages.node,
        pages: pages.pages,
        user: devices::user(&machine),
    }));
    steps.extend(devices::steps(
        &devices::Wanted::of(&machine),
        &devices::user(&machine),
    ));
    if let Firmware::Flash {
        vars: Some(vars), ..
    } = &machine.firmware
    {
        steps.push(Step::CopyFile {
            from: vars.template.clone(),
            to: vars.path.clone(),
            mode: PRIVATE_FILE,
        });
        steps.extend(give(&machine, &vars.path));
    }
    if let Some(user) = &machine.run_as {
        let inputs = machine.desktop.inputs.iter();
        let nodes = inputs.filter_map(|input| input.evdev.as_ref());
        steps.extend(nodes.map(|evdev| Step::GiveNode {
            node: Node::Input(evdev.path.clone()),
            to: Owner::alone(user.uid),
            from: None,
        }));
    }
    let own = machine.desktop.shmem.iter().filter(|shmem| shmem.own);
    steps.extend(own.filter_map(|shmem| give(&machine, &shmem.path)));
    steps.extend(devices(&machine, links));
    steps.extend(sidecars(&machine));
    let listen = |path: &Path| Step::Listen {
        path: path.to_owned(),
    };
    steps.extend(command.fds.iter().filter_map(|fd| match &fd.source {
        FdSource::Listen(path) => Some(listen(path)),
        FdSource::Lock(_)
        | FdSource::Tap(_)
        | FdSource::Device(_)
        | FdSource::Connect(_)
        | FdSource::Secret(_) => None,
    }));
    steps.extend(["qmp.sock", "control.sock"].map(|name| listen(&run.join(name))));
    steps.extend(
        machine
            .consoles
            .iter()
            .filter(|console| console.is_mvms())
            .map(|console| listen(&run.join(format!("console-{}.sock", console.id)))),
    );
    // Taken back first.
    steps.extend(hooks(&machine, HookWhen::Stopped, true));
    Plan {
        machine,
        steps,
        command,
    }
}

/// What the host needs for the machine's devices, at the start or for devices that come later.
pub(super) fn devices(machine: &Machine, links: &LinkFacts) -> Vec<Step> {
    let mut steps = Vec::new();
    for disk in &machine.disks {
        if let (Some(image), Some(overlay)) = (&disk.image, &disk.overlay) {
            steps.push(Step::CreateOverlay {
                path: overlay.clone(),
                backing: image.path.clone(),
                backing_format: image.format,
            });
            steps.extend(give(machine, overlay));
        }
    }
    for nic in &machine.nics {
        if let NicBackend::Tap {
            name,
            bridge,
            address,
            ..
        } = &nic.backend
        {
            if !links.0.contains_key(name) {
                steps.push(Step::CreateTap {
                    name: name.clone(),
                    bridge: bridge.clone(),
                    address: address.clone(),
                    vnet_hdr: true,
                    multi_queue: nic.options.queues.is_some(),
                    mtu: nic.options.mtu,
                });
            }
        }
    }
    steps
}

/// The programs of the user's that run then: now, or when the plan is taken back, in the order of their names.
fn hooks(machine: &Machine, when: HookWhen, promised: bool) -> Vec<Step> {
    let hooks = machine.hooks_at(when).into_iter().map(Box::new);
    if promised {
        // What is promised last runs first.
        hooks.rev().map(|hook| Step::PromiseHook { hook }).collect()
    } else {
        hooks.map(|hook| Step::RunHook { hook }).collect()
    }
}

/// The programs beside QEMU, and the files that are to be theirs.
fn sidecars(machine: &Machine) -> Vec<Step> {
    let state = machine.tpm.iter().filter_map(Tpm::state);
    let mut steps: Vec<Step> = state.filter_map(|path| give(machine, path)).collect();
    let start = |sidecar| Step::StartSidecar {
        sidecar: Box::new(sidecar),
    };
    steps.extend(machine.sidecars().into_iter().map(start));
    steps
}

/// What the user as whom QEMU runs needs to open what mvm makes: a way there, and logs of his own, as he
/// can make no files there.
fn open_dirs(machine: &Machine, user: &RunAs) -> Vec<Step> {
    let (run, state) = (&machine.run_dir, &machine.state_dir);
    let through = |path: &Path, group| Step::OpenDir {
        path: path.to_owned(),
        group,
    };
    let log = state.join("log");
    let above = [run, state].into_iter().filter_map(|dir| dir.parent());
    let mut steps: Vec<Step> = above.map(|dir| through(dir, None)).collect();
    steps.extend([run, state, &log].map(|dir| through(dir, Some(user.gid))));
    let logs = machine.consoles.iter().filter(|console| !console.unlogged);
    let logs = logs.map(|console| log.join(format!("console-{}.log", console.id)));
    let files = std::iter::once(run.join("events.log")).chain(logs);
    steps.extend(files.filter_map(|path| give(machine, &path)));
    steps
}

/// Gives a file of mvm's own to the user as whom QEMU runs, where that is another one.
fn give(machine: &Machine, path: &Path) -> Option<Step> {
    machine.run_as.as_ref().map(|user| Step::GiveFile {
        path: path.to_owned(),
        uid: user.uid,
        gid: user.gid,
    })
}

fn make_dir(path: &Path, keep: bool) -> Step {
    Step::MakeDir {
        path: path.to_owned(),
        mode: PRIVATE_DIR,
        keep,
    }
}
