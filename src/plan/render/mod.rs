//! What `--dry-run` shows: the plan for people and for scripts. Pure text.

mod devices;

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::step::Step;
use super::{Attachment, Plan};
use crate::hook::Hook;
use crate::machine::{AccelKind, RunAs};
use crate::qemu::command::{FIRST_FD, FdSource};
use crate::sidecar::Sidecar;

/// The plan as one JSON object: `steps`, `program`, `args` (the real ones), `env`, `fds`, `accel`,
/// `notes` and `machine`. Scripts rely on its shape.
pub fn json(plan: &Plan) -> Value {
    let fds: Vec<Value> = plan
        .command
        .fds
        .iter()
        .zip(FIRST_FD..)
        .map(|(fd, number)| {
            let (what, of) = match &fd.source {
                FdSource::Listen(path) => ("listen", json!(path)),
                FdSource::Lock(path) => ("lock", json!(path)),
                FdSource::Tap(name) => ("tap", json!(name)),
                FdSource::Device(path) => ("device", json!(path)),
                FdSource::Connect(path) => ("connect", json!(path)),
                FdSource::Secret(path) => ("secret", json!(path)),
            };
            json!({ "fd": number, "name": fd.name, "what": what, "of": of })
        })
        .collect();
    let env: serde_json::Map<String, Value> = plan
        .command
        .env
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    json!({
        "name": plan.machine.name,
        "accel": plan.machine.accel,
        "notes": plan.machine.notes,
        "steps": plan.steps,
        "program": plan.command.program,
        "args": plan.command.argv(),
        "env": env,
        "fds": fds,
        "machine": plan.machine,
    })
}

/// The accelerator's name, as people write it.
pub const fn accel(kind: AccelKind) -> &'static str {
    match kind {
        AccelKind::Kvm => "KVM",
        AccelKind::Tcg => "TCG",
    }
}

/// The plan for people: what would be done, then a command line that can be pasted.
pub fn text(plan: &Plan) -> String {
    let machine = &plan.machine;
    let accel = accel(machine.accel.chosen);
    let mut text = format!(
        "# {}, from {}, on {accel}: {}\n",
        machine.name, machine.profile, machine.accel.reason
    );
    for note in &machine.notes {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# note: {note}");
    }
    if !machine.host_devices.is_empty() {
        text.push_str("\n# Devices of the host:\n");
    }
    for device in &machine.host_devices {
        let _ = writeln!(text, "#   {}: {device}", device.id);
    }
    text.push_str("\n# What would be done, in this order:\n");
    for (index, step) in plan.steps.iter().enumerate() {
        let told = devices::existing(step, &machine.vfs).unwrap_or_else(|| describe(step));
        let _ = writeln!(text, "# {:>3}. {told}", index + 1);
    }
    text.push_str("\n# What has to be done of that where the command line below is run by hand:\n");
    let locked = machine.locked_memory();
    if machine.run_as.is_some() && locked > 0 {
        // It is not root's QEMU, for which the kernel does not count.
        let _ = writeln!(text, "ulimit -l {}", locked.div_ceil(1 << 10));
    }
    let needed = |step: &&Step| devices::existing(step, &machine.vfs).is_none();
    for line in plan.steps.iter().filter(needed).flat_map(by_hand) {
        text.push_str(&line);
        text.push('\n');
    }
    text.push_str(
        "\n# Then, with file descriptors where paths of sockets and devices stand here:\n",
    );
    text.push_str(&command(plan));
    text.push('\n');
    text
}

/// The command line as a person could paste it: one switch a line, quoted for a POSIX shell.
pub fn command(plan: &Plan) -> String {
    let mut lines = vec![String::new()];
    let assignments = plan
        .command
        .env
        .iter()
        .map(|(name, value)| format!("{name}={}", quote(value)));
    let program = quote(&plan.command.program.to_string_lossy());
    let user = plan.machine.run_as.as_ref().map(setpriv);
    let words = assignments.chain(user).chain([program]);
    lines[0] = words.collect::<Vec<_>>().join(" ");
    let mut switch_open = false;
    for arg in plan.command.shown() {
        // A value goes beside its switch.
        match lines.last_mut() {
            Some(line) if switch_open && !arg.starts_with('-') => {
                line.push(' ');
                line.push_str(&quote(&arg));
                switch_open = false;
            }
            _ => {
                switch_open = arg.starts_with('-');
                lines.push(quote(&arg));
            }
        }
    }
    lines.join(" \\\n  ")
}

