//! `mvm show` for people: a line for each thing that the guest has.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::cli::output::{self, Table};
use crate::machine::{Disk, Firmware, Forward, Machine, Nic, NicBackend, Threads, TpmBackend};
use crate::plan::render;
use crate::profile::schema::Media;

/// The lines about the guest, and about the machine it was started with.
pub(super) fn table(shown: &Value, machine: Option<&Machine>) -> Table {
    let mut table = Table::bare();
    text(&mut table, "name", &shown["name"]);
    table.row(["state", &state(shown)]);
    text(&mut table, "message", &shown["message"]);
    if let Some(at) = shown["next-start"].as_u64() {
        table.row(["next start", &format!("in {}", until(at))]);
    }
    text(&mut table, "profile", &shown["profile"]);
    text(&mut table, "machine file", &shown["machine-file"]);
    if let Some(pid) = shown["pid"].as_u64() {
        let supervisor = shown["supervisor"].as_u64();
        let supervisor = supervisor.map_or_else(
            || "without a supervisor".to_owned(),
            |pid| format!("supervisor {pid}"),
        );
        table.row(["process", &format!("{pid}, {supervisor}")]);
    }
    if let Some(started) = shown["started"].as_u64() {
        table.row(["started", &format!("{} ago", since(started))]);
    }
    if let Some(ended) = ended(&shown["ended"]) {
        table.row(["ended", &ended]);
    }
    if let Some(machine) = machine {
        parts(&mut table, machine, shown);
    }
    for (kind, uri) in shown["displays"].as_object().into_iter().flatten() {
        text(&mut table, &format!("display {kind}"), uri);
    }
    let mut sockets: Vec<(&str, &str)> = Vec::new();
    for (name, path) in shown["sockets"].as_object().into_iter().flatten() {
        sockets.extend(path.as_str().map(|path| (name.as_str(), path)));
    }
    for (name, path) in sockets {
        // Where a pseudo-terminal is, a path of the kernel's stands.
        let kind = if path.starts_with("/dev/") {
            "at"
        } else {
            "socket"
        };
        table.row([format!("{name} {kind}"), path.to_owned()]);
    }
    for (index, log) in shown["logs"].as_array().into_iter().flatten().enumerate() {
        text(&mut table, if index == 0 { "logs" } else { "" }, log);
    }
    table
}

/// A text, where there is one.
fn text(table: &mut Table, label: &str, value: &Value) {
    if let Some(value) = value.as_str() {
        table.row([label, value]);
    }
}

/// In how long, in words.
fn until(at: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    output::human_duration(Duration::from_secs(at).saturating_sub(now.unwrap_or_default()))
}

/// How long ago, in words.
fn since(at: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    output::human_duration(now.saturating_sub(Duration::from_secs(at)))
}

fn state(shown: &Value) -> String {
    let state = shown["state"].as_str().unwrap_or_default();
    match shown["since"].as_u64() {
        Some(at) => format!("{state} for {}", since(at)),
        None => state.to_owned(),
    }
}

fn ended(ended: &Value) -> Option<String> {
    let at = ended["at"].as_u64()?;
    let reason = ended["reason"].as_str()?;
    let mut text = format!("{} ago: {reason}", since(at));
    // Writing to a String cannot fail.
    let _ = match (ended["signal"].as_i64(), ended["exit-status"].as_i64()) {
        (Some(signal), _) => write!(text, ", QEMU ended by signal {signal}"),
        (None, Some(0)) | (None, None) => Ok(()),
        (None, Some(status)) => write!(text, ", QEMU's exit status {status}"),
    };
    if let Some(message) = ended["message"].as_str() {
        let _ = write!(text, ": {message}");
    }
    Some(text)
}

