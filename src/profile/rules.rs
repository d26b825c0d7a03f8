//! Rules between the values of a merged profile that hold on every host.

use std::collections::BTreeMap;

use super::rules_devices;
use super::schema::{
    Aio, Cache, ChannelTable, CpuTable, DiskBus, DiskTable, FirmwareWord, Layer, LifecycleTable,
    Media, NetworkTable, OnCrash, OnPoweroff, OnReboot, Restart, ShareTable,
};
use crate::ids::{Arch, Id};

/// The agent's own port name.
const AGENT_PORT: &str = "org.qemu.guest_agent.0";
/// The longest name of a network device, in bytes (IFNAMSIZ without the final zero).
const TAP_NAME: usize = 15;
/// The longest 9p mount tag, in bytes (MAX_TAG_LEN in QEMU's hw/9pfs).
const TAG: usize = 32;
/// The longest tag of virtiofs, in bytes (`virtio_fs_config` of the kernel).
const VIRTIOFS_TAG: usize = 36;

/// Less memory than this is a slip, in bytes.
const LEAST_MEMORY: u64 = 1 << 20;

/// A rule that is broken, and the key that breaks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) path: Vec<String>,
    pub(super) message: String,
}

pub(super) struct Report(Vec<Broken>);

impl Report {
    pub(super) fn add(&mut self, path: &[&str], message: impl Into<String>) {
        self.0.push(Broken {
            path: path.iter().map(ToString::to_string).collect(),
            message: message.into(),
        });
    }
}

/// The rules that a merged profile breaks, in the order of its tables.
pub(super) fn rules(layer: &Layer) -> Vec<Broken> {
    let mut report = Report(Vec::new());
    let machine = layer.machine.clone().unwrap_or_default();
    if machine.gic.is_some() && machine.arch.unwrap_or_else(Arch::host) != Arch::Aarch64 {
        report.add(&["machine", "gic"], "only aarch64 machines have a GIC");
    }
    cpu(layer.cpu.as_ref(), &mut report);
    let memory = layer.memory.as_ref().and_then(|memory| memory.size);
    if let Some(size) = memory.filter(|size| size.as_bytes() < LEAST_MEMORY) {
        report.add(
            &["memory", "size"],
            format!("{size} bytes are too little for any guest; a unit may be missing, as in `4G`"),
        );
    }
    boot(layer, &mut report);
    disks(layer.disk.as_ref(), &mut report);
    networks(layer.network.as_ref(), &mut report);
    let agent = layer
        .agent
        .as_ref()
        .is_some_and(|agent| agent.enabled != Some(false));
    channels(layer.channel.as_ref(), agent, &mut report);
    shares(layer.share.as_ref(), &mut report);
    if layer
        .vsock
        .as_ref()
        .and_then(|vsock| vsock.cid)
        .is_some_and(|cid| cid < 3)
    {
        report.add(&["vsock", "cid"], "context ids of guests start at 3");
    }
    lifecycle(layer.lifecycle.as_ref(), &mut report);
    rules_devices::devices(layer, &mut report);
    report.0
}

fn lifecycle(lifecycle: Option<&LifecycleTable>, report: &mut Report) {
    let Some(table) = lifecycle else { return };
    let restarts = [
        (
            "on-poweroff",
            table.on_poweroff == Some(OnPoweroff::Restart),
        ),
        ("on-reboot", table.on_reboot == Some(OnReboot::Restart)),
        ("on-crash", table.on_crash == Some(OnCrash::Restart)),
    ];
    for (key, _) in restarts.into_iter().filter(|(_, restarts)| *restarts) {
        if table.restart == Some(Restart::Never) {
            report.add(
                &["lifecycle", key],
                "contradicts `lifecycle.restart = \"never\"`; leave that out, it is the default",
            );
        }
    }
    if table.restart_limit == Some(0) {
        report.add(
            &["lifecycle", "restart-limit"],
            "expected at least 1; a guest that is never started anew has `restart = \"never\"`",
        );
    }
}

/// The first rule about devices of the host that is broken: those are never taken on a doubt.
pub(super) fn device_rule(layer: &Layer) -> Option<Broken> {
    let mut report = Report(Vec::new());
    rules_devices::devices(layer, &mut report);
    report.0.into_iter().next()
}

fn cpu(cpu: Option<&CpuTable>, report: &mut Report) {
    let Some(cpu) = cpu else { return };
    let parts = [
        ("sockets", cpu.sockets),
        ("dies", cpu.dies),
        ("clusters", cpu.clusters),
        ("cores", cpu.cores),
        ("threads", cpu.threads),
    ];
    for (key, value) in parts.into_iter().chain([("count", cpu.count)]) {
        if value == Some(0) {
            report.add(&["cpu", key], "expected at least 1");
        }
    }
    let product = parts
        .iter()
        .filter_map(|(_, value)| *value)
        .fold(1u32, u32::saturating_mul);
    // What is left over is sockets, cores or threads: nothing where all three are said.
    let topology = [cpu.sockets, cpu.cores, cpu.threads];
    let topology = topology.iter().all(Option::is_some);
    let said = parts.iter().filter(|(_, value)| value.is_some());
    let said: Vec<&str> = said.map(|(key, _)| *key).collect();
    if let Some(count) = cpu.count.filter(|count| *count > 0 && product > 0) {
        if (topology && count != product) || count % product != 0 {
            report.add(
                &["cpu", "count"],
                format!(
                    "{count} processors do not fit the topology ({} = {product})",
                    said.join(" × ")
                ),
            );
        }
    }
}