/// What runs the rest of a command line as another user.
fn setpriv(user: &RunAs) -> String {
    let groups: Vec<String> = user.groups.iter().map(ToString::to_string).collect();
    let groups = if groups.is_empty() {
        "--clear-groups".to_owned()
    } else {
        format!("--groups={}", groups.join(","))
    };
    let RunAs { uid, gid, .. } = user;
    format!("setpriv --reuid={uid} --regid={gid} {groups} --no-new-privs")
}

/// Quoted for a POSIX shell. A NUL cannot be in an argument at all; the resolver refuses it.
fn quote(text: &str) -> String {
    shlex::try_quote(text).map_or_else(|_| String::from("''"), std::borrow::Cow::into_owned)
}

/// The step for a POSIX shell; empty where QEMU does by itself what mvm does for it (a socket), and
/// where only mvm needs it (the lock).
fn by_hand(step: &Step) -> Vec<String> {
    let path = |path: &Path| quote(&path.to_string_lossy());
    match step {
        Step::MakeDir {
            path: dir, mode, ..
        } => {
            vec![format!("mkdir -p -m {mode:04o} {}", path(dir))]
        }
        Step::CopyFile { from, to, mode } => {
            let (from, to) = (path(from), path(to));
            vec![format!("[ -e {to} ] || install -m {mode:04o} {from} {to}")]
        }
        // Only mvm reads it.
        Step::KeepPlaces { .. } => Vec::new(),
        Step::CreateOverlay {
            path: overlay,
            backing,
            backing_format,
        } => vec![format!(
            "qemu-img create -q -f qcow2 -F {backing_format} -b {} {}",
            path(backing),
            path(overlay)
        )],
        Step::CreateTap {
            name,
            bridge,
            address,
            vnet_hdr,
            multi_queue,
            mtu,
        } => {
            let name = quote(name);
            let header = if *vnet_hdr { " vnet_hdr" } else { "" };
            let queues = if *multi_queue { " multi_queue" } else { "" };
            let mut lines = vec![format!("ip tuntap add dev {name} mode tap{header}{queues}")];
            if let Some(mtu) = mtu {
                lines.push(format!("ip link set {name} mtu {mtu}"));
            }
            if let Some(bridge) = bridge {
                lines.push(format!("ip link set {name} master {}", quote(bridge)));
            }
            if let Some(address) = address {
                lines.push(format!("ip address add {} dev {name}", quote(address)));
            }
            lines.push(format!("ip link set {name} up"));
            lines
        }
        Step::OpenDir {
            path: dir,
            group: None,
        } => vec![format!("chmod o+x {}", path(dir))],
        Step::OpenDir {
            path: dir,
            group: Some(group),
        } => {
            let dir = path(dir);
            // By hand, QEMU makes its sockets itself.
            vec![format!("chgrp {group} {dir} && chmod 0770 {dir}")]
        }
        Step::GiveFile {
            path: file,
            uid,
            gid,
        } => {
            let file = path(file);
            vec![format!("touch {file} && chown {uid}:{gid} {file}")]
        }
        Step::StartSidecar { sidecar } => vec![beside(sidecar)],
        Step::RunHook { hook } => vec![by_shell(hook)],
        Step::PromiseHook { .. } => Vec::new(),
        Step::Lock { .. }
        | Step::Listen { .. }
        | Step::EndSidecar { .. }
        | Step::RemoveFile { .. }
        | Step::RemoveDir { .. }
        | Step::DeleteTap { .. }
        | Step::TakeLease { .. }
        | Step::ReleaseLease { .. }
        | Step::DropVfs { .. }
        | Step::RestoreVfs { .. }
        | Step::RemoveMdev { .. }
        | Step::AttachConsole { .. }
        | Step::GiveBack { .. }
        | Step::ReturnHugepages { .. }
        | Step::TakeUsb { .. }
        | Step::GiveBackUsb { .. }
        | Step::TakeNodeBack { .. }
        | Step::ConfirmVfio { .. } => Vec::new(),
        Step::MakeVfs { .. }
        | Step::SetVfNet { .. }
        | Step::MakeMdev { .. }
        | Step::DetachConsole { .. }
        | Step::GiveNode { .. }
        | Step::ClaimHugepages { .. }
        | Step::BindDriver { .. } => devices::by_hand(step),
    }
}