/// What the machine is made of.
fn parts(table: &mut Table, machine: &Machine, shown: &Value) {
    let cpu = &machine.cpu;
    let accel = format!(
        "{}: {}",
        render::accel(machine.accel.chosen),
        machine.accel.reason
    );
    table.row(["accel", &accel]);
    table.row([
        "board".to_owned(),
        format!("{} ({})", machine.board.machine_type, machine.arch),
    ]);
    table.row(["cpus".to_owned(), format!("{}, {}", cpu.count, cpu.model)]);
    for (label, words) in threads(&machine.threads) {
        table.row([label.to_owned(), words]);
    }
    table.row(["memory".to_owned(), machine.memory.to_string()]);
    let board = machine.board.kind;
    for video in &machine.desktop.video {
        let outputs = video.outputs.filter(|outputs| *outputs > 1);
        let outputs = outputs.map_or_else(String::new, |outputs| format!(", {outputs} outputs"));
        let row = format!("{}{outputs}", video.driver(board));
        table.row([format!("video {}", video.id), row]);
    }
    for audio in &machine.desktop.audio {
        let row = format!("{} to {}", audio.device, audio.backend);
        table.row([format!("audio {}", audio.id), row]);
    }
    for input in &machine.desktop.inputs {
        let row = match &input.evdev {
            Some(evdev) => evdev.path.display().to_string(),
            None => format!("{} on {}", input.device, input.bus),
        };
        table.row([format!("input {}", input.id), row]);
    }
    for shmem in &machine.desktop.shmem {
        let row = format!("{} at {}", shmem.size, shmem.path.display());
        table.row([format!("shmem {}", shmem.id), row]);
    }
    if let Some(kernel) = &machine.kernel {
        table.row(["kernel", &kernel.image.display().to_string()]);
        if let Some(initrd) = &kernel.initrd {
            table.row(["initrd", &initrd.display().to_string()]);
        }
        if !kernel.append.is_empty() {
            table.row(["append", &kernel.append]);
        }
    }
    match &machine.firmware {
        Firmware::Builtin => {}
        Firmware::Bios(path) => table.row(["firmware", &path.display().to_string()]),
        Firmware::Flash { code, vars, .. } => {
            table.row(["firmware", &code.display().to_string()]);
            if let Some(vars) = vars {
                table.row(["variables", &vars.path.display().to_string()]);
            }
        }
    }
    for item in &machine.disks {
        table.row([format!("disk {}", item.id), disk(item)]);
    }
    for item in &machine.nics {
        table.row([format!("network {}", item.id), nic(item)]);
    }
    for item in &machine.host_devices {
        table.row([item.key().replace('.', " "), item.to_string()]);
    }
    for item in &machine.consoles {
        let whose = match &item.end {
            Some(end) => format!(", {end}"),
            None if item.pty => ", a pseudo-terminal".to_owned(),
            None => String::new(),
        };
        let device = item.device();
        table.row([format!("console {}", item.id), format!("{device}{whose}")]);
    }
    for item in &machine.channels {
        let end = item.end.as_ref().map(|end| format!(", {end}"));
        let text = format!("{}{}", item.port, end.unwrap_or_default());
        table.row([format!("channel {}", item.id), text]);
    }
    for item in &machine.shares {
        let access = if item.read_only { ", read-only" } else { "" };
        let kind = item.virtiofs.as_ref().map_or("9p", |_| "virtiofs");
        let text = format!(
            "{}, {kind}, mount tag {}{access}",
            item.path.display(),
            item.tag
        );
        table.row([format!("share {}", item.id), text]);
    }
    if machine.agent {
        let answers = shown["agent"] == true;
        table.row([
            "agent",
            if answers {
                "answers"
            } else {
                "does not answer"
            },
        ]);
    }
    if let Some(source) = &machine.rng {
        table.row(["rng", &source.display().to_string()]);
    }
    if machine.balloon {
        table.row(["balloon", "virtio"]);
    }
    if let Some(watchdog) = &machine.watchdog {
        let text = format!("{}, action {}", watchdog.model, watchdog.action);
        table.row(["watchdog", &text]);
    }
    if let Some(cid) = machine.vsock {
        table.row(["vsock", &format!("context id {cid}")]);
    }
    if machine.board.virtio_iommu {
        table.row(["iommu", "virtio"]);
    }
    if let Some(iommu) = &machine.board.iommu {
        table.row(["iommu", iommu.as_str()]);
    }
    if let Some(tpm) = &machine.tpm {
        let backend = match &tpm.backend {
            TpmBackend::Emulator { version, .. } => format!("swtpm ({version})"),
            TpmBackend::Passthrough { path, .. } => path.display().to_string(),
        };
        table.row(["tpm", &format!("{}, {backend}", tpm.model)]);
    }
    for note in &machine.notes {
        table.row(["note", note]);
    }
}