fn boot(layer: &Layer, report: &mut Report) {
    let boot = layer.boot.clone().unwrap_or_default();
    if boot.kernel.is_none() {
        for (key, value) in [("initrd", &boot.initrd), ("append", &boot.append)] {
            if value.is_some() {
                report.add(&["boot", key], "means nothing without `boot.kernel`");
            }
        }
        if layer.firmware.as_ref().and_then(|firmware| firmware.r#type) == Some(FirmwareWord::None)
        {
            report.add(
                &["firmware", "type"],
                "a guest without firmware needs `boot.kernel`",
            );
        }
    }
}

fn disks(disks: Option<&BTreeMap<Id, DiskTable>>, report: &mut Report) {
    let mut order = BTreeMap::new();
    for (id, disk) in disks.into_iter().flatten() {
        let id = id.as_str();
        let cdrom = disk.media == Some(Media::Cdrom);
        if disk.empty == Some(true) && !cdrom {
            report.add(
                &["disk", id, "empty"],
                "only a drive with `media = \"cdrom\"` can be empty",
            );
        }
        if disk.file.as_ref().is_some_and(|file| file.path.is_none()) {
            report.add(&["disk", id, "file"], "has no `path`");
        }
        if disk.aio == Some(Aio::Native)
            && !matches!(disk.cache, Some(Cache::None | Cache::Directsync))
        {
            report.add(
                &["disk", id, "aio"],
                "`native` needs `cache = \"none\"` or `\"directsync\"`",
            );
        }
        if let Some(bus @ (DiskBus::Virtio | DiskBus::Nvme)) = disk.bus.filter(|_| cdrom) {
            report.add(
                &["disk", id, "bus"],
                format!("`{bus}` has no CD-ROM drives"),
            );
        }
        if let Some(first) = disk.boot.and_then(|place| order.insert(place, id)) {
            report.add(
                &["disk", id, "boot"],
                format!("the same place in the boot order as `{first}`"),
            );
        }
        if disk.boot == Some(0) {
            report.add(&["disk", id, "boot"], "the boot order starts at 1");
        }
    }
}

fn networks(networks: Option<&BTreeMap<Id, NetworkTable>>, report: &mut Report) {
    let mut macs = BTreeMap::new();
    for (id, network) in networks.into_iter().flatten() {
        let id = id.as_str();
        if let Some(name) = network.tap.as_ref().and_then(|tap| tap.name.as_deref()) {
            if name.len() > TAP_NAME || name.contains(['/', ' ', ':', '%']) || name.starts_with('.')
            {
                report.add(
                    &["network", id, "tap", "name"],
                    format!("not a device's name (at most {TAP_NAME} bytes without `/`, `:`, `%` or a space)"),
                );
            }
        }
        if let Some(first) = network.mac.as_ref().and_then(|mac| macs.insert(mac, id)) {
            report.add(
                &["network", id, "mac"],
                format!("the same address as `{first}`"),
            );
        }
    }
}

fn channels(channels: Option<&BTreeMap<Id, ChannelTable>>, agent: bool, report: &mut Report) {
    let mut ports = BTreeMap::new();
    if agent {
        ports.insert(AGENT_PORT, "the agent's");
    }
    for (id, channel) in channels.into_iter().flatten() {
        let id = id.as_str();
        if channel.enabled == Some(false) {
            continue;
        }
        if let Some(first) = ports.insert(channel.port.as_deref().unwrap_or(id), id) {
            report.add(&["channel", id], format!("the same port name as {first}"));
        }
    }
}

fn shares(shares: Option<&BTreeMap<Id, ShareTable>>, report: &mut Report) {
    let mut tags = BTreeMap::new();
    for (id, share) in shares.into_iter().flatten() {
        let id = id.as_str();
        if share.path.is_none() {
            report.add(&["share", id], "has no `path`");
        }
        let tag = share.tag.as_deref().unwrap_or(id);
        let most = share.virtiofs.as_ref().map_or(TAG, |_| VIRTIOFS_TAG);
        if tag.len() > most {
            report.add(
                &["share", id, "tag"],
                format!("longer than the {most} bytes that a tag may have"),
            );
        }
        if let Some(first) = tags.insert(tag, id) {
            report.add(&["share", id], format!("the same tag as `{first}`"));
        }
    }
}