/// A hook as a line for a POSIX shell.
fn by_shell(hook: &Hook) -> String {
    let env = hook.env.iter();
    let env = env.map(|(name, value)| format!("{name}={}", quote(value)));
    let env: Vec<String> = env.collect();
    format!("{} {}", env.join(" "), words(hook))
}

fn words(hook: &Hook) -> String {
    let words: Vec<String> = hook.command.iter().map(|word| quote(word)).collect();
    words.join(" ")
}

/// A program beside QEMU as a line for a POSIX shell.
fn beside(sidecar: &Sidecar) -> String {
    let program = sidecar.program.to_string_lossy();
    let words = std::iter::once(program.as_ref()).chain(sidecar.shown.iter().map(String::as_str));
    let words: Vec<String> = words.map(quote).collect();
    let dir = quote(&sidecar.dir.to_string_lossy());
    format!("(cd {dir} && exec {}) &", words.join(" "))
}

/// The step in plain words.
pub fn describe(step: &Step) -> String {
    match step {
        Step::MakeDir { path, mode, keep } => {
            let after = if *keep {
                ""
            } else {
                ", removed when the guest is gone"
            };
            format!(
                "make the directory {} (mode {mode:04o}){after}",
                path.display()
            )
        }
        Step::Lock { path } => format!("take the guest's lock {}", path.display()),
        Step::CopyFile { from, to, .. } => {
            format!(
                "copy {} to {}, unless that is there",
                from.display(),
                to.display()
            )
        }
        Step::KeepPlaces { path, .. } => {
            format!("keep where the guest's devices sit in {}", path.display())
        }
        Step::CreateOverlay {
            path,
            backing,
            backing_format,
        } => format!(
            "make the throw-away overlay {} over {} ({backing_format})",
            path.display(),
            backing.display()
        ),
        Step::CreateTap {
            name,
            bridge,
            address,
            ..
        } => {
            let mut text = format!("make the tap device {name}");
            if let Some(bridge) = bridge {
                let _ = write!(text, " on the bridge {bridge}");
            }
            if let Some(address) = address {
                let _ = write!(text, " with the address {address}");
            }
            text.push_str(", removed when the guest is gone");
            text
        }
        Step::Listen { path } => format!("listen on {} (mode 0600)", path.display()),
        Step::OpenDir { path, .. } => {
            format!("let QEMU's user through the directory {}", path.display())
        }
        Step::GiveFile { path, uid, .. } => {
            format!("give {} to the user {uid}", path.display())
        }
        Step::RunHook { hook } => {
            format!(
                "run the hook {} ({}): {}",
                hook.name,
                hook.when,
                words(hook)
            )
        }
        Step::PromiseHook { hook } => format!(
            "have the hook {} run when the guest is gone ({}): {}",
            hook.name,
            hook.when,
            words(hook)
        ),
        Step::StartSidecar { sidecar } => format!(
            "start {}, listening on {} (mode 0600), ended when the guest is gone",
            sidecar.program.display(),
            sidecar.socket.display()
        ),
        Step::EndSidecar { name, .. } => format!("end the program that was the guest's {name}"),
        Step::RemoveFile { path } => format!("remove {}", path.display()),
        Step::RemoveDir { path } => format!("remove the directory {}", path.display()),
        Step::DeleteTap { name } => format!("remove the tap device {name}"),
        other => devices::describe(other),
    }
}

/// What giving a running guest a device would do, for people.
pub fn attachment(attachment: &Attachment) -> String {
    let mut text = format!("# `{}`, for a guest that runs\n", attachment.id);
    if !attachment.steps.is_empty() {
        text.push_str("\n# What would be done, in this order:\n");
    }
    for (index, step) in attachment.steps.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# {:>3}. {}", index + 1, describe(step));
    }
    text.push_str("\n# What QEMU would be told, with a free root port where `{port:…}` stands:\n");
    for call in &attachment.plug.calls {
        let arguments = call.shown.as_ref().unwrap_or(&call.arguments);
        let command = json!({ "execute": call.makes.command(), "arguments": arguments });
        let _ = writeln!(text, "{command}");
    }
    text
}