/// Where its threads run on the host, and how they are scheduled.
fn threads(threads: &Threads) -> Vec<(&'static str, String)> {
    const REST: &str = "the rest of QEMU";
    let mut lines = Vec::new();
    let vcpus = threads.vcpus.iter();
    let mut pins: Vec<String> = vcpus
        .map(|(number, cpus)| format!("processor {number} on {cpus}"))
        .collect();
    let iothreads = threads.iothreads.iter();
    pins.extend(iothreads.map(|(name, cpus)| format!("I/O thread {name} on {cpus}")));
    pins.extend(
        threads
            .emulator
            .as_ref()
            .map(|cpus| format!("{REST} on {cpus}")),
    );
    pins.extend(threads.all.as_ref().map(|cpus| match pins.is_empty() {
        true => format!("all threads on {cpus}"),
        false => format!("all others on {cpus}"),
    }));
    if !pins.is_empty() {
        lines.push(("pinned", pins.join(", ")));
    }
    let policies = [
        ("processors", threads.vcpu_policy),
        ("I/O threads", threads.iothread_policy),
        (REST, threads.emulator_policy),
    ];
    let policies = policies.into_iter();
    let policies: Vec<String> = policies
        .filter_map(|(whose, policy)| Some(format!("{whose} {}", policy?)))
        .collect();
    if !policies.is_empty() {
        lines.push(("scheduled", policies.join(", ")));
    }
    lines
}

fn disk(disk: &Disk) -> String {
    let mut text = match &disk.image {
        Some(image) => format!("{} ({})", image.path.display(), image.format),
        None => match &disk.options.vhost_user {
            Some(socket) => format!("the program at {}", socket.display()),
            None => "empty".to_owned(),
        },
    };
    let _ = write!(text, ", {}", disk.bus);
    if disk.media == Media::Cdrom {
        text.push_str(" CD-ROM");
    } else if disk.read_only {
        text.push_str(", read-only");
    }
    if disk.overlay.is_some() {
        text.push_str(", ephemeral");
    }
    text
}

fn nic(nic: &Nic) -> String {
    let mut text = format!("{}, {}, ", nic.model, nic.mac);
    match &nic.backend {
        NicBackend::User {
            forwards, restrict, ..
        } => {
            text.push_str("user");
            if *restrict {
                text.push_str(", restricted");
            }
            for forward in forwards {
                let _ = write!(text, ", {}", port(forward));
            }
        }
        NicBackend::Tap {
            name,
            bridge,
            address,
            vhost,
        } => {
            let _ = write!(text, "tap {name}");
            if let Some(bridge) = bridge {
                let _ = write!(text, " on {bridge}");
            }
            if let Some(address) = address {
                let _ = write!(text, " with {address}");
            }
            if *vhost {
                text.push_str(", vhost");
            }
        }
        NicBackend::VhostUser { socket, .. } => {
            let _ = write!(text, "vhost-user {}", socket.display());
        }
    }
    text
}

fn port(forward: &Forward) -> String {
    let protocol = if forward.udp { "UDP" } else { "TCP" };
    format!(
        "{protocol} {}:{} to {}",
        forward.address, forward.host, forward.guest
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_end_is_told_in_words() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let at = now.unwrap_or_default().as_secs().saturating_sub(200);
        let told = |rest: Value| {
            let mut value = json!({ "at": at });
            for (key, inner) in rest.as_object().into_iter().flatten() {
                value[key] = inner.clone();
            }
            ended(&value)
        };
        assert_eq!(
            told(json!({ "reason": "guest-shutdown", "exit-status": 0 })).as_deref(),
            Some("3m ago: guest-shutdown")
        );
        assert_eq!(
            told(json!({ "reason": "crashed", "signal": 11, "message": "it fell" })).as_deref(),
            Some("3m ago: crashed, QEMU ended by signal 11: it fell")
        );
        assert_eq!(ended(&Value::Null), None);
    }

    #[test]
    fn disks_and_cards_are_told_in_words() {
        let card: Nic = serde_json::from_value(json!({
            "id": "lan", "model": "virtio", "mac": "52:54:00:00:00:01",
            "backend": { "user": { "restrict": false, "forwards": [
                { "udp": true, "address": "127.0.0.1", "host": 5353, "guest": 53 }
            ] } },
        }))
        .expect("a card as `plan.json` has it");
        assert_eq!(
            nic(&card),
            "virtio, 52:54:00:00:00:01, user, UDP 127.0.0.1:5353 to 53"
        );
        let drive: Disk = serde_json::from_value(json!({
            "id": "cd", "image": null, "overlay": null, "bus": "sata", "media": "cdrom",
            "cache": "writeback", "aio": "threads", "discard": false, "read_only": true,
            "boot": null, "serial": null,
        }))
        .expect("a drive as `plan.json` has it");
        assert_eq!(disk(&drive), "empty, sata CD-ROM");
    }
}
